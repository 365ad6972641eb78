// Codebook ops of the cuda backend: the table, where queries look, and what they find there.
#ifndef TV_KERNELS_VQ_OPS_CUDA_H
#define TV_KERNELS_VQ_OPS_CUDA_H

#ifdef __cplusplus
extern "C" {
#endif

#include "kernels/kernels.h"

tv_status vq_init_cuda(const tv_vq_init_args *a, void *stream);
tv_status vq_probes_cuda(const tv_vq_probes_args *a, void *stream);
tv_status vq_send_cuda(const tv_vq_send_args *a, void *stream);
tv_status vq_plan_cuda(const tv_vq_plan_args *a, void *stream);
tv_status vq_search_cuda(const tv_vq_search_args *a, void *stream);
tv_status vq_best_cuda(const tv_vq_best_args *a, void *stream);
tv_status vq_answer_cuda(const tv_vq_answer_args *a, void *stream);
tv_status vq_answer_unpack_cuda(const tv_vq_answer_unpack_args *a, void *stream);
tv_status vq_rows_cuda(const tv_vq_rows_args *a, void *stream);

#ifdef __cplusplus
}
#endif

#endif
