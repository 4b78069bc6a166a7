#include "maps.h"

static size_t place(int image, int size, int y, int x, int channels) {
  return (((size_t)image * (size_t)size + (size_t)y) * (size_t)size + (size_t)x) *
         (size_t)channels;
}

static void add_scaled(int count, float factor, const float *x, float *y) {
  for (int i = 0; i < count; i++) y[i] += factor * x[i];
}

void average_pool(const resize_t *shape, int cell, const float *x, float *y) {
  const int channels = shape->channels;
  const float factor = 1 / (float)(cell * cell);
  for (int image = 0; image < shape->images; image++)
    for (int row = 0; row < shape->out_size; row++)
      for (int column = 0; column < shape->out_size; column++, y += channels) {
        memset(y, 0, 4 * (size_t)channels);
        for (int i = 0; i < cell * cell; i++)
          add_scaled(channels, 1,
                     x + place(image, shape->in_size, row * cell + i / cell,
                               column * cell + i % cell, channels),
                     y);
        for (int c = 0; c < channels; c++) y[c] *= factor;
      }
}

void average_pool_backward(const resize_t *shape, int cell, const float *grad, float *grad_x) {
  const int channels = shape->channels;
  const float factor = 1 / (float)(cell * cell);
  for (int image = 0; image < shape->images; image++)
    for (int row = 0; row < shape->out_size; row++)
      for (int column = 0; column < shape->out_size; column++, grad += channels)
        for (int i = 0; i < cell * cell; i++)
          add_scaled(channels, factor, grad,
                     grad_x + place(image, shape->in_size, row * cell + i / cell,
                                    column * cell + i % cell, channels));
}

/* The two neighbours that an upsampled place lies between, and the second one's weight. */
typedef struct {
  int first, second;
  float weight;
} between_t;

static between_t between(int place, int in_size, int out_size) {
  float at = ((float)place + 0.5f) * ((float)in_size / (float)out_size) - 0.5f;
  if (at < 0) at = 0;
  const int first = (int)at < in_size - 1 ? (int)at : in_size - 1;
  return (between_t){first, first < in_size - 1 ? first + 1 : first, at - (float)first};
}

/* The four places that an upsampled one comes from, and their weights. */
typedef struct {
  size_t at[4];
  float weight[4];
} corners_t;

static corners_t corners(const resize_t *shape, int image, between_t y, between_t x) {
  const int size = shape->in_size, channels = shape->channels;
  return (corners_t){
      {place(image, size, y.first, x.first, channels), place(image, size, y.first, x.second, channels),
       place(image, size, y.second, x.first, channels),
       place(image, size, y.second, x.second, channels)},
      {(1 - y.weight) * (1 - x.weight), (1 - y.weight) * x.weight, y.weight * (1 - x.weight),
       y.weight * x.weight}};
}

void upsample_add(const resize_t *shape, const float *x, float *y) {
  const int out = shape->out_size, channels = shape->channels;
  for (int image = 0; image < shape->images; image++)
    for (int row = 0; row < out; row++) {
      const between_t down = between(row, shape->in_size, out);
      for (int column = 0; column < out; column++, y += channels) {
        const corners_t from = corners(shape, image, down, between(column, shape->in_size, out));
        const float *a = x + from.at[0], *b = x + from.at[1];
        const float *c = x + from.at[2], *d = x + from.at[3];
        for (int i = 0; i < channels; i++)
          y[i] += from.weight[0] * a[i] + from.weight[1] * b[i] + from.weight[2] * c[i] +
                  from.weight[3] * d[i];
      }
    }
}

void upsample_backward(const resize_t *shape, const float *grad, float *grad_x) {
  const int in = shape->in_size, out = shape->out_size, channels = shape->channels;
  memset(grad_x, 0, 4 * place(shape->images, in, 0, 0, channels));
  for (int image = 0; image < shape->images; image++)
    for (int row = 0; row < out; row++) {
      const between_t down = between(row, in, out);
      for (int column = 0; column < out; column++, grad += channels) {
        const corners_t to = corners(shape, image, down, between(column, in, out));
        for (int i = 0; i < 4; i++)
          if (to.weight[i] != 0) add_scaled(channels, to.weight[i], grad, grad_x + to.at[i]);
      }
    }
}

void mean(int images, int positions, int channels, const float *x, float *y, size_t pitch) {
  for (int image = 0; image < images; image++, y += pitch) {
    memset(y, 0, 4 * (size_t)channels);
    for (int i = 0; i < positions; i++, x += channels) add_scaled(channels, 1, x, y);
    for (int c = 0; c < channels; c++) y[c] /= (float)positions;
  }
}

/* A byte of bits as eight factors of 0 or 1. */
static void factors_of(uint8_t bits, float factors[8]) {
  for (int i = 0; i < 8; i++) factors[i] = (float)(bits >> i & 1);
}

void mean_backward(const mean_grad_t *shape, const float *grad, const uint8_t *bits,
                   float *column_sums, int adds, float *grad_x) {
  for (int row = 0; row < shape->images * shape->positions; row++, grad_x += shape->channels) {
    const float *of_image = grad + (size_t)(row / shape->positions) * shape->pitch;
    for (int channel = 0; channel < shape->channels; channel += 8) {
      float open[8] = {1, 1, 1, 1, 1, 1, 1, 1};
      if (bits) factors_of(bits[((size_t)row * shape->pitch + (size_t)channel) / 8], open);
      for (int j = 0; j < 8; j++) {
        const float value = open[j] * (of_image[channel + j] / (float)shape->positions);
        grad_x[channel + j] = adds ? grad_x[channel + j] + value : value;
        if (column_sums) column_sums[channel + j] += value;
      }
    }
  }
}

void add_columns(size_t rows, int channels, const float *grad, const uint8_t *bits, float *sums) {
  if (!bits) {
    for (size_t row = 0; row < rows; row++, grad += channels)
      add_scaled(channels, 1, grad, sums);
    return;
  }
  float table[256][8];
  for (int byte = 0; byte < 256; byte++) factors_of((uint8_t)byte, table[byte]);
  for (size_t row = 0; row < rows; row++)
    for (int channel = 0; channel < channels; channel += 8, grad += 8) {
      const float *open = table[*bits++];
      for (int j = 0; j < 8; j++) sums[channel + j] += open[j] * grad[j];
    }
}

void add(size_t count, const float *x, float *y) {
  for (size_t i = 0; i < count; i++) y[i] += x[i];
}

void keep_some(size_t count, const uint8_t *bits, float factor, float *values) {
  for (size_t i = 0; i < count; i++)
    values[i] = bits[i / 8] >> (i % 8) & 1 ? values[i] * factor : 0;
}

static float hard_sigmoid(float x) { return x <= -3 ? 0 : x >= 3 ? 1 : (x + 3) / 6; }

void hard_swish(size_t count, const float *x, float *y) {
  for (size_t i = 0; i < count; i++) y[i] = x[i] * hard_sigmoid(x[i]);
}

void hard_swish_backward(size_t count, const float *x, float *grad) {
  for (size_t i = 0; i < count; i++)
    grad[i] = x[i] <= -3 ? 0 : x[i] < 3 ? grad[i] * (x[i] / 3 + 0.5f) : grad[i];
}

void open_gate(int images, int positions, int channels, const float *gate, const float *x,
               float *y) {
  for (int image = 0; image < images; image++, gate += channels)
    for (int i = 0; i < positions; i++, x += channels, y += channels)
      for (int c = 0; c < channels; c++) y[c] = x[c] * hard_sigmoid(gate[c]);
}

void open_gate_backward(int images, int positions, int channels, const float *gate,
                        const float *x, float *grad, float *grad_gate) {
  for (int image = 0; image < images; image++, gate += channels, grad_gate += channels) {
    memset(grad_gate, 0, 4 * (size_t)channels);
    for (int i = 0; i < positions; i++, x += channels, grad += channels)
      for (int c = 0; c < channels; c++) {
        grad_gate[c] += grad[c] * x[c];
        grad[c] *= hard_sigmoid(gate[c]);
      }
    for (int c = 0; c < channels; c++)
      if (!(gate[c] > -3 && gate[c] < 3)) {
        grad_gate[c] = 0;
      } else {
        grad_gate[c] /= 6;
      }
  }
}
