// The GPU's figures through a library of known answers, and silence where there is none.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "train/nvml.h"

static const unsigned char known[16] = {0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77,
                                        0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff};

static char *written(const tv_gpu_state *gpu)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    assert_non_null(out);
    tv_gpu_write(out, gpu);
    fclose(out);
    return text;
}

static void finds_by_uuid(void **state)
{
    (void)state;
    setenv("TV_NVML", TV_FAKE_NVML, 1);
    tv_nvml *nvml = tv_nvml_open(known, 0);
    assert_non_null(nvml);
    tv_gpu_state gpu = tv_nvml_read(nvml);
    assert_int_equal(gpu.present, 1);
    assert_true(gpu.temperature == 91 && gpu.power == 612.5);
    assert_int_equal(gpu.ecc_uncorrected, 2);
    assert_string_equal(tv_gpu_trouble(&gpu), "heat");
    char *text = written(&gpu);
    assert_string_equal(text, "\"gpu\":{\"temperature_c\":91,\"power_w\":612.5,\"ecc_uncorrected\":2,"
                              "\"throttle\":[\"heat_hardware\"]}");
    free(text);
    tv_nvml_close(nvml);
}

static void finds_by_index(void **state)
{
    (void)state;
    setenv("TV_NVML", TV_FAKE_NVML, 1);
    tv_nvml *nvml = tv_nvml_open(NULL, 0);
    tv_gpu_state gpu = tv_nvml_read(nvml);
    assert_true(gpu.temperature == 54);
    assert_null(tv_gpu_trouble(&gpu)); // idle is no trouble
    tv_nvml_close(nvml);
    assert_null(tv_nvml_open(NULL, 2));
}

static void tells_only_what_is_offered(void **state)
{
    (void)state;
    setenv("TV_NVML", TV_FAKE_NVML, 1);
    setenv("FAKE_NVML_BARE", "1", 1);
    tv_nvml *nvml = tv_nvml_open(NULL, 1);
    tv_gpu_state gpu = tv_nvml_read(nvml);
    char *text = written(&gpu);
    assert_int_equal(gpu.present, 1);
    assert_string_equal(text, "\"gpu\":{\"throttle\":[]}");
    free(text);
    tv_nvml_close(nvml);
    unsetenv("FAKE_NVML_BARE");
}

static void is_silent_without(void **state)
{
    unsigned char other[16] = {1};
    (void)state;
    setenv("TV_NVML", TV_FAKE_NVML, 1);
    assert_null(tv_nvml_open(other, 0)); // no such GPU
    setenv("TV_NVML", "/nowhere/libnvidia-ml.so.1", 1);
    assert_null(tv_nvml_open(known, 0));
    setenv("TV_NVML", "libm.so.6", 1); // a library without the names
    assert_null(tv_nvml_open(known, 0));
    unsetenv("TV_NVML");
    assert_null(tv_nvml_open(NULL, 0)); // a rank on the CPU
    tv_nvml_close(NULL);
    assert_int_equal(tv_nvml_read(NULL).present, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_by_uuid),
        cmocka_unit_test(finds_by_index),
        cmocka_unit_test(tells_only_what_is_offered),
        cmocka_unit_test(is_silent_without),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
