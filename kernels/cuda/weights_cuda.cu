// Packed trits and weights: pack, unpack, initial state, validation, row hashes; and the wire's digits.
#include "kernels/cuda/cuda_common.cuh"
#include "kernels/cuda/cuda_ops.h"

#include <stdlib.h>

#define THREADS 256

__device__ static inline int64_t element_index(void) { return (int64_t)blockIdx.x * THREADS + threadIdx.x; }

__device__ static inline uint32_t place_value(int j) { return j == 0 ? 1 : j == 1 ? 3 : j == 2 ? 9 : j == 3 ? 27 : 81; }

// A thread a byte.
__global__ static void pack_kernel(tv_pack_args a)
{
    int64_t bytes = tv_row_bytes(a.cols), i = element_index();
    if (i >= a.rows * bytes)
        return;
    int64_t n = i / bytes, k0 = i % bytes * 5;
    uint32_t byte = 0;
    for (int j = 0; j < 5; j++)
        byte += (uint32_t)(k0 + j < a.cols ? a.trits[n * a.cols + k0 + j] + 1 : TV_TRIT_PAD_DIGIT) * place_value(j);
    a.bytes[i] = (uint8_t)byte;
}

extern "C" tv_status pack_cuda(const tv_pack_args *a, void *stream)
{
    if (!a->rows || !a->cols)
        return TV_OK;
    pack_kernel<<<tv_cuda_blocks(a->rows * tv_row_bytes(a->cols), THREADS), THREADS, 0, tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("pack");
}

__global__ static void unpack_kernel(tv_pack_args a)
{
    int64_t i = element_index();
    if (i >= a.rows * a.cols)
        return;
    int64_t n = i / a.cols, k = i % a.cols;
    a.trits[i] = (int8_t)tv_byte_trit(a.bytes[n * tv_row_bytes(a.cols) + k / 5], (int)(k % 5));
}

extern "C" tv_status unpack_cuda(const tv_pack_args *a, void *stream)
{
    if (!a->rows || !a->cols)
        return TV_OK;
    unpack_kernel<<<tv_cuda_blocks(a->rows * a->cols, THREADS), THREADS, 0, tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("unpack");
}

__global__ static void init_trits_kernel(tv_init_args a)
{
    int64_t bytes = tv_row_bytes(a.cols), i = element_index();
    if (i >= a.rows * bytes)
        return;
    int64_t n = i / bytes, k0 = i % bytes * 5;
    tv_rng_key key = {a.seed, TV_RNG_INIT_T, a.tensor_id, 0};
    uint32_t byte = 0;
    for (int j = 0; j < 5; j++) {
        uint32_t digit = TV_TRIT_PAD_DIGIT;
        if (k0 + j < a.cols)
            digit = a.ones ? 2 : tv_rng16(key, (uint64_t)((a.first_row + n) * a.cols + k0 + j)) * 3 >> 16;
        byte += digit * place_value(j);
    }
    a.T[i] = (uint8_t)byte;
}

__global__ static void init_accum_kernel(tv_init_args a)
{
    int64_t i = element_index();
    if (i >= a.rows * a.cols)
        return;
    tv_rng_key key = {a.seed, TV_RNG_INIT_ACCUM, a.tensor_id, 0};
    uint32_t r = tv_rng16(key, (uint64_t)(a.first_row * a.cols + i));
    a.T_accum[i] = (int8_t)((int)(r * (uint32_t)(2 * a.threshold - 1) >> 16) - (a.threshold - 1));
}

extern "C" tv_status init_cuda(const tv_init_args *a, void *stream)
{
    if (!a->rows || !a->cols)
        return TV_OK;
    size_t exponents = (size_t)(a->rows * tv_row_groups(a->cols, a->group));
    TV_CUDA_TRY(cudaMemsetAsync(a->E, (uint8_t)(int8_t)a->exponent, exponents, tv_cuda_stream(stream)));
    if (a->E_accum)
        TV_CUDA_TRY(cudaMemsetAsync(a->E_accum, 0, exponents, tv_cuda_stream(stream)));
    if (a->T_accum)
        init_accum_kernel<<<tv_cuda_blocks(a->rows * a->cols, THREADS), THREADS, 0, tv_cuda_stream(stream)>>>(*a);
    init_trits_kernel<<<tv_cuda_blocks(a->rows * tv_row_bytes(a->cols), THREADS), THREADS, 0, tv_cuda_stream(stream)>>>(
        *a);
    TV_CUDA_LAUNCHED("init");
}

__device__ static inline void count_one(int64_t *counter) { atomicAdd((unsigned long long *)counter, 1ull); }

__global__ static void validate_kernel(tv_validate_args a)
{
    int64_t bytes = tv_row_bytes(a.cols), groups = tv_row_groups(a.cols, a.group), i = element_index();
    if (i < a.rows * bytes) {
        int64_t k0 = i % bytes * 5;
        uint32_t byte = a.T[i];
        bool bad = byte > TV_TRIT_BYTE_MAX;
        for (int j = 0; j < 5; j++)
            bad = bad || (k0 + j >= a.cols && tv_byte_trit(byte, j) != 0);
        if (bad)
            count_one(a.counts);
    }
    int last = a.base + tv_lattice_codes(a.mantissa_bits) - 1;
    if (i < a.rows * groups && (a.E[i] < a.base || a.E[i] > last))
        count_one(a.counts + 1);
}

extern "C" tv_status validate_cuda(const tv_validate_args *a, void *stream)
{
    if (!a->rows || !a->cols)
        return TV_OK;
    int64_t bytes = tv_row_bytes(a->cols), groups = tv_row_groups(a->cols, a->group);
    validate_kernel<<<tv_cuda_blocks(a->rows * (bytes > groups ? bytes : groups), THREADS), THREADS, 0,
                      tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("validate");
}

// XXH3 stays on the host: the rows are copied there a piece at a time. Used at saves and guard checks only.
extern "C" tv_status row_hash_cuda(const tv_row_hash_args *a, void *stream)
{
    enum { PIECE_BYTES = 16 << 20 };
    if (!a->rows || !a->row_bytes)
        return TV_OK;
    int64_t rows = a->row_bytes > PIECE_BYTES ? 1 : (int64_t)(PIECE_BYTES / a->row_bytes);
    void *piece = malloc((size_t)rows * a->row_bytes);
    tv_status st = piece ? TV_OK : TV_FAIL(TV_MEMORY, "no host memory to hash rows");
    for (int64_t row = 0; st == TV_OK && row < a->rows; row += rows) {
        int64_t count = a->rows - row < rows ? a->rows - row : rows;
        const char *from = (const char *)a->data + (size_t)row * a->row_bytes;
        st = copy_cuda(piece, from, (size_t)count * a->row_bytes, TV_COPY_TO_HOST, stream);
        if (st == TV_OK)
            tv_hash_rows_add(a->sum, piece, count, a->row_bytes, a->first_row + row);
    }
    free(piece);
    return st;
}

// Digit d of value q in balanced ternary with k digits, as 0..2.
__device__ static inline uint32_t balanced_digit(int q, int digits, int d)
{
    const int half[6] = {0, 1, 4, 13, 40, 121};
    int h = digits == 1 ? half[1] : digits == 2 ? half[2] : digits == 3 ? half[3] : digits == 4 ? half[4] : half[5];
    return (uint32_t)(q + h) / place_value(d) % 3;
}

__global__ static void digits_pack_kernel(tv_digits_args a)
{
    int64_t row_bytes = tv_ceil_div(a.cols * a.digits, 5), i = element_index();
    if (i >= a.rows * row_bytes)
        return;
    int64_t n = i / row_bytes, first = i % row_bytes * 5;
    uint32_t byte = 0;
    for (int j = 0; j < 5; j++) {
        int64_t position = first + j;
        uint32_t digit = TV_TRIT_PAD_DIGIT;
        if (position < a.cols * a.digits)
            digit = balanced_digit(a.q[n * a.cols + position / a.digits], a.digits, (int)(position % a.digits));
        byte += digit * place_value(j);
    }
    a.bytes[i] = (uint8_t)byte;
}

extern "C" tv_status digits_pack_cuda(const tv_digits_args *a, void *stream)
{
    if (!a->rows || !a->cols)
        return TV_OK;
    digits_pack_kernel<<<tv_cuda_blocks(a->rows * tv_ceil_div(a->cols * a->digits, 5), THREADS), THREADS, 0,
                         tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("digits_pack");
}

__global__ static void digits_unpack_kernel(tv_digits_args a)
{
    int64_t row_bytes = tv_ceil_div(a.cols * a.digits, 5), i = element_index();
    if (i >= a.rows * a.cols)
        return;
    int64_t n = i / a.cols, position = i % a.cols * a.digits;
    int q = 0;
    for (int d = 0; d < a.digits; d++, position++)
        q += tv_byte_trit(a.bytes[n * row_bytes + position / 5], (int)(position % 5)) * (int)place_value(d);
    a.q[i] = (int8_t)q;
}

extern "C" tv_status digits_unpack_cuda(const tv_digits_args *a, void *stream)
{
    if (!a->rows || !a->cols)
        return TV_OK;
    digits_unpack_kernel<<<tv_cuda_blocks(a->rows * a->cols, THREADS), THREADS, 0, tv_cuda_stream(stream)>>>(*a);
    TV_CUDA_LAUNCHED("digits_unpack");
}
