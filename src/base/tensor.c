#include "base/tensor.h"

#include <string.h>

static const struct {
    const char *name;
    int64_t bytes;
} dtypes[TV_DTYPE_COUNT] = {
    [TV_U8] = {"uint8", 1}, [TV_I8] = {"int8", 1}, [TV_I16] = {"int16", 2}, [TV_I32] = {"int32", 4}};

static const struct {
    const char *name;
    int group;
} scale_types[TV_SCALE_TYPE_COUNT] = {[TV_T4] = {"T4", 4},    [TV_T6] = {"T6", 6},    [TV_T8] = {"T8", 8},
                                      [TV_T16] = {"T16", 16}, [TV_T32] = {"T32", 32}, [TV_T64] = {"T64", 64}};

int64_t tv_dtype_bytes(tv_dtype dtype) { return dtypes[dtype].bytes; }

const char *tv_dtype_name(tv_dtype dtype) { return dtypes[dtype].name; }

int tv_scale_group(tv_scale_type type) { return scale_types[type].group; }

const char *tv_scale_type_name(tv_scale_type type) { return scale_types[type].name; }

int tv_scale_type_parse(const char *text, tv_scale_type *out)
{
    for (int i = 0; i < TV_SCALE_TYPE_COUNT; i++) {
        if (strcmp(text, scale_types[i].name) == 0) {
            *out = (tv_scale_type)i;
            return 0;
        }
    }
    return -1;
}

void tv_lattice_start(int m, int e0, int *b, int *e)
{
    int octave = tv_lattice_octaves(m) / 2;
    *b = e0 - m - octave;
    *e = *b + (octave << m);
}

int tv_initial_exponent(int64_t k, int residual)
{
    // -log2 sqrt(1.5 / k) >= n - 1/2 is the same as k >= 3 4^(n - 1); the largest such n >= 0 is the rounded value.
    int n = 0;
    for (uint64_t bound = 3; k > 0 && (uint64_t)k >= bound; bound *= 4)
        n++;
    return -n - residual;
}

int64_t tv_reduced_length_max(int m) { return INT32_MAX / (127 * tv_lattice_max(m)); }
