#include "operations.h"

#include <math.h>
#include <string.h>

#include "kernels/convolution.h"
#include "kernels/inverted.h"
#include "kernels/loss.h"
#include "kernels/maps.h"
#include "kernels/norm.h"
#include "kernels/pooled.h"

void *address(const trainer_t *trainer, uint16_t number, uint32_t pass) {
  if (number == NO_BUFFER) return NULL;
  const buffer_t *buffer = &trainer->program.buffers[number];
  const uint8_t *base = buffer->in_arena ? trainer->arena : trainer->program.frozen;
  return (void *)(uintptr_t)(base + buffer->offset + (size_t)buffer->stride * pass);
}

static void *take(call_t *call) {
  return address(call->trainer, call->op->operands[call->slot++], call->pass);
}

/* int8 weights with their scales. */
static matrix_t take_frozen(call_t *call, size_t pitch, int turned) {
  const void *values = take(call);
  return (matrix_t){values, VALUES_INT8, turned, pitch, take(call)};
}

static matrix_t take_trained(call_t *call) {
  const op_t *op = call->op;
  const size_t length = (size_t)(op->in_channels / op->groups * op->kernel * op->kernel);
  const enum value_kind kind = op->flags & IS_BFLOAT16 ? VALUES_BFLOAT16 : VALUES_FLOAT;
  return (matrix_t){take(call), kind, 1, length, NULL};
}

static float limit_of(const op_t *op) {
  return op->clamp == RELU6 ? 6 : op->clamp == RELU ? INFINITY : 0;
}

static convolution_t convolution_of(const call_t *call) {
  const op_t *op = call->op;
  return (convolution_t){call->images,     (int)op->in_channels, (int)op->out_channels,
                         (int)op->groups,  op->in_size,          op->out_size,
                         op->kernel,       op->stride,           op->pad_top,
                         op->pad_left,     (int)op->count};
}

static depthwise_t depthwise_of(const call_t *call) {
  const op_t *op = call->op;
  return (depthwise_t){call->images, (int)op->in_channels, op->in_size, op->out_size,
                       op->kernel,   op->stride,           op->pad_top, op->pad_left,
                       0,            0};
}

static resize_t resize_of(const call_t *call) {
  return (resize_t){call->images, (int)call->op->in_channels, call->op->in_size,
                    call->op->out_size};
}

static int positions_of(const op_t *op) { return op->in_size * op->in_size; }

static void run_load_images(call_t *call) {
  const trainer_t *trainer = call->trainer;
  const int first = (int)call->pass * call->micro_batch;
  uint8_t *images = take(call);
  trainer->load_images(trainer->load_context, first, call->images, images, take(call));
}

static void stem_forward(call_t *call) {
  const op_t *op = call->op;
  const convolution_t shape = convolution_of(call);
  const size_t taps = (size_t)(3 * op->kernel * op->kernel);
  const uint8_t *images = take(call);
  const matrix_t weights = take_frozen(call, taps, 1);
  epilogue_t epilogue = {.bias = take(call), .limit = limit_of(op)};
  float *y = take(call);
  epilogue.bits = take(call);
  float *scratch = take(call), *table = scratch + CONVOLUTION_SCRATCH_FLOATS(op->count, taps);
  const header_t *header = call->trainer->program.header;
  fill_pixel_table(header->pixel_mean, header->pixel_deviation, table);
  convolve(&shape, images, table, &weights, y, &epilogue, scratch);
}

static void pointwise_forward(call_t *call) {
  const op_t *op = call->op;
  const float *x = take(call);
  const matrix_t weights = take_frozen(call, op->in_channels, 1);
  epilogue_t epilogue = {.limit = limit_of(op)};
  epilogue.bias = take(call);
  epilogue.addend = take(call);
  float *y = take(call);
  epilogue.bits = take(call);
  multiply(call->images * positions_of(op), (int)op->out_channels, (int)op->in_channels, x,
           op->in_channels, 1, &weights, y, op->out_channels, &epilogue, take(call));
}

static void pointwise_backward(call_t *call) {
  const op_t *op = call->op;
  const float *grad = take(call);
  const matrix_t weights = take_frozen(call, op->in_channels, 0);
  epilogue_t epilogue = {.addend = take(call)};
  float *grad_x = take(call);
  epilogue.mask = take(call);
  epilogue.column_sums = take(call);
  multiply(call->images * positions_of(op), (int)op->in_channels, (int)op->out_channels, grad,
           op->out_channels, 1, &weights, grad_x, op->in_channels, &epilogue, take(call));
}

static taps_t take_taps(call_t *call) {
  const int8_t *values = take(call);
  return (taps_t){values, take(call), 0};
}

static void run_depthwise_forward(call_t *call) {
  const depthwise_t shape = depthwise_of(call);
  const float *x = take(call);
  const taps_t taps = take_taps(call);
  epilogue_t epilogue = {.bias = take(call), .limit = limit_of(call->op)};
  float *y = take(call);
  epilogue.bits = take(call);
  depthwise_forward(&shape, x, &taps, y, &epilogue, take(call));
}

static void run_depthwise_backward(call_t *call) {
  const depthwise_t shape = depthwise_of(call);
  const float *grad = take(call);
  const taps_t taps = take_taps(call);
  float *grad_x = take(call);
  epilogue_t epilogue = {.mask = take(call)};
  epilogue.column_sums = take(call);
  depthwise_backward(&shape, grad, &taps, grad_x, &epilogue, take(call));
}

static inverted_t inverted_of(const call_t *call) {
  const op_t *op = call->op;
  inverted_t branch = {.depthwise = depthwise_of(call),
                       .in_channels = (int)op->in_channels,
                       .out_channels = (int)op->out_channels,
                       .width = (int)op->count,
                       .limit = limit_of(op)};
  branch.depthwise.channels = (int)op->number;
  return branch;
}

static layer_t take_layer(call_t *call, int has_bias) {
  layer_t layer = {.values = take(call)};
  layer.scale = take(call);
  if (has_bias) layer.bias = take(call);
  return layer;
}

static void run_inverted_forward(call_t *call) {
  inverted_t branch = inverted_of(call);
  const float *x = take(call);
  branch.expand = take_layer(call, 1);
  branch.middle = take_layer(call, 1);
  branch.project = take_layer(call, 1);
  const float *addend = take(call);
  float *y = take(call);
  branch.expand.bits = take(call);
  branch.middle.bits = take(call);
  inverted_forward(&branch, x, addend, y, take(call));
}

static void run_inverted_backward(call_t *call) {
  inverted_t branch = inverted_of(call);
  const float *grad = take(call);
  branch.expand = take_layer(call, 0);
  branch.middle = take_layer(call, 0);
  branch.project = take_layer(call, 0);
  const float *addend = take(call);
  float *grad_x = take(call);
  branch.expand.bits = take(call);
  branch.middle.bits = take(call);
  branch.expand.bias_grad = take(call);
  branch.middle.bias_grad = take(call);
  inverted_backward(&branch, grad, addend, grad_x, take(call));
}

static void run_convolve(call_t *call) {
  const convolution_t shape = convolution_of(call);
  const float *x = take(call);
  const matrix_t weights = take_trained(call);
  const epilogue_t epilogue = {.bias = take(call)};
  float *y = take(call);
  convolve(&shape, x, NULL, &weights, y, &epilogue, take(call));
}

static void run_input_gradient(call_t *call) {
  const convolution_t shape = convolution_of(call);
  const float *grad = take(call);
  const matrix_t weights = take_trained(call);
  float *grad_x = take(call);
  convolution_input_gradient(&shape, grad, &weights, grad_x, take(call));
}

static void run_weight_gradient(call_t *call) {
  const convolution_t shape = convolution_of(call);
  const float *grad = take(call), *x = take(call);
  float *grad_weights = take(call);
  convolution_weight_gradient(&shape, grad, x, grad_weights, take(call));
}

static norm_t take_norm(call_t *call) {
  const op_t *op = call->op;
  norm_t norm = {.images = call->images,
                 .positions = positions_of(op),
                 .channels = (int)op->in_channels,
                 .limit = limit_of(op),
                 .eps = op->value};
  norm.gain = take(call);
  norm.bias = take(call);
  return norm;
}

static void run_group_norm(call_t *call) {
  const float *x = take(call);
  const norm_t norm = take_norm(call);
  float *y = take(call);
  group_norm(&norm, x, y, take(call));
}

static void run_group_norm_backward(call_t *call) {
  const float *x = take(call);
  const norm_t norm = take_norm(call);
  const float *statistics = take(call);
  float *grad = take(call), *grad_gain = take(call);
  group_norm_backward(&norm, x, statistics, grad, grad_gain, take(call));
}

static void run_mean_backward(call_t *call) {
  const op_t *op = call->op;
  const float *grad = take(call);
  const uint8_t *bits = take(call);
  float *sums = take(call);
  const mean_grad_t shape = {call->images, positions_of(op), (int)op->in_channels,
                             op->in_channels};
  mean_backward(&shape, grad, bits, sums, op->flags & ADDS, take(call));
}

/* Behind its first operand. */
static pooled_t take_pooled(call_t *call) {
  const op_t *op = call->op;
  pooled_t shape = {.images = call->images,
                    .positions = positions_of(op),
                    .in_channels = (int)op->in_channels,
                    .out_channels = (int)op->out_channels,
                    .width = (int)op->count};
  shape.weights = take(call);
  shape.scale = take(call);
  return shape;
}

static void run_pooled_forward(call_t *call) {
  const float *x = take(call);
  const pooled_t shape = take_pooled(call);
  epilogue_t epilogue = {.bias = take(call), .limit = limit_of(call->op)};
  float *y = take(call);
  epilogue.bits = take(call);
  pooled_forward(&shape, x, &epilogue, y, take(call));
}

static void run_pooled_backward(call_t *call) {
  const float *grad = take(call);
  const pooled_t shape = take_pooled(call);
  const uint8_t *bits = take(call);
  float *sums = take(call), *grad_x = take(call);
  pooled_backward(&shape, grad, bits, sums, grad_x, take(call));
}

static void run_cross_entropy(call_t *call) {
  trainer_t *trainer = call->trainer;
  const loss_t loss = {call->images, (int)trainer->num_classes, (int)call->op->out_channels,
                       (float)trainer->program.header->label_smoothing, trainer->images};
  const uint16_t *labels = take(call);
  trainer->loss += cross_entropy(&loss, labels, take(call));
}

static void run_adam(call_t *call) {
  const op_t *op = call->op;
  const float *grad = take(call);
  adam_tensor_t tensor = {.count = op->count,
                          .number = op->number,
                          .codes = op->flags & HAS_CODES,
                          .is_bfloat16 = op->flags & IS_BFLOAT16};
  tensor.is_bfloat16 = tensor.is_bfloat16 != 0;
  tensor.values = take(call);
  tensor.first = take(call);
  tensor.second = take(call);
  tensor.first_scales = take(call);
  tensor.second_scales = take(call);
  adam_update(&call->trainer->adam, &tensor, grad);
}

void run_operation(call_t *call) {
  const op_t *op = call->op;
  const resize_t shape = resize_of(call);
  const int images = call->images, channels = (int)op->in_channels, positions = positions_of(op);
  const size_t rows = (size_t)images * (size_t)positions, values = rows * (size_t)channels;
  const float *x, *gate;
  float *grad;
  switch ((enum opcode)op->code) {
  case OP_LOAD_IMAGES: run_load_images(call); break;
  case OP_STEM_FORWARD: stem_forward(call); break;
  case OP_POINTWISE_FORWARD: pointwise_forward(call); break;
  case OP_POINTWISE_BACKWARD: pointwise_backward(call); break;
  case OP_DEPTHWISE_FORWARD: run_depthwise_forward(call); break;
  case OP_DEPTHWISE_BACKWARD: run_depthwise_backward(call); break;
  case OP_INVERTED_FORWARD: run_inverted_forward(call); break;
  case OP_INVERTED_BACKWARD: run_inverted_backward(call); break;
  case OP_POOLED_FORWARD: run_pooled_forward(call); break;
  case OP_POOLED_BACKWARD: run_pooled_backward(call); break;
  case OP_CONVOLVE: run_convolve(call); break;
  case OP_CONVOLUTION_INPUT_GRADIENT: run_input_gradient(call); break;
  case OP_CONVOLUTION_WEIGHT_GRADIENT: run_weight_gradient(call); break;
  case OP_GROUP_NORM: run_group_norm(call); break;
  case OP_GROUP_NORM_BACKWARD: run_group_norm_backward(call); break;
  case OP_AVERAGE_POOL: x = take(call), average_pool(&shape, op->kernel, x, take(call)); break;
  case OP_AVERAGE_POOL_BACKWARD:
    x = take(call), average_pool_backward(&shape, op->kernel, x, take(call));
    break;
  case OP_UPSAMPLE_ADD: x = take(call), upsample_add(&shape, x, take(call)); break;
  case OP_UPSAMPLE_BACKWARD: x = take(call), upsample_backward(&shape, x, take(call)); break;
  case OP_MEAN: x = take(call), mean(images, positions, channels, x, take(call), op->in_channels); break;
  case OP_MEAN_BACKWARD: run_mean_backward(call); break;
  case OP_ADD_COLUMNS: {
    x = take(call);
    const uint8_t *bits = take(call);
    add_columns(rows, channels, x, bits, take(call));
    break;
  }
  case OP_ADD: x = take(call), add(values, x, take(call)); break;
  case OP_COPY: x = take(call), memcpy(take(call), x, 4 * values); break;
  case OP_CLOSE: {
    const uint8_t *bits = take(call);
    keep_some(values, bits, 1, take(call));
    break;
  }
  case OP_KEEP_SOME: {
    const uint8_t *bits = take(call);
    keep_some((size_t)images * (size_t)channels, bits, op->value, take(call));
    break;
  }
  case OP_HARD_SWISH: x = take(call), hard_swish(values, x, take(call)); break;
  case OP_HARD_SWISH_BACKWARD: x = take(call), hard_swish_backward(values, x, take(call)); break;
  case OP_OPEN_GATE:
    gate = take(call), x = take(call);
    open_gate(images, positions, channels, gate, x, take(call));
    break;
  case OP_OPEN_GATE_BACKWARD:
    gate = take(call), x = take(call), grad = take(call);
    open_gate_backward(images, positions, channels, gate, x, grad, take(call));
    break;
  case OP_CROSS_ENTROPY: run_cross_entropy(call); break;
  case OP_ZERO: memset(take(call), 0, 4 * (size_t)op->count); break;
  case OP_ADAM: run_adam(call); break;
  case NUM_OPCODES: break;
  }
}
