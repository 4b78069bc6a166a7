/* One operation of a micro-batch, its operands found and its kernel called. */
#ifndef OPERATIONS_H
#define OPERATIONS_H

#include "steps.h"

/* Operands are taken one after another: slot is the next one's. */
typedef struct {
  trainer_t *trainer;
  const op_t *op;
  uint32_t pass;
  int micro_batch, images, slot;
} call_t;

/* Where a buffer lies for a micro-batch; NULL for NO_BUFFER. */
void *address(const trainer_t *trainer, uint16_t number, uint32_t pass);

void run_operation(call_t *call);

#endif
