// The products on Hopper (compute capability 9.0): same results as gemm_cuda's portable kernels, faster.
#ifndef TV_KERNELS_GEMM_HOPPER_H
#define TV_KERNELS_GEMM_HOPPER_H

#ifdef __cplusplus
extern "C" {
#endif

#include "kernels/kernels.h"

// Look whether this GPU and build can run them, set their limits, and take 16 MiB of device memory for vote products that are cut along
// the tokens; these must run one at a time, on one stream. Elsewhere nothing is an error: the fits below are then 0.
tv_status gemm_hopper_open(void);
void gemm_hopper_close(void);

// Whether the product can go this way: rows of operands of a multiple of 16 bytes that start on 16-byte borders.
int gemm_hopper_fits(const tv_gemm_args *args);
int gemm_vote_hopper_fits(const tv_gemm_vote_args *args);

// As gemm and gemm_vote of kernels.h, for products that fit. Extents are not 0.
tv_status gemm_hopper(const tv_gemm_args *args, void *stream);
tv_status gemm_vote_hopper(const tv_gemm_vote_args *args, void *stream);

// The experts' products. Forward and grad-x: outputs of whole tiles of 128 columns. Votes: one level.
int moe_gemm_hopper_fits(const tv_moe_gemm_args *args);
int moe_vote_hopper_fits(const tv_moe_vote_args *args);
tv_status moe_gemm_hopper(const tv_moe_gemm_args *args, void *stream);
tv_status moe_vote_hopper(const tv_moe_vote_args *args, void *stream);

#ifdef __cplusplus
}
#endif

#endif
