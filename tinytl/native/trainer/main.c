/* tinyfit-trainer: trains a network on the device that it is on.
 *
 * Exit status: 0 done, 1 failure, 2 bad usage or input. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/loss.h"
#include "training.h"

static const char USAGE[] =
    "usage: tinyfit-trainer train PROGRAM STORE --epochs N --state STATE [--save-every STEPS]\n"
    "                       [--learning-rate RATE] [--again | --fresh] [--json]\n"
    "       tinyfit-trainer evaluate PROGRAM STORE [--state STATE] [--split SPLIT] [--json]\n"
    "       tinyfit-trainer predict PROGRAM IMAGE.ppm [--state STATE] [--json]\n"
    "       tinyfit-trainer add PROGRAM STORE IMAGE.ppm CLASS [--split SPLIT] [--json]\n"
    "       tinyfit-trainer info PROGRAM [--state STATE] [--json]\n"
    "\n"
    "STORE: images, packed by `tinyfit device images`. STATE: what is learned; a training that was\n"
    "cut off goes on from there. IMAGE.ppm: a binary PPM of the size that images are stored in, or\n"
    "- for standard input. SPLIT: train, val or test.\n";

#define MAX_ARGUMENTS 5

typedef struct {
  const char *words[MAX_ARGUMENTS];
  int count;
  const char *state, *epochs, *save_every, *learning_rate, *split;
  int again, fresh, json;
} options_t;

static options_t parse(int count, char **arguments) {
  options_t options = {0};
  const struct {
    const char *name;
    const char **value;
    int *flag;
  } known[] = {
      {"--state", &options.state, NULL},
      {"--epochs", &options.epochs, NULL},
      {"--save-every", &options.save_every, NULL},
      {"--learning-rate", &options.learning_rate, NULL},
      {"--split", &options.split, NULL},
      {"--again", NULL, &options.again},
      {"--fresh", NULL, &options.fresh},
      {"--json", NULL, &options.json},
  };
  for (int i = 1; i < count; i++) {
    const char *word = arguments[i];
    if (strncmp(word, "--", 2) != 0) {
      if (options.count == MAX_ARGUMENTS) stop(BAD_INPUT, "'%s' is one too many\n%s", word, USAGE);
      options.words[options.count++] = word;
      continue;
    }
    size_t k = 0;
    while (k < sizeof known / sizeof *known && strcmp(word, known[k].name) != 0) k++;
    if (k == sizeof known / sizeof *known)
      stop(BAD_INPUT, "'%s' is no option\n%s", word, USAGE);
    if (known[k].flag) {
      *known[k].flag = 1;
    } else if (i + 1 == count) {
      stop(BAD_INPUT, "'%s' lacks its value", word);
    } else {
      *known[k].value = arguments[++i];
    }
  }
  return options;
}

static uint32_t whole_number(const char *name, const char *text, uint32_t least) {
  char *end;
  const unsigned long long value = strtoull(text, &end, 10);
  if (!isdigit((unsigned char)*text) || *end || value < least || value > 1000000)
    stop(BAD_INPUT, "%s must be a whole number from %u to 1000000 but got '%s'", name, least, text);
  return (uint32_t)value;
}

static enum split split_of(const char *text, enum split otherwise) {
  static const char *const names[NUM_SPLITS] = {"train", "val", "test"};
  if (!text) return otherwise;
  for (int i = 0; i < NUM_SPLITS; i++)
    if (strcmp(text, names[i]) == 0) return (enum split)i;
  stop(BAD_INPUT, "--split must be train, val or test but got '%s'", text);
}

static const char *name_of_split(enum split split) {
  return split == TRAIN ? "train" : split == VALIDATION ? "val" : "test";
}

static void need(const options_t *options, int count) {
  if (options->count != count) stop(BAD_INPUT, "%s", USAGE);
}

static session_t open_with_state(const options_t *options) {
  session_t session = open_session(options->words[1]);
  progress_t progress;
  if (options->state) close_file(open_state(options->state, &session.trainer, &progress, 0).file);
  return session;
}

static void print_json_string(const char *text, int length) {
  putchar('"');
  for (int i = 0; i < length; i++) {
    const unsigned char c = (unsigned char)text[i];
    if (c == '"' || c == '\\') putchar('\\');
    if (c < 0x20) {
      printf("\\u%04x", c);
    } else {
      putchar(c);
    }
  }
  putchar('"');
}

/* Held-out images, if there are any; else those that were trained on. */
static images_t images_to_judge_by(const images_t *images) {
  images_t found = other_split(images, VALIDATION);
  if (!found.count) found = other_split(images, TEST);
  return found.count ? found : *images;
}

static void run_train(const options_t *options) {
  need(options, 3);
  if (!options->epochs || !options->state)
    stop(BAD_INPUT, "a training needs --epochs and --state\n%s", USAGE);
  training_t training = {.state = options->state,
                         .epochs = whole_number("--epochs", options->epochs, 1),
                         .again = options->again,
                         .fresh = options->fresh,
                         .is_quiet = options->json};
  if (options->save_every)
    training.save_every = whole_number("--save-every", options->save_every, 1);
  if (options->learning_rate) {
    char *end;
    training.learning_rate = strtod(options->learning_rate, &end);
    if (*end || !(training.learning_rate > 0 && training.learning_rate < 1e6))
      stop(BAD_INPUT, "--learning-rate must be above 0 but got '%s'", options->learning_rate);
  }
  session_t session = open_session(options->words[1]);
  const images_t images = open_images(&session, options->words[2], TRAIN);
  const images_t judged = images_to_judge_by(&images);
  const progress_t end = train(&session, &images, &judged, &training);
  const unsigned long long peak = peak_resident_bytes();
  if (options->json) {
    printf("{\"epochs\": %u, \"train_loss\": %.9g, \"accuracy\": %.9g, \"accuracy_split\": \"%s\", "
           "\"peak_resident_bytes\": %llu, \"arena_bytes\": %u}\n",
           end.epochs, end.last_loss, end.last_accuracy, name_of_split(judged.split), peak,
           session.header->arena_bytes);
  } else {
    printf("accuracy %.4f on %u images (%s), peak %.2f MB\n", end.last_accuracy, judged.count,
           name_of_split(judged.split), (double)peak / 1e6);
  }
}

static void run_evaluate(const options_t *options) {
  need(options, 3);
  session_t session = open_with_state(options);
  const enum split split = split_of(options->split, TRAIN);
  const images_t all = open_images(&session, options->words[2], split);
  const images_t images = options->split ? all : images_to_judge_by(&all);
  match_classes(&session, &images, 0);
  if (!images.count) stop(BAD_INPUT, "there are no images in that split");
  const double accuracy = accuracy_of(&session, &images);
  printf(options->json ? "{\"accuracy\": %.9g, \"images\": %u, \"split\": \"%s\"}\n"
                       : "accuracy %.4f on %u images (%s)\n",
         accuracy, images.count, name_of_split(images.split));
}

/* The next number of a PPM's header, behind white space and comments. */
static unsigned ppm_number(FILE *file, const char *path) {
  int c = getc(file);
  while (isspace(c) || c == '#') {
    if (c == '#')
      while (c != '\n' && c != EOF) c = getc(file);
    c = getc(file);
  }
  unsigned value = 0;
  if (!isdigit(c)) stop(BAD_INPUT, "'%s' is no binary PPM", path);
  for (; isdigit(c) && value < 100000; c = getc(file)) value = 10 * value + (unsigned)(c - '0');
  return value; /* and one white space is read too, as the format has it */
}

static void read_ppm(const session_t *session, const char *path, uint8_t *pixels) {
  FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "rb");
  if (!file) stop(BAD_INPUT, "can't open '%s'", path);
  if (getc(file) != 'P' || getc(file) != '6') stop(BAD_INPUT, "'%s' is no binary PPM", path);
  const unsigned width = ppm_number(file, path), height = ppm_number(file, path);
  const unsigned side = session->header->image_size;
  if (ppm_number(file, path) != 255) stop(BAD_INPUT, "'%s' has not 8 bits a value", path);
  if (width != side || height != side)
    stop(BAD_INPUT, "'%s' is %u x %u pixels, but the program's images are %u x %u", path, width,
         height, side, side);
  if (fread(pixels, 3 * (size_t)side, side, file) != side) stop(BAD_INPUT, "'%s' is cut off", path);
  if (file != stdin) fclose(file);
}

static void run_predict(const options_t *options) {
  need(options, 3);
  session_t session = open_with_state(options);
  const trainer_t *trainer = &session.trainer;
  read_ppm(&session, options->words[2], pixels_to_predict(&session));
  view_pixels(&session);
  float *shares = evaluate_image(&session.trainer);
  const int best = softmax((int)trainer->num_classes, shares);
  const char *name;
  int length = name_of_class(trainer, (uint32_t)best, &name);
  if (!options->json) {
    printf("%.*s %.4f\n", length, name, (double)shares[best]);
    return;
  }
  printf("{\"label\": ");
  print_json_string(name, length);
  printf(", \"probabilities\": {");
  for (uint32_t i = 0; i < trainer->num_classes; i++) {
    length = name_of_class(trainer, i, &name);
    if (i) printf(", ");
    print_json_string(name, length);
    printf(": %.9g", (double)shares[i]);
  }
  printf("}}\n");
}

/* The number of a class; of one that is not there yet, the next. */
static uint32_t class_to_add(const session_t *session, const store_t *store, const char *class) {
  char name[CLASS_NAME_BYTES];
  const size_t wanted = strlen(class);
  if (wanted < 1 || wanted >= CLASS_NAME_BYTES)
    stop(BAD_INPUT, "a class's name must have 1 to %d bytes but got '%s'", CLASS_NAME_BYTES - 1,
         class);
  for (uint32_t i = 0; i < store->table.num_classes; i++) {
    const int length = read_class_name(store, i, name);
    if ((size_t)length == wanted && memcmp(name, class, wanted) == 0) return i;
  }
  uint32_t room = session->header->max_classes;
  if (room > store->preamble.max_classes) room = store->preamble.max_classes;
  if (store->table.num_classes >= room)
    stop(BAD_INPUT, "there is no room for the class '%s': %u have been planned for", class, room);
  return store->table.num_classes;
}

static void run_add(const options_t *options) {
  need(options, 5);
  session_t session = open_session(options->words[1]);
  const images_t images = open_images(&session, options->words[2], TRAIN);
  const char *class = options->words[4];
  const uint32_t label = class_to_add(&session, &images.store, class);
  uint8_t *pixels = pixels_to_predict(&session);
  read_ppm(&session, options->words[3], pixels);
  store_t store = open_store(options->words[2], 1);
  append_image(&store, label, label == store.table.num_classes ? class : NULL,
               split_of(options->split, TRAIN), pixels);
  printf(options->json ? "{\"images\": %u, \"classes\": %u}\n" : "%u images of %u classes\n",
         store.table.num_images, store.table.num_classes);
}

static void run_info(const options_t *options) {
  need(options, 2);
  const session_t session = open_with_state(options);
  const header_t *header = session.header;
  char sha256[65] = "";
  for (size_t i = 0; i < sizeof header->bundle_sha256; i++)
    snprintf(sha256 + 2 * i, 3, "%02x", header->bundle_sha256[i]);
  if (!options->json) {
    printf("bundle   %s\narena    %.3f MB, of which %.3f MB are the state\nprogram  %.3f MB\n"
           "images   %u px, seen at %u px, in batches of %u\nclasses  %u, room for %u\n",
           sha256, header->arena_bytes / 1e6, header->state_bytes / 1e6,
           (double)session.mapped_bytes / 1e6, header->image_size, header->resolution,
           header->batch_size, session.trainer.num_classes, header->max_classes);
    return;
  }
  printf("{\"bundle_sha256\": \"%s\", \"arena_bytes\": %u, \"state_bytes\": %u, "
         "\"program_bytes\": %zu, \"image_size\": %u, \"resolution\": %u, \"batch_size\": %u, "
         "\"max_classes\": %u, \"classes\": [",
         sha256, header->arena_bytes, header->state_bytes, session.mapped_bytes,
         header->image_size, header->resolution, header->batch_size, header->max_classes);
  for (uint32_t i = 0; i < session.trainer.num_classes; i++) {
    const char *name;
    const int length = name_of_class(&session.trainer, i, &name);
    if (i) printf(", ");
    print_json_string(name, length);
  }
  printf("]}\n");
}

int main(int count, char **arguments) {
  const options_t options = parse(count, arguments);
  static const struct {
    const char *name;
    void (*run)(const options_t *);
  } commands[] = {{"train", run_train}, {"evaluate", run_evaluate}, {"predict", run_predict},
                  {"add", run_add},     {"info", run_info}};
  for (size_t i = 0; options.count && i < sizeof commands / sizeof *commands; i++)
    if (strcmp(options.words[0], commands[i].name) == 0) {
      commands[i].run(&options);
      if (fflush(stdout) != 0 || ferror(stdout)) stop(FAILED, "can't write the answer");
      return DONE;
    }
  stop(BAD_INPUT, "%s", USAGE);
}
