// Codebooks: gradients of rows and queries. A warp a token; its lanes are those of sum32.
#include "kernels/cuda/cuda_common.cuh"
#include "kernels/cuda/vq_votes_cuda.h"

__global__ static void gradient_kernel(tv_vq_gradient_args a)
{
    int64_t t = tv_warp_row();
    if (t >= a.tokens)
        return;
    float power = tv_exp2i(a.base), scale = a.scale[t], sum = 0.0f;
    for (int64_t c = tv_warp_lane(); c < a.cols; c += TV_WARP) {
        int64_t i = t * a.cols + c;
        float z = (float)a.q[i] * scale;
        float e = (float)a.w8[i] * power - z;
        float g = a.g ? a.g[i] : 0.0f;
        sum = fmaf(e, e, sum);
        if (a.row_grad)
            a.row_grad[i] = fmaf(a.beta, e, g);
        if (a.z_grad)
            a.z_grad[i] = fmaf(-a.weight, e, g);
    }
    sum = tv_warp_combine(sum);
    if (a.loss && tv_warp_lane() == 0)
        a.loss[t] = sum;
}

extern "C" tv_status vq_gradient_cuda(const tv_vq_gradient_args *a, void *stream)
{
    if (!a->tokens || !a->cols)
        return TV_OK;
    gradient_kernel<<<tv_cuda_blocks(a->tokens, TV_ROWS_PER_BLOCK), TV_WARP * TV_ROWS_PER_BLOCK, 0,
                      tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("vq_gradient");
}
