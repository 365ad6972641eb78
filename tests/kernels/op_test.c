#include "op_test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/pack.h"
#include "base/tensor.h"
#include "kernels/ref/ref_ops.h"
#ifdef TV_BACKEND_CPU
#include "kernels/cpu/cpu_backend.h"
#endif

#define GUARD_BYTES 256
#define GUARD_VALUE 0xA5
#define BACKENDS_MAX 8

const int64_t op_edges[] = {0, 1, 2, 3, 5, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129};
const int op_edge_count = (int)(sizeof op_edges / sizeof op_edges[0]);

const op_backend *op_ref(void)
{
    static op_backend ref = {NULL, "ref"};
    ref.backend = tv_backend_ref();
    return &ref;
}

// The backend that TV_TEST_BACKEND asks for, NULL for all.
static const char *only_backend(void)
{
    const char *name = getenv("TV_TEST_BACKEND");
    return name && name[0] ? name : NULL;
}

// ref and cpu run wherever the build does; a backend with a device must first find one.
static int runs_here(const tv_backend *backend)
{
    if (backend->host_memory)
        return 1;
    if (backend->open(0, 1, 1) != TV_OK)
        return 0;
    backend->close();
    return 1;
}

static int list_backends(op_backend list[BACKENDS_MAX])
{
    int count = 0;
    const char *only = only_backend();
    for (const tv_backend *const *b = tv_backend_list(); *b; b++)
        if (only ? strcmp(only, (*b)->name) == 0 : runs_here(*b))
            list[count++] = (op_backend){*b, (*b)->name};
#ifdef TV_BACKEND_CPU
    static const char *const label[TV_CPU_ISA_COUNT] = {"cpu base", "cpu avx2", "cpu avx512"};
    for (int isa = 0; isa < TV_CPU_ISA_COUNT && !only; isa++) {
        const tv_backend *b = tv_backend_cpu_isa((tv_cpu_isa)isa);
        if (b && b != tv_backend_cpu())
            list[count++] = (op_backend){b, label[isa]};
    }
#endif
    return count;
}

int op_skipped(void)
{
    const tv_backend *backend;
    const char *only = only_backend();
    if (!only || (tv_backend_find(only, &backend) == TV_OK && runs_here(backend)))
        return 0;
    printf("skipped: no NVIDIA GPU (%s)\n", tv_status_message());
    return 1;
}

static void run_check(op_check *check, const op_backend *on, int threads)
{
    if (on->backend->open(0, 1, threads) != TV_OK)
        fail_msg("%s: %s", on->label, tv_status_message());
    check(on);
    on->backend->close();
    op_host_free();
}

void op_on_each(op_check *check)
{
    op_backend list[BACKENDS_MAX];
    int count = list_backends(list);
    for (int i = 0; i < count; i++)
        run_check(check, &list[i], 2);
}

void op_against_ref(op_check *check)
{
    op_backend list[BACKENDS_MAX];
    int count = list_backends(list);
    for (int i = 0; i < count; i++) {
        if (list[i].backend == tv_backend_ref())
            continue;
        for (int threads = 1; threads <= (list[i].backend->host_memory ? 4 : 1); threads++)
            run_check(check, &list[i], threads);
    }
}

op_call op_begin(const op_backend *on)
{
    op_call call = {.on = on};
    return call;
}

static void *add_array(op_call *call, void *host, size_t bytes, int is_output)
{
    if (!host)
        return NULL;
    assert_true(call->count < OP_ARRAYS_MAX);
    const tv_backend *b = call->on->backend;
    op_array *array = &call->array[call->count++];
    size_t slab_bytes = bytes + 2 * GUARD_BYTES;
    *array = (op_array){NULL, host, bytes, is_output};
    assert_int_equal(b->alloc(slab_bytes, &array->slab), TV_OK);
    assert_int_equal((uintptr_t)array->slab % 256, 0);
    unsigned char *image = malloc(slab_bytes);
    assert_non_null(image);
    memset(image, GUARD_VALUE, slab_bytes);
    if (bytes)
        memcpy(image + GUARD_BYTES, host, bytes);
    assert_int_equal(b->copy(array->slab, image, slab_bytes, TV_COPY_TO_DEVICE, NULL), TV_OK);
    free(image);
    return (unsigned char *)array->slab + GUARD_BYTES;
}

const void *op_in(op_call *call, const void *host, size_t bytes)
{
    return add_array(call, (void *)(uintptr_t)host, bytes, 0);
}

void *op_out(op_call *call, void *host, size_t bytes) { return add_array(call, host, bytes, 1); }

static void check_guard(const op_call *call, int index, const unsigned char *guard, const char *side)
{
    for (int i = 0; i < GUARD_BYTES; i++)
        if (guard[i] != GUARD_VALUE)
            fail_msg("%s: array %d: guard byte %d %s it was overwritten", call->on->label, index, i, side);
}

void op_end(op_call *call, tv_status status)
{
    const tv_backend *b = call->on->backend;
    if (status != TV_OK)
        fail_msg("%s: %s: %s", call->on->label, tv_status_name(status), tv_status_message());
    assert_int_equal(b->sync(NULL), TV_OK);
    for (int i = 0; i < call->count; i++) {
        op_array *array = &call->array[i];
        size_t slab_bytes = array->bytes + 2 * GUARD_BYTES;
        unsigned char *image = malloc(slab_bytes);
        assert_non_null(image);
        assert_int_equal(b->copy(image, array->slab, slab_bytes, TV_COPY_TO_HOST, NULL), TV_OK);
        check_guard(call, i, image, "before");
        check_guard(call, i, image + GUARD_BYTES + array->bytes, "after");
        if (array->bytes && array->is_output)
            memcpy(array->host, image + GUARD_BYTES, array->bytes);
        else if (array->bytes)
            op_same("an input", call->on, array->host, image + GUARD_BYTES, array->bytes);
        free(image);
        b->free(array->slab);
    }
}

uint32_t op_next(op_random *random)
{
    tv_rng_key key = {random->seed, 200, 0, 0};
    uint64_t index = random->index++;
    return tv_rng_at(key, index >> 2).word[index & 3];
}

int op_int(op_random *random, int low, int high)
{
    return low + (int)((uint64_t)op_next(random) * (uint64_t)((int64_t)high - low + 1) >> 32);
}

float op_float(op_random *random, float size) { return (float)((int32_t)op_next(random) >> 7) * 0x1p-24f * size; }

static void **host_blocks;
static size_t host_count;

void *op_host(size_t bytes)
{
    void *block = calloc(1, bytes ? bytes : 1);
    assert_non_null(block);
    void **grown = realloc(host_blocks, (host_count + 1) * sizeof *grown);
    assert_non_null(grown);
    host_blocks = grown;
    host_blocks[host_count++] = block;
    return block;
}

void *op_host_copy(const void *from, size_t bytes)
{
    void *copy = op_host(bytes);
    if (bytes)
        memcpy(copy, from, bytes);
    return copy;
}

void op_host_free(void)
{
    for (size_t i = 0; i < host_count; i++)
        free(host_blocks[i]);
    free(host_blocks);
    host_blocks = NULL;
    host_count = 0;
}

int8_t *op_int8s(op_random *random, int64_t count, int low, int high)
{
    int8_t *values = op_host((size_t)count);
    for (int64_t i = 0; i < count; i++)
        values[i] = (int8_t)op_int(random, low, high);
    return values;
}

float *op_floats(op_random *random, int64_t count, float size)
{
    float *values = op_host((size_t)count * sizeof *values);
    for (int64_t i = 0; i < count; i++)
        values[i] = op_float(random, size);
    return values;
}

uint8_t *op_trits(op_random *random, int64_t rows, int64_t cols)
{
    int64_t row_bytes = tv_row_bytes(cols);
    uint8_t *bytes = op_host((size_t)(rows * row_bytes));
    int8_t *row = op_host((size_t)cols);
    for (int64_t n = 0; n < rows; n++) {
        for (int64_t k = 0; k < cols; k++)
            row[k] = (int8_t)op_int(random, -1, 1);
        tv_pack_row(row, cols, bytes + n * row_bytes);
    }
    return bytes;
}

int op_stride(void) { return getenv("TV_TEST_QUICK") ? 5 : 1; }

int64_t op_size(op_random *random)
{
    if (op_int(random, 0, 3) == 0)
        return 131 + 2 * op_int(random, 0, 85);
    return op_edges[op_int(random, 0, op_edge_count - 1)];
}

void op_same(const char *what, const op_backend *on, const void *want, const void *got, size_t bytes)
{
    const unsigned char *w = want, *g = got;
    for (size_t i = 0; i < bytes; i++)
        if (w[i] != g[i])
            fail_msg("%s: %s differs: byte %zu of %zu is %d, wanted %d", on->label, what, i, bytes, g[i], w[i]);
}

void op_same_floats(const char *what, const op_backend *on, const float *want, const float *got, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        if (isnan(want[i]) && isnan(got[i]))
            continue;
        if (memcmp(&want[i], &got[i], sizeof want[i]) != 0)
            fail_msg("%s: %s differs: item %lld of %lld is %a, wanted %a", on->label, what, (long long)i,
                     (long long)count, (double)got[i], (double)want[i]);
    }
}

void op_near(const char *what, double want, double got, double tolerance)
{
    if (!(fabs(got - want) <= tolerance * (1.0 + fabs(want))))
        fail_msg("%s: got %.9g, wanted %.9g", what, got, want);
}
