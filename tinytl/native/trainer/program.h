/* A program: what tinyfit unrolls a network and its plan into. All numbers little endian.
 *
 * It is a header, sections of records, and the frozen weights, which are read where they lie:
 * mapped, or in flash. Behind them come the initial trained values, which belong into the arena. */
#ifndef PROGRAM_H
#define PROGRAM_H

#include <stddef.h>
#include <stdint.h>

#define PROGRAM_MAGIC "TFPROG\r\n"
#define PROGRAM_VERSION 2
#define MAX_OPERANDS 16
#define NO_BUFFER 0xffff
#define MAX_SIDE 4096
#define MAX_CHANNELS (1 << 16)
#define MAX_BATCH 4096
#define MAX_CLASSES 4096
#define CLASS_NAME_BYTES 256

enum opcode {
#define OPERATION(name) OP_##name,
#define OPERAND(name, access, role)
#include "operations.def"
#undef OPERATION
#undef OPERAND
  NUM_OPCODES
};

enum when { ALWAYS, FIRST_PASS, LAST_PASS }; /* of a segment's micro-batches */
enum clamp { NO_CLAMP, RELU, RELU6 };
enum op_flag {
  IS_BFLOAT16 = 1, /* trained weights are */
  HAS_CODES = 2,   /* moments are codes of 8 bits */
  ADDS = 4,        /* to what is there */
  NO_EXPANSION = 8 /* of an inverted residual */
};

/* One operation; sizes are those of one image. */
typedef struct {
  uint8_t code, when, clamp, flags;
  uint8_t kernel, stride, pad_top, pad_left;
  uint16_t in_size, out_size; /* sides of square maps; of stored images */
  uint32_t in_channels, out_channels, groups;
  float value;           /* eps of a norm; the factor of dropout */
  uint32_t count;        /* values of a tensor; outputs gathered, or channels run, at a time */
  uint32_t number;       /* of the tensor that Adam updates; channels of an inverted residual */
  uint16_t operands[MAX_OPERANDS]; /* buffers, or NO_BUFFER */
} op_t;

/* Where an operand lies, in the arena or among the frozen values; of micro-batch number i,
 * i * stride bytes further on. */
typedef struct {
  uint32_t in_arena, offset, stride, bytes;
} buffer_t;

/* Operations that every micro-batch of a step passes before the next segment. */
typedef struct {
  uint32_t first, count, micro_batch, phase;
} segment_t;
enum phase { TRAINING, EVALUATION };

typedef struct {
  uint32_t offset, bytes, crc; /* offset from the file's start, a multiple of 64 */
} section_t;
enum section { OPS, BUFFERS, SEGMENTS, CLASSES, FROZEN, VALUES, NUM_SECTIONS };

/* Buffers that are filled from outside, or read there. */
enum port {
  TRAIN_LABELS, TRAIN_KEEP,
  EVALUATE_IMAGES, EVALUATE_SCRATCH, EVALUATE_LOGITS,
  NUM_PORTS
};

typedef struct {
  char magic[8];
  uint32_t version, header_crc; /* of the header with this field 0 */
  uint8_t bundle_sha256[32];
  section_t sections[NUM_SECTIONS];
  uint32_t arena_bytes, state_bytes; /* the state is the arena's beginning */
  uint32_t value_bytes;              /* trained values are the state's */
  uint32_t resolution, image_size, batch_size;
  uint32_t num_classes, max_classes, num_features;
  uint32_t classifier_bytes, classifier, classifier_bias; /* of a class; offsets in the arena */
  uint32_t seed, horizontal_flip;
  uint32_t fit, transparency; /* how pictures became squares, for whoever makes a store of them */
  uint16_t ports[NUM_PORTS];
  uint16_t unused[3]; /* so that doubles are aligned */
  double learning_rate, label_smoothing, dropout_rate, min_crop_scale;
  double pixel_mean[3], pixel_deviation[3]; /* of each channel, in 0..1 */
} header_t;

_Static_assert(sizeof(op_t) == 68, "written by tinytl.native.formats.program_file");
_Static_assert(sizeof(header_t) == 280, "written by tinytl.native.formats.program_file");

/* A program whose sections have been checked. */
typedef struct {
  const header_t *header;
  const op_t *ops;
  const buffer_t *buffers;
  const segment_t *segments;
  const uint8_t *classes, *frozen;
  uint32_t num_ops, num_buffers, num_segments;
} program_t;

/* Bytes of the file that the trainer reads where they lie. Checks the header alone, of which
 * sizeof(header_t) bytes must be there. Returns NULL, or what is wrong. */
const char *check_header(const header_t *header, uint64_t file_bytes, size_t *mapped_bytes);

/* Opens a program of which mapped_bytes lie at `base`. NULL, or what is wrong. */
const char *open_program(program_t *program, const void *base, size_t mapped_bytes);

/* A class's name; returns its length. */
int class_name(const program_t *program, uint32_t number, const char **name);

#endif
