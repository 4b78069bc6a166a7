#include "norm.h"

#include <math.h>

#define RUN 64 /* positions that are summed up in floats before the sum goes on in doubles */

/* The factor and the summand that a group's norm is, by channel. */
static void affine(const norm_t *norm, int channel, const float *statistics,
                   float factor[GROUP_CHANNELS], float summand[GROUP_CHANNELS]) {
  for (int j = 0; j < GROUP_CHANNELS; j++) {
    factor[j] = norm->gain[channel + j] * statistics[1];
    summand[j] = norm->bias[channel + j] - statistics[0] * factor[j];
  }
}

static void take_statistics(const float *x, int positions, size_t channels, float eps,
                            float *statistics) {
  double total = 0, total_squares = 0;
  for (int first = 0; first < positions; first += RUN) {
    float sums[GROUP_CHANNELS] = {0};
    for (int i = first; i < positions && i < first + RUN; i++)
      for (int j = 0; j < GROUP_CHANNELS; j++) sums[j] += x[(size_t)i * channels + (size_t)j];
    for (int j = 0; j < GROUP_CHANNELS; j++) total += (double)sums[j];
  }
  const double count = (double)positions * GROUP_CHANNELS;
  const float mean = (float)(total / count);
  for (int first = 0; first < positions; first += RUN) {
    float sums[GROUP_CHANNELS] = {0};
    for (int i = first; i < positions && i < first + RUN; i++)
      for (int j = 0; j < GROUP_CHANNELS; j++) {
        const float off = x[(size_t)i * channels + (size_t)j] - mean;
        sums[j] += off * off;
      }
    for (int j = 0; j < GROUP_CHANNELS; j++) total_squares += (double)sums[j];
  }
  statistics[0] = mean;
  statistics[1] = (float)(1 / sqrt(total_squares / count + (double)eps));
}

void group_norm(const norm_t *norm, const float *x, float *y, float *statistics) {
  const size_t channels = (size_t)norm->channels;
  const float limit = norm->limit;
  for (int image = 0; image < norm->images; image++)
    for (int channel = 0; channel < norm->channels; channel += GROUP_CHANNELS, statistics += 2) {
      const size_t at = (size_t)image * (size_t)norm->positions * channels + (size_t)channel;
      take_statistics(x + at, norm->positions, channels, norm->eps, statistics);
      if (!y) continue;
      float factor[GROUP_CHANNELS], summand[GROUP_CHANNELS];
      affine(norm, channel, statistics, factor, summand);
      for (int i = 0; i < norm->positions; i++)
        for (int j = 0; j < GROUP_CHANNELS; j++) {
          const size_t here = at + (size_t)i * channels + (size_t)j;
          float value = x[here] * factor[j] + summand[j];
          if (limit > 0) value = value < 0 ? 0 : value > limit ? limit : value;
          y[here] = value;
        }
    }
}

/* With z = (x - mean) / deviation, the sums over positions of grad and of grad * z. */
static void sum_up(const norm_t *norm, const float *x, const float *statistics, const float *grad,
                   double sums[GROUP_CHANNELS], double products[GROUP_CHANNELS]) {
  const size_t channels = (size_t)norm->channels;
  for (int first = 0; first < norm->positions; first += RUN) {
    float some[GROUP_CHANNELS] = {0}, of_products[GROUP_CHANNELS] = {0};
    for (int i = first; i < norm->positions && i < first + RUN; i++)
      for (int j = 0; j < GROUP_CHANNELS; j++) {
        const size_t here = (size_t)i * channels + (size_t)j;
        some[j] += grad[here];
        of_products[j] += grad[here] * ((x[here] - statistics[0]) * statistics[1]);
      }
    for (int j = 0; j < GROUP_CHANNELS; j++) {
      sums[j] += (double)some[j];
      products[j] += (double)of_products[j];
    }
  }
}

void group_norm_backward(const norm_t *norm, const float *x, const float *statistics, float *grad,
                         float *grad_gain, float *grad_bias) {
  const size_t channels = (size_t)norm->channels;
  const double count = (double)norm->positions * GROUP_CHANNELS;
  for (int image = 0; image < norm->images; image++)
    for (int channel = 0; channel < norm->channels; channel += GROUP_CHANNELS, statistics += 2) {
      const size_t at = (size_t)image * (size_t)norm->positions * channels + (size_t)channel;
      if (norm->limit > 0) {
        float factor[GROUP_CHANNELS], summand[GROUP_CHANNELS];
        affine(norm, channel, statistics, factor, summand);
        for (int i = 0; i < norm->positions; i++)
          for (int j = 0; j < GROUP_CHANNELS; j++) {
            const size_t here = at + (size_t)i * channels + (size_t)j;
            const float value = x[here] * factor[j] + summand[j];
            if (!(value > 0 && value < norm->limit)) grad[here] = 0;
          }
      }
      double sums[GROUP_CHANNELS] = {0}, products[GROUP_CHANNELS] = {0};
      sum_up(norm, x + at, statistics, grad + at, sums, products);
      double mean_grad = 0, mean_product = 0;
      for (int j = 0; j < GROUP_CHANNELS; j++) {
        if (grad_gain) grad_gain[channel + j] += (float)products[j];
        if (grad_bias) grad_bias[channel + j] += (float)sums[j];
        mean_grad += sums[j] * (double)norm->gain[channel + j];
        mean_product += products[j] * (double)norm->gain[channel + j];
      }
      const float shift = (float)(mean_grad / count), along = (float)(mean_product / count);
      for (int i = 0; i < norm->positions; i++)
        for (int j = 0; j < GROUP_CHANNELS; j++) {
          const size_t here = at + (size_t)i * channels + (size_t)j;
          const float z = (x[here] - statistics[0]) * statistics[1];
          grad[here] = statistics[1] * (grad[here] * norm->gain[channel + j] - shift - z * along);
        }
    }
}
