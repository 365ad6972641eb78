// The integer product of Hopper: acc[i, j] = sum_r A[i, r] B[j, r], both operands K-major, with an epilogue of choice.
//
// A cluster of two blocks makes a tile of 256 rows x WIDTH columns (128 rows a block); both need the same rows of B, so each loads one
// half of them for both. A block has three warpgroups: one thread of the first keeps the stages, steps of 128 bytes of K, filled; the
// other two multiply 64 rows x WIDTH columns each and run the epilogue on their registers. Blocks stay and take tiles in turn.
// Edges: the copy engine brings zeros, the epilogue masks its stores.
//
// The sums fill the registers, so a tile cannot begin before the one before is stored, and storing is slow (32 bytes a cycle). So the last
// steps, as many as there are stages, are done for the left half of the columns first: it is stored while the right half is multiplied.
//
// Sums of a thread, of one half: sums[4 j + 2 h + e] belongs to row `place.row` + 8 h, column `place.col` + 8 j + 2 (lane mod 4) + e.
//
// An epilogue for tiles of WIDTH columns is a struct with
//   args                          what the kernel gets for it
//   early, load(args, place)      values of the tile that are fetched before its product starts
//   ready(args, early, place)     what the warpgroup prepares during the last steps
//   old, fetch(args, place)       values of one half that are fetched before its sums are complete
//   store(args, early, place, right, old, sums)   one half, which begins `right` columns from the tile's left edge
//   scratch_bytes                 shared memory of one warpgroup, a multiple of 16
// All 128 threads call these.
#ifndef TV_KERNELS_GEMM_HOPPER_CUH
#define TV_KERNELS_GEMM_HOPPER_CUH

#include "kernels/cuda/hopper_parts.cuh"

#define TV_HOPPER_CLUSTER 2
#define TV_HOPPER_ROWS 128 // of a block
#define TV_HOPPER_STEP 128 // bytes of K, a row of a stage
#define TV_HOPPER_STAGE_BYTES_ALL 196608
#define TV_HOPPER_THREADS 384
#define TV_HOPPER_WARPGROUP 128
#ifndef TV_HOPPER_GROUP
#define TV_HOPPER_GROUP 8 // cluster tiles along the rows that run beside each other, so that both operands are reused in L2
#endif

// The shared memory of a block. Tiles first: the swizzle wants them on 1024-byte borders.
template <int WIDTH, int SCRATCH> struct tv_hopper_layout {
    static constexpr int a_bytes = TV_HOPPER_ROWS * TV_HOPPER_STEP;
    static constexpr int b_bytes = WIDTH * TV_HOPPER_STEP;
    static constexpr int stage_bytes = a_bytes + b_bytes;
    static constexpr int stages = TV_HOPPER_STAGE_BYTES_ALL / stage_bytes;
    static constexpr int scratch = stages * stage_bytes;
    static constexpr int barriers = scratch + 2 * SCRATCH;
    static constexpr int bytes = barriers + 2 * stages * (int)sizeof(uint64_t);
};

template <class ARGS> struct tv_hopper_job {
    CUtensorMap a, b;      // boxes of 128 bytes x 128 rows, and x WIDTH / 2 rows
    int steps;             // of K
    int tiles_m, tiles_n;  // of clusters
    ARGS args;
};

// Where a thread's sums of one half of a tile lie in the output, and what its warpgroup may use.
struct tv_hopper_place {
    int64_t row, col; // of sums[0], without the lane's column
    int thread;       // in the warpgroup
    int group;        // 0 or 1: which of the two warpgroups
    void *scratch;
};

// Whether no element of this thread's warp is beyond the edge of an output [rows, cols].
template <int COLS> __device__ static inline bool tv_hopper_inside(int64_t rows, int64_t cols, const tv_hopper_place &p)
{
    return p.col + COLS <= cols && p.row - p.thread % TV_WARP / 4 + 16 <= rows;
}

struct tv_hopper_tile {
    int m, n;
};

// Tile `index` in an order in which neighbours share rows of A and of B.
__device__ static inline tv_hopper_tile tv_hopper_tile_at(int index, int tiles_m, int tiles_n)
{
    int band = TV_HOPPER_GROUP * tiles_n, first = index / band * TV_HOPPER_GROUP, inside = index % band;
    int high = min(tiles_m - first, TV_HOPPER_GROUP);
    return {first + inside % high, inside / high};
}

// A ring of stages: slot, and the parity of the phase it is in.
struct tv_hopper_ring {
    int slot;
    uint32_t parity;
};

template <int STAGES> __device__ static inline void tv_hopper_next(tv_hopper_ring &ring)
{
    if (++ring.slot == STAGES) {
        ring.slot = 0;
        ring.parity ^= 1;
    }
}

// One thread: fill the stages.
template <int WIDTH, class LAYOUT, class JOB>
__device__ static void tv_hopper_produce(const JOB &job, uint8_t *shared, uint64_t *full, uint64_t *empty)
{
    int rank = tv_cluster_rank(), tiles = job.tiles_m * job.tiles_n;
    constexpr int half = WIDTH / TV_HOPPER_CLUSTER;
    tv_hopper_ring ring = {0, 1}; // the first pass finds all stages empty
    for (int t = blockIdx.x / TV_HOPPER_CLUSTER; t < tiles; t += gridDim.x / TV_HOPPER_CLUSTER) {
        tv_hopper_tile tile = tv_hopper_tile_at(t, job.tiles_m, job.tiles_n);
        int row = (tile.m * TV_HOPPER_CLUSTER + rank) * TV_HOPPER_ROWS, col = tile.n * WIDTH + rank * half;
        for (int k = 0; k < job.steps; k++) {
            uint8_t *a = shared + ring.slot * LAYOUT::stage_bytes, *b = a + LAYOUT::a_bytes;
            tv_barrier_wait(&empty[ring.slot], ring.parity);
            tv_barrier_expect(&full[ring.slot], LAYOUT::stage_bytes);
            tv_copy_box(a, &job.a, &full[ring.slot], k * TV_HOPPER_STEP, row);
            tv_copy_box_to(b + rank * half * TV_HOPPER_STEP, &job.b, &full[ring.slot], k * TV_HOPPER_STEP, col,
                           (1 << TV_HOPPER_CLUSTER) - 1);
            tv_hopper_next<LAYOUT::stages>(ring);
        }
    }
}

// The stage may be filled again, as far as this warp is concerned: tell both blocks, since each fills part of the other's.
__device__ static inline void tv_hopper_release(uint64_t *empty)
{
    int lane = tv_warp_lane();
    if (lane < TV_HOPPER_CLUSTER)
        tv_barrier_arrive(empty, lane);
}

// What a warpgroup needs to read stages: descriptors of its rows of A and of B in stage 0, and the barriers.
struct tv_hopper_reader {
    uint64_t a, b, *full, *empty;
    tv_hopper_ring ring;
};

// Wait for stage `slot` and return by how much it moves the descriptors.
template <class LAYOUT> __device__ static inline int tv_hopper_enter(const tv_hopper_reader &r)
{
    tv_barrier_wait(&r.full[r.ring.slot], r.ring.parity);
    return r.ring.slot * (LAYOUT::stage_bytes >> 4);
}

// Sums of the first `steps` steps; the last one's products may still run, and its stage is still in use.
template <class LAYOUT, int COUNT>
__device__ static inline void tv_hopper_sum(int32_t (&left)[COUNT], int32_t (&right)[COUNT], int steps, tv_hopper_reader &r)
{
    int before = 0; // slot of the step before
    for (int k = 0; k < steps; k++) {
        int stage = tv_hopper_enter<LAYOUT>(r);
        tv_wgmma_begin();
#pragma unroll
        for (int i = 0; i < TV_HOPPER_STEP / 32; i++)
            tv_wgmma(left, right, r.a + stage + 2 * i, r.b + stage + 2 * i, k | i);
        tv_wgmma_commit();
        tv_wgmma_wait<1>();
        if (k > 0)
            tv_hopper_release(&r.empty[before]);
        before = r.ring.slot;
        tv_hopper_next<LAYOUT::stages>(r.ring);
    }
}

// One half of the products of the `tail` steps from r.ring on; the ring stays.
template <class LAYOUT, int COUNT>
__device__ static inline void tv_hopper_tail(int32_t (&sums)[COUNT], int done, int tail, uint64_t b, tv_hopper_reader r)
{
    tv_wgmma_begin();
    for (int k = 0; k < tail; k++) {
        int stage = tv_hopper_enter<LAYOUT>(r);
#pragma unroll
        for (int i = 0; i < TV_HOPPER_STEP / 32; i++)
            tv_wgmma_half(sums, r.a + stage + 2 * i, b + stage + 2 * i, done | k | i);
        tv_hopper_next<LAYOUT::stages>(r.ring);
    }
    tv_wgmma_commit();
}

// One tile of a warpgroup.
template <class EPILOGUE, int WIDTH, class LAYOUT>
__device__ static inline void tv_hopper_multiply(const typename EPILOGUE::args &args, int steps, tv_hopper_place place, tv_hopper_reader &r)
{
    int32_t left[WIDTH / 4], right[WIDTH / 4];
    int tail = steps < LAYOUT::stages ? steps : LAYOUT::stages, done = steps - tail;
    typename EPILOGUE::early early = EPILOGUE::load(args, place);
    tv_hopper_sum<LAYOUT>(left, right, done, r);
    tv_hopper_tail<LAYOUT>(left, done, tail, r.b, r);
    tv_wgmma_wait<1>();
    if (done > 0)
        tv_hopper_release(&r.empty[r.ring.slot == 0 ? LAYOUT::stages - 1 : r.ring.slot - 1]);
    tv_hopper_tail<LAYOUT>(right, done, tail, r.b + (WIDTH / 2 * TV_HOPPER_STEP >> 4), r);
    EPILOGUE::ready(args, early, place);
    typename EPILOGUE::old old = EPILOGUE::fetch(args, place);
    tv_wgmma_wait<1>();
    tv_wgmma_settle(left);
    EPILOGUE::store(args, early, place, 0, old, left);
    place.col += WIDTH / 2;
    old = EPILOGUE::fetch(args, place);
    tv_wgmma_wait<0>();
    tv_wgmma_settle(right);
    for (int k = 0; k < tail; k++) {
        tv_hopper_release(&r.empty[r.ring.slot]);
        tv_hopper_next<LAYOUT::stages>(r.ring);
    }
    EPILOGUE::store(args, early, place, WIDTH / 2, old, right);
}

// A warpgroup: tile after tile.
template <class EPILOGUE, int WIDTH, class LAYOUT, class JOB>
__device__ static void tv_hopper_consume(const JOB &job, uint8_t *shared, uint64_t *full, uint64_t *empty)
{
    int group = threadIdx.x / TV_HOPPER_WARPGROUP - 1, thread = threadIdx.x % TV_HOPPER_WARPGROUP;
    int tiles = job.tiles_m * job.tiles_n, rank = tv_cluster_rank();
    tv_hopper_reader reader = {tv_wgmma_operand(shared + group * 64 * TV_HOPPER_STEP),
                               tv_wgmma_operand(shared + LAYOUT::a_bytes), full, empty, {0, 0}};
    for (int t = blockIdx.x / TV_HOPPER_CLUSTER; t < tiles; t += gridDim.x / TV_HOPPER_CLUSTER) {
        tv_hopper_tile tile = tv_hopper_tile_at(t, job.tiles_m, job.tiles_n);
        tv_hopper_place place;
        place.row = ((int64_t)tile.m * TV_HOPPER_CLUSTER + rank) * TV_HOPPER_ROWS + group * 64 + thread / TV_WARP * 16 +
                    thread % TV_WARP / 4;
        place.col = (int64_t)tile.n * WIDTH;
        place.thread = thread;
        place.group = group;
        place.scratch = shared + LAYOUT::scratch + group * EPILOGUE::scratch_bytes;
        tv_hopper_multiply<EPILOGUE, WIDTH, LAYOUT>(job.args, job.steps, place, reader);
    }
}

template <class EPILOGUE, int WIDTH>
__global__ static void __launch_bounds__(TV_HOPPER_THREADS, 1)
    hopper_kernel(const __grid_constant__ tv_hopper_job<typename EPILOGUE::args> job)
{
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    using layout = tv_hopper_layout<WIDTH, EPILOGUE::scratch_bytes>;
    extern __shared__ __align__(1024) uint8_t shared[];
    uint64_t *full = (uint64_t *)(shared + layout::barriers), *empty = full + layout::stages;
    if (threadIdx.x == 0) {
        tv_copy_map_prefetch(&job.a);
        tv_copy_map_prefetch(&job.b);
        for (int i = 0; i < layout::stages; i++) {
            tv_barrier_init(&full[i], 1);
            tv_barrier_init(&empty[i], TV_HOPPER_CLUSTER * 2 * TV_HOPPER_WARPGROUP / TV_WARP);
        }
        tv_barrier_init_done();
    }
    tv_cluster_sync();
    if (threadIdx.x < TV_HOPPER_WARPGROUP) {
        tv_registers_fewer<40>();
        if (threadIdx.x == 0)
            tv_hopper_produce<WIDTH, layout>(job, shared, full, empty);
    } else {
        tv_registers_more<232>();
        tv_hopper_consume<EPILOGUE, WIDTH, layout>(job, shared, full, empty);
    }
    tv_cluster_sync(); // the other block may still write into this one's shared memory
#else
    __trap(); // the host never launches it: gemm_hopper_open
#endif
}

#endif
