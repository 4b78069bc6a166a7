/* What happens to maps (images, side, side, channels) beside convolutions and norms. */
#ifndef MAPS_H
#define MAPS_H

#include "vector.h"

typedef struct {
  int images, channels, in_size, out_size;
} resize_t;

/* Averages of cells of in_size / out_size (rounded down) on a side. */
void average_pool(const resize_t *shape, int cell, const float *x, float *y);
/* Added to grad_x. */
void average_pool_backward(const resize_t *shape, int cell, const float *grad, float *grad_x);

/* Bilinear, corners not aligned; y gets it added. */
void upsample_add(const resize_t *shape, const float *x, float *y);
/* grad_x is overwritten. */
void upsample_backward(const resize_t *shape, const float *grad, float *grad_x);

/* Means (images, channels) of maps of `positions`; those of an image `pitch` after the last's. */
void mean(int images, int positions, int channels, const float *x, float *y, size_t pitch);

/* pitch: channels that grad and bits have; grad_x has `channels`, which may be some of them. */
typedef struct {
  int images, positions, channels;
  size_t pitch;
} mean_grad_t;

/* The gradient of a map whose mean has the gradient grad: masked by `bits`, its sum by channel
 * added to column_sums, each where it is not NULL; with `adds` it is added to grad_x. */
void mean_backward(const mean_grad_t *shape, const float *grad, const uint8_t *bits,
                   float *column_sums, int adds, float *grad_x);

/* sums (channels) += rows of grad, each value where its bit is set, or all where bits is NULL. */
void add_columns(size_t rows, int channels, const float *grad, const uint8_t *bits, float *sums);

/* y += x */
void add(size_t count, const float *x, float *y);

/* Values whose bit is not set become 0, the others times factor: dropout, or a clamp's gradient. */
void keep_some(size_t count, const uint8_t *bits, float factor, float *values);

/* x * min(max(x + 3, 0), 6) / 6; y may be x. */
void hard_swish(size_t count, const float *x, float *y);
void hard_swish_backward(size_t count, const float *x, float *grad);

/* y = x * hard_sigmoid(gate), the gate (images, channels); y may be x. */
void open_gate(int images, int positions, int channels, const float *gate, const float *x,
               float *y);
/* grad becomes the gradient of x as far as it does not come through the gate. */
void open_gate_backward(int images, int positions, int channels, const float *gate,
                        const float *x, float *grad, float *grad_gate);

#endif
