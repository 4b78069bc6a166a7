#include "convolution.h"

static const epilogue_t NOTHING = {0};

static int is_pointwise(const convolution_t *shape) {
  return shape->kernel == 1 && shape->stride == 1 && shape->groups == 1;
}

static int smaller(int a, int b) { return a < b ? a : b; }

/* The weights of one group: (out / groups) rows of kernel * kernel * in / groups values. */
static matrix_t of_group(const convolution_t *shape, const matrix_t *weights, int group) {
  const size_t per_group =
      (size_t)(shape->out_channels / shape->groups) * weights->pitch * (size_t)group;
  const size_t bytes = weights->kind == VALUES_FLOAT ? 4 : weights->kind == VALUES_BFLOAT16 ? 2 : 1;
  matrix_t found = *weights;
  found.values = (const char *)weights->values + per_group * bytes;
  return found;
}

void fill_pixel_table(const double *mean, const double *deviation, float *table) {
  for (int channel = 0; channel < 3; channel++)
    for (int pixel = 0; pixel < 256; pixel++)
      table[channel * 256 + pixel] =
          ((float)pixel / 255 - (float)mean[channel]) / (float)deviation[channel];
}

static void widen_pixels(const uint8_t *pixels, const float *table, int channels, float *to) {
  for (int c = 0; c < channels; c++) to[c] = table[c * 256 + pixels[c]];
}

/* Outputs [first, last) of one image's map, in order (tap's row, column, channel): what they are
 * sums of, for the input channels of one group. */
static void gather(const convolution_t *shape, const void *map, const float *table, int group,
                   int first, int last, float *columns) {
  const int channels = shape->in_channels / shape->groups, size = shape->in_size;
  for (int output = first; output < last; output++) {
    const int top = output / shape->out_size * shape->stride - shape->pad_top;
    const int left = output % shape->out_size * shape->stride - shape->pad_left;
    for (int y = top; y < top + shape->kernel; y++)
      for (int x = left; x < left + shape->kernel; x++, columns += channels) {
        const size_t at = (size_t)(y * size + x) * (size_t)shape->in_channels +
                          (size_t)(group * channels);
        if (y < 0 || y >= size || x < 0 || x >= size) {
          memset(columns, 0, 4 * (size_t)channels);
        } else if (table) {
          widen_pixels((const uint8_t *)map + at, table, channels, columns);
        } else {
          memcpy(columns, (const float *)map + at, 4 * (size_t)channels);
        }
      }
  }
}

/* The other way: what outputs [first, last) give back is added to the map. */
static void scatter(const convolution_t *shape, const float *columns, int group, int first,
                    int last, float *map) {
  const int channels = shape->in_channels / shape->groups, size = shape->in_size;
  for (int output = first; output < last; output++) {
    const int top = output / shape->out_size * shape->stride - shape->pad_top;
    const int left = output % shape->out_size * shape->stride - shape->pad_left;
    for (int y = top; y < top + shape->kernel; y++)
      for (int x = left; x < left + shape->kernel; x++, columns += channels) {
        if (y < 0 || y >= size || x < 0 || x >= size) continue;
        float *to = map + (size_t)(y * size + x) * (size_t)shape->in_channels + group * channels;
        for (int c = 0; c < channels; c++) to[c] += columns[c];
      }
  }
}

/* Where outputs are gathered: a run of rows of columns that goes on from image to image. */
typedef struct {
  const convolution_t *shape;
  int group, row, count; /* outputs [row, row + count) of all images */
} run_t;

static int next_run(run_t *run) {
  const convolution_t *shape = run->shape;
  run->row += run->count;
  run->count = smaller(shape->column_rows,
                       shape->images * shape->out_size * shape->out_size - run->row);
  return run->count > 0;
}

static void gather_run(const run_t *run, const void *x, const float *table, float *columns) {
  const convolution_t *shape = run->shape;
  const int per_image = shape->out_size * shape->out_size;
  const size_t length =
      (size_t)(shape->in_channels / shape->groups * shape->kernel * shape->kernel);
  const size_t map = (size_t)(shape->in_size * shape->in_size) * (size_t)shape->in_channels;
  for (int row = run->row; row < run->row + run->count;) {
    const int image = row / per_image, first = row % per_image;
    const int last = smaller(per_image, first + run->row + run->count - row);
    const char *from = (const char *)x + map * (size_t)image * (table ? 1 : 4);
    gather(shape, from, table, run->group, first, last, columns);
    columns += (size_t)(last - first) * length;
    row += last - first;
  }
}

static void scatter_run(const run_t *run, const float *columns, float *x) {
  const convolution_t *shape = run->shape;
  const int per_image = shape->out_size * shape->out_size;
  const size_t length =
      (size_t)(shape->in_channels / shape->groups * shape->kernel * shape->kernel);
  const size_t map = (size_t)(shape->in_size * shape->in_size) * (size_t)shape->in_channels;
  for (int row = run->row; row < run->row + run->count;) {
    const int image = row / per_image, first = row % per_image;
    const int last = smaller(per_image, first + run->row + run->count - row);
    scatter(shape, columns, run->group, first, last, x + map * (size_t)image);
    columns += (size_t)(last - first) * length;
    row += last - first;
  }
}

void convolve(const convolution_t *shape, const void *x, const float *table,
              const matrix_t *weights, float *y, const epilogue_t *epilogue, float *scratch) {
  const size_t pitch = (size_t)shape->out_channels;
  const int rows = shape->images * shape->out_size * shape->out_size;
  if (is_pointwise(shape) && !table) {
    multiply(rows, shape->out_channels, shape->in_channels, x, (size_t)shape->in_channels, 1,
             weights, y, pitch, epilogue, scratch);
    return;
  }
  const int out = shape->out_channels / shape->groups;
  const int length = shape->in_channels / shape->groups * shape->kernel * shape->kernel;
  float *columns = scratch + PACKED_FLOATS;
  for (int group = 0; group < shape->groups; group++) {
    const matrix_t matrix = of_group(shape, weights, group);
    for (run_t run = {.shape = shape, .group = group}; next_run(&run);) {
      const size_t at = (size_t)run.row * pitch;
      epilogue_t shifted = *epilogue;
      if (shifted.bits) shifted.bits += at / 8;
      gather_run(&run, x, table, columns);
      multiply(run.count, out, length, columns, (size_t)length, 1, &matrix,
               y + at + group * out, pitch, &shifted, scratch);
    }
  }
}

void convolution_input_gradient(const convolution_t *shape, const float *grad,
                                const matrix_t *weights, float *grad_x, float *scratch) {
  const size_t pitch = (size_t)shape->out_channels;
  const size_t map = (size_t)(shape->in_size * shape->in_size) * (size_t)shape->in_channels;
  const int rows = shape->images * shape->out_size * shape->out_size;
  matrix_t straight = *weights;
  straight.turned = 0;
  if (is_pointwise(shape)) {
    multiply(rows, shape->in_channels, shape->out_channels, grad, pitch, 1, &straight, grad_x,
             (size_t)shape->in_channels, &NOTHING, scratch);
    return;
  }
  const int out = shape->out_channels / shape->groups;
  const int length = shape->in_channels / shape->groups * shape->kernel * shape->kernel;
  float *columns = scratch + PACKED_FLOATS;
  memset(grad_x, 0, 4 * map * (size_t)shape->images);
  for (int group = 0; group < shape->groups; group++) {
    const matrix_t matrix = of_group(shape, &straight, group);
    for (run_t run = {.shape = shape, .group = group}; next_run(&run);) {
      multiply(run.count, length, out, grad + (size_t)run.row * pitch + group * out, pitch, 1,
               &matrix, columns, (size_t)length, &NOTHING, scratch);
      scatter_run(&run, columns, grad_x);
    }
  }
}

void convolution_weight_gradient(const convolution_t *shape, const float *grad, const float *x,
                                 float *grad_weights, float *scratch) {
  const size_t pitch = (size_t)shape->out_channels;
  const int rows = shape->images * shape->out_size * shape->out_size;
  const int out = shape->out_channels / shape->groups;
  const int length = shape->in_channels / shape->groups * shape->kernel * shape->kernel;
  float *columns = scratch + PACKED_FLOATS;
  for (int group = 0; group < shape->groups; group++) {
    float *to = grad_weights + (size_t)(group * out) * (size_t)length;
    const epilogue_t added = {.addend = to};
    for (run_t run = {.shape = shape, .group = group}; next_run(&run);) {
      const float *inputs = columns;
      if (is_pointwise(shape)) {
        inputs = x;
        run.count = rows;
      } else {
        gather_run(&run, x, NULL, columns);
      }
      const matrix_t matrix = {inputs, VALUES_FLOAT, 0, (size_t)length, NULL};
      multiply(out, length, run.count, grad + (size_t)run.row * pitch + group * out, 1, pitch,
               &matrix, to, (size_t)length, &added, scratch);
    }
  }
}
