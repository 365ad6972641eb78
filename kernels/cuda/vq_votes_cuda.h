// Codebook ops of the cuda backend: gradients, votes, the ballot of the touched rows, usage and restarts.
#ifndef TV_KERNELS_VQ_VOTES_CUDA_H
#define TV_KERNELS_VQ_VOTES_CUDA_H

#ifdef __cplusplus
extern "C" {
#endif

#include "kernels/kernels.h"

tv_status vq_gradient_cuda(const tv_vq_gradient_args *a, void *stream);
tv_status vq_group_cuda(const tv_vq_group_args *a, void *stream);
tv_status vq_votes_cuda(const tv_vq_votes_args *a, void *stream);
tv_status vq_votes_rows_cuda(const tv_vq_votes_rows_args *a, void *stream);
tv_status vq_ballot_cuda(const tv_vq_ballot_args *a, void *stream);
tv_status vq_farthest_cuda(const tv_vq_farthest_args *a, void *stream);
tv_status vq_restart_cuda(const tv_vq_restart_args *a, void *stream);
tv_status vq_usage_cuda(const tv_vq_usage_args *a, void *stream);

#ifdef __cplusplus
}
#endif

#endif
