// Nodes of the graph from packed rows: a warp has sixteen of them.
#include "kernels/cuda/answer_rows.cuh"
#include "kernels/cuda/cuda_ops.h"

#define WARPS (TV_QR_THREADS / TV_WARP)
#define BLOCK_ROWS (WARPS * TV_QR_ROWS)

template <bool WHOLE> __global__ static void __launch_bounds__(TV_QR_THREADS) decode_kernel(tv_graph_decode_args a)
{
    __shared__ tv_ar_table table;
    __shared__ __align__(16) uint8_t stage[WARPS][TV_QR_ROWS * TV_AR_PITCH];
    tv_ar_form form = tv_ar_form_of(a.bytes, (int)a.cols, a.base, a.mantissa_bits);
    int warp = threadIdx.x / TV_WARP;
    int64_t row[2];
    int32_t index[2];
    int code[2];
    uint32_t packed[2];
    tv_ar_load_table(&table, a.base, a.mantissa_bits);
    __syncthreads();
    for (int h = 0; h < 2; h++) {
        row[h] = (int64_t)blockIdx.x * BLOCK_ROWS + warp * TV_QR_ROWS + tv_qr_group() + 8 * h;
        row[h] = row[h] < a.count ? row[h] : -1;
        index[h] = row[h] >= 0 && a.from ? a.from[row[h]] : (int32_t)row[h];
    }
    tv_ar_read(form, index, code, packed, a.fault);
    tv_qr_store<WHOLE>(a.x, row, (int)a.cols, tv_ar_values(table, code, packed, (int)a.cols, stage[warp]));
}

extern "C" tv_status graph_decode_cuda(const tv_graph_decode_args *a, void *stream)
{
    if (!a->count || !a->cols)
        return TV_OK;
    if (a->cols > TV_QR_CHANNELS)
        return TV_FAIL(TV_BACKEND, "nodes of %lld channels: the kernel holds at most %d", (long long)a->cols,
                       TV_QR_CHANNELS);
    unsigned blocks = tv_cuda_blocks(a->count, BLOCK_ROWS);
    if (tv_qr_whole(a->cols, {a->x}))
        decode_kernel<true><<<blocks, TV_QR_THREADS, 0, tv_cuda_stream(stream)>>>(*a);
    else
        decode_kernel<false><<<blocks, TV_QR_THREADS, 0, tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("graph_decode");
}
