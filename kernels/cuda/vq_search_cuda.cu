// Codebooks: the best row of a bucket for each of its queries, on s8 tensor cores (mma.sync m16n8k32, sm_80 and up).
//
// A unit of work is a tile of up to 128 queries of one bucket and a run of the bucket's rows. Its warps share the rows out by groups of
// 16; each holds all queries of the tile as the products' left operands. Rows never leave registers: the order of the reduced
// dimension is free, so each lane of a quad decodes whole packed bytes,
//   part L = 0..3: trits 15 L .. 15 L + 14, and trit 60 + L
//   words 0..2: the first four of its bytes 3 L, 3 L + 1, 3 L + 2; word 3: their fifth ones, and trit 60 + L
// and queries are laid out alike. The columns of a group's two products are chosen so that a lane scores four neighbouring rows, 4 L .. 4 L +
// 3 of the group, for each of its queries. It keeps the best score and the group where it first met it; which of the four rows that was, a
// second look at the end tells. Strict comparisons in ascending order leave ties to the lower row.
//
// Tiles are listed on the device, and blocks draw units from a counter. A pair's results of several units meet in a 64-bit maximum of
// (score, -row). Integers all the way, so no order of the units can be seen.
#include "kernels/cuda/mma_cuda.cuh"
#include "kernels/cuda/moe_scratch.h"
#include "kernels/cuda/vq_ops_cuda.h"
extern "C" {
#include "kernels/ref/vq_common.h"
}

#define THREADS 128
#define WARPS (THREADS / TV_WARP)
#define BLOCKS 3 // of a multiprocessor
#define TILE 128 // queries
#define FRAGMENT 16
#define GROUP 16 // rows
#define UNITS_A_BLOCK 8
#define CHUNK_ROWS 1024 // of a run, at least, unless the bucket has fewer
#define ZERO_BYTE (TV_TRIT_BYTE_MAX / 2)

typedef unsigned long long search_key; // a score, order kept, above the complement of a row; 0: none

typedef struct search_job {
    tv_vq_search_args a;
    int64_t pairs, chunk_rows; // chunk_rows: of a unit, a multiple of GROUP
    int chunks;                // units of a tile
    bool wide;                 // queries are read a word at a time
    search_key *keys;          // [pairs]
    int *tile_count, *drawn;   // tiles listed; units drawn
    int2 *tiles;               // bucket, tile of it
} search_job;

// What a block keeps at hand.
typedef struct search_shared {
    uint32_t selectors[256 * TV_WARP];          // of a packed byte, a copy a lane
    uint4 queries[TILE / FRAGMENT][2][TV_WARP]; // left operands of a fragment's two products, as lanes hold them
    search_key best[TILE];                      // score and place: the number of four rows within the run
    int32_t scales[TILE];                       // 2 sq
    int drawn;
} search_shared;

typedef struct search_unit {
    int64_t first; // row
    int32_t rows;
    const uint8_t *T; // of the first row
    const int8_t *E;
    int32_t from; // pairs from .. from + queries - 1 of the plan
    int queries;
} search_unit;

__device__ static inline search_key make_key(int32_t score, uint32_t low)
{
    return (search_key)((uint32_t)score ^ 0x80000000u) << 32 | (uint32_t)~low;
}
__device__ static inline int32_t key_score(search_key key) { return (int32_t)((uint32_t)(key >> 32) ^ 0x80000000u); }
__device__ static inline uint32_t key_low(search_key key) { return ~(uint32_t)key; }

// ---- rows --------------------------------------------------------------------------------------------------------------

// A nibble a trit, lowest first: 1 for +, 2 for -, which pick bytes of (0, v, -v, 0).
__device__ static inline uint32_t byte_selectors(uint32_t byte)
{
    uint32_t out = 0;
    for (int j = 0; j < 5 && byte <= TV_TRIT_BYTE_MAX; j++, byte /= 3)
        out |= (byte % 3 == 2 ? 1u : byte % 3 == 0 ? 2u : 0u) << 4 * j;
    return out;
}

__device__ static inline uint32_t pick_bytes(uint32_t values, uint32_t selectors)
{
    uint32_t out;
    asm("prmt.b32 %0, %1, 0, %2;" : "=r"(out) : "r"(values), "r"(selectors));
    return out;
}

// A lane's share of a packed row of the unit.
typedef struct packed_part {
    uint32_t byte[4];
    int code; // of its exponent; -1: no row
} packed_part;

__device__ static inline packed_part load_part(const tv_vq_table &table, const search_unit &unit, int row)
{
    int part = tv_warp_lane() % 4, packed = ((int)table.cols + 4) / 5, at = min(row, unit.rows - 1);
    const uint8_t *T = unit.T + (uint64_t)(uint32_t)at * (uint32_t)packed;
    packed_part out;
#pragma unroll
    for (int j = 0; j < 3; j++)
        out.byte[j] = 3 * part + j < packed ? T[3 * part + j] : ZERO_BYTE;
    out.byte[3] = packed > 12 ? T[12] : ZERO_BYTE;
    int code = unit.E[at] - table.base;
    out.code = row < unit.rows ? code : -1;
    return out;
}

// w8 of the lane's share, in words.
__device__ static inline void decode_part(const search_shared &shared, const packed_part &in, int mantissa_bits,
                                          uint32_t words[4])
{
    const uint32_t *selectors = shared.selectors + tv_warp_lane();
    int value = in.code < 0 ? 0 : tv_lattice_value(mantissa_bits, in.code);
    uint32_t values = (uint32_t)value << 8 | ((uint32_t)-value & 0xFF) << 16, s[4];
#pragma unroll
    for (int j = 0; j < 4; j++)
        s[j] = selectors[in.byte[j] * TV_WARP];
    words[0] = pick_bytes(values, s[0]);
    words[1] = pick_bytes(values, s[1]);
    words[2] = pick_bytes(values, s[2]);
    words[3] = pick_bytes(values, s[0] >> 16 | (s[1] >> 12 & 0xF0) | (s[2] >> 8 & 0xF00) |
                                      (s[3] << (12 - 4 * (tv_warp_lane() % 4)) & 0xF000));
}

__device__ static inline int part_norm(const uint32_t words[4])
{
    int sum = 0;
#pragma unroll
    for (int w = 0; w < 4; w++)
        sum = __dp4a((int)words[w], (int)words[w], sum);
    return sum;
}

__device__ static inline uint32_t quad_sum(uint32_t value)
{
    value += __shfl_xor_sync(0xFFFFFFFFu, value, 1);
    return value + __shfl_xor_sync(0xFFFFFFFFu, value, 2);
}

// ---- queries -----------------------------------------------------------------------------------------------------------

// The words of a query's part, 64 dimensions on a 4-byte border.
__device__ static inline uint4 wide_words(const int8_t *q, int part)
{
    const uint32_t *words = (const uint32_t *)q + 15 * part / 4;
    uint32_t x[4], shift = 8 * (15 * part % 4), end = ((const uint32_t *)q)[15] >> 8 * part;
#pragma unroll
    for (int i = 0; i < 4; i++)
        x[i] = __funnelshift_r(words[i], words[i + 1], shift);
    uint32_t fifths = __byte_perm(x[1], x[2], 0x0050), rest = __byte_perm(x[3], end, 0x0042);
    return make_uint4(x[0], __byte_perm(x[1], x[2], 0x4321), __byte_perm(x[2], x[3], 0x5432),
                      __byte_perm(fifths, rest, 0x5410));
}

__device__ static inline uint4 narrow_words(const int8_t *q, int cols, int part)
{
    uint32_t words[4] = {0, 0, 0, 0};
#pragma unroll
    for (int i = 0; i < 16; i++) {
        int word = i == 15 || i % 5 == 4 ? 3 : i / 5, byte = i == 15 ? 3 : i % 5 == 4 ? i / 5 : i % 5;
        int c = i == 15 ? 60 + part : 15 * part + i;
        words[word] |= c < cols ? (uint32_t)(uint8_t)q[c] << 8 * byte : 0u;
    }
    return make_uint4(words[0], words[1], words[2], words[3]);
}

__device__ static void stage_queries(const search_job &job, const search_unit &unit, search_shared &shared)
{
    const tv_vq_search_args &a = job.a;
    int cols = (int)a.table.cols;
    for (int i = threadIdx.x; i < TILE * 4; i += THREADS) {
        uint4 words = make_uint4(0, 0, 0, 0);
        if (i / 4 < unit.queries) {
            const int8_t *q = a.q + (int64_t)(a.item[unit.from + i / 4] / a.probes) * cols;
            words = job.wide ? wide_words(q, i % 4) : narrow_words(q, cols, i % 4);
        }
        // Of a fragment's queries lanes hold number lane / 4 and that plus 8, side by side.
        uint4 *both = &shared.queries[i / (4 * FRAGMENT)][0][i % (4 * FRAGMENT / 2)];
        uint32_t *low = (uint32_t *)both + i / (4 * FRAGMENT / 2) % 2, *high = low + 4 * TV_WARP;
        low[0] = words.x, low[2] = words.y, high[0] = words.z, high[2] = words.w;
    }
    for (int i = threadIdx.x; i < TILE; i += THREADS) {
        bool used = i < unit.queries;
        shared.scales[i] = used ? 2 * tv_vq_scale(a.scale[a.item[unit.from + i] / a.probes], a.table.base) : 0;
        shared.best[i] = 0;
    }
}

// ---- the products --------------------------------------------------------------------------------------------------------

// A warp's side of FRAGMENTS x 16 queries. Of fragment i a lane holds the queries 16 i + lane / 4 and that plus 8.
template <int FRAGMENTS> struct query_side {
    uint4 low[FRAGMENTS], high[FRAGMENTS]; // left operands of the two products
    int32_t scale[FRAGMENTS][2], best[FRAGMENTS][2], group[FRAGMENTS][2];
};

template <int FRAGMENTS>
__device__ static inline void take_queries(const search_shared &shared, query_side<FRAGMENTS> &side)
{
    int lane = tv_warp_lane();
#pragma unroll
    for (int i = 0; i < FRAGMENTS; i++) {
        side.low[i] = shared.queries[i][0][lane];
        side.high[i] = shared.queries[i][1][lane];
#pragma unroll
        for (int h = 0; h < 2; h++) {
            side.scale[i][h] = shared.scales[i * FRAGMENT + lane / 4 + 8 * h];
            side.best[i][h] = -INT32_MAX; // below every real score, and that of a row that is not there
            side.group[i][h] = 0;
        }
    }
}

// 256 <w8, w8> of the lane's four rows, from the sums over the quads that decoded them.
__device__ static inline void share_norms(uint32_t low, uint32_t high, int32_t norm[4])
{
    int from = tv_warp_lane() % 4 * 8;
#pragma unroll
    for (int j = 0; j < 2; j++) {
        norm[j] = (int32_t)(256 * __shfl_sync(0xFFFFFFFFu, low, from + 4 * j));
        norm[2 + j] = (int32_t)(256 * __shfl_sync(0xFFFFFFFFu, high, from + 4 * j));
    }
}

template <int FRAGMENTS>
__device__ static inline void score_group(query_side<FRAGMENTS> &side, const uint32_t low[4], const uint32_t high[4],
                                          const int32_t norm[4], int group)
{
#pragma unroll
    for (int i = 0; i < FRAGMENTS; i++) {
        int32_t a[4] = {0, 0, 0, 0}, b[4] = {0, 0, 0, 0};
        const uint32_t first[4] = {side.low[i].x, side.low[i].y, side.low[i].z, side.low[i].w};
        const uint32_t second[4] = {side.high[i].x, side.high[i].y, side.high[i].z, side.high[i].w};
        tv_mma_16832(a, first, low);
        tv_mma_16832(b, first, high);
        tv_mma_16832(a, second, low + 2);
        tv_mma_16832(b, second, high + 2);
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int32_t scale = side.scale[i][h];
            int32_t score = max(max(a[2 * h] * scale - norm[0], a[2 * h + 1] * scale - norm[1]),
                                max(b[2 * h] * scale - norm[2], b[2 * h + 1] * scale - norm[3]));
            side.group[i][h] = score > side.best[i][h] ? group : side.group[i][h];
            side.best[i][h] = max(score, side.best[i][h]);
        }
    }
}

// The warp's groups of the unit's rows. Column c of the products is row 4 (c / 2) + c % 2 of the group, and that plus 2.
template <int FRAGMENTS>
__device__ static inline void walk_rows(const search_job &job, const search_unit &unit, const search_shared &shared,
                                        query_side<FRAGMENTS> &side)
{
    const tv_vq_table &table = job.a.table;
    int lane = tv_warp_lane(), column = lane / 4, warp = threadIdx.x / TV_WARP;
    int groups = (unit.rows + GROUP - 1) / GROUP, row = warp * GROUP + 4 * (column / 2) + column % 2;
    packed_part next[2] = {load_part(table, unit, row), load_part(table, unit, row + 2)};
    for (int group = warp; group < groups; group += WARPS) {
        packed_part low = next[0], high = next[1];
        row += WARPS * GROUP;
        if (group + WARPS < groups) {
            next[0] = load_part(table, unit, row);
            next[1] = load_part(table, unit, row + 2);
        }
        uint32_t low_words[4], high_words[4];
        decode_part(shared, low, table.mantissa_bits, low_words);
        decode_part(shared, high, table.mantissa_bits, high_words);
        int32_t norm[4];
        share_norms(quad_sum((uint32_t)part_norm(low_words)), quad_sum((uint32_t)part_norm(high_words)), norm);
        int left = unit.rows - group * GROUP - lane % 4 * 4; // of the lane's rows and behind them
        if (left < 4)
#pragma unroll
            for (int j = 0; j < 4; j++)
                norm[j] = j < left ? norm[j] : INT32_MAX;
        score_group(side, low_words, high_words, norm, group);
    }
}

// The best of a quad's lanes, and of the block's warps. A lane's four rows are number 4 group + lane % 4 of the run.
template <int FRAGMENTS>
__device__ static inline void join_warps(const query_side<FRAGMENTS> &side, search_shared &shared)
{
    int lane = tv_warp_lane();
#pragma unroll
    for (int i = 0; i < FRAGMENTS; i++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            search_key key = make_key(side.best[i][h], (uint32_t)(4 * side.group[i][h] + lane % 4));
#pragma unroll
            for (int x = 1; x <= 2; x <<= 1) {
                search_key other = __shfl_xor_sync(0xFFFFFFFFu, key, x);
                key = other > key ? other : key;
            }
            if (lane % 4 == 0)
                atomicMax(&shared.best[i * FRAGMENT + lane / 4 + 8 * h], key);
        }
}

// Score of a row for the query whose words the quad holds: each lane gets it.
__device__ static inline int32_t score_row(const search_job &job, const search_shared &shared, const packed_part &part,
                                           const uint32_t query[4], int32_t scale)
{
    uint32_t words[4];
    int dot = 0;
    decode_part(shared, part, job.a.table.mantissa_bits, words);
#pragma unroll
    for (int w = 0; w < 4; w++)
        dot = __dp4a((int)query[w], (int)words[w], dot);
    return (int32_t)quad_sum((uint32_t)dot * (uint32_t)scale - 256u * (uint32_t)part_norm(words));
}

// Which of the four rows it was, and the pair's result. The warps share the fragments out.
template <int FRAGMENTS>
__device__ static inline void look_again(const search_job &job, const search_unit &unit, const search_shared &shared,
                                         const query_side<FRAGMENTS> &side)
{
    int lane = tv_warp_lane(), warp = threadIdx.x / TV_WARP;
#pragma unroll
    for (int i = 0; i < FRAGMENTS; i++) {
        if (i % WARPS != warp)
            continue;
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int query = i * FRAGMENT + lane / 4 + 8 * h;
            search_key best = shared.best[query];
            int row = (int)(4 * key_low(best));
            packed_part parts[3]; // if it is none of three, it is the fourth
            uint4 low = side.low[i], high = side.high[i];
            uint32_t words[4] = {h ? low.y : low.x, h ? low.w : low.z, h ? high.y : high.x, h ? high.w : high.z};
#pragma unroll
            for (int j = 0; j < 3; j++)
                parts[j] = load_part(job.a.table, unit, row + j);
            int found = 3;
#pragma unroll
            for (int j = 2; j >= 0; j--)
                found = score_row(job, shared, parts[j], words, side.scale[i][h]) == key_score(best) ? j : found;
            if (lane % 4 != 0 || query >= unit.queries)
                continue;
            search_key *key = job.keys + job.a.item[unit.from + query];
            search_key result = make_key(key_score(best), (uint32_t)(unit.first + row + found));
            if (job.chunks == 1)
                *key = result;
            else
                atomicMax(key, result);
        }
    }
}

template <int FRAGMENTS>
__device__ static void search_tile(const search_job &job, const search_unit &unit, search_shared &shared)
{
    query_side<FRAGMENTS> side;
    take_queries(shared, side);
    walk_rows(job, unit, shared, side);
    join_warps(side, shared);
    __syncthreads();
    look_again(job, unit, shared, side);
}

// ---- units of work -------------------------------------------------------------------------------------------------------

// A thread a bucket, a place in the list for each tile of it; which place makes no difference.
__global__ static void __launch_bounds__(THREADS) list_kernel(search_job job)
{
    const tv_vq_search_args &a = job.a;
    int64_t b = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    int lane = tv_warp_lane(), tiles = b < a.buckets ? (a.start[b + 1] - a.start[b] + TILE - 1) / TILE : 0, sum = tiles;
    for (int x = 1; x < TV_WARP; x <<= 1) {
        int left = __shfl_up_sync(0xFFFFFFFFu, sum, x);
        sum += lane >= x ? left : 0;
    }
    int base = lane == TV_WARP - 1 && sum > 0 ? atomicAdd(job.tile_count, sum) : 0;
    base = __shfl_sync(0xFFFFFFFFu, base, TV_WARP - 1) + sum - tiles;
    for (int i = 0; i < tiles; i++)
        job.tiles[base + i] = make_int2((int)b, i);
}

__device__ static search_unit find_unit(const search_job &job, int number, int tiles)
{
    const tv_vq_search_args &a = job.a;
    const tv_vq_table &table = a.table;
    int2 tile = job.tiles[number % tiles];
    int64_t bucket = a.first_bucket + tile.x, end = table.first_row + table.held_rows;
    int64_t first = tv_vq_bucket_first(table.rows, table.bits, bucket),
            last = tv_vq_bucket_first(table.rows, table.bits, bucket + 1);
    first = max(first, table.first_row) + number / tiles * job.chunk_rows;
    last = min(min(last, end), first + job.chunk_rows);
    int from = a.start[tile.x] + tile.y * TILE;
    int64_t at = first - table.first_row;
    return {first, (int32_t)max(last - first, (int64_t)0), table.T + at * tv_row_bytes(table.cols), table.E + at,
            from,  min(TILE, a.start[tile.x + 1] - from)};
}

__global__ static void __launch_bounds__(THREADS, BLOCKS) search_kernel(search_job job)
{
    __shared__ search_shared shared;
    for (int i = threadIdx.x; i < 256 * TV_WARP; i += THREADS)
        shared.selectors[i] = byte_selectors((uint32_t)i / TV_WARP);
    int tiles = *job.tile_count;
    for (;;) {
        __syncthreads(); // all are done with the last unit
        if (threadIdx.x == 0)
            shared.drawn = atomicAdd(job.drawn, 1);
        __syncthreads();
        if (shared.drawn >= (int64_t)tiles * job.chunks)
            return;
        search_unit unit = find_unit(job, shared.drawn, tiles);
        if (unit.rows == 0)
            continue;
        stage_queries(job, unit, shared);
        __syncthreads();
        if (unit.queries <= 2 * FRAGMENT)
            search_tile<2>(job, unit, shared);
        else if (unit.queries <= 4 * FRAGMENT)
            search_tile<4>(job, unit, shared);
        else if (unit.queries <= 6 * FRAGMENT)
            search_tile<6>(job, unit, shared);
        else
            search_tile<8>(job, unit, shared);
    }
}

__global__ static void __launch_bounds__(THREADS) result_kernel(search_job job)
{
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= job.pairs)
        return;
    search_key key = job.keys[i]; // 0 becomes row -1 and score INT32_MIN
    job.a.row[i] = (int32_t)key_low(key);
    job.a.score[i] = key_score(key);
}

// Runs of rows so short that every multiprocessor gets work, and not shorter.
static void cut_rows(search_job *job, int64_t blocks)
{
    const tv_vq_table *table = &job->a.table;
    int64_t most = tv_ceil_div(table->rows, (int64_t)1 << table->bits);
    most = most < table->held_rows ? most : table->held_rows;
    int64_t tiles = tv_ceil_div(job->pairs, TILE), wanted = UNITS_A_BLOCK * blocks / tiles;
    int64_t chunks = wanted < most / CHUNK_ROWS ? wanted : most / CHUNK_ROWS;
    job->chunk_rows = tv_ceil_div(tv_ceil_div(most, chunks > 1 ? chunks : 1), GROUP) * GROUP;
    job->chunks = (int)tv_ceil_div(most, job->chunk_rows);
}

extern "C" tv_status vq_search_cuda(const tv_vq_search_args *a, void *stream)
{
    search_job job = {};
    job.a = *a;
    job.pairs = a->tokens * a->probes;
    cudaStream_t on = tv_cuda_stream(stream);
    void *memory;
    if (!job.pairs)
        return TV_OK;
    size_t list = (size_t)(job.pairs / TILE + (a->buckets < job.pairs ? a->buckets : job.pairs)) * sizeof(int2);
    size_t zeros = (size_t)job.pairs * sizeof(search_key) + 2 * sizeof(int);
    TV_TRY(moe_scratch_cuda(zeros + list, &memory));
    TV_CUDA_TRY(cudaMemsetAsync(memory, 0, zeros, on));
    job.keys = (search_key *)memory;
    job.tile_count = (int *)(job.keys + job.pairs), job.drawn = job.tile_count + 1;
    job.tiles = (int2 *)(job.drawn + 1);
    job.wide = a->table.cols == TV_VQ_COLS_MAX && (uintptr_t)a->q % sizeof(uint32_t) == 0;
    if (a->buckets > 0 && a->table.held_rows > 0) {
        unsigned blocks = (unsigned)(BLOCKS * moe_processors_cuda());
        cut_rows(&job, blocks);
        list_kernel<<<tv_cuda_blocks(a->buckets, THREADS), THREADS, 0, on>>>(job);
        search_kernel<<<blocks, THREADS, 0, on>>>(job);
    }
    result_kernel<<<tv_cuda_blocks(job.pairs, THREADS), THREADS, 0, on>>>(job);
    TV_CUDA_LAUNCHED("vq_search");
}
