/* What the commands share: an opened program in its arena, and the views of stored images. */
#ifndef SESSION_H
#define SESSION_H

#include "steps.h"
#include "store.h"

typedef struct {
  trainer_t trainer;
  const header_t *header;
  size_t mapped_bytes;
} session_t;

/* Opens a program; trained values are those it came with. Stops where it is no program. */
session_t open_session(const char *path);

/* The store's images of a split. */
typedef struct {
  store_t store;
  uint32_t *numbers; /* of the images, in the store */
  uint32_t count;
  enum split split;
} images_t;

/* Stops where the store's images are of another size. */
images_t open_images(const session_t *session, const char *path, enum split split);
/* Class names of the store have to be the head's, in its order; with may_add, the head grows by
 * those that are new, as far as there is room. */
void match_classes(session_t *session, const images_t *images, int may_add);
/* Those of another split of the same store. */
images_t other_split(const images_t *images, enum split split);

/* Names the store's images with their labels and splits. */
uint32_t crc_of_images(const images_t *images);

/* A batch of the split's images, by their numbers in it. epoch: of all runs. */
typedef struct {
  session_t *session;
  const images_t *images;
  uint32_t epoch;
  const uint32_t *numbers;
} batch_t;

/* A load_images_t: each image cropped and mirrored at random, as its number and the epoch say. */
void load_training_views(void *batch, int first, int count, uint8_t *views, uint8_t *scratch);
/* Labels of a batch's images and their dropout, to the ports. */
void load_labels(const batch_t *batch, int count);
/* The whole image to the evaluation's port; returns its label. */
uint32_t load_evaluation_view(session_t *session, const images_t *images, uint32_t index);
/* Where the pixels of an image to predict are put, and then seen. */
uint8_t *pixels_to_predict(session_t *session);
void view_pixels(session_t *session);

/* The share of images that are classified right. */
double accuracy_of(session_t *session, const images_t *images);

#endif
