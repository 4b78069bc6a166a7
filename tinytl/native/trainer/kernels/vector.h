/* Vectors of floats in the compiler's own notation, and bit masks that go with them.
 *
 * LANES changes speed alone: no sum is ever taken across lanes, so results are the same bits
 * whatever the width.
 */
#ifndef VECTOR_H
#define VECTOR_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifndef LANES
#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
#endif
#define MAX_LANES 16

#if defined(__SSE__) || defined(__ARM_NEON)
#define HAS_VECTORS 1
#else
#define HAS_VECTORS 0
#endif

#define INLINE static inline __attribute__((always_inline))

typedef float floats_t __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t ints_t __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int8_t bytes_t __attribute__((vector_size(LANES), aligned(1), may_alias));

INLINE floats_t load(const float *from) { return *(const floats_t *)from; }

INLINE void store(float *to, floats_t values) { *(floats_t *)to = values; }

/* The first `count` lanes; the others are 0. */
INLINE floats_t load_some(const float *from, int count) {
  if (count >= LANES) return load(from);
  floats_t values = {0};
  memcpy(&values, from, 4 * (size_t)count);
  return values;
}

INLINE void store_some(float *to, floats_t values, int count) {
  if (count >= LANES) {
    store(to, values);
  } else {
    memcpy(to, &values, 4 * (size_t)count);
  }
}

/* The same value in every lane. Not 0 + value: that would have to make 0 of -0, and costs. */
INLINE floats_t same(float value) { return value - (floats_t){0}; }

INLINE floats_t select(ints_t mask, floats_t values) { return (floats_t)((ints_t)values & mask); }

/* min(max(values, 0), limit) */
INLINE floats_t clamp(floats_t values, floats_t limit) {
  values = select(values > 0, values);
  const ints_t below = values < limit;
  return (floats_t)(((ints_t)values & below) | ((ints_t)limit & ~below));
}

/* A mask's lanes as bits, the first lane lowest. */
INLINE uint32_t bits_of(ints_t mask) {
#if defined(__AVX512F__) && LANES == 16
  return (uint32_t)__builtin_ia32_cvtd2mask512((__attribute__((vector_size(64))) int)mask);
#elif defined(__AVX__) && LANES == 8
  return (uint32_t)__builtin_ia32_movmskps256((__attribute__((vector_size(32))) float)mask);
#elif defined(__SSE__) && LANES == 4
  return (uint32_t)__builtin_ia32_movmskps((__attribute__((vector_size(16))) float)mask);
#else
  uint32_t bits = 0;
  for (int i = 0; i < LANES; i++) bits |= (uint32_t)(mask[i] & 1) << i;
  return bits;
#endif
}

INLINE ints_t mask_of(uint32_t bits) {
  ints_t lane;
  for (int i = 0; i < LANES; i++) lane[i] = 1 << i;
  return (((ints_t){0} + (int32_t)bits) & lane) != 0;
}

/* Bits of up to LANES neighbours from number `at` on, a multiple of 4. `count`: of those wanted,
 * a multiple of 4 (of 8 where LANES is not 4); no byte beyond is touched. */
INLINE uint32_t read_bits(const uint8_t *bits, size_t at, int count) {
#if LANES == 4
  (void)count;
  return bits[at >> 3] >> (at & 4) & 15;
#else
  uint32_t found = 0;
  for (int i = 0; i < LANES / 8; i++)
    if (8 * i < count) found |= (uint32_t)bits[(at >> 3) + (size_t)i] << (8 * i);
  return found;
#endif
}

INLINE void write_bits(uint8_t *bits, size_t at, uint32_t found, int count) {
#if LANES == 4
  (void)count;
  uint8_t *byte = bits + (at >> 3);
  *byte = (uint8_t)((at & 4) ? (*byte & 15) | found << 4 : (*byte & 0xf0) | found);
#else
  for (int i = 0; i < LANES / 8; i++)
    if (8 * i < count) bits[(at >> 3) + (size_t)i] = (uint8_t)(found >> (8 * i));
#endif
}

#endif
