/* The store of images on the device: squares of pixels with their labels, which `add` appends to.
 *
 * A preamble that never changes, two copies of the table (how many images there are, and the
 * classes' names) of which the newer one that is whole counts, and the images. An image is written
 * before the table that counts it, so that a stop at any moment loses at most the new image. */
#ifndef STORE_H
#define STORE_H

#include "files.h"
#include "program.h"

#define STORE_MAGIC "TFIMGS\r\n"
#define STORE_VERSION 1

typedef struct {
  char magic[8];
  uint32_t version, image_size, max_classes, crc; /* of the fields before it */
} store_preamble_t;

typedef struct {
  uint64_t sequence;
  uint32_t num_images, num_classes;
  uint32_t names_crc, crc; /* of the fields before it */
} store_table_t;            /* and behind it max_classes names of CLASS_NAME_BYTES */

enum split { TRAIN, VALIDATION, TEST, NUM_SPLITS };

typedef struct {
  uint32_t crc; /* of the fields that follow, and the pixels */
  uint16_t label;
  uint8_t split, unused;
} image_header_t; /* and behind it the pixels (image_size, image_size, 3) */

typedef struct {
  file_t file;
  store_preamble_t preamble;
  store_table_t table;
} store_t;

/* What is wrong with a preamble or table, or NULL. */
const char *check_preamble(const store_preamble_t *preamble);
const char *check_table(const store_table_t *table, uint32_t max_classes);

store_t open_store(const char *path, int may_write);

/* Stops where the image is damaged. */
image_header_t read_image(const store_t *store, uint32_t number, uint8_t *pixels);
/* The header alone, unchecked against the pixels. */
image_header_t read_image_header(const store_t *store, uint32_t number);

/* A class's name, of at most CLASS_NAME_BYTES - 1 bytes; returns its length. */
int read_class_name(const store_t *store, uint32_t number, char name[CLASS_NAME_BYTES]);

/* An image of the class of this number; where that is num_classes, of a new class of this name. */
void append_image(store_t *store, uint32_t label, const char *new_name, enum split split,
                  const uint8_t *pixels);

#endif
