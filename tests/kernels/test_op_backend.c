// Finding a backend, and the memory functions of each.
#include <string.h>

#include "op_test.h"
#ifdef TV_BACKEND_CUDA
#include "kernels/cuda/device_pick.h"
#endif

static void test_list(void **state)
{
    (void)state;
    const tv_backend *const *list = tv_backend_list();
    assert_non_null(list[0]);
    assert_string_equal(list[0]->name, "ref");
    for (; *list; list++) {
        const tv_backend *found = NULL;
        assert_int_equal(tv_backend_find((*list)->name, &found), TV_OK);
        assert_ptr_equal(found, *list);
    }
}

// The fastest that can run here: a GPU first, where there is one.
static void test_auto(void **state)
{
    (void)state;
    const tv_backend *found = NULL;
    assert_int_equal(tv_backend_find("auto", &found), TV_OK);
#ifdef TV_BACKEND_CUDA
    const tv_backend *cuda = NULL;
    assert_int_equal(tv_backend_find("cuda", &cuda), TV_OK);
    int usable = cuda->open(0, 1, 1) == TV_OK;
    if (usable)
        cuda->close();
    assert_int_equal(found == cuda, usable);
    if (usable)
        return;
#endif
#ifdef TV_BACKEND_CPU
    assert_string_equal(found->name, "cpu");
#else
    assert_string_equal(found->name, "ref");
#endif
}

static void test_absent(void **state)
{
    (void)state;
    const tv_backend *found = tv_backend_list()[0];
#ifndef TV_BACKEND_CUDA
    assert_int_equal(tv_backend_find("cuda", &found), TV_BACKEND);
    assert_null(found);
    assert_non_null(strstr(tv_status_message(), "no CUDA backend"));
    assert_non_null(strstr(tv_status_message(), "ref"));
#endif
    assert_int_equal(tv_backend_find("abacus", &found), TV_BACKEND);
    assert_null(found);
    assert_non_null(strstr(tv_status_message(), "abacus"));
    assert_non_null(strstr(tv_status_message(), "ref"));
    assert_int_equal(tv_backend_find("", &found), TV_BACKEND);
}

// A machine with fewer GPUs than ranks, or none, is told so in a sentence with a way out.
static void test_too_few_devices(void **state)
{
    (void)state;
    for (const tv_backend *const *b = tv_backend_list(); *b; b++)
        if (!(*b)->host_memory && (*b)->open(0, 1000, 1) != TV_OK) { // one GPU could be each rank's own
            assert_non_null(strstr(tv_status_message(), "GPU"));
            assert_non_null(strstr(tv_status_message(), "run.backend=cpu"));
        }
}

// A rank takes the GPU of its number, or the only one that it sees.
static void test_pick(void **state)
{
    (void)state;
#ifdef TV_BACKEND_CUDA
    static const struct {
        int rank, ranks, gpus, device;
    } cases[] = {{0, 1, 1, 0}, {0, 1, 8, 0}, {3, 4, 4, 3}, {1, 2, 8, 1}, {0, 4, 1, 0}, {3, 4, 1, 0}};
    int device = -1;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(tv_cuda_pick(cases[i].rank, cases[i].ranks, cases[i].gpus, &device), TV_OK);
        assert_int_equal(device, cases[i].device);
    }
    assert_int_equal(tv_cuda_pick(0, 4, 3, &device), TV_BACKEND);
    assert_non_null(strstr(tv_status_message(), "4 ranks on this host but 3 GPUs"));
    assert_non_null(strstr(tv_status_message(), "run.backend=cpu"));
#endif
}

// What a table may leave out works where it is there.
static void check_optional(const op_backend *on)
{
    const tv_backend *b = on->backend;
    int64_t used = 0, all = 0;
    unsigned char id[TV_DEVICE_ID_BYTES] = {0}, none[TV_DEVICE_ID_BYTES] = {0};
    tv_range_push(b, "outer");
    tv_range_push(b, "inner");
    tv_range_pop(b);
    tv_range_pop(b);
    assert_int_equal(b->memory == NULL, b->host_memory);
    assert_int_equal(b->device_id == NULL, b->host_memory);
    if (b->host_memory)
        return;
    assert_int_equal(b->memory(&used, &all), TV_OK);
    assert_true(used > 0 && used <= all);
    b->device_id(id);
    assert_memory_not_equal(id, none, sizeof id);
}

static void test_optional(void **state)
{
    (void)state;
    op_on_each(check_optional);
}

// Every other entry of the table is set, but for those of many ops at the end: the struct holds nothing but pointers and one int.
static void check_table(const op_backend *on)
{
    const tv_backend *b = on->backend;
    assert_non_null(b->name);
    assert_true(strlen(b->describe()) > 0);
    const unsigned char *first = (const unsigned char *)&b->alloc,
                        *last = (const unsigned char *)&b->moe_combine_backward;
    for (const unsigned char *entry = first; entry <= last; entry += sizeof(void (*)(void))) {
        void (*function)(void);
        memcpy(&function, entry, sizeof function);
        assert_true(function != NULL);
    }
}

static void test_table(void **state)
{
    (void)state;
    op_on_each(check_table);
}

static void check_memory(const op_backend *on)
{
    const tv_backend *b = on->backend;
    void *empty = NULL, *one = NULL, *two = NULL;
    assert_int_equal(b->alloc(0, &empty), TV_OK);
    assert_non_null(empty);
    assert_int_equal(b->alloc(1000, &one), TV_OK);
    assert_int_equal(b->alloc(1000, &two), TV_OK);
    assert_int_equal((uintptr_t)one % 256, 0);
    unsigned char sent[1000], got[1000];
    for (int i = 0; i < 1000; i++)
        sent[i] = (unsigned char)(i * 7 + 3);
    assert_int_equal(b->copy(one, sent, 1000, TV_COPY_TO_DEVICE, NULL), TV_OK);
    assert_int_equal(b->copy(two, one, 1000, TV_COPY_DEVICE, NULL), TV_OK);
    assert_int_equal(b->zero((unsigned char *)two + 10, 5, NULL), TV_OK);
    assert_int_equal(b->copy(got, two, 1000, TV_COPY_TO_HOST, NULL), TV_OK);
    memset(sent + 10, 0, 5);
    assert_memory_equal(got, sent, 1000);
    assert_int_equal(b->copy(two, one, 0, TV_COPY_DEVICE, NULL), TV_OK);
    assert_int_equal(b->sync(NULL), TV_OK);
    b->free(one);
    b->free(two);
    b->free(empty);
    b->free(NULL);
}

static void test_memory(void **state)
{
    (void)state;
    op_on_each(check_memory);
}

static void check_too_much(const op_backend *on)
{
    void *memory = NULL;
    assert_int_equal(on->backend->alloc(SIZE_MAX - 3, &memory), TV_MEMORY);
    assert_null(memory);
#ifndef __SANITIZE_ADDRESS__ // which stops the program at such a request
    assert_int_equal(on->backend->alloc(SIZE_MAX / 4, &memory), TV_MEMORY);
    assert_null(memory);
#endif
}

static void test_too_much(void **state)
{
    (void)state;
    op_on_each(check_too_much);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_list),   cmocka_unit_test(test_auto),     cmocka_unit_test(test_absent),
        cmocka_unit_test(test_table),  cmocka_unit_test(test_optional), cmocka_unit_test(test_pick),
        cmocka_unit_test(test_memory), cmocka_unit_test(test_too_much), cmocka_unit_test(test_too_few_devices),
    };
    return op_run("op_backend", tests);
}
