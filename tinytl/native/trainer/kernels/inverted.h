/* An inverted residual's main branch at once: 1x1 expand, depthwise, 1x1 project.
 *
 * The depthwise convolution leaves channels apart, so the branch is run for some channels of the
 * wide maps after the other, all the way through: the wide maps, which are the largest there are,
 * never exist. Nothing is computed twice, and every sum goes over the channels in order, as it
 * does one convolution after the other: the results are the same bits. */
#ifndef INVERTED_H
#define INVERTED_H

#include "depthwise.h"

/* A frozen convolution: int8 weights with a scale for each output channel. */
typedef struct {
  const int8_t *values;
  const float *scale;
  const float *bias; /* forward */
  uint8_t *bits;     /* written forward where not NULL; read backward */
  float *bias_grad;  /* backward, where not NULL */
} layer_t;

/* depthwise: its channels are the wide maps'. expand.values NULL: x is the wide map itself.
 * width: channels at a time, a multiple of 8. limits: of the clamps behind expand and depthwise. */
typedef struct {
  depthwise_t depthwise;
  int in_channels, out_channels, width;
  float limit;
  layer_t expand, middle, project;
} inverted_t;

/* scratch: PACKED_FLOATS, DEPTHWISE_SCRATCH_FLOATS of the larger side, and `width` channels of each
 * wide map, of the expanded one where there is an expansion. */

/* addend: added to y. x and y are apart. */
void inverted_forward(const inverted_t *branch, const float *x, const float *addend, float *y,
                      float *scratch);

/* addend: added to grad_x; NULL where there is no expansion. grad and grad_x are apart. */
void inverted_backward(const inverted_t *branch, const float *grad, const float *addend,
                       float *grad_x, float *scratch);

#endif
