/* Convolutions as products of matrices: of the images, and with weights that are trained. */
#ifndef CONVOLUTION_H
#define CONVOLUTION_H

#include "product.h"

/* Maps are (images, side, side, channels), weights (out, kernel, kernel, in / groups). */
typedef struct {
  int images, in_channels, out_channels, groups;
  int in_size, out_size, kernel, stride, pad_top, pad_left;
  int column_rows; /* outputs whose inputs are gathered at a time */
} convolution_t;

/* Floats of scratch for `rows` column_rows of `length` values each. */
#define CONVOLUTION_SCRATCH_FLOATS(rows, length) (PACKED_FLOATS + (size_t)(rows) * (size_t)(length))

/* Normalized pixels, (pixel - mean) / deviation of its channel in 0..1. */
#define PIXEL_TABLE_FLOATS (3 * 256)
void fill_pixel_table(const double *mean, const double *deviation, float *table);

/* weights of int8: one group. x: floats, or pixels (uint8, 3 channels) where table is not NULL. */
void convolve(const convolution_t *shape, const void *x, const float *table,
              const matrix_t *weights, float *y, const epilogue_t *epilogue, float *scratch);

/* grad_x is overwritten. */
void convolution_input_gradient(const convolution_t *shape, const float *grad,
                                const matrix_t *weights, float *grad_x, float *scratch);

/* Added to grad_weights. */
void convolution_weight_gradient(const convolution_t *shape, const float *grad, const float *x,
                                 float *grad_weights, float *scratch);

#endif
