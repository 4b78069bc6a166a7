/* Depthwise convolutions with frozen int8 weights, forward and to the gradient of their input. */
#ifndef DEPTHWISE_H
#define DEPTHWISE_H

#include "product.h"

#define MAX_DEPTHWISE_KERNEL 7

/* Maps are (images, side, side, channels). Input row y = output row * stride - pad_top + tap;
 * what lies outside counts as 0. x_pitch, y_pitch: values from one place of the input, or output,
 * to the next, where they are parts of wider maps; 0: their channels. */
typedef struct {
  int images, channels, in_size, out_size, kernel, stride, pad_top, pad_left;
  size_t x_pitch, y_pitch;
} depthwise_t;

/* int8 weights (kernel, kernel, channels), or some channels of `pitch` (0: of all there are); a
 * value stands for value * scale. */
typedef struct {
  const int8_t *values;
  const float *scale;
  size_t pitch;
} taps_t;

/* Floats of scratch that maps of this side need; with the widest vectors. */
#define DEPTHWISE_SCRATCH_FLOATS(side) ((8 * ((side) + 16) + 2 * 56) * MAX_LANES)

void depthwise_forward(const depthwise_t *shape, const float *x, const taps_t *taps, float *y,
                       const epilogue_t *epilogue, float *scratch);

void depthwise_backward(const depthwise_t *shape, const float *grad, const taps_t *taps,
                        float *grad_x, const epilogue_t *epilogue, float *scratch);

#endif
