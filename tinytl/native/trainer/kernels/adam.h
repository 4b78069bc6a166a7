/* Adam (arXiv 1412.6980) for one tensor, as tinytl.optimizer has it: moments of 32 bits, or codes
 * of 8 bits with a scale for each block of values. */
#ifndef ADAM_H
#define ADAM_H

#include <stddef.h>
#include <stdint.h>

#define ADAM_BLOCK 256

/* What all tensors of a step share. */
typedef struct {
  float rate, root_factor; /* step size and 1 / sqrt(1 - beta2^t), bias corrections included */
  uint32_t seed, step;
} adam_step_t;

adam_step_t adam_step(double learning_rate, uint32_t seed, uint32_t step);

/* codes: moments are int8 and uint8 codes, with scales; else both are floats and scales NULL.
 * values: float, or bfloat16 where is_bfloat16, which are rounded at random. */
typedef struct {
  size_t count;
  uint32_t number; /* of the tensor: seeds its noise */
  int codes, is_bfloat16;
  void *values, *first, *second;
  float *first_scales, *second_scales;
} adam_tensor_t;

void adam_update(const adam_step_t *step, const adam_tensor_t *tensor, const float *grad);

#endif
