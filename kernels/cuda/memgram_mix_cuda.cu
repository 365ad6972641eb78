// N-grams: the gated sum of a token's rows, and its gradient. A warp a token, straight from the packed answers: lane l has the channels l and
// l + 32, so the warp is sum32's 32 lanes; d <= 64. Nothing in shared memory.
#include "kernels/cuda/cuda_common.cuh"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/ref/memgram_common.h"

#define HALVES 2 // channels of a lane

// An answer as its warp sees it: the lane's trits, 0 behind d.
struct held_row {
    tv_memgram_answer answer;
    int nonzero; // of all lanes
    float trit[HALVES];
};

// All lanes of the warp read the same slot.
__device__ static inline held_row read_row(const uint8_t *bytes, int32_t u, int64_t cols, int base, int mantissa_bits,
                                           int32_t *fault)
{
    held_row row = {{0, 0.0f, 0.0f}, 0, {0.0f, 0.0f}};
    int packed = ((int)cols + 4) / 5, lane = tv_warp_lane();
    if (u < 0)
        return row;
    const uint8_t *at = bytes + u * tv_vq_answer_bytes(cols);
    int id = ((const int32_t *)at)[0], strength = ((const int32_t *)at)[1], code = (int8_t)at[8 + packed] - base;
    bool bad =
        code < 0 || code >= tv_lattice_codes(mantissa_bits) || strength < 0 || strength > TV_MEMGRAM_STRENGTH_WHOLE;
    bad |= __any_sync(0xFFFFFFFFu, lane < packed && at[8 + lane] > TV_TRIT_BYTE_MAX) != 0;
    if (bad && fault && lane == 0)
        *fault = 1;
    if (bad || id < 0)
        return row;
    for (int h = 0; h < HALVES; h++) {
        int c = lane + TV_WARP * h, trit = c < cols ? tv_byte_trit(at[8 + c / 5], c % 5) : 0;
        row.trit[h] = (float)trit;
        row.nonzero += __popc(__ballot_sync(0xFFFFFFFFu, trit != 0));
    }
    row.answer.here = 1;
    row.answer.unit = (float)tv_lattice_value(mantissa_bits, code) * tv_exp2i(base);
    row.answer.strength = tv_memgram_factor(strength);
    return row;
}

__device__ static inline float channel(const float *x, int64_t t, int64_t cols, int h)
{
    int64_t c = tv_warp_lane() + TV_WARP * h;
    return c < cols ? x[t * cols + c] : 0.0f;
}

// sum32 of x and the row's trits times unit.
__device__ static inline float dot(const float *x, const held_row &row, float unit)
{
    float lane = 0.0f;
    for (int h = 0; h < HALVES; h++)
        lane = fmaf(x[h], row.trit[h] * unit, lane);
    return tv_warp_combine(lane);
}

__device__ static inline float rstd(const float *z, int64_t cols)
{
    float lane = 0.0f;
    for (int h = 0; h < HALVES; h++)
        lane = fmaf(z[h], z[h], lane);
    return tv_memgram_rstd(tv_warp_combine(lane), cols);
}

__global__ static void mix_kernel(tv_memgram_mix_args a)
{
    int64_t t = tv_warp_row();
    float z[HALVES], y[HALVES];
    if (t >= a.tokens)
        return;
    for (int h = 0; h < HALVES; h++) {
        z[h] = channel(a.z, t, a.cols, h);
        y[h] = a.accumulate ? channel(a.y, t, a.cols, h) : 0.0f;
    }
    float r = rstd(z, a.cols);
    for (int j = 0; j < a.slots; j++) {
        held_row row = read_row(a.bytes, a.slot[t * a.slots + j], a.cols, a.base, a.mantissa_bits, a.fault);
        if (!row.answer.here)
            continue;
        float k = tv_memgram_sharpness(row.nonzero, a.cols);
        float weight = tv_sigmoid((dot(z, row, 1.0f) * r) * k) * row.answer.strength;
        for (int h = 0; h < HALVES; h++)
            y[h] = fmaf(weight, row.trit[h] * row.answer.unit, y[h]);
    }
    for (int h = 0; h < HALVES; h++)
        if (tv_warp_lane() + TV_WARP * h < a.cols)
            a.y[t * a.cols + tv_warp_lane() + TV_WARP * h] = y[h];
}

extern "C" tv_status memgram_mix_cuda(const tv_memgram_mix_args *a, void *stream)
{
    if (!a->tokens || !a->cols)
        return TV_OK;
    mix_kernel<<<tv_cuda_blocks(a->tokens, TV_ROWS_PER_BLOCK), TV_WARP * TV_ROWS_PER_BLOCK, 0,
                 tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("memgram_mix");
}

__global__ static void back_kernel(tv_memgram_back_args a)
{
    int64_t t = tv_warp_row();
    float z[HALVES], dy[HALVES], dz[HALVES];
    if (t >= a.tokens)
        return;
    for (int h = 0; h < HALVES; h++) {
        z[h] = channel(a.z, t, a.cols, h);
        dy[h] = channel(a.dy, t, a.cols, h);
        dz[h] = a.accumulate ? channel(a.dz, t, a.cols, h) : 0.0f;
    }
    float r = rstd(z, a.cols);
    for (int j = 0; j < a.slots; j++) {
        int64_t entry = t * a.slots + j;
        held_row row = read_row(a.bytes, a.slot[entry], a.cols, a.base, a.mantissa_bits, NULL);
        tv_memgram_slope s = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
        if (row.answer.here)
            s = tv_memgram_slope_of(row.answer, row.nonzero, dot(z, row, 1.0f), r, dot(dy, row, row.answer.unit),
                                    a.cols);
        for (int h = 0; h < HALVES; h++) {
            int64_t c = tv_warp_lane() + TV_WARP * h;
            float trit = row.trit[h], grad = fmaf(s.row, fmaf(-s.mean, trit, z[h]), s.weight * dy[h]);
            if (c < a.cols)
                a.row_grad[entry * a.cols + c] = row.answer.here ? grad : 0.0f;
            if (row.answer.here)
                dz[h] = fmaf(-s.back, z[h], fmaf(s.trit, trit, dz[h]));
        }
    }
    for (int h = 0; h < HALVES; h++)
        if (tv_warp_lane() + TV_WARP * h < a.cols)
            a.dz[t * a.cols + tv_warp_lane() + TV_WARP * h] = dz[h];
}

extern "C" tv_status memgram_back_cuda(const tv_memgram_back_args *a, void *stream)
{
    if (!a->tokens || !a->cols)
        return TV_OK;
    back_kernel<<<tv_cuda_blocks(a->tokens, TV_ROWS_PER_BLOCK), TV_WARP * TV_ROWS_PER_BLOCK, 0,
                  tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("memgram_back");
}
