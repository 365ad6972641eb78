// Work over segments whose sizes only the GPU knows: a grid of fixed size walks over pieces of segments.
//
// Each block adds up the pieces of the segments once, then finds the segment of a piece by bisection.
#ifndef TV_KERNELS_MOE_SEGMENTS_CUH
#define TV_KERNELS_MOE_SEGMENTS_CUH

#include "kernels/cuda/cuda_common.cuh"
#include "kernels/cuda/moe_scratch.h"

#define TV_MOE_SEGMENTS_MAX 1024

// Fails when `op` gets more segments than the blocks' tables hold.
static inline tv_status tv_moe_segments_check(const char *op, int64_t count)
{
    if (count > TV_MOE_SEGMENTS_MAX)
        return TV_FAIL(TV_BACKEND,
                       "%s: %lld segments, and the cuda backend takes at most %d; use fewer experts or ranks", op,
                       (long long)count, TV_MOE_SEGMENTS_MAX);
    return TV_OK;
}

// end[s] = sum of pieces(s) over the segments 0 .. s. All threads of the block call it; returns the whole sum.
template <class PIECES> __device__ static int tv_moe_segments_sum(int32_t *end, int count, const PIECES &pieces)
{
    if (threadIdx.x < TV_WARP) {
        int lane = tv_warp_lane(), before = 0;
        for (int s0 = 0; s0 < count; s0 += TV_WARP) {
            int sum = s0 + lane < count ? pieces(s0 + lane) : 0;
            for (int x = 1; x < TV_WARP; x <<= 1) {
                int left = __shfl_up_sync(0xFFFFFFFFu, sum, x);
                sum += lane >= x ? left : 0;
            }
            if (s0 + lane < count)
                end[s0 + lane] = before + sum;
            before += __shfl_sync(0xFFFFFFFFu, sum, TV_WARP - 1);
        }
    }
    __syncthreads();
    return count > 0 ? end[count - 1] : 0;
}

struct tv_moe_piece {
    int segment, index; // index: of the segment's pieces
};

// Where piece `t` of all, 0 <= t < the sum, lies.
__device__ static inline tv_moe_piece tv_moe_piece_at(const int32_t *end, int count, int t)
{
    int low = 0, high = count - 1;
    while (low < high) {
        int middle = (low + high) / 2;
        if (end[middle] > t)
            high = middle;
        else
            low = middle + 1;
    }
    return {low, t - (low > 0 ? end[low - 1] : 0)};
}

// Pieces of `per` rows of each segment.
struct tv_moe_row_pieces {
    const tv_segment *segments;
    int per;
    __device__ int operator()(int s) const { return (int)((segments[s].rows + per - 1) / per); }
};

// The segment that holds row `row`, or -1. All lanes of a warp call it with the same row.
__device__ static inline int tv_moe_segment_of_row(const tv_segment *segments, int count, int64_t row)
{
    for (int s0 = 0; s0 < count; s0 += TV_WARP) {
        int s = s0 + tv_warp_lane();
        int64_t first = s < count ? segments[s].first : row, rows = s < count ? segments[s].rows : 0;
        uint32_t holds = __ballot_sync(0xFFFFFFFFu, row >= first && row < first + rows);
        if (holds)
            return s0 + __ffs((int)holds) - 1;
    }
    return -1;
}

// The same for a column of a transposed array, pads included.
__device__ static inline int tv_moe_segment_of_column(const tv_segment *segments, int count, int64_t column)
{
    for (int s0 = 0; s0 < count; s0 += TV_WARP) {
        int s = s0 + tv_warp_lane();
        int64_t first = s < count ? segments[s].padded : column, rows = s < count ? segments[s].rows : 0;
        uint32_t holds =
            __ballot_sync(0xFFFFFFFFu, column >= first && column < first + (rows + TV_SEGMENT_PAD - 1) /
                                                                               TV_SEGMENT_PAD * TV_SEGMENT_PAD);
        if (holds)
            return s0 + __ffs((int)holds) - 1;
    }
    return -1;
}

// Blocks for a walk over at most `pieces` pieces, `each` blocks a multiprocessor.
static inline unsigned tv_moe_grid(int64_t pieces, int each)
{
    int64_t most = (int64_t)moe_processors_cuda() * each;
    return (unsigned)(pieces < most ? pieces : most);
}

// A float in -127.5 .. 127.5, rounded half to even, in the low byte: this sum's last bit is a unit.
__device__ static inline uint32_t tv_moe_rounded(float x) { return tv_float_bits(x + 12582912.0f); }

// Low bytes of four words, in order.
__device__ static inline uint32_t tv_moe_bytes(uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    return __byte_perm(__byte_perm(a, b, 0x0040), __byte_perm(c, d, 0x0040), 0x5410);
}

// Byte i of a word as a signed number.
__device__ static inline float tv_moe_value(uint32_t word, int i) { return (float)(int8_t)(word >> (8 * i)); }

#endif
