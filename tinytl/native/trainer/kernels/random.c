#include "random.h"

static uint32_t hashed(uint32_t value, uint32_t *constant) {
  value ^= *constant;
  *constant *= 0x931e8875u;
  value *= *constant;
  return value ^ value >> 16;
}

static uint32_t mixed(uint32_t x, uint32_t y) {
  const uint32_t value = 0xca01f9ddu * x - 0x4973f715u * y;
  return value ^ value >> 16;
}

void seed_words(const uint32_t *entropy, int length, uint32_t *words, int count) {
  uint32_t pool[4], constant = 0x43b0d7e5u;
  for (int i = 0; i < 4; i++) pool[i] = hashed(i < length ? entropy[i] : 0, &constant);
  for (int from = 0; from < 4; from++)
    for (int to = 0; to < 4; to++)
      if (from != to) pool[to] = mixed(pool[to], hashed(pool[from], &constant));
  for (int from = 4; from < length; from++)
    for (int to = 0; to < 4; to++) pool[to] = mixed(pool[to], hashed(entropy[from], &constant));
  constant = 0x8b51f9ddu;
  for (int i = 0; i < count; i++) {
    uint32_t value = pool[i % 4] ^ constant;
    constant *= 0x58f38dedu;
    value *= constant;
    words[i] = value ^ value >> 16;
  }
}

/* The upper half of a product of 64 bits each; some targets have no integers of 128. */
static uint64_t upper_product(uint64_t a, uint64_t b) {
  const uint64_t al = a & 0xffffffffu, ah = a >> 32, bl = b & 0xffffffffu, bh = b >> 32;
  const uint64_t low = al * bl, one = ah * bl + (low >> 32), two = al * bh + (one & 0xffffffffu);
  return ah * bh + (one >> 32) + (two >> 32);
}

static void pcg64_step(pcg64_t *rng) {
  const uint64_t high = 0x2360ed051fc65da4u, low = 0x4385df649fccf645u;
  const uint64_t product = rng->low * low;
  rng->high = upper_product(rng->low, low) + rng->high * low + rng->low * high + rng->inc_high;
  rng->low = product + rng->inc_low;
  rng->high += rng->low < product;
}

void pcg64_seed(pcg64_t *rng, const uint32_t *entropy, int length) {
  uint32_t words[8];
  uint64_t seeds[4];
  seed_words(entropy, length, words, 8);
  for (int i = 0; i < 4; i++) seeds[i] = words[2 * i] | (uint64_t)words[2 * i + 1] << 32;
  rng->inc_high = seeds[2] << 1 | seeds[3] >> 63;
  rng->inc_low = seeds[3] << 1 | 1;
  rng->high = rng->low = 0;
  rng->has_half = 0;
  pcg64_step(rng);
  rng->low += seeds[1];
  rng->high += seeds[0] + (rng->low < seeds[1]);
  pcg64_step(rng);
}

uint64_t pcg64_next(pcg64_t *rng) {
  pcg64_step(rng);
  const uint64_t value = rng->high ^ rng->low;
  const int turn = (int)(rng->high >> 58);
  return value >> turn | value << (-turn & 63);
}

static uint32_t next_half(pcg64_t *rng) {
  if (rng->has_half) {
    rng->has_half = 0;
    return rng->half;
  }
  const uint64_t value = pcg64_next(rng);
  rng->half = (uint32_t)(value >> 32);
  rng->has_half = 1;
  return (uint32_t)value;
}

double pcg64_random(pcg64_t *rng) { return (double)(pcg64_next(rng) >> 11) * 0x1p-53; }

double pcg64_uniform(pcg64_t *rng, double low, double high) {
  return low + (high - low) * pcg64_random(rng);
}

/* Lemire's method (arXiv 1805.10941). */
uint32_t pcg64_below(pcg64_t *rng, uint32_t bound) {
  if (bound <= 1) return 0;
  uint64_t product = (uint64_t)next_half(rng) * bound;
  if ((uint32_t)product < bound) {
    const uint32_t threshold = (0u - bound) % bound;
    while ((uint32_t)product < threshold) product = (uint64_t)next_half(rng) * bound;
  }
  return (uint32_t)(product >> 32);
}

void pcg64_permutation(pcg64_t *rng, uint32_t *numbers, uint32_t count) {
  for (uint32_t i = 0; i < count; i++) numbers[i] = i;
  for (uint32_t last = count - 1; count > 0 && last > 0; last--) {
    uint32_t mask = last, other;
    for (int shift = 1; shift < 32; shift *= 2) mask |= mask >> shift;
    do other = next_half(rng) & mask;
    while (other > last);
    const uint32_t kept = numbers[last];
    numbers[last] = numbers[other];
    numbers[other] = kept;
  }
}

void mt19937_seed(mt19937_t *rng, uint32_t seed) {
  rng->words[0] = seed;
  for (uint32_t i = 1; i < 624; i++) {
    const uint32_t before = rng->words[i - 1];
    rng->words[i] = 1812433253u * (before ^ before >> 30) + i;
  }
  rng->next = 624;
}

uint32_t mt19937_next(mt19937_t *rng) {
  if (rng->next == 624) {
    for (int i = 0; i < 624; i++) {
      const uint32_t y = (rng->words[i] & 0x80000000u) | (rng->words[(i + 1) % 624] & 0x7fffffffu);
      rng->words[i] = rng->words[(i + 397) % 624] ^ y >> 1 ^ (y & 1 ? 0x9908b0dfu : 0);
    }
    rng->next = 0;
  }
  uint32_t y = rng->words[rng->next++];
  y ^= y >> 11;
  y ^= y << 7 & 0x9d2c5680u;
  y ^= y << 15 & 0xefc60000u;
  return y ^ y >> 18;
}
