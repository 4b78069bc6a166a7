/* Group norm (arXiv 1803.08494) of maps (images, positions, channels), forward and backward. */
#ifndef NORM_H
#define NORM_H

#include "vector.h"

#define GROUP_CHANNELS 8

/* limit: above 0, a clamp to 0..limit follows. statistics: mean and reciprocal deviation, (images,
 * groups, 2). */
typedef struct {
  int images, positions, channels;
  float limit, eps;
  const float *gain, *bias;
} norm_t;

/* y: may be x, or NULL where statistics alone are wanted. */
void group_norm(const norm_t *norm, const float *x, float *y, float *statistics);

/* grad becomes the gradient of x; those of gain and bias are added up, each where it is not NULL. */
void group_norm_backward(const norm_t *norm, const float *x, const float *statistics, float *grad,
                         float *grad_gain, float *grad_bias);

#endif
