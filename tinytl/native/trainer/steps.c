#include "steps.h"

#include <string.h>

#include "operations.h"

static void run_segments(trainer_t *trainer, enum phase phase, int images) {
  const program_t *program = &trainer->program;
  for (uint32_t s = 0; s < program->num_segments; s++) {
    const segment_t *segment = &program->segments[s];
    if (segment->phase != phase) continue;
    const int size = (int)segment->micro_batch;
    for (int first = 0, pass = 0; first < images; first += size, pass++) {
      const int is_last = first + size >= images;
      for (uint32_t i = segment->first; i < segment->first + segment->count; i++) {
        const op_t *op = &program->ops[i];
        if ((op->when == FIRST_PASS && pass > 0) || (op->when == LAST_PASS && !is_last)) continue;
        call_t call = {trainer, op, (uint32_t)pass, size, is_last ? images - first : size, 0};
        run_operation(&call);
      }
    }
  }
}

const char *open_trainer(trainer_t *trainer, const void *program, size_t mapped_bytes, void *arena,
                         size_t arena_bytes) {
  memset(trainer, 0, sizeof *trainer);
  const char *wrong = open_program(&trainer->program, program, mapped_bytes);
  if (wrong) return wrong;
  const header_t *header = trainer->program.header;
  if (arena_bytes < header->arena_bytes) return "the arena is too small for it";
  trainer->arena = arena;
  trainer->num_classes = header->num_classes;
  return NULL;
}

void reset_state(trainer_t *trainer) {
  const header_t *header = trainer->program.header;
  memset(trainer->arena + header->value_bytes, 0, header->state_bytes - header->value_bytes);
  trainer->num_classes = header->num_classes;
  trainer->num_steps = 0;
}

void *port(const trainer_t *trainer, enum port number) {
  return address(trainer, trainer->program.header->ports[number], 0);
}

void set_images(trainer_t *trainer, load_images_t *load, void *context) {
  trainer->load_images = load;
  trainer->load_context = context;
}

double train_step(trainer_t *trainer, int images, double learning_rate) {
  trainer->images = images;
  trainer->loss = 0;
  trainer->num_steps++;
  trainer->adam =
      adam_step(learning_rate, trainer->program.header->seed, trainer->num_steps);
  run_segments(trainer, TRAINING, images);
  return trainer->loss;
}

float *evaluate_image(trainer_t *trainer) {
  run_segments(trainer, EVALUATION, 1);
  return port(trainer, EVALUATE_LOGITS);
}

/* Names of added classes are the state's end: length, then the characters. */
static char *added_name(const trainer_t *trainer, uint32_t number) {
  const header_t *header = trainer->program.header;
  const uint32_t room = (header->max_classes - header->num_classes) * CLASS_NAME_BYTES;
  return (char *)trainer->arena + header->state_bytes - room +
         (size_t)(number - header->num_classes) * CLASS_NAME_BYTES;
}

int name_of_class(const trainer_t *trainer, uint32_t number, const char **name) {
  if (number < trainer->program.header->num_classes)
    return class_name(&trainer->program, number, name);
  const char *added = added_name(trainer, number);
  *name = added + 1;
  return (uint8_t)*added;
}

/* A vector of the classifier's values: the mean of those of the classes before. */
static void set_mean(uint8_t *first, size_t bytes, uint32_t number, int is_bfloat16) {
  const size_t size = is_bfloat16 ? 2 : 4;
  for (size_t at = 0; at < bytes; at += size) {
    double sum = 0;
    for (uint32_t k = 0; k < number; k++) {
      uint32_t bits = 0;
      memcpy((uint8_t *)&bits + 4 - size, first + k * bytes + at, size);
      float value;
      memcpy(&value, &bits, 4);
      sum += (double)value;
    }
    const float mean_ = (float)(sum / number);
    memcpy(first + number * bytes + at, (const uint8_t *)&mean_ + 4 - size, size);
  }
}

int add_class(trainer_t *trainer, const char *name, int length) {
  const header_t *header = trainer->program.header;
  const uint32_t number = trainer->num_classes;
  if (number >= header->max_classes || length < 1 || length >= CLASS_NAME_BYTES) return 0;
  char *added = added_name(trainer, number);
  *added = (char)length;
  memcpy(added + 1, name, (size_t)length);
  set_mean(trainer->arena + header->classifier, header->classifier_bytes, number,
           header->classifier_bytes < 4 * header->num_features);
  set_mean(trainer->arena + header->classifier_bias, 4, number, 0);
  trainer->num_classes++;
  return 1;
}
