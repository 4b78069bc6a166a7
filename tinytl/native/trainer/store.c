#include "store.h"

#include <string.h>

#include "crc32.h"

const char *check_preamble(const store_preamble_t *preamble) {
  if (memcmp(preamble->magic, STORE_MAGIC, sizeof preamble->magic) != 0)
    return "it is no store of images";
  if (preamble->version != STORE_VERSION) return "it is of another version than this trainer";
  if (crc32(0, preamble, offsetof(store_preamble_t, crc)) != preamble->crc) return "it is damaged";
  if (preamble->image_size < 1 || preamble->image_size > MAX_SIDE || preamble->max_classes < 1 ||
      preamble->max_classes > MAX_CLASSES)
    return "a size is out of range";
  return NULL;
}

const char *check_table(const store_table_t *table, uint32_t max_classes) {
  if (crc32(0, table, offsetof(store_table_t, crc)) != table->crc) return "its table is damaged";
  if (table->num_classes > max_classes) return "it has more classes than it has room for";
  return NULL;
}

static uint64_t names_bytes(const store_t *store) {
  return (uint64_t)store->preamble.max_classes * CLASS_NAME_BYTES;
}

/* Of the table's copy that this sequence number is written to. */
static uint64_t table_offset(const store_t *store, uint64_t sequence) {
  return sizeof(store_preamble_t) + sequence % 2 * (sizeof(store_table_t) + names_bytes(store));
}

static uint64_t pixel_bytes(const store_t *store) {
  return 3 * (uint64_t)store->preamble.image_size * store->preamble.image_size;
}

static uint64_t image_offset(const store_t *store, uint32_t number) {
  return sizeof(store_preamble_t) + 2 * (sizeof(store_table_t) + names_bytes(store)) +
         number * (sizeof(image_header_t) + pixel_bytes(store));
}

static int read_table(const store_t *store, uint64_t copy, store_table_t *table) {
  const uint64_t at = table_offset(store, copy);
  read_at(store->file, table, sizeof *table, at);
  return !check_table(table, store->preamble.max_classes) && table->sequence % 2 == copy &&
         crc_of_file(store->file, at + sizeof *table, names_bytes(store)) == table->names_crc;
}

store_t open_store(const char *path, int may_write) {
  store_t store = {.file = open_file(path, may_write)};
  const uint64_t bytes = file_bytes(store.file);
  if (bytes < sizeof store.preamble) stop(BAD_INPUT, "'%s' is no store of images", path);
  read_at(store.file, &store.preamble, sizeof store.preamble, 0);
  const char *wrong = check_preamble(&store.preamble);
  if (wrong) stop(BAD_INPUT, "can't read '%s': %s", path, wrong);
  if (bytes < image_offset(&store, 0)) stop(BAD_INPUT, "'%s' is cut off", path);
  store_table_t tables[2];
  const int is_whole[2] = {read_table(&store, 0, &tables[0]), read_table(&store, 1, &tables[1])};
  if (!is_whole[0] && !is_whole[1]) stop(BAD_INPUT, "can't read '%s': it is damaged", path);
  const int second = is_whole[1] && (!is_whole[0] || tables[1].sequence > tables[0].sequence);
  store.table = tables[second];
  if (bytes < image_offset(&store, store.table.num_images))
    stop(BAD_INPUT, "'%s' is cut off", path);
  return store;
}

static uint32_t crc_of_image(const image_header_t *header, const uint8_t *pixels, size_t bytes) {
  const uint32_t crc = crc32(0, (const uint8_t *)header + 4, sizeof *header - 4);
  return crc32(crc, pixels, bytes);
}

image_header_t read_image_header(const store_t *store, uint32_t number) {
  image_header_t header;
  read_at(store->file, &header, sizeof header, image_offset(store, number));
  if (header.label >= store->table.num_classes || header.split >= NUM_SPLITS)
    stop(BAD_INPUT, "image %u of '%s' is damaged", number, store->file.path);
  return header;
}

image_header_t read_image(const store_t *store, uint32_t number, uint8_t *pixels) {
  const image_header_t header = read_image_header(store, number);
  const size_t bytes = (size_t)pixel_bytes(store);
  read_at(store->file, pixels, bytes, image_offset(store, number) + sizeof header);
  if (crc_of_image(&header, pixels, bytes) != header.crc)
    stop(BAD_INPUT, "image %u of '%s' is damaged", number, store->file.path);
  return header;
}

int read_class_name(const store_t *store, uint32_t number, char name[CLASS_NAME_BYTES]) {
  read_at(store->file, name, CLASS_NAME_BYTES,
          table_offset(store, store->table.sequence) + sizeof(store_table_t) +
              (uint64_t)number * CLASS_NAME_BYTES);
  const int length = (uint8_t)name[0];
  memmove(name, name + 1, (size_t)length);
  return length;
}

/* The names of the table that counts, and perhaps a new one, to the other copy. */
static void write_table(store_t *store, const char *new_name) {
  store_table_t next = store->table;
  next.sequence++;
  const uint64_t from = table_offset(store, store->table.sequence) + sizeof next;
  const uint64_t to = table_offset(store, next.sequence);
  uint8_t name[CLASS_NAME_BYTES];
  next.names_crc = 0;
  for (uint32_t i = 0; i < store->preamble.max_classes; i++) {
    read_at(store->file, name, sizeof name, from + i * sizeof name);
    if (new_name && i == next.num_classes) {
      memset(name, 0, sizeof name);
      name[0] = (uint8_t)strlen(new_name);
      memcpy(name + 1, new_name, name[0]);
    }
    next.names_crc = crc32(next.names_crc, name, sizeof name);
    write_at(store->file, name, sizeof name, to + sizeof next + i * sizeof name);
  }
  next.num_images++;
  if (new_name) next.num_classes++;
  next.crc = crc32(0, &next, offsetof(store_table_t, crc));
  sync_file(store->file);
  write_at(store->file, &next, sizeof next, to);
  sync_file(store->file);
  store->table = next;
}

void append_image(store_t *store, uint32_t label, const char *new_name, enum split split,
                  const uint8_t *pixels) {
  const uint64_t at = image_offset(store, store->table.num_images);
  image_header_t header = {.label = (uint16_t)label, .split = (uint8_t)split};
  header.crc = crc_of_image(&header, pixels, (size_t)pixel_bytes(store));
  write_at(store->file, &header, sizeof header, at);
  write_at(store->file, pixels, (size_t)pixel_bytes(store), at + sizeof header);
  sync_file(store->file);
  write_table(store, new_name);
}
