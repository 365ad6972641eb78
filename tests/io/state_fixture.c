// The small state of the tests (io_fixture.h).
#include "io_fixture.h"

#include <stdlib.h>
#include <string.h>

#include "base/tensor.h"

// q has 70 trits a row: 14 bytes without pad digits; embed has 13: 3 bytes, the last with two pads.
static const tv_state_array shapes[IO_ARRAYS] = {
    {"embed", "T", "tensors", TV_U8, 37, 3, 13, 0, 0, NULL, -9, 0, 4, 0},
    {"embed", "E", "tensors", TV_I8, 37, 4, 4, 0, 0, NULL, -9, 0, 4, 0},
    {"embed", "T_accum", "tensors", TV_I8, 37, 13, 13, 0, 0, NULL, -9, 0, 4, 0},
    {"embed", "E_accum", "tensors", TV_I8, 37, 4, 4, 0, 0, NULL, -9, 0, 4, 0},
    {"block.0.attention.q", "T", "tensors", TV_U8, 3000, 14, 70, 0, 0, NULL, -12, 2, 32, 0},
    {"block.0.attention.q", "E", "tensors", TV_I8, 3000, 3, 3, 0, 0, NULL, -12, 2, 32, 0},
    {"codebook", "usage", "tables", TV_I16, 5, 7, 7, 0, 0, NULL, 0, 0, 0, 0},
    {"edges", "src", "graph", TV_I32, 11, 1, 1, 0, 0, NULL, 0, 0, 0, 0},
    {"head", "bias", "tensors", TV_I8, 1, 256, 256, 0, 0, NULL, 0, 0, 0, 1},
};

// A number from four others (a mix of multiplications and shifts; nothing of the program's own).
static uint64_t mix(uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    uint64_t x = a * 0x9E3779B97F4A7C15u + b * 0xC2B2AE3D27D4EB4Fu + c * 0x165667B19E3779F9u + d + 1;
    x = (x ^ (x >> 29)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 32)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

int64_t io_state_value(int index, int64_t row, int64_t item, int salt)
{
    const tv_state_array *a = &shapes[index];
    uint64_t x = mix((uint64_t)index, (uint64_t)row, (uint64_t)item, (uint64_t)salt);
    if (strcmp(a->part, "T") == 0) {
        int byte = 0, place = 1;
        for (int j = 0; j < 5; j++, place *= 3)
            byte += place * (5 * item + j < a->logical_cols ? (int)((x >> (8 * j)) % 3) : 1);
        return byte;
    }
    if (strcmp(a->part, "E") == 0)
        return a->b + (int)(x % (a->m == 0 ? 7 : 20)); // docs/checkpoint.md: 7 codes for m = 0, 20 for m = 2
    switch (a->dtype) {
    case TV_I16: return (int16_t)x;
    case TV_I32: return (int32_t)x;
    default: return (int8_t)x;
    }
}

static int64_t get(const tv_state_array *a, int64_t i)
{
    switch (a->dtype) {
    case TV_U8: return ((const uint8_t *)a->data)[i];
    case TV_I8: return ((const int8_t *)a->data)[i];
    case TV_I16: return ((const int16_t *)a->data)[i];
    default: return ((const int32_t *)a->data)[i];
    }
}

static void put(const tv_state_array *a, int64_t i, int64_t value)
{
    switch (a->dtype) {
    case TV_U8: ((uint8_t *)a->data)[i] = (uint8_t)value; break;
    case TV_I8: ((int8_t *)a->data)[i] = (int8_t)value; break;
    case TV_I16: ((int16_t *)a->data)[i] = (int16_t)value; break;
    default: ((int32_t *)a->data)[i] = (int32_t)value;
    }
}

// Blocks of ceil(rows / ranks); the last ranks may hold nothing.
static void make_block(tv_state_array *a, int rank, int ranks)
{
    int64_t block = (a->rows + ranks - 1) / ranks, first = rank * block;
    a->first_row = first < a->rows ? first : a->rows;
    a->count = a->rows - a->first_row < block ? a->rows - a->first_row : block;
    a->data = calloc((size_t)(a->count * a->cols) + 1, 4);
    assert_non_null(a->data);
}

void io_state_make(io_state *state, int rank, int ranks, int salt)
{
    state->arrays[IO_ARRAYS].data = NULL;
    for (int index = 0; index < IO_ARRAYS; index++) {
        tv_state_array *a = &state->arrays[index];
        *a = shapes[index];
        make_block(a, rank, ranks);
        for (int64_t r = 0; r < a->count; r++)
            for (int64_t c = 0; c < a->cols; c++)
                put(a, r * a->cols + c, io_state_value(index, a->first_row + r, c, salt));
    }
}

void io_state_enlarge(io_state *state)
{
    enum { ROWS = 4 * IO_PIECES - 5, COLS = 1 << 20 }; // three chunks of four rows, the last one not full
    tv_state_array *a = &state->arrays[IO_ARRAYS];
    *a = (tv_state_array){"large", "usage", "tables", TV_I8, ROWS, COLS, COLS, 0, ROWS, NULL, 0, 0, 0, 0};
    a->data = calloc(ROWS, COLS);
    assert_non_null(a->data);
}

void io_state_free(io_state *state)
{
    for (int index = 0; index <= IO_ARRAYS; index++)
        free(state->arrays[index].data);
}

void io_state_check(tv_checkpoint *checkpoint, int rank, int ranks, int salt)
{
    int64_t count = 0;
    assert_non_null(tv_checkpoint_arrays(checkpoint, &count));
    assert_in_range(count, IO_ARRAYS, IO_ARRAYS + 1);
    for (int index = 0; index < IO_ARRAYS; index++) {
        tv_state_array a = shapes[index];
        make_block(&a, rank, ranks);
        assert_ok(tv_checkpoint_read(checkpoint, &a, 1));
        for (int64_t i = 0; i < a.count * a.cols; i++)
            if (get(&a, i) != io_state_value(index, a.first_row + i / a.cols, i % a.cols, salt))
                fail_msg("%s %s: row %lld, item %lld is %lld", a.name, a.part, (long long)(a.first_row + i / a.cols),
                         (long long)(i % a.cols), (long long)get(&a, i));
        free(a.data);
    }
}

tv_hash128 io_state_digest(int salt)
{
    io_state state;
    tv_hash128 sums[IO_ARRAYS], digest;
    io_state_make(&state, 0, 1, salt);
    tv_state_hash(state.arrays, IO_ARRAYS, sums);
    assert_ok(tv_state_digest(state.arrays, IO_ARRAYS, sums, &digest));
    io_state_free(&state);
    return digest;
}

tv_checkpoint_info io_info(int64_t step)
{
    return (tv_checkpoint_info){.step = step,
                                .bytes_seen = step * 16384,
                                .seed = 42,
                                .units = 12,
                                .config_text = "train:\n  steps: 10\n",
                                .config_hash = {1, 2},
                                .corpus = {3, UINT64_MAX},
                                .program = "trivote test"};
}

void io_save(const char *run_dir, int64_t step, int salt)
{
    tv_comm *comm = NULL;
    io_state state;
    tv_checkpoint_info info = io_info(step);
    assert_ok(tv_comm_open_self(&comm));
    io_state_make(&state, 0, 1, salt);
    assert_ok(tv_checkpoint_save(comm, run_dir, &info, state.arrays, IO_ARRAYS));
    io_state_free(&state);
    tv_comm_close(comm);
}
