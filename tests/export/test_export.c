// Exported values are exact for every scale there can be, and what cannot be exported is refused with a name.
#include "tests/io/io_fixture.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "base/config.h"
#include "base/pack.h"
#include "base/rng.h"
#include "export.h"

static double half_value(uint16_t bits)
{
    int exponent = bits >> 10 & 31, fraction = bits & 1023;
    double magnitude = exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
    return bits & 0x8000 ? -magnitude : magnitude;
}

static double item_value(tv_export_type type, const uint8_t *item)
{
    uint16_t half;
    float single;
    memcpy(&half, item, sizeof half);
    memcpy(&single, item, type == TV_EXPORT_F32 ? sizeof single : 0);
    return type == TV_EXPORT_F16 ? half_value(half) : (double)single;
}

// One row whose group of code c holds +1, 0, -1, +1.
static void check_scales(tv_export_type type, int b, int m)
{
    enum { COLS = 32 * 4 };
    int codes = tv_lattice_codes(m);
    int8_t trits[COLS], exponents[32];
    uint8_t packed[(COLS + 4) / 5], out[4 * COLS];
    tv_state_array values = {.logical_cols = 4 * codes, .b = b, .m = m, .scale_group = 4}, scales = values;
    tv_export_tensor tensor = {.values = &values, .exponents = &scales, .type = type, .rows = 1, .cols = 4 * codes};
    tv_export_rows rows;
    for (int i = 0; i < 4 * codes; i++) {
        trits[i] = (int8_t)(i % 4 == 3 ? 1 : 1 - i % 4);
        exponents[i / 4] = (int8_t)(b + i / 4);
    }
    tv_pack_row(trits, tensor.cols, packed);
    tensor.row_bytes = tv_export_row_bytes(type, tensor.cols);
    assert_ok(tv_export_rows_open(&rows, &tensor));
    tv_export_encode(&rows, packed, exponents, out);
    tv_export_rows_close(&rows);
    for (int i = 0; i < 4 * codes; i++) {
        double got = item_value(type, out + i * tv_export_row_bytes(type, 1));
        assert_true(got == ldexp(trits[i] * tv_lattice_value(m, i / 4), b) && (got != 0 || !signbit(got)));
    }
}

static void test_every_scale(void **state)
{
    (void)state;
    for (int m = 0; m <= TV_MANTISSA_BITS_MAX; m++) {
        for (int b = -128; b + tv_lattice_codes(m) - 1 <= 127 && b + 7 <= 127; b++) {
            check_scales(TV_EXPORT_F32, b, m);
            if (tv_export_fits_f16(b, m))
                check_scales(TV_EXPORT_F16, b, m);
        }
        assert_true(tv_export_fits_f16(-24, m) && !tv_export_fits_f16(-25, m));
        assert_true(tv_export_fits_f16(9, m) && !tv_export_fits_f16(10, m));
    }
}

// How a reader of ggml takes digit n of a byte: a product that wraps, then the carry of a product with 3.
static int tq1_trit(uint8_t byte, int n)
{
    static const uint8_t powers[] = {1, 3, 9, 27, 81};
    uint8_t rest = (uint8_t)(byte * powers[n]);
    return (rest * 3 >> 8) - 1;
}

static int tq1_at(const uint8_t *block, int k)
{
    if (k < 160)
        return tq1_trit(block[k % 32], k / 32);
    if (k < 240)
        return tq1_trit(block[32 + (k - 160) % 16], (k - 160) / 16);
    return tq1_trit(block[48 + (k - 240) % 4], (k - 240) / 4);
}

// All 243 values of a byte come up among these blocks.
static void test_blocks(void **state)
{
    (void)state;
    enum { COLS = 256 * 40 };
    static int8_t trits[COLS], exponents[COLS / 32];
    static uint8_t packed[COLS / 5], out[COLS / 256 * 54];
    tv_state_array values = {.logical_cols = COLS, .b = -20, .m = 3, .scale_group = 32}, scales = values;
    tv_export_tensor tensor = {
        .values = &values, .exponents = &scales, .type = TV_EXPORT_TQ1_0, .rows = 1, .cols = COLS};
    tv_export_rows rows;
    for (int k = 0; k < COLS; k++) {
        trits[k] = (int8_t)(tv_rng16((tv_rng_key){.seed = 5}, (uint64_t)k) % 3 - 1);
        exponents[k / 32] = (int8_t)(-20 + k / 256 % 32);
    }
    tv_pack_row(trits, COLS, packed);
    tensor.row_bytes = tv_export_row_bytes(tensor.type, COLS);
    assert_int_equal(tensor.row_bytes, sizeof out);
    assert_true(tv_export_row_packs(&scales, COLS, exponents));
    assert_ok(tv_export_rows_open(&rows, &tensor));
    tv_export_encode(&rows, packed, exponents, out);
    tv_export_rows_close(&rows);
    for (int k = 0; k < COLS; k++) {
        const uint8_t *block = out + k / 256 * 54;
        uint16_t d = (uint16_t)(block[52] | block[53] << 8);
        assert_int_equal(tq1_at(block, k % 256), trits[k]);
        assert_true(half_value(d) == ldexp(tv_lattice_value(3, k / 256 % 32), -20));
    }
    exponents[COLS / 32 - 1]--;
    assert_false(tv_export_row_packs(&scales, COLS, exponents));
    assert_false(tv_export_row_packs(&scales, COLS - 32, exponents));
}

// Groups of 6 lie across the border of two blocks: both must then have its exponent.
static void test_groups_across_blocks(void **state)
{
    (void)state;
    int8_t exponents[86] = {0};
    tv_state_array scales = {.scale_group = 6};
    assert_true(tv_export_row_packs(&scales, 512, exponents));
    exponents[85] = 1;
    assert_false(tv_export_row_packs(&scales, 512, exponents));
    for (int g = 42; g < 86; g++) // 42 holds weights 252 to 257
        exponents[g] = 1;
    assert_false(tv_export_row_packs(&scales, 512, exponents));
}

// A checkpoint with these arrays, filled here: trits and integers by a formula, exponents over the whole window.
static char *save_arrays(const char *folder, tv_state_array *arrays, int64_t count)
{
    tv_comm *comm = NULL;
    tv_config config;
    tv_checkpoint_info info = io_info(7);
    assert_ok(tv_config_init(&config));
    assert_ok(tv_config_text(&config, &info.config_text));
    for (int64_t i = 0; i < count; i++) {
        tv_state_array *a = &arrays[i];
        size_t bytes = (size_t)(a->rows * tv_state_row_bytes(a));
        a->count = a->rows;
        uint8_t *data = a->data = malloc(bytes + 1);
        assert_non_null(data);
        for (size_t k = 0; k < bytes; k++)
            data[k] = strcmp(a->part, "T") == 0   ? (uint8_t)(k * 7 % 243)
                      : strcmp(a->part, "E") == 0 ? (uint8_t)(a->b + (int)(k % (size_t)tv_lattice_codes(a->m)))
                                                  : (uint8_t)(k * 37);
    }
    assert_ok(tv_comm_open_self(&comm));
    assert_ok(tv_checkpoint_save(comm, folder, &info, arrays, count));
    tv_comm_close(comm);
    tv_config_free(&config);
    free(info.config_text);
    for (int64_t i = 0; i < count; i++)
        free(arrays[i].data);
    return strdup(io_path("%s/step-000000007", folder));
}

static tv_state_array trits_of(const char *name, int64_t rows, int64_t cols, int b, int m)
{
    return (tv_state_array){name, "T", "tensors", TV_U8, rows, cols / 5, cols, 0, 0, NULL, b, m, 32, 0};
}

static tv_state_array exponents_of(const char *name, int64_t rows, int64_t cols, int b, int m)
{
    int64_t groups = tv_row_groups(cols, 32);
    return (tv_state_array){name, "E", "tensors", TV_I8, rows, groups, groups, 0, 0, NULL, b, m, 32, 0};
}

static tv_state_array side_of(const char *name, const char *part, tv_dtype dtype, int64_t rows)
{
    return (tv_state_array){name, part, "tables", dtype, rows, 3, 3, 0, 0, NULL, 0, 0, 0, 0};
}

static void export_to(const char *dir, const tv_export_format *format, const char *path)
{
    tv_checkpoint *checkpoint = NULL;
    tv_export plan;
    assert_ok(tv_checkpoint_open(dir, 1, &checkpoint));
    assert_ok(tv_export_plan(checkpoint, format, &plan));
    assert_ok(tv_export_write(&plan, format, path, 0));
    tv_export_free(&plan);
    tv_checkpoint_close(checkpoint);
}

static void check_file(const char *dir, const char *path)
{
    const char *python = getenv("PYTHON");
    int status = system(io_path("%s '%s' '%s' '%s'", python ? python : "/usr/bin/python3", TV_CHECK_EXPORT, dir, path));
    if (WIFEXITED(status) && (WEXITSTATUS(status) == 77 || WEXITSTATUS(status) == 127)) {
        printf("skipped: no Python with h5py\n");
        skip();
    }
    assert_int_equal(status, 0);
}

// Scales that no float16 holds, every integer type, and a tensor that is read in several pieces.
static void test_files(void **state)
{
    (void)state;
    tv_state_array arrays[] = {
        trits_of("tiny", 3, 40, -40, 0),       exponents_of("tiny", 3, 40, -40, 0),
        trits_of("huge", 2, 35, 60, 3),        exponents_of("huge", 2, 35, 60, 3),
        trits_of("long", 30001, 750, -9, 1),   exponents_of("long", 30001, 750, -9, 1),
        side_of("long", "usage", TV_I16, 7),   side_of("long", "sign", TV_I8, 5),
        side_of("graph", "source", TV_I32, 4),
    };
    char *folder = io_folder_new(), *dir = save_arrays(folder, arrays, sizeof arrays / sizeof *arrays);
    const char *gguf = io_path("%s/x.gguf", folder), *safetensors = io_path("%s/x.safetensors", folder);
    export_to(dir, &tv_export_gguf, gguf);
    export_to(dir, &tv_export_safetensors, safetensors);
    check_file(dir, gguf);
    check_file(dir, safetensors);
    free(dir);
    io_folder_free(folder);
}

static void refused(tv_state_array *arrays, int64_t count, const char *message)
{
    char *folder = io_folder_new(), *dir = save_arrays(folder, arrays, count);
    tv_checkpoint *checkpoint = NULL;
    tv_export plan;
    assert_ok(tv_checkpoint_open(dir, 1, &checkpoint));
    assert_status(TV_CHECKPOINT, tv_export_plan(checkpoint, &tv_export_gguf, &plan));
    assert_message(message);
    tv_checkpoint_close(checkpoint);
    free(dir);
    io_folder_free(folder);
}

static void test_refused(void **state)
{
    (void)state;
    const char *name = "a_name_that_is_much_longer_than_the_names_that_any_reader_will_keep";
    tv_state_array alone[] = {trits_of("a", 2, 40, 0, 0)};
    tv_state_array other[] = {trits_of("a", 2, 40, 0, 0), exponents_of("a", 2, 80, 0, 0)};
    tv_state_array long_name[] = {side_of(name, "usage", TV_I8, 2)};
    tv_state_array twice[] = {side_of("a.b", "c", TV_I8, 2), side_of("a", "b.c", TV_I8, 2)};
    tv_state_array beyond[] = {trits_of("a", 2, 40, 121, 0), exponents_of("a", 2, 40, 121, 0)};
    tv_state_array bytes[] = {side_of("a", "b", TV_U8, 2)};
    refused(alone, 1, "no exponents");
    refused(other, 2, "do not belong together");
    refused(long_name, 1, "longer than the 63 bytes");
    refused(twice, 2, "a.b.c");
    refused(beyond, 2, "beyond float32");
    refused(bytes, 1, "uint8");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_scale), cmocka_unit_test(test_blocks),  cmocka_unit_test(test_groups_across_blocks),
        cmocka_unit_test(test_files),       cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
