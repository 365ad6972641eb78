// Sixteen rows of up to 64 channels in a warp's registers, and ternary layers on them: a layer's result has the form of its input, so layers
// follow each other with no memory between them.
//
// Lane 4 g + q holds the rows g and g + 8, of each the channels 8 j + 2 q and 8 j + 2 q + 1, j = 0 .. 7: the accumulators of mma m16n8k32.
// Integer sums have no order, so a product takes its channels as the lanes hold them, and the weights lie in shared memory as each lane wants
// them. Rows and channels that are not there are zeros, which change neither a sum nor a maximum.
//
// WHOLE: widths are multiples of 4 and arrays begin on 16 bytes (tv_qr_whole), so memory is read and written in words or pairs, none of which
// waits for another.
#ifndef TV_KERNELS_QUAD_ROWS_CUH
#define TV_KERNELS_QUAD_ROWS_CUH

#include "kernels/cuda/mma_cuda.cuh"
#include "kernels/cuda/vector_cuda.cuh"

#define TV_QR_ROWS 16 // of a warp
#define TV_QR_CHANNELS 64
#define TV_QR_TILES 8     // of 8 channels
#define TV_QR_STEPS 2     // of 32 channels, of operands in this form
#define TV_QR_THREADS 256 // of a block: four for each output of a layer

// Integers below 2^22 that are added to this one are, as a float's bits, the integer and 12582912.
#define TV_QR_ZERO 0x4B400000
#define TV_QR_ZERO_FLOAT 12582912.0f

static inline bool tv_qr_whole(int64_t width, std::initializer_list<const void *> arrays)
{
    return width % 4 == 0 && tv_cuda_aligned(arrays);
}

// v[h][j][e]: row g + 8 h, channel 8 j + 2 q + e.
typedef struct tv_qr_rows {
    float v[2][TV_QR_TILES][2];
} tv_qr_rows;

// The rows as int8 for a product, and their scales.
template <int STEPS> struct tv_qr_operand {
    uint32_t a[STEPS][4]; // word w of row g + 8 h at 2 w + h
    float scale[2];
};

// A layer's weights: words b of tile j at a step for each lane. zero[n]: what the sum of output n starts at.
template <int STEPS> struct tv_qr_layer {
    uint2 b[TV_QR_TILES][STEPS][TV_WARP];
    int32_t zero[TV_QR_CHANNELS];
};

__device__ static inline int tv_qr_group(void) { return tv_warp_lane() / 4; }
__device__ static inline int tv_qr_quarter(void) { return tv_warp_lane() % 4; }
__device__ static inline int tv_qr_channel(int j) { return 8 * j + 2 * tv_qr_quarter(); } // and the next
// The lane of this row that holds `quarter`.
__device__ static inline int tv_qr_lane_of(int quarter) { return (tv_warp_lane() & ~3) | quarter; }
// Whether any of the four lanes of a row says so. All lanes of the warp call it.
__device__ static inline bool tv_qr_any(bool said)
{
    return (__ballot_sync(0xFFFFFFFFu, said) >> (tv_warp_lane() & ~3) & 15u) != 0;
}

// Channels 8 j + 2 q and the next of a row of k int8, for all j, zeros where it ends.
template <bool WHOLE>
__device__ static inline void tv_qr_read_bytes(const int8_t *row, int k, int q, uint32_t two[TV_QR_TILES])
{
#pragma unroll
    for (int j = 0; j < TV_QR_TILES; j++) {
        int c = 8 * j + 2 * q;
        if constexpr (WHOLE)
            two[j] = c < k ? *(const uint16_t *)(row + c) : 0;
        else
            two[j] = (c < k ? (uint8_t)row[c] : 0) | (c + 1 < k ? (uint32_t)(uint8_t)row[c + 1] << 8 : 0);
    }
}

// The layer w8 [n, k], n, k <= 64, for operands in this form. All TV_QR_THREADS threads call it; a barrier must follow.
template <bool WHOLE>
__device__ static inline void tv_qr_load_layer(tv_qr_layer<TV_QR_STEPS> *layer, const int8_t *w8, int n, int k)
{
    int row = threadIdx.x / 4, q = threadIdx.x % 4;
    uint32_t two[TV_QR_TILES];
    tv_qr_read_bytes<WHOLE>(w8 + row * k, row < n ? k : 0, q, two);
#pragma unroll
    for (int step = 0; step < TV_QR_STEPS; step++)
        layer->b[row / 8][step][row % 8 * 4 + q] =
            make_uint2(two[4 * step] | two[4 * step + 1] << 16, two[4 * step + 2] | two[4 * step + 3] << 16);
    if (q == 0)
        layer->zero[row] = TV_QR_ZERO;
}

// quantize_rows, qmax 127; *fault is raised for a NaN or Inf, if fault is not NULL.
__device__ static inline tv_qr_operand<TV_QR_STEPS> tv_qr_quantize(const tv_qr_rows &x, int32_t *fault)
{
    tv_qr_operand<TV_QR_STEPS> out;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        uint32_t top = 0;
#pragma unroll
        for (int j = 0; j < TV_QR_TILES; j++)
            top = max(top, max(tv_magnitude(x.v[h][j][0]), tv_magnitude(x.v[h][j][1])));
        float absmax = tv_usable_absmax(tv_lanes_max<4>(top), fault && tv_qr_quarter() == 0, fault);
        float inverse = tv_inverse127(absmax);
        out.scale[h] = absmax / 127.0f;
#pragma unroll
        for (int j = 0; j < TV_QR_TILES; j += 2) // four bytes: of two tiles
            out.a[j / 4][j / 2 % 2 * 2 + h] =
                tv_quantize4(make_float4(x.v[h][j][0], x.v[h][j][1], x.v[h][j + 1][0], x.v[h][j + 1][1]), inverse);
    }
    return out;
}

// c = zero + the product of a step; tv_mma_16832 adds to c.
__device__ static inline void tv_qr_first(int32_t c[4], const uint32_t a[4], uint2 b, int2 zero)
{
    asm volatile(
        "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %11, "
        "%10, %11};"
        : "=r"(c[0]), "=r"(c[1]), "=r"(c[2]), "=r"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b.x), "r"(b.y), "r"(zero.x), "r"(zero.y));
}

// A step of 16 channels, the first word of each row alone.
__device__ static inline void tv_qr_half(int32_t c[4], const uint32_t a[4], uint32_t b)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
                 : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(b));
}

// Sums of tile j for N operands: acc[i][2 h + e] for row g + 8 h of operand i, output 8 j + 2 q + e, and what they start at. The
// step behind TV_QR_STEPS is a half.
template <int STEPS, int N>
__device__ static inline void tv_qr_product(const tv_qr_operand<STEPS> x[N], const tv_qr_layer<STEPS> &layer, int j,
                                            int32_t acc[N][4])
{
    int2 zero = *(const int2 *)&layer.zero[tv_qr_channel(j)];
    uint2 b = layer.b[j][0][tv_warp_lane()];
#pragma unroll
    for (int i = 0; i < N; i++)
        tv_qr_first(acc[i], x[i].a[0], b, zero);
#pragma unroll
    for (int step = 1; step < STEPS; step++) {
        b = layer.b[j][step][tv_warp_lane()];
        uint32_t words[2] = {b.x, b.y};
#pragma unroll
        for (int i = 0; i < N; i++)
            if (step < TV_QR_STEPS)
                tv_mma_16832(acc[i], x[i].a[step], words);
            else
                tv_qr_half(acc[i], x[i].a[step], b.x);
    }
}

// (float)(sum factor), factor an integer and the result below 2^24: exact.
__device__ static inline float tv_qr_float(int32_t acc, float factor)
{
    return fmaf(__int_as_float(acc), factor, -TV_QR_ZERO_FLOAT * factor);
}

// Rows row[0] and row[1] of x [.., cols]; a row below 0 is zeros.
template <bool WHOLE> __device__ static inline tv_qr_rows tv_qr_load(const float *x, const int64_t row[2], int cols)
{
    tv_qr_rows out;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const float *at = x + row[h] * cols + tv_qr_channel(0);
        int here = row[h] < 0 ? 0 : cols - tv_qr_channel(0); // channels from the lane's first on
#pragma unroll
        for (int j = 0; j < TV_QR_TILES; j++) {
            float2 two = make_float2(0.0f, 0.0f);
            if (WHOLE && 8 * j < here)
                two = *(const float2 *)(at + 8 * j);
            out.v[h][j][0] = two.x, out.v[h][j][1] = two.y;
        }
#pragma unroll
        for (int i = 0; i < 2 * TV_QR_TILES; i++)
            if (!WHOLE && 8 * (i / 2) + i % 2 < here)
                out.v[h][i / 2][i % 2] = at[8 * (i / 2) + i % 2];
    }
    return out;
}

template <bool WHOLE>
__device__ static inline void tv_qr_store(float *y, const int64_t row[2], int cols, const tv_qr_rows &value)
{
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float *at = y + row[h] * cols + tv_qr_channel(0);
        int here = row[h] < 0 ? 0 : cols - tv_qr_channel(0);
#pragma unroll
        for (int j = 0; j < TV_QR_TILES; j++)
            if (WHOLE && 8 * j < here)
                *(float2 *)(at + 8 * j) = make_float2(value.v[h][j][0], value.v[h][j][1]);
#pragma unroll
        for (int i = 0; i < 2 * TV_QR_TILES; i++)
            if (!WHOLE && 8 * (i / 2) + i % 2 < here)
                at[8 * (i / 2) + i % 2] = value.v[h][i / 2][i % 2];
    }
}

// q [.., cols] and scale [..] of rows that are there.
template <bool WHOLE>
__device__ static inline void tv_qr_store_operand(const tv_qr_operand<TV_QR_STEPS> &x, const int64_t row[2], int cols,
                                                  int8_t *q, float *scale)
{
#pragma unroll
    for (int h = 0; h < 2; h++) {
        if (row[h] < 0)
            continue;
        if (tv_qr_quarter() == 0)
            scale[row[h]] = x.scale[h];
        int8_t *at = q + row[h] * cols + tv_qr_channel(0);
        int here = cols - tv_qr_channel(0);
#pragma unroll
        for (int j = 0; j < TV_QR_TILES; j++) {
            uint32_t two = x.a[j / 4][j / 2 % 2 * 2 + h] >> (16 * (j % 2));
            if (WHOLE && 8 * j < here)
                *(uint16_t *)(at + 8 * j) = (uint16_t)two;
            if (!WHOLE && 8 * j < here)
                at[8 * j] = (int8_t)two;
            if (!WHOLE && 8 * j + 1 < here)
                at[8 * j + 1] = (int8_t)(two >> 8);
        }
    }
}

#endif
