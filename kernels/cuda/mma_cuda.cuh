// The integer product of a block: acc[i, j] = sum_r A[i, r] B[j, r] on s8 tensor cores (mma.sync m16n8k32, sm_80 and up).
//
// Block tile 128 x 128, k step 64 bytes, 8 warps as 2 x 4, warp tile 64 x 32 (4 x 4 fragments of 16 x 8). Both operands K-major, so
// both go through ldmatrix without transposition. Shared memory: STAGES x (A tile + B tile), rows of 64 bytes in four 16-byte
// chunks, chunk c of row r stored at c ^ ((r >> 1) & 3): the eight rows of an ldmatrix fall into different banks. Rows and the k
// tail beyond the edge are filled with zeros. PIECE, 16 or 8, is the length of an asynchronous copy, and has to divide `reduce` and the
// operands' addresses; PIECE 1 copies bytes.
#ifndef TV_KERNELS_MMA_CUDA_CUH
#define TV_KERNELS_MMA_CUDA_CUH

#include "kernels/cuda/cuda_common.cuh"

#define TV_MMA_M 128
#define TV_MMA_N 128
#define TV_MMA_K 64
#define TV_MMA_STAGES 4
#define TV_MMA_THREADS 256
#define TV_MMA_TILE_BYTES (TV_MMA_M * TV_MMA_K) // of one operand; M = N
#define TV_MMA_SHARED_BYTES (TV_MMA_STAGES * 2 * TV_MMA_TILE_BYTES)

typedef struct tv_mma_operand {
    const int8_t *data;
    int64_t rows; // rows of the whole operand
    int64_t reduce;
    int64_t pitch; // bytes from one row to the next; 0: reduce
} tv_mma_operand;

__device__ static inline uint32_t tv_shared_address(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }

__device__ static inline int tv_mma_offset(int row, int chunk)
{
    return row * TV_MMA_K + ((chunk ^ ((row >> 1) & 3)) << 4);
}

// PIECE bytes to shared memory, asynchronously; zeros when not inside.
template <int PIECE> __device__ static inline void tv_mma_copy(int8_t *to, const int8_t *from, bool inside)
{
    int bytes = inside ? PIECE : 0;
    if (PIECE == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(tv_shared_address(to)), "l"(from),
                     "r"(bytes));
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(tv_shared_address(to)), "l"(from),
                     "r"(bytes));
}

// Tile of 128 rows x 64 bytes at (row0, k0) into shared memory; asynchronous when PIECE is more than 1.
template <int PIECE> __device__ static inline void tv_mma_load(tv_mma_operand o, int64_t row0, int64_t k0, int8_t *tile)
{
    int64_t pitch = o.pitch ? o.pitch : o.reduce;
    for (int i = threadIdx.x; i < TV_MMA_M * 4; i += TV_MMA_THREADS) {
        int row = i >> 2, chunk = i & 3;
        int64_t r = row0 + row, k = k0 + chunk * 16;
        int8_t *to = tile + tv_mma_offset(row, chunk);
        for (int b = 0; b < 16; b += PIECE) {
            bool inside = r < o.rows && k + b < o.reduce;
            const int8_t *from = inside ? o.data + r * pitch + k + b : o.data;
            if (PIECE > 1)
                tv_mma_copy<PIECE>(to + b, from, inside);
            else
                to[b] = inside ? *from : (int8_t)0;
        }
    }
}

__device__ static inline void tv_ldmatrix4(uint32_t out[4], const void *p)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(tv_shared_address(p)));
}

__device__ static inline void tv_mma_16832(int32_t c[4], const uint32_t a[4], const uint32_t *b)
{
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, "
                 "%1, %2, %3};"
                 : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// The same with unsigned bytes on the left.
__device__ static inline void tv_mma_16832_unsigned(int32_t c[4], const uint32_t a[4], const uint32_t *b)
{
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, "
                 "%1, %2, %3};"
                 : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Add the products of one shared stage to the warp's accumulators.
__device__ static inline void tv_mma_stage(const int8_t *a_tile, const int8_t *b_tile, int32_t acc[4][4][4])
{
    int lane = tv_warp_lane(), warp = threadIdx.x / TV_WARP, m0 = warp / 4 * 64, n0 = warp % 4 * 32;
    for (int k = 0; k < 2; k++) { // two steps of 32 bytes
        uint32_t a[4][4], b[2][4];
#pragma unroll
        for (int i = 0; i < 4; i++)
            tv_ldmatrix4(a[i], a_tile + tv_mma_offset(m0 + i * 16 + lane % 16, k * 2 + lane / 16));
#pragma unroll
        for (int j = 0; j < 2; j++)
            tv_ldmatrix4(b[j], b_tile + tv_mma_offset(n0 + j * 16 + lane % 8 + lane / 16 * 8, k * 2 + lane / 8 % 2));
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < 4; j++)
                tv_mma_16832(acc[i][j], a[i], b[j / 2] + j % 2 * 2);
    }
}

// acc of the block tile at (row0, col0): fragment [i][j] element e of this thread is row row0 + m0 + i 16 + lane / 4 + (e / 2) 8, column
// col0 + n0 + j 8 + lane % 4 2 + e % 2 (tv_mma_row, tv_mma_col).
template <int PIECE>
__device__ static void tv_mma_block(tv_mma_operand a, tv_mma_operand b, int64_t row0, int64_t col0, int8_t *shared,
                                    int32_t acc[4][4][4])
{
    int64_t steps = (a.reduce + TV_MMA_K - 1) / TV_MMA_K;
    int8_t *a_tiles = shared, *b_tiles = shared + TV_MMA_STAGES * TV_MMA_TILE_BYTES;
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                acc[i][j][e] = 0;
    __syncthreads(); // an earlier product of this block may still read the stages
    for (int s = 0; s < TV_MMA_STAGES - 1; s++) {
        if (s < steps) {
            tv_mma_load<PIECE>(a, row0, s * TV_MMA_K, a_tiles + s * TV_MMA_TILE_BYTES);
            tv_mma_load<PIECE>(b, col0, s * TV_MMA_K, b_tiles + s * TV_MMA_TILE_BYTES);
        }
        asm volatile("cp.async.commit_group;");
    }
    for (int64_t s = 0; s < steps; s++) {
        asm volatile("cp.async.wait_group %0;" ::"n"(TV_MMA_STAGES - 2));
        __syncthreads();
        int64_t next = s + TV_MMA_STAGES - 1;
        if (next < steps) {
            int slot = (int)(next % TV_MMA_STAGES);
            tv_mma_load<PIECE>(a, row0, next * TV_MMA_K, a_tiles + slot * TV_MMA_TILE_BYTES);
            tv_mma_load<PIECE>(b, col0, next * TV_MMA_K, b_tiles + slot * TV_MMA_TILE_BYTES);
        }
        asm volatile("cp.async.commit_group;");
        int slot = (int)(s % TV_MMA_STAGES);
        tv_mma_stage(a_tiles + slot * TV_MMA_TILE_BYTES, b_tiles + slot * TV_MMA_TILE_BYTES, acc);
    }
    asm volatile("cp.async.wait_group 0;");
}

__device__ static inline int64_t tv_mma_row(int64_t row0, int i, int e)
{
    int warp = threadIdx.x / TV_WARP;
    return row0 + warp / 4 * 64 + i * 16 + tv_warp_lane() / 4 + e / 2 * 8;
}

__device__ static inline int64_t tv_mma_col(int64_t col0, int j, int e)
{
    int warp = threadIdx.x / TV_WARP;
    return col0 + warp % 4 * 32 + j * 8 + tv_warp_lane() % 4 * 2 + e % 2;
}

#endif
