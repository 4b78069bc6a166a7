/* Softmax and cross entropy. */
#ifndef LOSS_H
#define LOSS_H

#include <stdint.h>

/* logits (images, pitch), of which the first `classes` of a row count; those beyond become 0. */
typedef struct {
  int images, classes, pitch;
  float smoothing;
  int batch_size; /* images that the loss is a mean over */
} loss_t;

/* The sum of the images' losses; logits become their gradient. */
double cross_entropy(const loss_t *loss, const uint16_t *labels, float *logits);

/* One row becomes probabilities; returns the likeliest class, the first among equals. */
int softmax(int classes, float *logits);

#endif
