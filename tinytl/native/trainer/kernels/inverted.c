#include "inverted.h"

/* Channels [first, first + count) of the wide maps. */
typedef struct {
  int first, count;
} slice_t;

static slice_t slice_at(const inverted_t *branch, int first) {
  const int left = branch->depthwise.channels - first;
  return (slice_t){first, left < branch->width ? left : branch->width};
}

/* A 1x1 convolution's weights (out, in), read straight (from out to in) or turned. */
static matrix_t matrix_of(const layer_t *layer, size_t inputs, size_t row, size_t column,
                          int turned) {
  return (matrix_t){layer->values + row * inputs + column, VALUES_INT8, turned, inputs,
                    layer->scale + row};
}

static depthwise_t depthwise_of(const inverted_t *branch, slice_t slice) {
  depthwise_t shape = branch->depthwise;
  shape.channels = slice.count;
  return shape;
}

static taps_t taps_of(const inverted_t *branch, slice_t slice) {
  return (taps_t){branch->middle.values + slice.first, branch->middle.scale + slice.first,
                  (size_t)branch->depthwise.channels};
}

/* Forward: bias, clamp, bits of a slice. */
static epilogue_t clamping(const inverted_t *branch, const layer_t *layer, slice_t slice) {
  return (epilogue_t){.bias = layer->bias + slice.first,
                      .limit = branch->limit,
                      .bits = layer->bits,
                      .bits_pitch = (size_t)branch->depthwise.channels,
                      .bits_column = (size_t)slice.first};
}

/* Backward: what the clamp closes, and the bias's gradient. */
static epilogue_t closing(const inverted_t *branch, const layer_t *layer, slice_t slice) {
  return (epilogue_t){.mask = layer->bits,
                      .column_sums = layer->bias_grad ? layer->bias_grad + slice.first : NULL,
                      .bits_pitch = (size_t)branch->depthwise.channels,
                      .bits_column = (size_t)slice.first};
}

/* Scratch: for products, for the depthwise convolution, and a slice of both wide maps. */
typedef struct {
  float *packed, *rings, *expanded, *middle;
} rooms_t;

static rooms_t rooms_in(const inverted_t *branch, float *scratch) {
  const depthwise_t *shape = &branch->depthwise;
  const int side = shape->in_size > shape->out_size ? shape->in_size : shape->out_size;
  rooms_t rooms = {.packed = scratch, .rings = scratch + PACKED_FLOATS};
  rooms.expanded = rooms.rings + DEPTHWISE_SCRATCH_FLOATS(side);
  rooms.middle = rooms.expanded;
  if (branch->expand.values)
    rooms.middle += (size_t)(shape->images * shape->in_size * shape->in_size) *
                    (size_t)branch->width;
  return rooms;
}

void inverted_forward(const inverted_t *branch, const float *x, const float *addend, float *y,
                      float *scratch) {
  const depthwise_t *wide = &branch->depthwise;
  const rooms_t rooms = rooms_in(branch, scratch);
  const int rows_in = wide->images * wide->in_size * wide->in_size;
  const int rows_out = wide->images * wide->out_size * wide->out_size;
  const size_t inputs = (size_t)branch->in_channels, channels = (size_t)wide->channels;
  for (int first = 0; first < wide->channels; first += branch->width) {
    const slice_t slice = slice_at(branch, first);
    depthwise_t shape = depthwise_of(branch, slice);
    const float *expanded = x + first;
    if (branch->expand.values) {
      const matrix_t weights = matrix_of(&branch->expand, inputs, (size_t)first, 0, 1);
      const epilogue_t epilogue = clamping(branch, &branch->expand, slice);
      multiply(rows_in, slice.count, branch->in_channels, x, inputs, 1, &weights, rooms.expanded,
               (size_t)slice.count, &epilogue, rooms.packed);
      expanded = rooms.expanded;
    } else {
      shape.x_pitch = channels;
    }
    const taps_t taps = taps_of(branch, slice);
    const epilogue_t middle = clamping(branch, &branch->middle, slice);
    depthwise_forward(&shape, expanded, &taps, rooms.middle, &middle, rooms.rings);
    const matrix_t weights = matrix_of(&branch->project, channels, 0, (size_t)first, 1);
    const epilogue_t sum = {.bias = first ? NULL : branch->project.bias,
                            .addend = first ? y : addend};
    multiply(rows_out, branch->out_channels, slice.count, rooms.middle, (size_t)slice.count, 1,
             &weights, y, (size_t)branch->out_channels, &sum, rooms.packed);
  }
}

void inverted_backward(const inverted_t *branch, const float *grad, const float *addend,
                       float *grad_x, float *scratch) {
  const depthwise_t *wide = &branch->depthwise;
  const rooms_t rooms = rooms_in(branch, scratch);
  const int rows_in = wide->images * wide->in_size * wide->in_size;
  const int rows_out = wide->images * wide->out_size * wide->out_size;
  const size_t inputs = (size_t)branch->in_channels, channels = (size_t)wide->channels;
  for (int first = 0; first < wide->channels; first += branch->width) {
    const slice_t slice = slice_at(branch, first);
    depthwise_t shape = depthwise_of(branch, slice);
    const matrix_t project = matrix_of(&branch->project, channels, 0, (size_t)first, 0);
    const epilogue_t middle = closing(branch, &branch->middle, slice);
    multiply(rows_out, slice.count, branch->out_channels, grad, (size_t)branch->out_channels, 1,
             &project, rooms.middle, (size_t)slice.count, &middle, rooms.packed);
    const taps_t taps = taps_of(branch, slice);
    if (!branch->expand.values) {
      const epilogue_t nothing = {0};
      shape.x_pitch = channels;
      depthwise_backward(&shape, rooms.middle, &taps, grad_x + first, &nothing, rooms.rings);
      continue;
    }
    const epilogue_t outer = closing(branch, &branch->expand, slice);
    depthwise_backward(&shape, rooms.middle, &taps, rooms.expanded, &outer, rooms.rings);
    const matrix_t expand = matrix_of(&branch->expand, inputs, (size_t)first, 0, 0);
    const epilogue_t sum = {.addend = first ? grad_x : addend};
    multiply(rows_in, branch->in_channels, slice.count, rooms.expanded, (size_t)slice.count, 1,
             &expand, grad_x, inputs, &sum, rooms.packed);
  }
}
