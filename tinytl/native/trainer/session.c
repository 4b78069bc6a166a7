#include "session.h"

#include <string.h>

#include "augment.h"
#include "crc32.h"
#include "kernels/loss.h"

session_t open_session(const char *path) {
  session_t session;
  header_t header;
  const file_t file = open_file(path, 0);
  const uint64_t bytes = file_bytes(file);
  if (bytes < sizeof header) stop(BAD_INPUT, "can't read '%s': it is no program", path);
  read_at(file, &header, sizeof header, 0);
  const char *wrong = check_header(&header, bytes, &session.mapped_bytes);
  if (wrong) stop(BAD_INPUT, "can't read '%s': %s", path, wrong);
  const section_t *values = &header.sections[VALUES];
  if (crc_of_file(file, values->offset, values->bytes) != values->crc)
    stop(BAD_INPUT, "can't read '%s': it is damaged", path);
  const void *program = map_file(file, session.mapped_bytes);
  void *arena = take_memory(header.arena_bytes);
  wrong = open_trainer(&session.trainer, program, session.mapped_bytes, arena, header.arena_bytes);
  if (wrong) stop(BAD_INPUT, "can't read '%s': %s", path, wrong);
  session.header = session.trainer.program.header;
  read_at(file, arena, header.value_bytes, header.sections[VALUES].offset);
  reset_state(&session.trainer);
  close_file(file);
  return session;
}

void match_classes(session_t *session, const images_t *images, int may_add) {
  trainer_t *trainer = &session->trainer;
  const store_t *store = &images->store;
  const char *path = store->file.path;
  char name[CLASS_NAME_BYTES];
  for (uint32_t i = 0; i < store->table.num_classes; i++) {
    const int length = read_class_name(store, i, name);
    if (i >= trainer->num_classes) {
      if (!may_add) stop(BAD_INPUT, "'%.*s' in '%s' has not been trained", length, name, path);
      if (!add_class(trainer, name, length))
        stop(BAD_INPUT, "there is no room for the class '%.*s': %u have been planned for", length,
             name, session->header->max_classes);
      continue;
    }
    const char *known;
    const int known_length = name_of_class(trainer, i, &known);
    if (length != known_length || memcmp(name, known, (size_t)length) != 0)
      stop(BAD_INPUT, "class %u of '%s' is '%.*s', but the program's is '%.*s'", i, path, length,
           name, known_length, known);
  }
}

static images_t select_split(store_t store, enum split split) {
  images_t images = {.store = store, .split = split};
  images.numbers = take_memory(4 * (size_t)store.table.num_images);
  for (uint32_t i = 0; i < store.table.num_images; i++)
    if (read_image_header(&store, i).split == split) images.numbers[images.count++] = i;
  return images;
}

images_t open_images(const session_t *session, const char *path, enum split split) {
  const store_t store = open_store(path, 0);
  if (store.preamble.image_size != session->header->image_size)
    stop(BAD_INPUT, "the images of '%s' are %u pixels on a side, but the program's are %u", path,
         store.preamble.image_size, session->header->image_size);
  return select_split(store, split);
}

images_t other_split(const images_t *images, enum split split) {
  return select_split(images->store, split);
}

uint32_t crc_of_images(const images_t *images) {
  uint32_t crc = 0;
  for (uint32_t i = 0; i < images->store.table.num_images; i++) {
    const image_header_t header = read_image_header(&images->store, i);
    crc = crc32(crc, &header, sizeof header);
  }
  return crc;
}

/* Scratch memory begins with the stored image; what resizing takes follows. */
static uint8_t *after_image(const session_t *session, uint8_t *scratch) {
  const size_t side = session->header->image_size;
  return scratch + (3 * side * side + 3) / 4 * 4;
}

static crop_t whole_image(const session_t *session) {
  const int side = (int)session->header->image_size;
  return (crop_t){0, 0, side, side};
}

void load_training_views(void *context, int first, int count, uint8_t *views, uint8_t *scratch) {
  const batch_t *batch = context;
  const header_t *header = batch->session->header;
  const int side = (int)header->image_size, resolution = (int)header->resolution;
  for (int i = first; i < first + count; i++, views += 3 * (size_t)(resolution * resolution)) {
    const uint32_t number = batch->numbers[i];
    read_image(&batch->images->store, batch->images->numbers[number], scratch);
    const uint32_t entropy[3] = {header->seed, batch->epoch, number};
    pcg64_t rng;
    pcg64_seed(&rng, entropy, 3);
    const crop_t crop = random_crop(&rng, side, header->min_crop_scale);
    const int mirrored = header->horizontal_flip && pcg64_random(&rng) < 0.5;
    resize(scratch, side, crop, mirrored, resolution, after_image(batch->session, scratch), views);
  }
}

void load_labels(const batch_t *batch, int count) {
  const header_t *header = batch->session->header;
  uint16_t *labels = port(&batch->session->trainer, TRAIN_LABELS);
  uint8_t *keep = port(&batch->session->trainer, TRAIN_KEEP);
  for (int i = 0; i < count; i++) {
    const uint32_t number = batch->numbers[i];
    labels[i] = read_image_header(&batch->images->store, batch->images->numbers[number]).label;
    if (!keep) continue;
    const uint32_t entropy[4] = {header->seed, batch->epoch, number, 1};
    pcg64_t rng;
    pcg64_seed(&rng, entropy, 4);
    memset(keep, 0, header->num_features / 8);
    for (uint32_t k = 0; k < header->num_features; k++)
      if (pcg64_random(&rng) >= header->dropout_rate) keep[k / 8] |= (uint8_t)(1u << (k % 8));
    keep += header->num_features / 8;
  }
}

uint8_t *pixels_to_predict(session_t *session) {
  return port(&session->trainer, EVALUATE_SCRATCH);
}

void view_pixels(session_t *session) {
  const trainer_t *trainer = &session->trainer;
  uint8_t *scratch = pixels_to_predict(session);
  resize(scratch, (int)session->header->image_size, whole_image(session), 0,
         (int)session->header->resolution, after_image(session, scratch),
         port(trainer, EVALUATE_IMAGES));
}

uint32_t load_evaluation_view(session_t *session, const images_t *images, uint32_t index) {
  uint8_t *pixels = pixels_to_predict(session);
  const uint32_t label = read_image(&images->store, images->numbers[index], pixels).label;
  view_pixels(session);
  return label;
}

double accuracy_of(session_t *session, const images_t *images) {
  uint32_t right = 0;
  for (uint32_t i = 0; i < images->count; i++) {
    const uint32_t label = load_evaluation_view(session, images, i);
    float *logits = evaluate_image(&session->trainer);
    right += (uint32_t)softmax((int)session->trainer.num_classes, logits) == label;
  }
  return images->count ? (double)right / images->count : 0;
}
