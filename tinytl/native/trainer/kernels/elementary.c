#include "elementary.h"

#include <stdint.h>
#include <string.h>

static const double LN2_HIGH = 0x1.62e42feep-1, LN2_LOW = 0x1.a39ef35793c76p-33;
static const double PI = 3.14159265358979323846;

static double power_of_2(int exponent) {
  const uint64_t bits = (uint64_t)(exponent + 1023) << 52;
  double value;
  memcpy(&value, &bits, 8);
  return value;
}

/* exp(x) = 2^n exp(r) with |r| <= ln(2) / 2, by its series. */
double same_exp(double x) {
  if (x != x) return x;
  if (x < -700) return 0;
  if (x > 700) x = 700;
  const double scaled = x * 1.44269504088896340736;
  const int n = (int)(scaled < 0 ? scaled - 0.5 : scaled + 0.5);
  const double r = (x - n * LN2_HIGH) - n * LN2_LOW;
  double sum = 1;
  for (int i = 14; i > 0; i--) sum = 1 + sum * r / i;
  return sum * power_of_2(n);
}

/* x = 2^n m with m near 1; log(m) = 2 atanh((m - 1) / (m + 1)), by its series. */
double same_log(double x) {
  uint64_t bits;
  memcpy(&bits, &x, 8);
  int n = (int)(bits >> 52) - 1023;
  bits = (bits & 0xfffffffffffffu) | (uint64_t)1023 << 52;
  double m;
  memcpy(&m, &bits, 8);
  if (m > 1.4142135623730951) m /= 2, n++;
  const double s = (m - 1) / (m + 1), square = s * s;
  double sum = 0;
  for (int i = 25; i > 0; i -= 2) sum = sum * square + 1.0 / i;
  return n * LN2_HIGH + (2 * s * sum + n * LN2_LOW);
}

/* By its series on 0..pi/4, and that of sin beyond. */
double same_cos(double x) {
  if (x > PI / 2) return -same_cos(PI - x);
  const int is_sine = x > PI / 4;
  const double y = is_sine ? PI / 2 - x : x, square = y * y;
  double sum = 1;
  for (int i = is_sine ? 19 : 18; i > 1; i -= 2) sum = 1 - sum * square / (i * (i - 1));
  return is_sine ? y * sum : sum;
}
