#include "augment.h"

#include <math.h>
#include <string.h>

#include "kernels/elementary.h"

/* numpy rounds halves to even. */
static int rounded(double value) {
  const double floor_ = (double)(int)value, rest = value - floor_;
  const int low = (int)floor_;
  return rest > 0.5 || (rest == 0.5 && low % 2) ? low + 1 : low;
}

static int between(int value, int least, int most) {
  return value < least ? least : value > most ? most : value;
}

crop_t random_crop(pcg64_t *rng, int side, double min_scale) {
  const double ratio = same_log(4.0 / 3.0);
  const double area = pcg64_uniform(rng, min_scale, 1) * ((double)side * side);
  const double aspect = same_exp(pcg64_uniform(rng, -ratio, ratio));
  crop_t crop;
  crop.width = between(rounded(sqrt(area * aspect)), 1, side);
  crop.height = between(rounded(sqrt(area / aspect)), 1, side);
  crop.top = (int)pcg64_below(rng, (uint32_t)(side - crop.height + 1));
  crop.left = (int)pcg64_below(rng, (uint32_t)(side - crop.width + 1));
  return crop;
}

/* What each place along a resized side is a sum of: weights in whole numbers of 2^-precision. */
typedef struct {
  int taps, precision;
  int32_t *first, *count; /* (resolution) */
  int16_t *weights;       /* (resolution, taps) */
} table_t;

/* A triangle as wide as two pixels of the smaller picture; normalized. Returns its top. */
static double triangle(int place, double scale, int in, int *first, int *count, double *weights) {
  const double support = scale >= 1 ? scale : 1, inverse = scale >= 1 ? 1 / scale : 1;
  const double center = scale * (place + 0.5);
  const int low = (int)(center - support + 0.5), high = (int)(center + support + 0.5);
  *first = low < 0 ? 0 : low;
  *count = (high < in ? high : in) - *first;
  double total = 0, top = 0;
  for (int i = 0; i < *count; i++) {
    const double off = fabs((i + *first - center + 0.5) * inverse);
    weights[i] = off < 1 ? 1 - off : 0;
    total += weights[i];
  }
  for (int i = 0; i < *count; i++) {
    if (total != 0) weights[i] /= total;
    if (weights[i] > top) top = weights[i];
  }
  return top;
}


static void fill_table(table_t *table, int in, int out, double *weights) {
  const double scale = (double)in / out;
  double top = 0;
  for (int i = 0; i < out; i++) {
    int first, count;
    const double highest = triangle(i, scale, in, &first, &count, weights);
    if (highest > top) top = highest;
  }
  table->precision = 0;
  while (table->precision < 22 && (int)(0.5 + top * (1 << (table->precision + 1))) < 1 << 15)
    table->precision++;
  for (int i = 0; i < out; i++) {
    int first, count;
    triangle(i, scale, in, &first, &count, weights);
    table->first[i] = first, table->count[i] = count;
    for (int j = 0; j < count; j++)
      table->weights[i * table->taps + j] = (int16_t)(0.5 + weights[j] * (1 << table->precision));
  }
}

static uint8_t blend(const table_t *table, int place, const uint8_t *from, size_t step) {
  const int16_t *weights = table->weights + place * table->taps;
  int32_t sum = 1 << (table->precision - 1);
  from += (size_t)table->first[place] * step;
  for (int i = 0; i < table->count[place]; i++) sum += weights[i] * from[(size_t)i * step];
  return (uint8_t)between(sum >> table->precision, 0, 255);
}

void resize(const uint8_t *image, int side, crop_t crop, int mirrored, int resolution,
            uint8_t *scratch, uint8_t *y) {
  double weights[MAX_RESIZE_TAPS];
  const size_t row = (size_t)resolution * 3;
  uint8_t *narrow = scratch; /* (height, resolution, 3): resized along its rows */
  uint8_t *tables = scratch + ((size_t)side * row + 3) / 4 * 4;
  table_t table = {.taps = RESIZE_TAPS(side, resolution), .first = (int32_t *)(void *)tables};
  table.count = table.first + resolution;
  table.weights = (int16_t *)(void *)(table.count + resolution);
  const uint8_t *from = image + ((size_t)crop.top * (size_t)side + (size_t)crop.left) * 3;
  if (crop.width == resolution) {
    for (int i = 0; i < crop.height; i++)
      memcpy(narrow + (size_t)i * row, from + (size_t)i * (size_t)side * 3, row);
  } else {
    fill_table(&table, crop.width, resolution, weights);
    for (int i = 0; i < crop.height; i++)
      for (int x = 0; x < resolution; x++)
        for (int c = 0; c < 3; c++)
          narrow[(size_t)i * row + (size_t)(3 * x + c)] =
              blend(&table, x, from + (size_t)i * (size_t)side * 3 + c, 3);
  }
  if (crop.height != resolution) fill_table(&table, crop.height, resolution, weights);
  for (int i = 0; i < resolution; i++)
    for (int x = 0; x < resolution; x++) {
      const size_t to = (size_t)i * row + 3 * (size_t)(mirrored ? resolution - 1 - x : x);
      for (int c = 0; c < 3; c++) {
        const uint8_t *column = narrow + 3 * x + c;
        y[to + (size_t)c] = crop.height == resolution ? column[(size_t)i * row]
                                                      : blend(&table, i, column, row);
      }
    }
}
