/* Products of matrices with what comes after them done while results are in registers. */
#ifndef PRODUCT_H
#define PRODUCT_H

#include "vector.h"

/* What starts the sums of an output (rows, columns), and what becomes of them. All are optional. */
typedef struct {
  const float *bias;   /* (columns): starts each row's sums */
  const float *addend; /* (rows, columns): starts them too; may be the output itself */
  float limit;         /* above 0: values are clamped to 0..limit; INFINITY is a plain ReLU */
  uint8_t *bits;       /* written: where the clamp was not at work */
  const uint8_t *mask; /* such bits: values are kept where they are set, else 0 */
  float *column_sums;  /* (columns): results are added to it, row after row */
  size_t bits_pitch;   /* of bits and mask, where the output is part of a wider map's channels: */
  size_t bits_column;  /* the map's channels, and which of them is the first; 0: it is all of it */
} epilogue_t;

enum value_kind { VALUES_INT8, VALUES_FLOAT, VALUES_BFLOAT16 };

/* A matrix (inner, columns) that is widened and packed as it is used.
 *
 * Element (k, n) lies at values[n * pitch + k] where `turned`, else at values[k * pitch + n].
 * int8 elements stand for value * scale of their channel: n where `turned`, else k. */
typedef struct {
  const void *values;
  enum value_kind kind;
  int turned;
  size_t pitch;
  const float *scale;
} matrix_t;

/* Floats that a product packs at a time. */
#define PACKED_FLOATS (32 * 1024)

/* y (rows, columns; rows `y_pitch` apart) = a (rows, inner) b, and the epilogue.
 *
 * Element (i, k) of a lies at a[i * row_step + k * inner_step]. packed: PACKED_FLOATS of scratch.
 * Each sum goes over k in order. Bits, masks and addend need y_pitch == columns, a multiple
 * of 8. */
void multiply(int rows, int columns, int inner, const float *a, size_t row_step,
              size_t inner_step, const matrix_t *b, float *y, size_t y_pitch,
              const epilogue_t *epilogue, float *packed);

float widened_bfloat16(uint16_t bits);

#endif
