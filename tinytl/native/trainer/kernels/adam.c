#include "adam.h"

#include <math.h>
#include <string.h>

#include "product.h"
#include "random.h"

#define CHUNK (128 * ADAM_BLOCK) /* values that draw their noise together */
static const double BETA1 = 0.9, BETA2 = 0.999;
static const float EPS = 1e-8f, SMALLEST_ROOT = 1e-6f;

static double power(double base, uint32_t exponent) {
  double result = 1;
  for (; exponent; exponent >>= 1, base *= base)
    if (exponent & 1) result *= base;
  return result;
}

adam_step_t adam_step(double learning_rate, uint32_t seed, uint32_t step) {
  return (adam_step_t){(float)(learning_rate / (1 - power(BETA1, step))),
                       (float)(1 / sqrt(1 - power(BETA2, step))), seed, step};
}

/* A stream of noise, -2^15 to 2^15 - 1. The streams of one tensor share a sequence of numbers: of
 * every chunk each takes a run, in turn; so each has a generator of its own that skips. */
typedef struct {
  mt19937_t rng;
  size_t run, left, skip; /* draws of four: of a run, of it still to come, between runs */
  int16_t drawn[4];
  int next;
} noise_t;

/* torch draws integers of 64 bits, the high word first, which lie in memory low word first. */
static void draw(noise_t *noise) {
  const uint32_t high = mt19937_next(&noise->rng), low = mt19937_next(&noise->rng);
  noise->drawn[0] = (int16_t)low, noise->drawn[1] = (int16_t)(low >> 16);
  noise->drawn[2] = (int16_t)high, noise->drawn[3] = (int16_t)(high >> 16);
  noise->next = 0;
}

static float next_noise(noise_t *noise) {
  if (noise->next == 4) {
    draw(noise);
    noise->left--;
  }
  return noise->drawn[noise->next++];
}

static void start_noise(noise_t *noise, uint32_t seed, size_t run, int number, int streams) {
  mt19937_seed(&noise->rng, seed);
  for (size_t i = 0; i < run * (size_t)number; i++) draw(noise);
  noise->run = noise->left = run;
  noise->skip = run * (size_t)(streams - 1);
  noise->next = 4;
}

/* To where the stream's run of the next chunk begins. */
static void next_chunk(noise_t *noise) {
  for (size_t i = 0; i < noise->left + noise->skip; i++) draw(noise);
  noise->left = noise->run;
  noise->next = 4;
}

static uint16_t rounded_at_random(float value, float noise) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  return (uint16_t)((bits + (uint32_t)(int32_t)noise + 0x8000u) >> 16);
}

static float clamped(float value, float least, float most) {
  return value < least ? least : value > most ? most : value;
}

/* First moments are fourth powers of codes, second ones eighth powers: see tinytl.optimizer. */
static void decode(const adam_tensor_t *tensor, size_t at, int count, float *m, float *v) {
  const float first = tensor->first_scales[at / ADAM_BLOCK] / 127;
  const float second = tensor->second_scales[at / ADAM_BLOCK] / 255;
  const int8_t *m_codes = (const int8_t *)tensor->first + at;
  const uint8_t *v_codes = (const uint8_t *)tensor->second + at;
  for (int i = 0; i < count; i++) {
    const float root = (float)m_codes[i] * first, square = root * root;
    m[i] = copysignf(square * square, root);
    const float v1 = (float)v_codes[i] * second, v2 = v1 * v1, v4 = v2 * v2;
    v[i] = v4 * v4;
  }
}

static void encode(const adam_tensor_t *tensor, size_t at, int count, const float *m,
                   const float *v, noise_t *first_noise, noise_t *second_noise) {
  float first[ADAM_BLOCK], second[ADAM_BLOCK], m_scale = SMALLEST_ROOT, v_scale = SMALLEST_ROOT;
  for (int i = 0; i < count; i++) {
    second[i] = sqrtf(sqrtf(sqrtf(v[i])));
    first[i] = sqrtf(sqrtf(fabsf(m[i])));
    v_scale = second[i] > v_scale ? second[i] : v_scale;
    m_scale = first[i] > m_scale ? first[i] : m_scale;
  }
  tensor->first_scales[at / ADAM_BLOCK] = m_scale;
  tensor->second_scales[at / ADAM_BLOCK] = v_scale;
  int8_t *m_codes = (int8_t *)tensor->first + at;
  uint8_t *v_codes = (uint8_t *)tensor->second + at;
  for (int i = 0; i < count; i++) {
    const float v_code = second[i] * (255 / v_scale) + next_noise(second_noise) * 0x1p-16f + 0.5f;
    v_codes[i] = (uint8_t)clamped(v_code, 2, 255);
    const float m_code = first[i] * (127 / m_scale) + next_noise(first_noise) * 0x1p-16f + 0.5f;
    const int8_t code = (int8_t)clamped(m_code, 0, 127);
    m_codes[i] = m[i] < 0 ? (int8_t)-code : code;
  }
}

static void advance(const adam_step_t *step, const adam_tensor_t *tensor, size_t at, int count,
                    const float *grad, float *m, float *v, noise_t *noise) {
  const float up1 = (float)(1 - BETA1), keep2 = (float)BETA2, up2 = (float)(1 - BETA2);
  for (int i = 0; i < count; i++) {
    m[i] += up1 * (grad[i] - m[i]);
    v[i] = keep2 * v[i] + up2 * grad[i] * grad[i];
    const float change = step->rate * m[i] / (sqrtf(v[i]) * step->root_factor + EPS);
    if (tensor->is_bfloat16) {
      uint16_t *value = (uint16_t *)tensor->values + at + (size_t)i;
      *value = rounded_at_random(widened_bfloat16(*value) - change, next_noise(noise));
    } else {
      ((float *)tensor->values)[at + (size_t)i] -= change;
    }
  }
}

void adam_update(const adam_step_t *step, const adam_tensor_t *tensor, const float *grad) {
  const int streams = (tensor->is_bfloat16 ? 1 : 0) + (tensor->codes ? 2 : 0);
  const size_t chunk = tensor->count < CHUNK ? tensor->count : CHUNK;
  const size_t row = tensor->codes ? (chunk + ADAM_BLOCK - 1) / ADAM_BLOCK * ADAM_BLOCK : chunk;
  const uint32_t entropy[3] = {step->seed, step->step, tensor->number};
  noise_t noises[3]; /* of values, second moments and first moments, as far as there are any */
  noise_t *of_codes = &noises[tensor->is_bfloat16];
  if (streams) {
    uint32_t seed;
    seed_words(entropy, 3, &seed, 1);
    for (int i = 0; i < streams; i++) start_noise(&noises[i], seed, (row + 3) / 4, i, streams);
  }
  for (size_t at = 0; at < tensor->count; at += ADAM_BLOCK) {
    const size_t left = tensor->count - at;
    const int count = left < ADAM_BLOCK ? (int)left : ADAM_BLOCK;
    if (at > 0 && at % CHUNK == 0)
      for (int i = 0; i < streams; i++) next_chunk(&noises[i]);
    if (!tensor->codes) {
      advance(step, tensor, at, count, grad + at, (float *)tensor->first + at,
              (float *)tensor->second + at, &noises[0]);
      continue;
    }
    float m[ADAM_BLOCK], v[ADAM_BLOCK];
    decode(tensor, at, count, m, v);
    advance(step, tensor, at, count, grad + at, m, v, &noises[0]);
    encode(tensor, at, count, m, v, &of_codes[1], &of_codes[0]);
  }
}
