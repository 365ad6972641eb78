// The integer product of Hopper: acc[i, j] = sum_r A[i, r] B[j, r], both operands K-major, with an epilogue of choice.
//
// Tiles of 128 x 128. Two blocks of a cluster make tiles that lie one below the other; both need the same rows of B, so each loads one
// half of them for both. A block has three warpgroups: one thread of the first keeps a ring of stages, steps of 128 bytes of K, filled;
// the other two take tiles in turn, and each runs the epilogue on its registers while the other one multiplies. Blocks stay until no tile
// is left. Edges: the copy engine brings zeros, the epilogue masks its stores.
//
// Which items there are is the job's to say: one product (tv_hopper_job), or one of each segment (gemm_hopper_grouped.cuh). A job has
//   table            int32 of shared memory that it wants filled once a block
//   fill(table)      all threads of the block call it
//   items(table), item_at(t, table)
//
// Two digits: a block's tile has 64 rows, of both digits, in place of 128 rows of one.
//
// A product with few tiles may be cut along K into parts, so that every multiprocessor gets work; what an epilogue gets is then a part.
//
// Sums of a thread, in 64 rows: sums[4 j + 2 h + e] belongs to row `place.row` + 8 h, column `place.col` + 8 j + 2 (lane mod 4) + e.
//
// An epilogue is a struct, one object a thread, with
//   args                     what the kernel gets for it
//   two                      two digits. Values are the bits of (float)(127 hi + lo) then, else the int32 sums
//   raw                      values are int32 sums also with two digits: those of hi as m 0, those of lo as m 1
//   stages                   of the ring
//   scratch_bytes            shared memory of one warpgroup, a multiple of 1024
//   turn(item)               what the next calls are about
//   begin(m, place)          fetch what it needs for 64 rows, before the product starts
//   store(m, place, values)  the rest; all 128 threads of the warpgroup call it
//   end()                    after the last tile
#ifndef TV_KERNELS_GEMM_HOPPER_CUH
#define TV_KERNELS_GEMM_HOPPER_CUH

#include "kernels/cuda/hopper_parts.cuh"

#define TV_HOPPER_CLUSTER 2
#define TV_HOPPER_ROWS 128  // of a tile
#define TV_HOPPER_WIDTH 128 // columns of a tile
#define TV_HOPPER_BLOCKS 2  // of 64 rows, which is what one instruction multiplies
#define TV_HOPPER_SUMS 64   // of a thread in one block
#define TV_HOPPER_STEP 128  // bytes of K, a row of a stage
#define TV_HOPPER_WARPGROUP 128
#define TV_HOPPER_THREADS 384
#define TV_HOPPER_GROUP                                                                                                \
    8 // cluster tiles along the rows that run beside each other, so that both operands are reused in L2

// The shared memory of a block. Stages first: the swizzle wants their operands on 1024-byte borders.
#define TV_HOPPER_A_BYTES (TV_HOPPER_ROWS * TV_HOPPER_STEP)
#define TV_HOPPER_STAGE_BYTES (TV_HOPPER_A_BYTES + TV_HOPPER_WIDTH * TV_HOPPER_STEP)
#define TV_HOPPER_SCRATCH(stages) ((stages)*TV_HOPPER_STAGE_BYTES) // where it begins
#define TV_HOPPER_BARRIERS(stages, scratch_bytes) (TV_HOPPER_SCRATCH(stages) + 2 * (scratch_bytes))
#define TV_HOPPER_SHARED_BYTES(stages, scratch_bytes)                                                                  \
    (TV_HOPPER_BARRIERS(stages, scratch_bytes) + (2 * (stages) + 2) * (int)sizeof(uint64_t))

#define TV_HOPPER_TILE_SUMS (TV_HOPPER_ROWS * TV_HOPPER_WIDTH)
#define TV_HOPPER_TILE_ROWS(two) ((two) ? TV_HOPPER_ROWS / 2 : TV_HOPPER_ROWS) // of the output

// Where a thread's sums of 64 rows lie in the output, and what its warpgroup may use.
struct tv_hopper_place {
    int64_t row, col; // of sums[0], without the lane's column
    int thread;       // in the warpgroup
    int group;        // 0 or 1: which of the two warpgroups
    void *scratch;
    uint64_t *barrier; // one of the warpgroup's own, for one arrival
    int64_t piece;     // number of this block's part of a tile: (part tiles + tile) TV_HOPPER_CLUSTER + rank
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

// What one turn of a cluster is about: a part of a tile.
struct tv_hopper_item {
    int a_row, b_row;     // of the operands
    int row, col;         // of the output
    int row_end;          // of the output: rows from here on are not the item's
    int from, step_count; // of K
    int segment;          // of a grouped product
};

// One product.
template <class ARGS> struct tv_hopper_job {
    static constexpr int table = 1; // none
    CUtensorMap a, a_lo, b;         // boxes of 128 bytes x 128 rows (two digits: 64), and x 64 rows
    int steps;                      // of K
    int parts, part_steps;          // of a tile; steps of a part (the last one may have fewer)
    int tiles_m, tiles_n, rows;     // of clusters; rows of a block's tile
    ARGS args;

    __device__ void fill(int32_t *) const {}
    __device__ int items(const int32_t *) const { return tiles_m * tiles_n * parts; }
    // Items of the same part are neighbours, since they share operands.
    __device__ tv_hopper_item item_at(int t, const int32_t *) const
    {
        int tiles = tiles_m * tiles_n, part = t / tiles, from = part * part_steps;
        tv_hopper_tile tile = tv_hopper_tile_at(t - part * tiles, tiles_m, tiles_n);
        int row = tile.m * TV_HOPPER_CLUSTER * rows, col = tile.n * TV_HOPPER_WIDTH;
        return {row, col, row, col, INT32_MAX, from, min(part_steps, steps - from), 0};
    }
};

// A place in the ring: slot, and the parity of the phase it is in.
template <int STAGES> struct tv_hopper_ring {
    int slot;
    uint32_t parity;

    __device__ void next()
    {
        if (++slot == STAGES) {
            slot = 0;
            parity ^= 1;
        }
    }
    __device__ void skip(int steps)
    {
        slot += steps;
        parity ^= (uint32_t)(slot / STAGES) & 1;
        slot %= STAGES;
    }
};

// One thread: fill the stages.
template <class EPILOGUE, class JOB>
__device__ static void tv_hopper_produce(const JOB &job, const int32_t *table, uint8_t *shared, uint64_t *full,
                                         uint64_t *empty)
{
    const int half = TV_HOPPER_WIDTH / TV_HOPPER_CLUSTER, rows = TV_HOPPER_TILE_ROWS(EPILOGUE::two);
    int rank = tv_cluster_rank(), items = job.items(table);
    tv_hopper_ring<EPILOGUE::stages> ring = {0, 1}; // the first pass finds all stages empty
    for (int t = blockIdx.x / TV_HOPPER_CLUSTER; t < items; t += gridDim.x / TV_HOPPER_CLUSTER) {
        tv_hopper_item item = job.item_at(t, table);
        int row = item.a_row + rank * rows, col = item.b_row + rank * half;
        for (int i = 0; i < item.step_count; i++) {
            uint8_t *a = shared + ring.slot * TV_HOPPER_STAGE_BYTES, *b = a + TV_HOPPER_A_BYTES;
            uint64_t *arrived = &full[ring.slot];
            int k = (item.from + i) * TV_HOPPER_STEP;
            tv_barrier_wait(&empty[ring.slot], ring.parity);
            tv_barrier_expect(arrived, TV_HOPPER_STAGE_BYTES);
            tv_copy_box(a, &job.a, arrived, k, row);
            if (EPILOGUE::two)
                tv_copy_box(a + rows * TV_HOPPER_STEP, &job.a_lo, arrived, k, row);
            tv_copy_box_to(b + rank * half * TV_HOPPER_STEP, &job.b, arrived, k, col, (1 << TV_HOPPER_CLUSTER) - 1);
            ring.next();
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
template <int STAGES> struct tv_hopper_reader {
    uint64_t a, b, *full, *empty;
    tv_hopper_ring<STAGES> ring;
};

// The warpgroups' turns at the ring. A parity tells two phases of a stage apart and no more, so a warpgroup looks at a stage only when all
// of the other's phases are over. Barrier 3 + g calls group g.
__device__ static inline void tv_hopper_await_turn(int group) { tv_named_sync(3 + group, 2 * TV_HOPPER_WARPGROUP); }
__device__ static inline void tv_hopper_pass_turn(int group) { tv_named_arrive(4 - group, 2 * TV_HOPPER_WARPGROUP); }

// A warpgroup's sums of one tile. It frees a stage when the next one's products are under way, and, when `pass`, calls the other group
// when the last ones are.
template <int STAGES>
__device__ static inline void tv_hopper_sum(int32_t (&sums)[TV_HOPPER_BLOCKS][TV_HOPPER_SUMS], int steps,
                                            tv_hopper_reader<STAGES> &r, int group, bool pass)
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
        r.ring.next();
    }
    if (pass)
        tv_hopper_pass_turn(group);
    tv_wgmma_wait<0>();
#pragma unroll
    for (int m = 0; m < TV_HOPPER_BLOCKS; m++)
        tv_wgmma_settle(sums[m]);
    tv_hopper_release(&r.empty[before]);
}

// The values for the epilogue, in sums.
template <class EPILOGUE>
__device__ static inline void tv_hopper_finish(EPILOGUE &epilogue, int32_t (&sums)[TV_HOPPER_BLOCKS][TV_HOPPER_SUMS],
                                               const tv_hopper_place (&place)[TV_HOPPER_BLOCKS])
{
    const bool join = EPILOGUE::two && !EPILOGUE::raw;
    const int blocks = join ? 1 : TV_HOPPER_BLOCKS;
#pragma unroll
    for (int i = 0; join && i < TV_HOPPER_SUMS; i++)
        sums[0][i] = (int32_t)tv_float_bits((float)(127 * (int64_t)sums[0][i] + sums[1][i]));
#pragma unroll
    for (int m = 0; m < blocks; m++)
        epilogue.store(m, place[m], sums[m]);
}

// A warpgroup: every other item of the block.
template <class EPILOGUE, class JOB>
__device__ static void tv_hopper_consume(const JOB &job, const int32_t *table, uint8_t *shared, uint64_t *full,
                                         uint64_t *empty)
{
    const int rows = TV_HOPPER_TILE_ROWS(EPILOGUE::two);
    int group = threadIdx.x / TV_HOPPER_WARPGROUP - 1, thread = threadIdx.x % TV_HOPPER_WARPGROUP;
    int items = job.items(table), stride = gridDim.x / TV_HOPPER_CLUSTER, rank = tv_cluster_rank(), turn = 0;
    tv_hopper_reader<EPILOGUE::stages> reader = {
        tv_wgmma_operand(shared), tv_wgmma_operand(shared + TV_HOPPER_A_BYTES), full, empty, {0, 0}};
    tv_hopper_place place[TV_HOPPER_BLOCKS];
#pragma unroll
    for (int m = 0; m < TV_HOPPER_BLOCKS; m++) {
        place[m].thread = thread;
        place[m].group = group;
        place[m].scratch = shared + TV_HOPPER_SCRATCH(EPILOGUE::stages) + group * EPILOGUE::scratch_bytes;
        place[m].barrier = full + 2 * EPILOGUE::stages + group;
    }
    EPILOGUE epilogue(job.args);
    for (int t = blockIdx.x / TV_HOPPER_CLUSTER; t < items; t += stride, turn++) {
        tv_hopper_item item = job.item_at(t, table);
        if (turn % 2 != group) {
            reader.ring.skip(item.step_count);
            continue;
        }
        int32_t sums[TV_HOPPER_BLOCKS][TV_HOPPER_SUMS];
        epilogue.turn(item);
#pragma unroll
        for (int m = 0; m < (EPILOGUE::raw ? TV_HOPPER_BLOCKS : rows / 64); m++) {
            place[m].row = item.row + rank * rows + 64 * m + thread / TV_WARP * 16 + thread % TV_WARP / 4;
            place[m].col = item.col;
            place[m].piece = (int64_t)t * TV_HOPPER_CLUSTER + rank;
            epilogue.begin(m, place[m]);
        }
        if (turn > 0)
            tv_hopper_await_turn(group);
        tv_hopper_sum(sums, item.step_count, reader, group, t + stride < items);
        tv_hopper_finish(epilogue, sums, place);
    }
    epilogue.end(place[0]);
}

template <class EPILOGUE, class JOB>
__global__ static void __launch_bounds__(TV_HOPPER_THREADS, 1) hopper_kernel(const __grid_constant__ JOB job)
{
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ __align__(1024) uint8_t shared[];
    __shared__ int32_t table[JOB::table];
    const int stages = EPILOGUE::stages;
    uint64_t *full = (uint64_t *)(shared + TV_HOPPER_BARRIERS(stages, EPILOGUE::scratch_bytes)), *empty = full + stages;
    job.fill(table);
    if (threadIdx.x == 0) {
        tv_copy_map_prefetch(&job.a);
        tv_copy_map_prefetch(&job.b);
        for (int i = 0; i < stages; i++) {
            tv_barrier_init(&full[i], 1);
            tv_barrier_init(&empty[i], TV_HOPPER_CLUSTER * TV_HOPPER_WARPGROUP / TV_WARP);
        }
        for (int group = 0; group < 2; group++)
            tv_barrier_init(full + 2 * stages + group, 1);
        tv_barrier_init_done();
    }
    tv_cluster_sync();
    if (threadIdx.x < TV_HOPPER_WARPGROUP) {
        tv_registers_fewer<40>();
        if (threadIdx.x == 0)
            tv_hopper_produce<EPILOGUE>(job, table, shared, full, empty);
    } else {
        tv_registers_more<232>();
        tv_hopper_consume<EPILOGUE>(job, table, shared, full, empty);
    }
    tv_cluster_sync(); // the other block may still write into this one's shared memory
#else
    __trap(); // the host never launches it: gemm_hopper_open
#endif
}

#endif
