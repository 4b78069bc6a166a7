/* What the network gets to see of a stored image: tinytl.data's views. */
#ifndef AUGMENT_H
#define AUGMENT_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/random.h"

/* Part of a square image (side, side, 3). */
typedef struct {
  int top, left, height, width;
} crop_t;

/* At least min_scale of the area, of an aspect from 3:4 to 4:3. */
crop_t random_crop(pcg64_t *rng, int side, double min_scale);

/* Bytes that resizing takes beside its input and output; a multiple of 4. */
#define RESIZE_TAPS(side, resolution) (2 * ((side) / (resolution) + 2))
#define MAX_RESIZE_TAPS 256 /* what resizing by up to 120 takes */
#define RESIZE_SCRATCH_BYTES(side, resolution)                                        \
  (((uint64_t)(side) * 3 * (resolution) +                                             \
    (uint64_t)(resolution) * (8 + 2 * RESIZE_TAPS(side, resolution)) + 8) / 4 * 4 + 4)

/* And with the stored image itself before them. */
#define LOAD_SCRATCH_BYTES(side, resolution) \
  ((3 * (uint64_t)(side) * (side) + 3) / 4 * 4 + RESIZE_SCRATCH_BYTES(side, resolution))

/* The crop, resized bilinearly with antialiasing as torch does it with pixels, perhaps mirrored:
 * y (resolution, resolution, 3). */
void resize(const uint8_t *image, int side, crop_t crop, int mirrored, int resolution,
            uint8_t *scratch, uint8_t *y);

#endif
