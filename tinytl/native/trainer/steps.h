/* A program at work in an arena: the trainer's heart, which knows no files.
 *
 * Firmware links this (with program.h to open a program in flash) and hands it an arena; the
 * commands of main.c are made of the same calls. Nothing is allocated. */
#ifndef STEPS_H
#define STEPS_H

#include "kernels/adam.h"
#include "program.h"

/* Puts `count` images (resolution, resolution, 3) of the step's batch, from number `first` on, into
 * `images`. scratch: LOAD_SCRATCH_BYTES of augment.h. A step may ask for an image twice. */
typedef void load_images_t(void *context, int first, int count, uint8_t *images,
                           uint8_t *scratch);

typedef struct {
  program_t program;
  uint8_t *arena;
  uint32_t num_classes; /* that the head tells apart; max_classes have room */
  uint32_t num_steps;   /* updates that there have been */
  load_images_t *load_images;
  void *load_context;
  /* of the step that is under way: */
  int images;
  adam_step_t adam;
  double loss;
} trainer_t;

/* arena: of at least header->arena_bytes, aligned to 64. The caller puts trained values (the
 * program's, or a state's) at its beginning; moments are zeroed by reset_state. */
const char *open_trainer(trainer_t *trainer, const void *program, size_t mapped_bytes, void *arena,
                         size_t arena_bytes);

/* Forgets moments and added classes; trained values stay. */
void reset_state(trainer_t *trainer);

/* A buffer that the caller fills or reads; NULL where the program has none. */
void *port(const trainer_t *trainer, enum port number);

/* Where a step's images come from. */
void set_images(trainer_t *trainer, load_images_t *load, void *context);

/* One update from a batch of `images` images, whose labels are in their port. Returns the sum of
 * their losses: where it is not finite, the training has diverged. */
double train_step(trainer_t *trainer, int images, double learning_rate);

/* Logits (num_classes) of the image in its port; they lie in the arena until the next call. */
float *evaluate_image(trainer_t *trainer);

/* The name of any class that the head knows, added ones too; returns its length. */
int name_of_class(const trainer_t *trainer, uint32_t number, const char **name);

/* Room for one more class: its row of the classifier is the mean of the others. 0 where there is
 * none left. */
int add_class(trainer_t *trainer, const char *name, int length);

#endif
