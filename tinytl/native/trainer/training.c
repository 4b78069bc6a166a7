#include "training.h"

#include <math.h>
#include <stdio.h>

#include "kernels/elementary.h"
#include "kernels/random.h"

static const double PI = 3.14159265358979323846;

static double peak_rate(const session_t *session, const training_t *training) {
  return training->learning_rate > 0 ? training->learning_rate : session->header->learning_rate;
}

/* A run as it begins: moments are forgotten, and their count. */
static progress_t begin(session_t *session, const images_t *images, const training_t *training,
                        uint32_t epoch_base) {
  const header_t *header = session->header;
  const uint32_t num_classes = session->trainer.num_classes;
  uint8_t *moments = session->trainer.arena + header->value_bytes;
  const size_t names = (size_t)(header->max_classes - header->num_classes) * CLASS_NAME_BYTES;
  for (size_t i = 0; i < header->state_bytes - header->value_bytes - names; i++) moments[i] = 0;
  session->trainer.num_steps = 0;
  return (progress_t){.epochs = training->epochs,
                      .epoch_base = epoch_base,
                      .images_crc = crc_of_images(images),
                      .num_classes = num_classes,
                      .learning_rate = peak_rate(session, training)};
}

static int is_finished(const progress_t *progress) { return progress->epoch >= progress->epochs; }

static progress_t resume(session_t *session, const images_t *images, const training_t *training,
                         state_t *state) {
  progress_t progress;
  *state = open_state(training->state, &session->trainer, &progress, 1);
  match_classes(session, images, 1);
  const int is_same = progress.epochs == training->epochs &&
                      progress.images_crc == crc_of_images(images) &&
                      progress.learning_rate == peak_rate(session, training);
  const int starts = training->again || (is_finished(&progress) && !is_same);
  if (!starts && !is_same)
    stop(BAD_INPUT,
         "'%s' is in epoch %u of a run of %u epochs with other images, epochs or learning rate than "
         "asked for; finish that one, or say --again (from what it has learned) or --fresh",
         training->state, progress.epoch + 1, progress.epochs);
  if (!starts) return progress;
  return begin(session, images, training, progress.epoch_base + progress.epochs);
}

static void run_step(session_t *session, const images_t *images, const uint32_t *order,
                     progress_t *progress) {
  const header_t *header = session->header;
  const uint32_t steps = (images->count + header->batch_size - 1) / header->batch_size;
  const uint32_t first = progress->step * header->batch_size;
  const uint32_t left = images->count - first;
  const uint32_t count = left < header->batch_size ? left : header->batch_size;
  batch_t batch = {session, images, progress->epoch_base + progress->epoch, order + first};
  load_labels(&batch, (int)count);
  set_images(&session->trainer, load_training_views, &batch);
  const double done = (double)(progress->epoch * (uint64_t)steps + progress->step);
  const double cosine = same_cos(PI * done / ((double)progress->epochs * steps));
  const double rate = progress->learning_rate * (1 + cosine) / 2;
  const double loss = train_step(&session->trainer, (int)count, rate);
  if (!isfinite(loss))
    stop(FAILED,
         "the loss became %g in epoch %u, step %u; try a --learning-rate below %g, and --fresh",
         loss, progress->epoch + 1, progress->step + 1,
         progress->learning_rate);
  progress->loss_sum += loss;
  progress->step++;
}

static void finish_epoch(session_t *session, const images_t *images, const images_t *held_out,
                         progress_t *progress) {
  progress->last_loss = progress->loss_sum / images->count;
  progress->last_accuracy = accuracy_of(session, held_out);
  progress->epoch++;
  progress->step = 0;
  progress->loss_sum = 0;
}

/* Once it is saved: who reads this may take the state. */
static void tell_epoch(const progress_t *progress, int is_quiet) {
  FILE *to = is_quiet ? stderr : stdout;
  fprintf(to, "epoch %u/%u  loss %.4f  accuracy %.4f\n", progress->epoch, progress->epochs,
          progress->last_loss, progress->last_accuracy);
  fflush(to);
}

progress_t train(session_t *session, const images_t *images, const images_t *held_out,
                 const training_t *training) {
  const header_t *header = session->header;
  state_t state;
  progress_t progress;
  if (images->count == 0) stop(BAD_INPUT, "there are no images to train on");
  if (file_exists(training->state) && !training->fresh) {
    progress = resume(session, images, training, &state);
  } else {
    match_classes(session, images, 1);
    progress = begin(session, images, training, 0);
    state = create_state(training->state, &session->trainer, &progress);
  }
  const uint32_t steps = (images->count + header->batch_size - 1) / header->batch_size;
  uint32_t *order = take_memory(4 * (size_t)images->count);
  while (!is_finished(&progress)) {
    const uint32_t entropy[2] = {header->seed, progress.epoch_base + progress.epoch};
    pcg64_t rng;
    pcg64_seed(&rng, entropy, 2);
    pcg64_permutation(&rng, order, images->count);
    while (progress.step < steps) {
      run_step(session, images, order, &progress);
      const int is_due = training->save_every && progress.step % training->save_every == 0;
      if (is_due && progress.step < steps) save_state(&state, &session->trainer, &progress);
    }
    finish_epoch(session, images, held_out, &progress);
    save_state(&state, &session->trainer, &progress);
    tell_epoch(&progress, training->is_quiet);
  }
  close_file(state.file);
  return progress;
}
