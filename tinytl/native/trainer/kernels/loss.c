#include "loss.h"

#include "elementary.h"

static int likeliest(int classes, const float *logits) {
  int best = 0;
  for (int k = 1; k < classes; k++)
    if (logits[k] > logits[best]) best = k;
  return best;
}

/* sum over classes of exp(logit - top) */
static double exp_sum(int classes, const float *logits, float top) {
  double sum = 0;
  for (int k = 0; k < classes; k++) sum += same_exp((double)logits[k] - (double)top);
  return sum;
}

double cross_entropy(const loss_t *loss, const uint16_t *labels, float *logits) {
  const int classes = loss->classes;
  const double smoothing = (double)loss->smoothing, share = smoothing / classes;
  double total = 0;
  for (int image = 0; image < loss->images; image++, logits += loss->pitch) {
    const float top = logits[likeliest(classes, logits)];
    const double sum = exp_sum(classes, logits, top), log_sum = same_log(sum);
    for (int k = 0; k < loss->pitch; k++) {
      if (k >= classes) {
        logits[k] = 0;
        continue;
      }
      const double target = share + (k == labels[image] ? 1 - smoothing : 0);
      const double off = (double)logits[k] - (double)top;
      total += target * (log_sum - off);
      logits[k] = (float)((same_exp(off) / sum - target) / loss->batch_size);
    }
  }
  return total;
}

int softmax(int classes, float *logits) {
  const int best = likeliest(classes, logits);
  const float top = logits[best];
  const double sum = exp_sum(classes, logits, top);
  for (int k = 0; k < classes; k++)
    logits[k] = (float)(same_exp((double)logits[k] - (double)top) / sum);
  return best;
}
