#include "program.h"

#include <string.h>

#include "augment.h"
#include "crc32.h"
#include "kernels/adam.h"
#include "kernels/convolution.h"
#include "kernels/depthwise.h"
#include "kernels/inverted.h"
#include "kernels/norm.h"

enum access { READ, WRITE, UPDATE, OPTIONAL_READ, OPTIONAL_WRITE, OPTIONAL_UPDATE };

enum role {
  PIXELS, IN_MAP, OUT_MAP, IN_BITS, OUT_BITS, IN_FLOATS, OUT_FLOATS, IN_ROWS, OUT_ROWS,
  IN_ROW_BITS, LABELS, GROUP_PAIRS, INT8_WEIGHTS, WEIGHTS, WEIGHT_FLOATS, STEM_SCRATCH,
  PRODUCT_SCRATCH, CONVOLUTION_SCRATCH, DEPTHWISE_IN_SCRATCH, DEPTHWISE_OUT_SCRATCH, COUNT_FLOATS,
  COUNT_VALUES, COUNT_MOMENTS, COUNT_SCALES, EXPAND_WEIGHTS, MIDDLE_WEIGHTS, PROJECT_WEIGHTS,
  MIDDLE_FLOATS, EXPAND_BITS, MIDDLE_BITS, INVERTED_SCRATCH, POOLED_SCRATCH,
  LOAD_SCRATCH,
};

typedef struct {
  uint8_t opcode, access, role;
} rule_t;

static const rule_t RULES[] = {
#define OPERATION(name) {OP_##name, 0, 255},
#define OPERAND(name, access, role) {255, access, role},
#include "operations.def"
#undef OPERATION
#undef OPERAND
};
#define NUM_RULES ((int)(sizeof RULES / sizeof *RULES))

/* What an operand of this role has to have for so many images. Factors are bounded by
 * check_sizes, so that nothing overflows. */
static uint64_t operand_bytes(const op_t *op, enum role role, uint64_t images) {
  const uint64_t in = op->in_channels, out = op->out_channels;
  const uint64_t in_area = (uint64_t)op->in_size * op->in_size;
  const uint64_t out_area = (uint64_t)op->out_size * op->out_size;
  const uint64_t middle = op->number, side = op->in_size > op->out_size ? op->in_size
                                                                         : op->out_size;
  const uint64_t taps = in / op->groups * op->kernel * op->kernel;
  switch (role) {
  case PIXELS: return images * in_area * in;
  case IN_MAP: return 4 * images * in_area * in;
  case OUT_MAP: return 4 * images * out_area * out;
  case IN_BITS: return images * in_area * in / 8;
  case OUT_BITS: return images * out_area * out / 8;
  case IN_FLOATS: return 4 * in;
  case OUT_FLOATS: return 4 * out;
  case IN_ROWS: return 4 * images * in;
  case OUT_ROWS: return 4 * images * out;
  case IN_ROW_BITS: return images * in / 8;
  case LABELS: return 2 * images;
  case GROUP_PAIRS: return 8 * images * op->groups;
  case INT8_WEIGHTS: return out * taps;
  case WEIGHTS: return out * taps * (op->flags & IS_BFLOAT16 ? 2 : 4);
  case WEIGHT_FLOATS: return 4 * out * taps;
  case STEM_SCRATCH:
    return 4 * (CONVOLUTION_SCRATCH_FLOATS(op->count, taps) + PIXEL_TABLE_FLOATS);
  case PRODUCT_SCRATCH: return 4 * PACKED_FLOATS;
  case CONVOLUTION_SCRATCH: return 4 * (uint64_t)CONVOLUTION_SCRATCH_FLOATS(op->count, taps);
  case DEPTHWISE_IN_SCRATCH: return 4 * (uint64_t)DEPTHWISE_SCRATCH_FLOATS(op->in_size);
  case DEPTHWISE_OUT_SCRATCH: return 4 * (uint64_t)DEPTHWISE_SCRATCH_FLOATS(op->out_size);
  case COUNT_FLOATS: return 4 * (uint64_t)op->count;
  case COUNT_VALUES: return (uint64_t)op->count * (op->flags & IS_BFLOAT16 ? 2 : 4);
  case COUNT_MOMENTS: return (uint64_t)op->count * (op->flags & HAS_CODES ? 1 : 4);
  case COUNT_SCALES: return 4 * (((uint64_t)op->count + ADAM_BLOCK - 1) / ADAM_BLOCK);
  case EXPAND_WEIGHTS: return middle * in;
  case MIDDLE_WEIGHTS: return middle * op->kernel * op->kernel;
  case PROJECT_WEIGHTS: return out * middle;
  case MIDDLE_FLOATS: return 4 * middle;
  case EXPAND_BITS: return images * in_area * middle / 8;
  case MIDDLE_BITS: return images * out_area * middle / 8;
  case INVERTED_SCRATCH:
    return 4 * (PACKED_FLOATS + DEPTHWISE_SCRATCH_FLOATS((uint64_t)side) +
                images * op->count * (out_area + (op->flags & NO_EXPANSION ? 0 : in_area)));
  case POOLED_SCRATCH: return 4 * (PACKED_FLOATS + images * in_area * op->count);
  case LOAD_SCRATCH: return LOAD_SCRATCH_BYTES(op->out_size, op->in_size);
  }
  return UINT64_MAX;
}

/* Whether a convolution's output reads no further beyond its input than its kernel reaches. */
static int is_padded(const op_t *op, int pad) {
  const int end = (op->out_size - 1) * op->stride - pad + op->kernel;
  return pad < op->kernel && end < op->in_size + op->kernel && end > op->in_size - op->stride;
}

static const char *check_convolution(const op_t *op) {
  if (op->kernel < 1 || op->stride < 1 || op->stride > 2) return "a kernel or stride is unknown";
  if (op->out_size < 1 || !is_padded(op, op->pad_top) || !is_padded(op, op->pad_left))
    return "a convolution's sizes do not fit";
  if (op->in_channels % op->groups || op->out_channels % op->groups)
    return "a convolution's groups do not fit";
  return NULL;
}

static const char *check_sizes(const op_t *op) {
  if (op->groups < 1 || op->in_size < 1 || op->in_size > MAX_SIDE || op->out_size > MAX_SIDE ||
      op->in_channels > MAX_CHANNELS || op->out_channels > MAX_CHANNELS || op->kernel > 31 ||
      op->when > LAST_PASS || op->clamp > RELU6)
    return "an operation's size is out of range";
  switch (op->code) {
  case OP_DEPTHWISE_FORWARD:
  case OP_DEPTHWISE_BACKWARD:
    if (op->groups != op->in_channels || op->in_channels != op->out_channels ||
        (op->kernel != 1 && op->kernel != 3 && op->kernel != 5 && op->kernel != 7) ||
        op->in_channels % 8 || op->pad_top > 4 || op->pad_left > 4)
      return "a depthwise convolution is of an unknown kind";
    return check_convolution(op);
  case OP_POINTWISE_FORWARD:
  case OP_POINTWISE_BACKWARD:
    if (op->kernel != 1 || op->groups != 1 || op->in_size != op->out_size ||
        op->in_channels % 8 || op->out_channels % 8)
      return "a pointwise convolution is of an unknown kind";
    return NULL;
  case OP_INVERTED_FORWARD:
  case OP_INVERTED_BACKWARD:
    if ((op->kernel != 1 && op->kernel != 3 && op->kernel != 5 && op->kernel != 7) ||
        op->groups != 1 || op->in_channels % 8 || op->out_channels % 8 || op->number % 8 ||
        op->number < 8 || op->number > MAX_CHANNELS || op->count % 8 || op->count < 8 ||
        op->count > MAX_CHANNELS || op->clamp == NO_CLAMP || op->pad_top > 4 || op->pad_left > 4)
      return "an inverted residual is of an unknown kind";
    return check_convolution(op);
  case OP_POOLED_FORWARD:
  case OP_POOLED_BACKWARD:
    if (op->kernel != 1 || op->groups != 1 || op->in_size != op->out_size ||
        op->in_channels % 8 || op->out_channels % 8 || op->count % 8 || op->count < 8 ||
        op->count > MAX_CHANNELS)
      return "a pooled convolution is of an unknown kind";
    return NULL;
  case OP_STEM_FORWARD:
    if (op->in_channels != 3 || op->groups != 1 || op->out_channels % 8 || op->count < 1)
      return "the first convolution is of an unknown kind";
    return check_convolution(op);
  case OP_CONVOLVE:
  case OP_CONVOLUTION_INPUT_GRADIENT:
  case OP_CONVOLUTION_WEIGHT_GRADIENT:
    if (op->count < 1 || op->count > 1 << 16) return "a convolution gathers too much";
    if (op->operands[2] != NO_BUFFER && op->code == OP_CONVOLVE && op->groups != 1)
      return "a convolution of groups has a bias";
    return check_convolution(op);
  case OP_GROUP_NORM:
  case OP_GROUP_NORM_BACKWARD:
    if (op->in_channels % GROUP_CHANNELS || op->groups != op->in_channels / GROUP_CHANNELS)
      return "a norm's groups are not of 8 channels";
    return NULL;
  case OP_AVERAGE_POOL:
  case OP_AVERAGE_POOL_BACKWARD:
    if (op->in_channels != op->out_channels || op->kernel < 1 ||
        op->out_size * op->kernel > op->in_size)
      return "a pooling's sizes do not fit";
    return NULL;
  case OP_UPSAMPLE_ADD:
  case OP_UPSAMPLE_BACKWARD:
    if (op->in_channels != op->out_channels || op->out_size < 1)
      return "an upsampling's sizes do not fit";
    return NULL;
  case OP_MEAN_BACKWARD:
  case OP_CLOSE:
  case OP_KEEP_SOME:
    return op->in_channels % 8 ? "an operation's channels do not fit" : NULL;
  case OP_ADD_COLUMNS:
    return op->in_channels % 8 && op->operands[1] != NO_BUFFER
               ? "an operation's channels do not fit"
               : NULL;
  }
  return NULL;
}

static uint32_t alignment(enum role role) {
  switch (role) {
  case PIXELS:
  case IN_BITS:
  case OUT_BITS:
  case IN_ROW_BITS:
  case EXPAND_BITS:
  case MIDDLE_BITS:
  case EXPAND_WEIGHTS:
  case MIDDLE_WEIGHTS:
  case PROJECT_WEIGHTS:
  case INT8_WEIGHTS: return 1;
  case LABELS:
  case WEIGHTS:
  case COUNT_VALUES: return 2;
  default: return 4;
  }
}

static const char *check_buffer(const program_t *program, uint16_t number, uint64_t bytes,
                                uint32_t aligned, int is_written) {
  if (number >= program->num_buffers) return "an operation names a buffer that is not there";
  const buffer_t *buffer = &program->buffers[number];
  if (bytes > buffer->bytes) return "an operand is larger than its buffer";
  if (buffer->stride % aligned) return "a micro-batch is not aligned";
  if (is_written && !buffer->in_arena) return "an operation writes over the program";
  return NULL;
}

static const char *check_operands(const program_t *program, const op_t *op, uint32_t images) {
  int rule = 0, slot = 0;
  while (RULES[rule].opcode != op->code) rule++;
  for (rule++; rule < NUM_RULES && RULES[rule].opcode == 255; rule++, slot++) {
    const enum access access = (enum access)RULES[rule].access;
    const uint16_t number = op->operands[slot];
    if (number == NO_BUFFER) {
      if (access < OPTIONAL_READ) return "an operation lacks an operand";
      continue;
    }
    const enum role role = (enum role)RULES[rule].role;
    const char *wrong = check_buffer(program, number, operand_bytes(op, role, images),
                                     alignment(role), access != READ && access != OPTIONAL_READ);
    if (wrong) return wrong;
  }
  if (op->code == OP_ADAM && (op->flags & HAS_CODES) &&
      (op->operands[4] == NO_BUFFER || op->operands[5] == NO_BUFFER))
    return "codes of moments lack their scales";
  if (op->code == OP_LOAD_IMAGES &&
      (op->in_channels != 3 || op->in_size != program->header->resolution ||
       op->out_size != program->header->image_size))
    return "images are loaded in another size";
  if (op->code == OP_INVERTED_FORWARD || op->code == OP_INVERTED_BACKWARD) {
    const int has_expansion = op->operands[1] != NO_BUFFER;
    const int is_whole = op->operands[2] != NO_BUFFER &&
                         (op->code == OP_INVERTED_FORWARD ? op->operands[3] != NO_BUFFER
                                                          : op->operands[9] != NO_BUFFER);
    if (has_expansion != !(op->flags & NO_EXPANSION) ||
        (has_expansion ? !is_whole : op->in_channels != op->number))
      return "an inverted residual lacks its expansion";
  }
  if (op->code == OP_CROSS_ENTROPY && op->out_channels != program->header->max_classes)
    return "the loss is of another number of classes";
  return NULL;
}

static const char *check_buffers(const program_t *program) {
  const header_t *header = program->header;
  for (uint32_t i = 0; i < program->num_buffers; i++) {
    const buffer_t *buffer = &program->buffers[i];
    const uint64_t room =
        buffer->in_arena ? header->arena_bytes : header->sections[FROZEN].bytes;
    if (buffer->offset % 4 || (uint64_t)buffer->offset + buffer->bytes > room)
      return "a buffer lies outside the memory";
  }
  return NULL;
}

static const char *check_segment(const program_t *program, const segment_t *segment) {
  const header_t *header = program->header;
  if ((uint64_t)segment->first + segment->count > program->num_ops || segment->micro_batch < 1 ||
      segment->micro_batch > header->batch_size || segment->phase > EVALUATION)
    return "a segment of operations is out of range";
  const uint32_t passes = (header->batch_size + segment->micro_batch - 1) / segment->micro_batch;
  for (uint32_t i = segment->first; i < segment->first + segment->count; i++) {
    const op_t *op = &program->ops[i];
    if (op->code >= NUM_OPCODES) return "an operation is unknown";
    const char *wrong = check_sizes(op);
    if (!wrong) wrong = check_operands(program, op, segment->micro_batch);
    if (wrong) return wrong;
    for (int slot = 0; slot < MAX_OPERANDS && segment->phase == TRAINING; slot++) {
      const uint16_t number = op->operands[slot];
      if (number == NO_BUFFER || number >= program->num_buffers) continue;
      const buffer_t *buffer = &program->buffers[number];
      const uint64_t room =
          buffer->in_arena ? header->arena_bytes : header->sections[FROZEN].bytes;
      if (buffer->offset + (uint64_t)buffer->stride * (passes - 1) + buffer->bytes > room)
        return "a micro-batch lies outside the memory";
    }
  }
  return NULL;
}

static const char *check_ports(const program_t *program) {
  const header_t *header = program->header;
  const uint64_t area = (uint64_t)header->resolution * header->resolution;
  const uint64_t loading = LOAD_SCRATCH_BYTES(header->image_size, header->resolution);
  const struct {
    enum port port;
    uint64_t bytes;
    uint32_t aligned;
  } needs[] = {
      {TRAIN_LABELS, 2 * (uint64_t)header->batch_size, 2},
      {EVALUATE_IMAGES, 3 * area, 1},
      {EVALUATE_SCRATCH, loading, 4},
      {EVALUATE_LOGITS, 4 * (uint64_t)header->max_classes, 4},
      {TRAIN_KEEP, (uint64_t)header->batch_size * header->num_features / 8, 1},
  };
  for (size_t i = 0; i < sizeof needs / sizeof *needs; i++) {
    const uint16_t number = header->ports[needs[i].port];
    if (needs[i].port == TRAIN_KEEP && number == NO_BUFFER && !(header->dropout_rate > 0)) continue;
    const char *wrong = check_buffer(program, number, needs[i].bytes, needs[i].aligned, 1);
    if (wrong) return wrong;
  }
  return NULL;
}

static const char *check_classes(const program_t *program) {
  const section_t *section = &program->header->sections[CLASSES];
  uint32_t at = 0;
  for (uint32_t i = 0; i < program->header->num_classes; i++) {
    if (at >= section->bytes) return "names of classes are missing";
    at += 1u + program->classes[at];
  }
  return at == section->bytes ? NULL : "names of classes are of another length";
}

static int is_between(double value, double least, double most) {
  return value >= least && value <= most; /* false for what is no number */
}

static const char *check_settings(const header_t *header) {
  const uint64_t rows = (uint64_t)header->max_classes - header->num_classes;
  if (header->resolution < 1 || header->resolution > MAX_SIDE || header->image_size < 1 ||
      header->image_size > MAX_SIDE || header->batch_size < 1 || header->batch_size > MAX_BATCH ||
      header->num_classes < 2 || header->max_classes < header->num_classes ||
      header->max_classes > MAX_CLASSES || header->num_features > MAX_CHANNELS)
    return "a size is out of range";
  if (!is_between(header->learning_rate, 0, 1e9) || !is_between(header->label_smoothing, 0, 1) ||
      !is_between(header->dropout_rate, 0, 0.999) || !is_between(header->min_crop_scale, 1e-9, 1))
    return "a setting is out of range";
  for (int channel = 0; channel < 3; channel++)
    if (!is_between(header->pixel_mean[channel], -1e3, 1e3) ||
        !is_between(header->pixel_deviation[channel], 1e-6, 1e3))
      return "a normalization is out of range";
  if (RESIZE_TAPS(header->image_size, header->resolution) > MAX_RESIZE_TAPS)
    return "images are stored far too large";
  if (header->state_bytes > header->arena_bytes || header->value_bytes > header->state_bytes ||
      header->sections[VALUES].bytes != header->value_bytes)
    return "the state does not fit the arena";
  if ((uint64_t)header->classifier + (uint64_t)header->max_classes * header->classifier_bytes >
          header->value_bytes ||
      header->classifier_bias % 4 ||
      (uint64_t)header->classifier_bias + 4 * (uint64_t)header->max_classes > header->value_bytes ||
      rows * CLASS_NAME_BYTES > header->state_bytes - header->value_bytes)
    return "the classifier does not fit the arena";
  return NULL;
}

const char *check_header(const header_t *header, uint64_t file_bytes, size_t *mapped_bytes) {
  header_t copy;
  memcpy(&copy, header, sizeof copy);
  if (memcmp(copy.magic, PROGRAM_MAGIC, sizeof copy.magic) != 0) return "it is no program";
  if (copy.version != PROGRAM_VERSION) return "it is of another version than this trainer";
  copy.header_crc = 0;
  if (crc32(0, &copy, sizeof copy) != header->header_crc) return "its header is damaged";
  uint64_t at = sizeof *header;
  for (int i = 0; i < NUM_SECTIONS; i++) {
    const section_t *section = &copy.sections[i];
    if (section->offset % 64 || section->offset < at) return "its sections overlap";
    at = (uint64_t)section->offset + section->bytes;
    if (i == FROZEN) *mapped_bytes = (size_t)at;
  }
  if (at != file_bytes) return file_bytes < at ? "it is cut off" : "something follows it";
  return check_settings(&copy);
}

const char *open_program(program_t *program, const void *base, size_t mapped_bytes) {
  const uint8_t *bytes = base;
  const header_t *header = base;
  const section_t *sections = header->sections;
  for (int i = 0; i <= FROZEN; i++) {
    if ((uint64_t)sections[i].offset + sections[i].bytes > mapped_bytes) return "it is cut off";
    if (crc32(0, bytes + sections[i].offset, sections[i].bytes) != sections[i].crc)
      return "it is damaged";
  }
  *program = (program_t){
      .header = header,
      .ops = (const op_t *)(bytes + sections[OPS].offset),
      .buffers = (const buffer_t *)(bytes + sections[BUFFERS].offset),
      .segments = (const segment_t *)(bytes + sections[SEGMENTS].offset),
      .classes = bytes + sections[CLASSES].offset,
      .frozen = bytes + sections[FROZEN].offset,
      .num_ops = sections[OPS].bytes / sizeof(op_t),
      .num_buffers = sections[BUFFERS].bytes / sizeof(buffer_t),
      .num_segments = sections[SEGMENTS].bytes / sizeof(segment_t),
  };
  const char *wrong = check_buffers(program);
  for (uint32_t i = 0; i < program->num_segments && !wrong; i++)
    wrong = check_segment(program, &program->segments[i]);
  if (!wrong) wrong = check_ports(program);
  return wrong ? wrong : check_classes(program);
}

int class_name(const program_t *program, uint32_t number, const char **name) {
  const uint8_t *next = program->classes;
  while (number--) next += 1 + *next;
  *name = (const char *)next + 1;
  return *next;
}
