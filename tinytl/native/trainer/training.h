/* The training loop: epochs over the images of a store, saved as they go. */
#ifndef TRAINING_H
#define TRAINING_H

#include "session.h"
#include "state.h"

typedef struct {
  const char *state; /* path */
  uint32_t epochs, save_every; /* steps from one save to the next; 0: each epoch alone */
  double learning_rate;        /* 0: the program's */
  int again;                   /* a new run from what has been learned, whatever there was */
  int fresh;                   /* from what the program came with */
  int is_quiet;                /* progress goes to stderr */
} training_t;

/* Trains, or goes on with what was cut off. Returns the run's end. */
progress_t train(session_t *session, const images_t *images, const images_t *held_out,
                 const training_t *training);

#endif
