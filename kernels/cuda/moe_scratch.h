// What the ops of the mixture of experts keep between calls. Calls on one stream follow each other; on two they would share it.
#ifndef TV_KERNELS_MOE_SCRATCH_H
#define TV_KERNELS_MOE_SCRATCH_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "kernels/cuda/tops_turn.h"

#ifdef __cplusplus
extern "C" {
#endif

// Device memory that only grows; its contents are lost at the next call.
tv_status moe_scratch_cuda(size_t bytes, void **out);
// Room for maxima, which grows (tops_turn.h).
tv_status moe_tops_cuda(int64_t count, void *stream, tv_channel_tops *out);
// Multiprocessors of the device.
int moe_processors_cuda(void);
// Give the memory back; called by close_cuda.
void moe_close_cuda(void);

#ifdef __cplusplus
}
#endif

#endif
