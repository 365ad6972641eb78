// Codebooks: initial state, and rows on their way from the table to those who asked.
#include "kernels/cuda/cuda_common.cuh"
#include "kernels/cuda/vq_ops_cuda.h"

#define THREADS 128
#define BYTES_MAX ((TV_VQ_COLS_MAX + 4) / 5) // packed bytes of a row
#define DRAWS 8                              // of a block of the generator

__device__ static inline int64_t thread_index(void) { return (int64_t)blockIdx.x * THREADS + threadIdx.x; }

__device__ static inline uint32_t power_of_three(int j)
{
    return j == 0 ? 1 : j == 1 ? 3 : j == 2 ? 9 : j == 3 ? 27 : 81;
}

// ---- initial state -----------------------------------------------------------------------------------------------------

// Draws at neighbouring elements, in ascending order: the generator runs once a block of them.
typedef struct draw_run {
    tv_rng_key key;
    tv_rng_block block;
} draw_run;

__device__ static inline uint32_t next_draw(draw_run *run, uint64_t element, bool begin)
{
    if (begin || element % DRAWS == 0)
        run->block = tv_rng_at(run->key, element / DRAWS);
    int word = (int)(element >> 1 & 3);
    uint32_t two = word == 0   ? run->block.word[0]
                   : word == 1 ? run->block.word[1]
                   : word == 2 ? run->block.word[2]
                               : run->block.word[3];
    return two >> (element & 1) * 16 & 0xFFFFu;
}

// A thread a row; the block's bytes, which lie together, leave through shared memory.
__global__ static void __launch_bounds__(THREADS) init_trits_kernel(tv_vq_init_args a)
{
    __shared__ uint8_t rows[THREADS * BYTES_MAX];
    const tv_vq_table &table = a.table;
    int cols = (int)table.cols, bytes = (cols + 4) / 5;
    int64_t first = (int64_t)blockIdx.x * THREADS, row = table.first_row + first + threadIdx.x;
    int64_t held = table.held_rows - first < THREADS ? table.held_rows - first : THREADS;
    if (threadIdx.x < held) {
        int64_t bucket = tv_vq_bucket_of(table.rows, table.bits, row);
        draw_run run = {{a.seed, TV_RNG_INIT_T, a.tensor_id, 0}, {{0, 0, 0, 0}}};
        for (int k = 0; k < bytes; k++) {
            uint32_t byte = 0;
            for (int j = 0; j < 5; j++) {
                int c = 5 * k + j;
                uint32_t digit = c < cols ? 1 : TV_TRIT_PAD_DIGIT; // 1: the trit 0
                if (c < cols && !a.zeros)
                    digit = next_draw(&run, (uint64_t)(row * cols + c), c == 0) * 3 >> 16;
                if (c < table.bits)
                    digit = (uint32_t)(tv_vq_pattern(bucket, c) + 1);
                byte += digit * power_of_three(j);
            }
            rows[threadIdx.x * bytes + k] = (uint8_t)byte;
        }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < held * bytes; i += THREADS)
        table.T[first * bytes + i] = rows[i];
}

// A thread a block of draws, some of which may lie before or behind the held rows.
__global__ static void __launch_bounds__(THREADS) init_accum_kernel(tv_vq_init_args a, bool wide)
{
    const tv_vq_table &table = a.table;
    int64_t first = table.first_row * table.cols, end = first + table.held_rows * table.cols;
    int64_t block = first / DRAWS + thread_index(), element = block * DRAWS;
    if (element >= end)
        return;
    tv_rng_key key = {a.seed, TV_RNG_INIT_ACCUM, a.tensor_id, 0};
    tv_rng_block random = tv_rng_at(key, (uint64_t)block);
    int c = (int)(element % table.cols);
    uint32_t word[2] = {0, 0};
#pragma unroll
    for (int i = 0; i < DRAWS; i++) {
        uint32_t draw = tv_rng_lane(random, i);
        int value = (int)(draw * (uint32_t)(2 * a.threshold - 1) >> 16) - (a.threshold - 1);
        value = c < table.bits ? 0 : value;
        word[i / 4] |= (uint32_t)(value & 0xFF) << i % 4 * 8;
        if (!wide && element + i >= first && element + i < end)
            table.T_accum[element + i - first] = (int8_t)value;
        c = c + 1 == table.cols ? 0 : c + 1;
    }
    if (wide)
        *(uint2 *)(table.T_accum + (element - first)) = make_uint2(word[0], word[1]);
}

extern "C" tv_status vq_init_cuda(const tv_vq_init_args *a, void *stream)
{
    const tv_vq_table *table = &a->table;
    int64_t first = table->first_row * table->cols, count = table->held_rows * table->cols;
    if (!table->cols || !table->held_rows)
        return TV_OK;
    size_t rows = (size_t)table->held_rows;
    TV_CUDA_TRY(cudaMemsetAsync(table->E, (uint8_t)(int8_t)a->exponent, rows, tv_cuda_stream(stream)));
    if (table->E_accum)
        TV_CUDA_TRY(cudaMemsetAsync(table->E_accum, 0, rows, tv_cuda_stream(stream)));
    if (table->T_accum) {
        bool wide = first % DRAWS == 0 && count % DRAWS == 0 && (uintptr_t)table->T_accum % sizeof(uint2) == 0;
        int64_t blocks = tv_ceil_div(first + count, DRAWS) - first / DRAWS;
        init_accum_kernel<<<tv_cuda_blocks(blocks, THREADS), THREADS, 0, tv_cuda_stream(stream)>>>(*a, wide);
    }
    init_trits_kernel<<<tv_cuda_blocks(table->held_rows, THREADS), THREADS, 0, tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("vq_init");
}

// ---- answers -----------------------------------------------------------------------------------------------------------

// Byte `at` of an answer, behind row and score.
__device__ static inline uint32_t answer_byte(const tv_vq_table &table, int64_t row, int64_t packed, int64_t at)
{
    const uint32_t none = TV_TRIT_BYTE_MAX / 2; // five zero trits
    if (at < packed)
        return row >= 0 ? table.T[row * packed + at] : none;
    if (at > packed)
        return 0;
    return (uint8_t)(row >= 0 ? table.E[row] : (int8_t)table.base);
}

// A thread a word.
__global__ static void __launch_bounds__(THREADS) answer_kernel(tv_vq_answer_args a)
{
    const tv_vq_table &table = a.table;
    int64_t words = tv_vq_answer_bytes(table.cols) / 4, packed = tv_row_bytes(table.cols);
    int64_t i = thread_index() / words, word = thread_index() % words;
    if (i >= a.count)
        return;
    int32_t row = a.row[i];
    int64_t at = row - table.first_row;
    bool held = row >= 0 && at >= 0 && at < table.held_rows;
    if (!held && row != -1)
        *a.fault = 1;
    uint32_t value = 0;
    if (word == 0)
        value = (uint32_t)(held ? row : -1);
    else if (word == 1)
        value = (uint32_t)a.score[i];
    else
        for (int j = 0; j < 4; j++)
            value |= answer_byte(table, held ? at : -1, packed, (word - 2) * 4 + j) << 8 * j;
    ((uint32_t *)a.bytes)[i * words + word] = value;
}

extern "C" tv_status vq_answer_cuda(const tv_vq_answer_args *a, void *stream)
{
    int64_t words = a->count * (tv_vq_answer_bytes(a->table.cols) / 4);
    if (!words)
        return TV_OK;
    answer_kernel<<<tv_cuda_blocks(words, THREADS), THREADS, 0, tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("vq_answer");
}

__global__ static void __launch_bounds__(THREADS) answer_unpack_kernel(tv_vq_answer_unpack_args a)
{
    int64_t size = tv_vq_answer_bytes(a.cols), packed = tv_row_bytes(a.cols), i = thread_index();
    if (i >= a.count)
        return;
    const uint8_t *answer = a.bytes + i * size;
    int E = (int8_t)answer[8 + packed];
    int32_t row = ((const int32_t *)answer)[0], score = ((const int32_t *)answer)[1];
    bool bad = row < -1 || row >= a.rows || E < a.base || E >= a.base + tv_lattice_codes(a.mantissa_bits);
    for (int64_t k = 0; k < packed; k++)
        bad |= answer[8 + k] > TV_TRIT_BYTE_MAX;
    if (bad)
        *a.fault = 1;
    a.row[i] = bad ? -1 : row;
    a.score[i] = bad ? INT32_MIN : score;
}

extern "C" tv_status vq_answer_unpack_cuda(const tv_vq_answer_unpack_args *a, void *stream)
{
    if (!a->count)
        return TV_OK;
    answer_unpack_kernel<<<tv_cuda_blocks(a->count, THREADS), THREADS, 0, tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("vq_answer_unpack");
}

// A thread a packed byte.
__global__ static void __launch_bounds__(THREADS) rows_kernel(tv_vq_rows_args a)
{
    int64_t packed = tv_row_bytes(a.cols), t = thread_index() / packed, k = thread_index() % packed;
    if (t >= a.tokens)
        return;
    int32_t from = a.from[t];
    int value = 0;
    uint32_t byte = 0;
    if (k == 0)
        a.scale[t] = tv_exp2i(a.base);
    if (from >= 0) {
        const uint8_t *answer = a.bytes + from * tv_vq_answer_bytes(a.cols);
        value = tv_lattice_value(a.mantissa_bits, (int8_t)answer[8 + packed] - a.base);
        byte = answer[8 + k];
    } else
        *a.fault = 1;
    for (int j = 0; j < 5 && 5 * k + j < a.cols; j++)
        a.w8[t * a.cols + 5 * k + j] = (int8_t)(tv_byte_trit(byte, j) * value);
}

extern "C" tv_status vq_rows_cuda(const tv_vq_rows_args *a, void *stream)
{
    int64_t bytes = a->tokens * tv_row_bytes(a->cols);
    if (!bytes)
        return TV_OK;
    rows_kernel<<<tv_cuda_blocks(bytes, THREADS), THREADS, 0, tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("vq_rows");
}
