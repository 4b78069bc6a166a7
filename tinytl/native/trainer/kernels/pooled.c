#include "pooled.h"

#include "maps.h"

static int width_at(const pooled_t *shape, int first) {
  const int left = shape->out_channels - first;
  return left < shape->width ? left : shape->width;
}

static matrix_t matrix_at(const pooled_t *shape, int first, int turned) {
  const size_t inputs = (size_t)shape->in_channels;
  return (matrix_t){shape->weights + (size_t)first * inputs, VALUES_INT8, turned, inputs,
                    shape->scale + first};
}

void pooled_forward(const pooled_t *shape, const float *x, const epilogue_t *epilogue, float *y,
                    float *scratch) {
  const size_t inputs = (size_t)shape->in_channels, outputs = (size_t)shape->out_channels;
  const int rows = shape->images * shape->positions;
  float *map = scratch + PACKED_FLOATS;
  for (int first = 0; first < shape->out_channels; first += shape->width) {
    const int width = width_at(shape, first);
    const matrix_t weights = matrix_at(shape, first, 1);
    epilogue_t part = *epilogue;
    if (part.bias) part.bias += first;
    part.bits_pitch = outputs, part.bits_column = (size_t)first;
    multiply(rows, width, shape->in_channels, x, inputs, 1, &weights, map, (size_t)width, &part,
             scratch);
    mean(shape->images, shape->positions, width, map, y + first, outputs);
  }
}

void pooled_backward(const pooled_t *shape, const float *grad, const uint8_t *bits, float *sums,
                     float *grad_x, float *scratch) {
  const size_t inputs = (size_t)shape->in_channels, outputs = (size_t)shape->out_channels;
  const int rows = shape->images * shape->positions;
  float *map = scratch + PACKED_FLOATS;
  for (int first = 0; first < shape->out_channels; first += shape->width) {
    const mean_grad_t slice = {shape->images, shape->positions, width_at(shape, first), outputs};
    mean_backward(&slice, grad + first, bits ? bits + first / 8 : NULL,
                  sums ? sums + first : NULL, 0, map);
    if (!grad_x) continue;
    const matrix_t weights = matrix_at(shape, first, 0);
    const epilogue_t sum = {.addend = first ? grad_x : NULL};
    multiply(rows, shape->in_channels, slice.channels, map, (size_t)slice.channels, 1, &weights,
             grad_x, inputs, &sum, scratch);
  }
}
