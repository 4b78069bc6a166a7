/* A 1x1 convolution whose output is averaged over its places: the end of a network.
 *
 * It is run for some output channels after the other, so that the map, the largest of the last
 * stage, never exists. Each channel is computed as it is in a whole map: the results are the same
 * bits. */
#ifndef POOLED_H
#define POOLED_H

#include "product.h"

/* x is (images, positions, in_channels). width: output channels at a time, a multiple of 8. */
typedef struct {
  int images, positions, in_channels, out_channels, width;
  const int8_t *weights; /* (out_channels, in_channels) */
  const float *scale;    /* (out_channels) */
} pooled_t;

/* y (images, out_channels): means of the clamped values. epilogue: bias, limit, bits. scratch:
 * PACKED_FLOATS and `width` channels of the map, here as below. */
void pooled_forward(const pooled_t *shape, const float *x, const epilogue_t *epilogue, float *y,
                    float *scratch);

/* grad (images, out_channels). bits: of the clamp, or NULL. sums (out_channels): the bias's
 * gradient is added to it, where not NULL. grad_x may be NULL. */
void pooled_backward(const pooled_t *shape, const float *grad, const uint8_t *bits, float *sums,
                     float *grad_x, float *scratch);

#endif
