// The integer product of Hopper: acc[i, j] = sum_r A[i, r] B[j, r], both operands K-major, with an epilogue of choice.
//
// Tiles of 128 x 128. Two blocks of a cluster make tiles that lie one below the other; both need the same rows of B, so each loads one
// half of them for both. A block has three warpgroups: one thread of the first keeps a ring of stages, steps of 128 bytes of K, filled;
// the other two take tiles in turn, and each runs the epilogue on its registers while the other one multiplies: a tile's sums fill a
// warpgroup's registers, and storing takes long, because a multiprocessor hands only 32 bytes a cycle to L2. Blocks stay until no tile is
// left. Edges: the copy engine brings zeros, the epilogue masks its stores.
//
// Sums of a thread, in 64 rows: sums[4 j + 2 h + e] belongs to row `place.row` + 8 h, column `place.col` + 8 j + 2 (lane mod 4) + e.
//
// An epilogue is a struct with
//   args                             what the kernel gets for it
//   early, load(args, place)         values that are fetched before the product starts
//   store(args, early, place, sums)  the rest, for 64 rows; all 128 threads of the warpgroup call it
//   scratch_bytes                    shared memory of one warpgroup, a multiple of 16
#ifndef TV_KERNELS_GEMM_HOPPER_CUH
#define TV_KERNELS_GEMM_HOPPER_CUH

#include "kernels/cuda/hopper_parts.cuh"

#define TV_HOPPER_CLUSTER 2
#define TV_HOPPER_ROWS 128  // of a tile
#define TV_HOPPER_WIDTH 128 // columns of a tile
#define TV_HOPPER_BLOCKS 2  // of 64 rows, which is what one instruction multiplies
#define TV_HOPPER_SUMS 64   // of a thread in one block
#define TV_HOPPER_STEP 128  // bytes of K, a row of a stage
#define TV_HOPPER_STAGES 6
#define TV_HOPPER_WARPGROUP 128
#define TV_HOPPER_THREADS 384
#define TV_HOPPER_GROUP                                                                                                \
    8 // cluster tiles along the rows that run beside each other, so that both operands are reused in L2

// The shared memory of a block. Stages first: the swizzle wants their operands on 1024-byte borders.
#define TV_HOPPER_A_BYTES (TV_HOPPER_ROWS * TV_HOPPER_STEP)
#define TV_HOPPER_STAGE_BYTES (TV_HOPPER_A_BYTES + TV_HOPPER_WIDTH * TV_HOPPER_STEP)
#define TV_HOPPER_SCRATCH (TV_HOPPER_STAGES * TV_HOPPER_STAGE_BYTES) // where it begins
#define TV_HOPPER_BARRIERS(scratch_bytes) (TV_HOPPER_SCRATCH + 2 * (scratch_bytes))
#define TV_HOPPER_SHARED_BYTES(scratch_bytes)                                                                          \
    (TV_HOPPER_BARRIERS(scratch_bytes) + 2 * TV_HOPPER_STAGES * (int)sizeof(uint64_t))

template <class ARGS> struct tv_hopper_job {
    CUtensorMap a, b;     // boxes of 128 bytes x 128 rows, and x 64 rows
    int steps;            // of K
    int tiles_m, tiles_n; // of clusters
    ARGS args;
};

// Where a thread's sums of 64 rows lie in the output, and what its warpgroup may use.
struct tv_hopper_place {
    int64_t row, col; // of sums[0], without the lane's column
    int thread;       // in the warpgroup
    int group;        // 0 or 1: which of the two warpgroups
    void *scratch;
};

// Whether no element of this thread's warp is beyond the edge of an output [rows, cols].
__device__ static inline bool tv_hopper_inside(int64_t rows, int64_t cols, const tv_hopper_place &p)
{
    return p.col + TV_HOPPER_WIDTH <= cols && p.row - p.thread % TV_WARP / 4 + 16 <= rows;
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

// A place in the ring: slot, and the parity of the phase it is in.
struct tv_hopper_ring {
    int slot;
    uint32_t parity;
};

__device__ static inline void tv_hopper_next(tv_hopper_ring &ring)
{
    if (++ring.slot == TV_HOPPER_STAGES) {
        ring.slot = 0;
        ring.parity ^= 1;
    }
}

__device__ static inline void tv_hopper_skip(tv_hopper_ring &ring, int steps)
{
    ring.slot += steps;
    ring.parity ^= (uint32_t)(ring.slot / TV_HOPPER_STAGES) & 1;
    ring.slot %= TV_HOPPER_STAGES;
}

// One thread: fill the stages.
template <class JOB>
__device__ static void tv_hopper_produce(const JOB &job, uint8_t *shared, uint64_t *full, uint64_t *empty)
{
    const int half = TV_HOPPER_WIDTH / TV_HOPPER_CLUSTER;
    int rank = tv_cluster_rank(), tiles = job.tiles_m * job.tiles_n;
    tv_hopper_ring ring = {0, 1}; // the first pass finds all stages empty
    for (int t = blockIdx.x / TV_HOPPER_CLUSTER; t < tiles; t += gridDim.x / TV_HOPPER_CLUSTER) {
        tv_hopper_tile tile = tv_hopper_tile_at(t, job.tiles_m, job.tiles_n);
        int row = (tile.m * TV_HOPPER_CLUSTER + rank) * TV_HOPPER_ROWS, col = tile.n * TV_HOPPER_WIDTH + rank * half;
        for (int k = 0; k < job.steps; k++) {
            uint8_t *a = shared + ring.slot * TV_HOPPER_STAGE_BYTES, *b = a + TV_HOPPER_A_BYTES;
            uint64_t *arrived = &full[ring.slot];
            tv_barrier_wait(&empty[ring.slot], ring.parity);
            tv_barrier_expect(arrived, TV_HOPPER_STAGE_BYTES);
            tv_copy_box(a, &job.a, arrived, k * TV_HOPPER_STEP, row);
            tv_copy_box_to(b + rank * half * TV_HOPPER_STEP, &job.b, arrived, k * TV_HOPPER_STEP, col,
                           (1 << TV_HOPPER_CLUSTER) - 1);
            tv_hopper_next(ring);
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

// What a warpgroup needs to read stages: descriptors of A and of B in stage 0, and the barriers.
struct tv_hopper_reader {
    uint64_t a, b, *full, *empty;
    tv_hopper_ring ring;
};

// The warpgroups' turns at the ring. A parity tells two phases of a stage apart and no more, so a warpgroup looks at a stage only when all
// of the other's phases are over. Barrier 3 + g calls group g.
__device__ static inline void tv_hopper_await_turn(int group) { tv_named_sync(3 + group, 2 * TV_HOPPER_WARPGROUP); }
__device__ static inline void tv_hopper_pass_turn(int group) { tv_named_arrive(4 - group, 2 * TV_HOPPER_WARPGROUP); }

// A warpgroup's sums of one tile. It frees a stage when the next one's products are under way, and, when `pass`, calls the other group
// when the last ones are.
__device__ static inline void tv_hopper_sum(int32_t (&sums)[TV_HOPPER_BLOCKS][TV_HOPPER_SUMS], int steps,
                                            tv_hopper_reader &r, int group, bool pass)
{
    int before = 0; // slot of the step before
    for (int k = 0; k < steps; k++) {
        int stage = r.ring.slot * (TV_HOPPER_STAGE_BYTES >> 4);
        tv_barrier_wait(&r.full[r.ring.slot], r.ring.parity);
        tv_wgmma_begin();
#pragma unroll
        for (int i = 0; i < TV_HOPPER_STEP / 32; i++)
#pragma unroll
            for (int m = 0; m < TV_HOPPER_BLOCKS; m++)
                tv_wgmma(sums[m], r.a + stage + m * (64 * TV_HOPPER_STEP >> 4) + 2 * i, r.b + stage + 2 * i, k | i);
        tv_wgmma_commit();
        tv_wgmma_wait<1>();
        if (k > 0)
            tv_hopper_release(&r.empty[before]);
        before = r.ring.slot;
        tv_hopper_next(r.ring);
    }
    if (pass)
        tv_hopper_pass_turn(group);
    tv_wgmma_wait<0>();
#pragma unroll
    for (int m = 0; m < TV_HOPPER_BLOCKS; m++)
        tv_wgmma_settle(sums[m]);
    tv_hopper_release(&r.empty[before]);
}

// A warpgroup: every other tile of the block.
template <class EPILOGUE, class JOB>
__device__ static void tv_hopper_consume(const JOB &job, uint8_t *shared, uint64_t *full, uint64_t *empty)
{
    int group = threadIdx.x / TV_HOPPER_WARPGROUP - 1, thread = threadIdx.x % TV_HOPPER_WARPGROUP;
    int tiles = job.tiles_m * job.tiles_n, stride = gridDim.x / TV_HOPPER_CLUSTER, rank = tv_cluster_rank(), turn = 0;
    tv_hopper_reader reader = {
        tv_wgmma_operand(shared), tv_wgmma_operand(shared + TV_HOPPER_A_BYTES), full, empty, {0, 0}};
    for (int t = blockIdx.x / TV_HOPPER_CLUSTER; t < tiles; t += stride, turn++) {
        if (turn % 2 != group) {
            tv_hopper_skip(reader.ring, job.steps);
            continue;
        }
        tv_hopper_tile tile = tv_hopper_tile_at(t, job.tiles_m, job.tiles_n);
        tv_hopper_place place[TV_HOPPER_BLOCKS];
        typename EPILOGUE::early early[TV_HOPPER_BLOCKS];
        int32_t sums[TV_HOPPER_BLOCKS][TV_HOPPER_SUMS];
#pragma unroll
        for (int m = 0; m < TV_HOPPER_BLOCKS; m++) {
            place[m].row = ((int64_t)tile.m * TV_HOPPER_CLUSTER + rank) * TV_HOPPER_ROWS + 64 * m +
                           thread / TV_WARP * 16 + thread % TV_WARP / 4;
            place[m].col = (int64_t)tile.n * TV_HOPPER_WIDTH;
            place[m].thread = thread;
            place[m].group = group;
            place[m].scratch = shared + TV_HOPPER_SCRATCH + group * EPILOGUE::scratch_bytes;
            early[m] = EPILOGUE::load(job.args, place[m]);
        }
        if (turn > 0)
            tv_hopper_await_turn(group);
        tv_hopper_sum(sums, job.steps, reader, group, t + stride < tiles);
#pragma unroll
        for (int m = 0; m < TV_HOPPER_BLOCKS; m++)
            EPILOGUE::store(job.args, early[m], place[m], sums[m]);
    }
}

template <class EPILOGUE>
__global__ static void __launch_bounds__(TV_HOPPER_THREADS, 1)
    hopper_kernel(const __grid_constant__ tv_hopper_job<typename EPILOGUE::args> job)
{
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ __align__(1024) uint8_t shared[];
    uint64_t *full = (uint64_t *)(shared + TV_HOPPER_BARRIERS(EPILOGUE::scratch_bytes)),
             *empty = full + TV_HOPPER_STAGES;
    if (threadIdx.x == 0) {
        tv_copy_map_prefetch(&job.a);
        tv_copy_map_prefetch(&job.b);
        for (int i = 0; i < TV_HOPPER_STAGES; i++) {
            tv_barrier_init(&full[i], 1);
            tv_barrier_init(&empty[i], TV_HOPPER_CLUSTER * TV_HOPPER_WARPGROUP / TV_WARP);
        }
        tv_barrier_init_done();
    }
    tv_cluster_sync();
    if (threadIdx.x < TV_HOPPER_WARPGROUP) {
        tv_registers_fewer<40>();
        if (threadIdx.x == 0)
            tv_hopper_produce(job, shared, full, empty);
    } else {
        tv_registers_more<232>();
        tv_hopper_consume<EPILOGUE>(job, shared, full, empty);
    }
    tv_cluster_sync(); // the other block may still write into this one's shared memory
#else
    __trap(); // the host never launches it: gemm_hopper_open
#endif
}

#endif
