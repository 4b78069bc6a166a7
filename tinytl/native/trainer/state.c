#include "state.h"

#include <string.h>

#include "crc32.h"

const char *check_state_preamble(const state_preamble_t *preamble, uint32_t program_crc,
                                 uint32_t state_bytes) {
  if (memcmp(preamble->magic, STATE_MAGIC, sizeof preamble->magic) != 0)
    return "it is no state of a training";
  if (preamble->version != STATE_VERSION) return "it is of another version than this trainer";
  if (crc32(0, preamble, offsetof(state_preamble_t, crc)) != preamble->crc) return "it is damaged";
  if (preamble->program_crc != program_crc || preamble->state_bytes != state_bytes)
    return "it belongs to another program";
  return NULL;
}

static uint64_t slot_offset(const state_t *state, uint64_t sequence) {
  return sizeof(state_preamble_t) +
         sequence % 2 * (sizeof(state_slot_t) + (uint64_t)state->state_bytes);
}

static int read_slot(const state_t *state, uint64_t copy, const trainer_t *trainer,
                     state_slot_t *slot) {
  const uint64_t at = slot_offset(state, copy);
  read_at(state->file, slot, sizeof *slot, at);
  const header_t *header = trainer->program.header;
  return crc32(0, slot, offsetof(state_slot_t, crc)) == slot->crc && slot->sequence % 2 == copy &&
         slot->progress.num_classes >= header->num_classes &&
         slot->progress.num_classes <= header->max_classes &&
         crc_of_file(state->file, at + sizeof *slot, state->state_bytes) == slot->payload_crc;
}

state_t open_state(const char *path, trainer_t *trainer, progress_t *progress, int may_write) {
  const header_t *header = trainer->program.header;
  state_t state = {.file = open_file(path, may_write), .state_bytes = header->state_bytes};
  state_preamble_t preamble;
  if (file_bytes(state.file) < sizeof preamble) stop(BAD_INPUT, "'%s' is no state", path);
  read_at(state.file, &preamble, sizeof preamble, 0);
  const char *wrong = check_state_preamble(&preamble, header->header_crc, header->state_bytes);
  if (wrong) stop(BAD_INPUT, "can't read '%s': %s", path, wrong);
  state_slot_t slots[2];
  const int is_whole[2] = {read_slot(&state, 0, trainer, &slots[0]),
                           read_slot(&state, 1, trainer, &slots[1])};
  if (!is_whole[0] && !is_whole[1]) stop(BAD_INPUT, "can't read '%s': it is damaged", path);
  const int second = is_whole[1] && (!is_whole[0] || slots[1].sequence > slots[0].sequence);
  state.sequence = slots[second].sequence;
  *progress = slots[second].progress;
  read_at(state.file, trainer->arena, state.state_bytes,
          slot_offset(&state, state.sequence) + sizeof(state_slot_t));
  trainer->num_steps = progress->num_steps;
  trainer->num_classes = progress->num_classes;
  return state;
}

static void write_slot(state_t *state, trainer_t *trainer, const progress_t *progress) {
  state_slot_t slot;
  memset(&slot, 0, sizeof slot);
  slot.sequence = state->sequence;
  slot.progress = *progress;
  slot.progress.num_steps = trainer->num_steps;
  slot.progress.num_classes = trainer->num_classes;
  slot.payload_crc = crc32(0, trainer->arena, state->state_bytes);
  slot.crc = crc32(0, &slot, offsetof(state_slot_t, crc));
  const uint64_t at = slot_offset(state, state->sequence);
  write_at(state->file, trainer->arena, state->state_bytes, at + sizeof slot);
  sync_file(state->file);
  write_at(state->file, &slot, sizeof slot, at);
  sync_file(state->file);
}

state_t create_state(const char *path, trainer_t *trainer, const progress_t *progress) {
  const header_t *header = trainer->program.header;
  state_t state = {.state_bytes = header->state_bytes, .sequence = 2};
  state.file = create_file(path, slot_offset(&state, 1) + sizeof(state_slot_t) +
                                     (uint64_t)header->state_bytes);
  state_preamble_t preamble = {.version = STATE_VERSION,
                               .program_crc = header->header_crc,
                               .num_classes = header->num_classes,
                               .max_classes = header->max_classes,
                               .state_bytes = header->state_bytes};
  memcpy(preamble.bundle_sha256, header->bundle_sha256, sizeof preamble.bundle_sha256);
  memcpy(preamble.magic, STATE_MAGIC, sizeof preamble.magic);
  preamble.crc = crc32(0, &preamble, offsetof(state_preamble_t, crc));
  write_at(state.file, &preamble, sizeof preamble, 0);
  write_slot(&state, trainer, progress);
  publish_file(state.file, path);
  return state;
}

void save_state(state_t *state, trainer_t *trainer, const progress_t *progress) {
  state->sequence++;
  write_slot(state, trainer, progress);
}
