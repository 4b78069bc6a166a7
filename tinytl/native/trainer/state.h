/* What the device has learned, and how far a training has come: a file that survives the plug.
 *
 * Two slots of the same size: each has a header with a sequence number and checksums, and the
 * arena's beginning: trained values, moments, names of added classes. The older slot is written
 * over, its header last; whatever is cut off, the other one is whole. */
#ifndef STATE_H
#define STATE_H

#include "files.h"
#include "steps.h"

#define STATE_MAGIC "TFSTAT\r\n"
#define STATE_VERSION 1

typedef struct {
  char magic[8];
  uint32_t version, program_crc; /* of the program's header */
  uint8_t bundle_sha256[32];     /* what the program was made of; with the classes it came with */
  uint32_t num_classes, max_classes, state_bytes; /* and has room for: enough for the way back */
  uint32_t crc;                                   /* of the fields before it */
} state_preamble_t;

/* How far a run of so many epochs has come; those of runs before it count on as epoch_base. */
typedef struct {
  uint32_t epochs, epoch, step; /* the next one's epoch, and its number in that epoch */
  uint32_t epoch_base;
  uint32_t images_crc; /* of the images that the run is on */
  uint32_t num_steps, num_classes, unused;
  double learning_rate, loss_sum; /* at its peak; of the epoch that is under way */
  double last_loss, last_accuracy;
} progress_t;

typedef struct {
  uint64_t sequence;
  progress_t progress;
  uint32_t payload_crc, crc; /* of the fields before it */
} state_slot_t;

typedef struct {
  file_t file;
  uint64_t sequence; /* of the newest slot that is whole */
  uint32_t state_bytes;
} state_t;

const char *check_state_preamble(const state_preamble_t *preamble, uint32_t program_crc,
                                 uint32_t state_bytes);

/* Reads the newest whole slot into the arena. */
state_t open_state(const char *path, trainer_t *trainer, progress_t *progress, int may_write);

/* A new file, with what is in the arena. */
state_t create_state(const char *path, trainer_t *trainer, const progress_t *progress);

/* To the older slot. */
void save_state(state_t *state, trainer_t *trainer, const progress_t *progress);

#endif
