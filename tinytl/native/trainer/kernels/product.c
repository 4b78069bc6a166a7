#include "product.h"

#if LANES == 16
#define TILE_ROWS 12
#define TILE_VECTORS 2
#elif LANES == 8
#define TILE_ROWS 6
#define TILE_VECTORS 2
#elif defined(__aarch64__)
#define TILE_ROWS 6
#define TILE_VECTORS 4
#else
#define TILE_ROWS 4
#define TILE_VECTORS 2
#endif
#define PANEL (TILE_VECTORS * LANES) /* columns that are worked on together */
#define MAX_INNER 256                /* steps of a sum before b's next part is packed */
#define BLOCK_FLOATS 8192            /* of a: rows that stay in the cache for all panels */

/* Where a tile of results goes, and which part of each sum it is. */
typedef struct {
  float *y;
  size_t pitch;
  int columns;        /* at most PANEL */
  size_t row, column; /* of y's first value, in the whole matrix */
  int is_first, is_last;
  const epilogue_t *epilogue;
} target_t;

INLINE void start_tile(const int rows, const int vectors, const target_t *target,
                       floats_t sums[TILE_ROWS][TILE_VECTORS]) {
  const epilogue_t *e = target->epilogue;
  for (int j = 0; j < vectors; j++) {
    const int left = target->columns - j * LANES;
    const size_t column = target->column + (size_t)(j * LANES);
    floats_t start = {0};
    if (target->is_first && e->bias) start = load_some(e->bias + column, left);
    for (int i = 0; i < rows; i++) {
      const size_t at = (size_t)i * target->pitch + (size_t)(j * LANES);
      if (!target->is_first) {
        sums[i][j] = load_some(target->y + at, left);
      } else if (e->addend) {
        const size_t row = target->row + (size_t)i;
        sums[i][j] = load_some(e->addend + row * target->pitch + column, left);
        if (e->bias) sums[i][j] += start;
      } else {
        sums[i][j] = start;
      }
    }
  }
}

INLINE void finish_tile(const int rows, const int vectors, const target_t *target,
                        floats_t sums[TILE_ROWS][TILE_VECTORS]) {
  const epilogue_t *e = target->epilogue;
  const floats_t limit = same(e->limit);
  const size_t pitch = e->bits_pitch ? e->bits_pitch : target->pitch;
  for (int j = 0; j < vectors; j++) {
    const int left = target->columns - j * LANES;
    const size_t column = target->column + (size_t)(j * LANES);
    floats_t total = {0};
    if (e->column_sums) total = load_some(e->column_sums + column, left);
    for (int i = 0; i < rows; i++) {
      const size_t at = (target->row + (size_t)i) * pitch + e->bits_column + column;
      floats_t value = sums[i][j];
      if (e->limit > 0) {
        value = clamp(value, limit);
        if (e->bits) write_bits(e->bits, at, bits_of((value > 0) & (value < limit)), left);
      }
      if (e->mask) value = select(mask_of(read_bits(e->mask, at, left)), value);
      if (e->column_sums) total += value;
      sums[i][j] = value;
    }
    if (e->column_sums) store_some(e->column_sums + column, total, left);
  }
}

INLINE void tile(const int rows, const int vectors, int inner, const float *a, size_t row_step,
                 size_t inner_step, const float *b, const target_t *target) {
  floats_t sums[TILE_ROWS][TILE_VECTORS];
  start_tile(rows, vectors, target, sums);
  for (int k = 0; k < inner; k++) {
    floats_t right[TILE_VECTORS];
    for (int j = 0; j < vectors; j++) right[j] = load(b + j * LANES);
    for (int i = 0; i < rows; i++) {
      const floats_t left = same(a[(size_t)i * row_step]);
      for (int j = 0; j < vectors; j++) sums[i][j] += left * right[j];
    }
    a += inner_step;
    b += PANEL;
  }
  if (target->is_last) finish_tile(rows, vectors, target, sums);
  for (int i = 0; i < rows; i++)
    for (int j = 0; j < vectors; j++)
      store_some(target->y + (size_t)i * target->pitch + j * LANES, sums[i][j],
                 target->columns - j * LANES);
}

INLINE void tiles(const int vectors, int rows, int inner, const float *a, size_t row_step,
                  size_t inner_step, const float *b, target_t target) {
#define NEXT(count)                                                      \
  do {                                                                   \
    tile(count, vectors, inner, a, row_step, inner_step, b, &target);    \
    a += (count)*row_step;                                               \
    target.y += (count)*target.pitch;                                    \
    target.row += (count);                                               \
    rows -= (count);                                                     \
  } while (0)
  while (rows >= TILE_ROWS) NEXT(TILE_ROWS);
#if TILE_ROWS > 4
  while (rows >= 4) NEXT(4);
#endif
  while (rows > 0) NEXT(1);
#undef NEXT
}

/* All rows of one panel. */
static void multiply_panel(int rows, int inner, const float *a, size_t row_step,
                           size_t inner_step, const float *b, target_t target) {
  const int vectors = (target.columns + LANES - 1) / LANES;
  if (vectors == TILE_VECTORS) {
    tiles(TILE_VECTORS, rows, inner, a, row_step, inner_step, b, target);
  } else if (vectors == 1) {
    tiles(1, rows, inner, a, row_step, inner_step, b, target);
  }
#if TILE_VECTORS > 2
  else if (vectors == 2) {
    tiles(2, rows, inner, a, row_step, inner_step, b, target);
  } else {
    tiles(3, rows, inner, a, row_step, inner_step, b, target);
  }
#endif
}

float widened_bfloat16(uint16_t bits) {
  const uint32_t wide = (uint32_t)bits << 16;
  float value;
  memcpy(&value, &wide, 4);
  return value;
}

INLINE float element(const matrix_t *b, enum value_kind kind, size_t at, size_t channel) {
  if (kind == VALUES_FLOAT) return ((const float *)b->values)[at];
  if (kind == VALUES_BFLOAT16) return widened_bfloat16(((const uint16_t *)b->values)[at]);
  return (float)((const int8_t *)b->values)[at] * b->scale[channel];
}

/* Steps [from, to) of a panel: PANEL columns a step, those beyond `columns` 0. */
INLINE void pack_kind(const matrix_t *b, enum value_kind kind, int from, int to, int column,
                      int columns, float *packed) {
  const int padded = (columns + LANES - 1) / LANES * LANES;
  if (b->turned) {
    for (int n = 0; n < padded; n++) {
      const size_t channel = (size_t)(column + n);
      for (int k = from; k < to; k++)
        packed[(k - from) * PANEL + n] =
            n < columns ? element(b, kind, channel * b->pitch + (size_t)k, channel) : 0;
    }
    return;
  }
  for (int k = from; k < to; k++, packed += PANEL) {
    const size_t at = (size_t)k * b->pitch + (size_t)column;
    int n = 0;
    if (kind == VALUES_INT8) { /* whole vectors at a time: the backward pass's way */
      const int8_t *values = (const int8_t *)b->values + at;
      for (; n + LANES <= columns; n += LANES) {
        const bytes_t bytes = *(const bytes_t *)(values + n);
        store(packed + n, __builtin_convertvector(bytes, floats_t) * b->scale[k]);
      }
    }
    for (; n < padded; n++)
      packed[n] = n < columns ? element(b, kind, at + (size_t)n, (size_t)k) : 0;
  }
}

static void pack(const matrix_t *b, int from, int to, int column, int columns, float *packed) {
  switch (b->kind) {
  case VALUES_INT8: pack_kind(b, VALUES_INT8, from, to, column, columns, packed); break;
  case VALUES_FLOAT: pack_kind(b, VALUES_FLOAT, from, to, column, columns, packed); break;
  case VALUES_BFLOAT16: pack_kind(b, VALUES_BFLOAT16, from, to, column, columns, packed); break;
  }
}

static int smaller(int a, int b) { return a < b ? a : b; }

void multiply(int rows, int columns, int inner, const float *a, size_t row_step,
              size_t inner_step, const matrix_t *b, float *y, size_t y_pitch,
              const epilogue_t *epilogue, float *packed) {
  const int panels = (columns + PANEL - 1) / PANEL;
  const size_t panel_floats = (size_t)PANEL * (size_t)inner;
  target_t target = {.pitch = y_pitch, .is_first = 1, .is_last = 1, .epilogue = epilogue};
  if (inner <= MAX_INNER && (size_t)panels * panel_floats <= PACKED_FLOATS) {
    for (int p = 0; p < panels; p++)
      pack(b, 0, inner, p * PANEL, smaller(PANEL, columns - p * PANEL),
           packed + (size_t)p * panel_floats);
    int block = BLOCK_FLOATS / inner / TILE_ROWS * TILE_ROWS;
    if (block < TILE_ROWS) block = TILE_ROWS;
    for (int row = 0; row < rows; row += block)
      for (int p = 0; p < panels; p++) {
        target.y = y + (size_t)row * y_pitch + p * PANEL;
        target.columns = smaller(PANEL, columns - p * PANEL);
        target.row = (size_t)row, target.column = (size_t)(p * PANEL);
        multiply_panel(smaller(block, rows - row), inner, a + (size_t)row * row_step, row_step,
                       inner_step, packed + (size_t)p * panel_floats, target);
      }
    return;
  }
  for (int p = 0; p < panels; p++) {
    target.y = y + p * PANEL;
    target.columns = smaller(PANEL, columns - p * PANEL);
    target.row = 0, target.column = (size_t)(p * PANEL);
    for (int from = 0; from < inner; from += MAX_INNER) {
      const int to = smaller(from + MAX_INNER, inner);
      pack(b, from, to, p * PANEL, target.columns, packed);
      target.is_first = from == 0, target.is_last = to == inner;
      multiply_panel(rows, to - from, a + (size_t)from * inner_step, row_step, inner_step,
                     packed, target);
    }
  }
}
