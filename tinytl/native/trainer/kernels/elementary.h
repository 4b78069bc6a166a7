/* exp, log and cos whose bits are the same everywhere: those of libraries differ from one to the
 * next. Of doubles; right to about 1e-15. */
#ifndef ELEMENTARY_H
#define ELEMENTARY_H

double same_exp(double x);
double same_log(double x); /* of x > 0 that is not subnormal */
double same_cos(double x); /* of 0 <= x <= pi */

#endif
