/* The random numbers of numpy and torch, so that a training draws what the Python engine draws. */
#ifndef RANDOM_H
#define RANDOM_H

#include <stddef.h>
#include <stdint.h>

/* numpy's SeedSequence(entropy).generate_state(count); words of 32 bits. */
void seed_words(const uint32_t *entropy, int length, uint32_t *words, int count);

/* numpy's default_rng: PCG64 (XSL RR). */
typedef struct {
  uint64_t high, low, inc_high, inc_low;
  uint32_t half;
  int has_half;
} pcg64_t;

void pcg64_seed(pcg64_t *rng, const uint32_t *entropy, int length);
uint64_t pcg64_next(pcg64_t *rng);
double pcg64_random(pcg64_t *rng); /* 0 <= x < 1 */
double pcg64_uniform(pcg64_t *rng, double low, double high);
uint32_t pcg64_below(pcg64_t *rng, uint32_t bound);                       /* Generator.integers */
void pcg64_permutation(pcg64_t *rng, uint32_t *numbers, uint32_t count); /* Generator.permutation */

/* torch's generator on the CPU: MT19937. */
typedef struct {
  uint32_t words[624];
  int next;
} mt19937_t;

void mt19937_seed(mt19937_t *rng, uint32_t seed);
uint32_t mt19937_next(mt19937_t *rng);

#endif
