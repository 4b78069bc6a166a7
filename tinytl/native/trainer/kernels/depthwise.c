#include "depthwise.h"

/* LANES channels at a time pass through rows of their own: a ring of the last RING rows of the
 * map, padded with zeros on both sides, so that the inner loops know no borders. */
#define RING 8
#define MARGIN 4 /* zeros before a row, and as many and a tile's width after it */
#define TILE 7   /* outputs of a row that are summed up together */
#define MAX_TAPS (MAX_DEPTHWISE_KERNEL * MAX_DEPTHWISE_KERNEL)

/* A line of outputs: every `step`-th value from `to` on; its bits are every `bits_step`-th from
 * number `at` on. */
typedef struct {
  float *to;
  size_t step, at, bits_step;
  int count, lanes;
  floats_t start;
  const epilogue_t *epilogue;
  floats_t *total; /* of the masked values, where they are summed up */
} line_t;

INLINE size_t row_floats(int size) { return (size_t)(size + 2 * MARGIN + 8) * LANES; }

/* sums[o] += taps * inputs, row after row of taps [first, last), for `width` outputs. */
INLINE void add_taps(const int taps, const int stride, const int width, int first, int last,
                     const float *const *rows, size_t from, const float *weights,
                     floats_t sums[TILE]) {
  for (int i = first; i < last; i++) {
    const float *x = rows[i] + from;
    floats_t w[MAX_DEPTHWISE_KERNEL];
    for (int t = 0; t < taps; t++) w[t] = load(weights + (i * taps + t) * LANES);
#pragma GCC unroll 32
    for (int j = 0; j < (width - 1) * stride + taps; j++) {
      const floats_t value = load(x + j * LANES);
#pragma GCC unroll 8
      for (int t = 0; t < taps; t++)
        if ((j - t) % stride == 0 && j - t >= 0 && (j - t) / stride < width)
          sums[(j - t) / stride] += value * w[t];
    }
  }
}

INLINE void run_line(const int taps, const int stride, const int width, const int whole, int first,
                     int last, const float *const *rows, const float *weights,
                     const line_t *line) {
  const epilogue_t *e = line->epilogue;
  const int clamps = e->limit > 0, lanes = whole ? LANES : line->lanes;
  const floats_t limit = same(e->limit), start = line->start;
  uint8_t *const bits = e->bits;
  const uint8_t *const mask = e->mask;
  float *to = line->to;
  size_t at = line->at;
  floats_t total = *line->total;
  for (int o = 0; o < line->count; o += width) {
    floats_t sums[TILE];
    for (int i = 0; i < width; i++) sums[i] = start;
    add_taps(taps, stride, width, first, last, rows, (size_t)(o * stride) * LANES, weights, sums);
    const int valid = line->count - o;
#pragma GCC unroll 8
    for (int i = 0; i < width; i++) {
      if (i >= valid) break;
      floats_t value = sums[i];
      if (clamps) {
        value = clamp(value, limit);
        if (bits) write_bits(bits, at, bits_of((value > 0) & (value < limit)), lanes);
      }
      if (mask) value = select(mask_of(read_bits(mask, at, lanes)), value);
      total += value;
      store_some(to, value, lanes);
      to += line->step, at += line->bits_step;
    }
  }
  *line->total = total;
}

/* Loops of fixed length for each kernel and stride there is; where the processor has no
 * vectors, one for all widths, a third of the code. */
static void run_any_line(int taps, int stride, int first, int last, const float *const *rows,
                         const float *weights, const line_t *line) {
#if !HAS_VECTORS
#define RUN(taps, stride)                                           \
  run_line(taps, stride, 4, 0, first, last, rows, weights, line); \
  break
#else
#define RUN(taps, stride)                                                              \
  if (line->lanes < LANES) {                                                           \
    run_line(taps, stride, 4, 0, first, last, rows, weights, line);                    \
  } else if (line->count % TILE == 0) {                                                \
    run_line(taps, stride, TILE, 1, first, last, rows, weights, line);                 \
  } else {                                                                             \
    run_line(taps, stride, 4, 1, first, last, rows, weights, line);                    \
  }                                                                                    \
  break
#endif
  if (taps == 0) taps = 1, last = first; /* between the taps: sums of nothing */
  switch (taps * 2 + stride - 1) {
  case 2: RUN(1, 1);
  case 3: RUN(1, 2);
  case 4: RUN(2, 1);
  case 6: RUN(3, 1);
  case 7: RUN(3, 2);
  case 8: RUN(4, 1);
  case 10: RUN(5, 1);
  case 11: RUN(5, 2);
  case 14: RUN(7, 1);
  case 15: RUN(7, 2);
  }
#undef RUN
}

static void fill_row(float *row, const float *from, int size, size_t channels, int lanes) {
  memset(row, 0, 4 * MARGIN * LANES);
  row += MARGIN * LANES;
  for (int i = 0; i < size; i++)
    store(row + i * LANES, load_some(from + (size_t)i * channels, lanes));
  memset(row + (size_t)size * LANES, 0, 4 * (MARGIN + 8) * LANES);
}

static void widen_taps(const taps_t *taps, int kernel, size_t channels, size_t channel, int lanes,
                       float *out) {
  const size_t pitch = taps->pitch ? taps->pitch : channels;
  const floats_t scale = load_some(taps->scale + channel, lanes);
  for (int t = 0; t < kernel * kernel; t++) {
    bytes_t values = {0};
    memcpy(&values, taps->values + (size_t)t * pitch + channel, (size_t)lanes);
    store(out + t * LANES, __builtin_convertvector(values, floats_t) * scale);
  }
}

static int at_least(int value, int least) { return value < least ? least : value; }
static int at_most(int value, int most) { return value > most ? most : value; }

/* Where a channel's values lie in the map of places and in its bits. */
typedef struct {
  size_t pitch, bits_pitch, bits_column;
} places_t;

static places_t places_of(size_t pitch, size_t channels, const epilogue_t *epilogue) {
  const size_t values = pitch ? pitch : channels;
  return (places_t){values, epilogue->bits_pitch ? epilogue->bits_pitch : values,
                    epilogue->bits_column};
}

void depthwise_forward(const depthwise_t *shape, const float *x, const taps_t *taps, float *y,
                       const epilogue_t *epilogue, float *scratch) {
  const int in = shape->in_size, out = shape->out_size, kernel = shape->kernel;
  const size_t channels = (size_t)shape->channels;
  const size_t x_pitch = shape->x_pitch ? shape->x_pitch : channels;
  const size_t in_row = (size_t)in * x_pitch;
  const places_t places = places_of(shape->y_pitch, channels, epilogue);
  float *weights = scratch, *ring = scratch + MAX_TAPS * LANES;
  floats_t unused = {0};
  for (int channel = 0; channel < shape->channels; channel += LANES) {
    const int lanes = at_most(shape->channels - channel, LANES);
    widen_taps(taps, kernel, channels, (size_t)channel, lanes, weights);
    floats_t start = {0};
    if (epilogue->bias) start = load_some(epilogue->bias + channel, lanes);
    for (int image = 0; image < shape->images; image++) {
      const float *map = x + (size_t)image * (size_t)in * in_row + channel;
      int filled = 0; /* rows of the map that have been in the ring */
      for (int oy = 0; oy < out; oy++) {
        const int top = oy * shape->stride - shape->pad_top;
        const int first = at_least(-top, 0), last = at_most(in - top, kernel);
        const float *rows[MAX_DEPTHWISE_KERNEL];
        for (; filled < top + last; filled++)
          fill_row(ring + (size_t)(filled % RING) * row_floats(in), map + (size_t)filled * in_row,
                   in, x_pitch, lanes);
        for (int i = first; i < last; i++)
          rows[i] = ring + (size_t)((top + i) % RING) * row_floats(in) +
                    (MARGIN - shape->pad_left) * LANES;
        const size_t place = (size_t)(image * out + oy) * (size_t)out;
        const line_t line = {.to = y + place * places.pitch + channel,
                             .step = places.pitch,
                             .at = place * places.bits_pitch + places.bits_column + (size_t)channel,
                             .bits_step = places.bits_pitch,
                             .count = out,
                             .lanes = lanes,
                             .start = start,
                             .epilogue = epilogue,
                             .total = &unused};
        run_any_line(kernel, shape->stride, first, last, rows, weights, &line);
      }
    }
  }
}

/* Along one side: inputs of one phase (their number modulo the stride) get their gradients from
 * every stride-th tap. Input number stride * t + phase gets tap `remainder + stride * i` from the
 * gradient number t + low + count - 1 - i. */
typedef struct {
  int remainder, count, low;
} phase_t;

static phase_t phase_of(int phase, int kernel, int stride, int pad) {
  const int remainder = (phase + pad) % stride;
  const int count = (kernel - remainder + stride - 1) / stride;
  return (phase_t){remainder, count, (phase + pad - remainder) / stride - (count - 1)};
}

void depthwise_backward(const depthwise_t *shape, const float *grad, const taps_t *taps,
                        float *grad_x, const epilogue_t *epilogue, float *scratch) {
  const int in = shape->in_size, out = shape->out_size;
  const int kernel = shape->kernel, stride = shape->stride;
  const size_t channels = (size_t)shape->channels;
  const size_t y_pitch = shape->y_pitch ? shape->y_pitch : channels;
  const size_t out_row = (size_t)out * y_pitch;
  const places_t places = places_of(shape->x_pitch, channels, epilogue);
  float *weights = scratch, *turned = scratch + MAX_TAPS * LANES;
  float *ring = turned + MAX_TAPS * LANES;
  phase_t down[2], along[2];
  for (int i = 0; i < stride; i++) {
    down[i] = phase_of(i, kernel, stride, shape->pad_top);
    along[i] = phase_of(i, kernel, stride, shape->pad_left);
  }
  for (int channel = 0; channel < shape->channels; channel += LANES) {
    const int lanes = at_most(shape->channels - channel, LANES);
    widen_taps(taps, kernel, channels, (size_t)channel, lanes, weights);
    const float *of_phase[4];
    float *next = turned;
    for (int py = 0; py < stride; py++)
      for (int px = 0; px < stride; px++) {
        of_phase[py * 2 + px] = next;
        for (int i = down[py].count - 1; i >= 0; i--)
          for (int j = along[px].count - 1; j >= 0; j--, next += LANES) {
            const int row = down[py].remainder + stride * i;
            const int column = along[px].remainder + stride * j;
            store(next, load(weights + (row * kernel + column) * LANES));
          }
      }
    floats_t total = {0};
    if (epilogue->column_sums) total = load_some(epilogue->column_sums + channel, lanes);
    for (int image = 0; image < shape->images; image++) {
      const float *map = grad + (size_t)image * (size_t)out * out_row + channel;
      int filled = 0;
      for (int iy = 0; iy < in; iy++) {
        const phase_t *phase = &down[iy % stride];
        const int top = iy / stride + phase->low;
        const int first = at_least(-top, 0), last = at_most(out - top, phase->count);
        for (; filled < top + last; filled++)
          fill_row(ring + (size_t)(filled % RING) * row_floats(out),
                   map + (size_t)filled * out_row, out, y_pitch, lanes);
        for (int px = 0; px < stride; px++) {
          const float *rows[MAX_DEPTHWISE_KERNEL];
          for (int i = first; i < last; i++)
            rows[i] = ring + (size_t)((top + i) % RING) * row_floats(out) +
                      (MARGIN + along[px].low) * LANES;
          const size_t place = (size_t)(image * in + iy) * (size_t)in + (size_t)px;
          const line_t line = {.to = grad_x + place * places.pitch + channel,
                               .step = (size_t)stride * places.pitch,
                               .at = place * places.bits_pitch + places.bits_column +
                                     (size_t)channel,
                               .bits_step = (size_t)stride * places.bits_pitch,
                               .count = (in - px + stride - 1) / stride,
                               .lanes = lanes,
                               .epilogue = epilogue,
                               .total = &total};
          run_any_line(along[px].count, 1, first, last, rows, of_phase[(iy % stride) * 2 + px],
                       &line);
        }
      }
    }
    if (epilogue->column_sums) store_some(epilogue->column_sums + channel, total, lanes);
  }
}
