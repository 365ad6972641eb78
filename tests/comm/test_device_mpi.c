// The collectives on the backend's memory. Values are functions of rank and index, so that the result is computed
// without communication.
#include <stdlib.h>
#include <string.h>

#include "mpi_fixture.h"

#define REDZONE 64
#define REDZONE_BYTE 0xA5
#define COUNT_OF(a) ((int)(sizeof(a) / sizeof *(a)))

static const int64_t sizes[] = {0, 1, 2, 3, 63, 1024, 1001, 300007};

static int ranks(void) { return tv_comm_size(fixture_comm); }

static int my_rank(void) { return tv_comm_rank(fixture_comm); }

// The largest vote that `ranks` ranks may give, at either end and between: the sums reach +-127.
static int64_t narrow_value(int rank, int64_t i)
{
    int64_t most = 127 / ranks(), value = (rank * 31 + i * 7 + i / 13) % (2 * most + 1) - most;
    return i % 3 == 0 ? most : i % 3 == 1 ? -most : value;
}

// All 32 bits.
static int64_t wide_value(int rank, int64_t i)
{
    uint64_t mix = ((uint64_t)rank + 1) * 0x9E3779B97F4A7C15u + (uint64_t)i * 0xD1B54A32D192ED03u;
    return (uint32_t)(mix >> 17);
}

typedef int64_t value_function(int rank, int64_t i);

// A collective under test. The buffer holds `items` of item_bytes; of them this rank's first ones and the result's
// first and count are compared.
typedef struct collective {
    value_function *value;
    int64_t item_bytes;
    int gather; // 1: a rank gives its own block only
} collective;

static void item_put(unsigned char *data, int64_t bytes, int64_t i, int64_t value)
{
    if (bytes == 1)
        data[i] = (unsigned char)value;
    else
        memcpy(data + i * 4, &(uint32_t){(uint32_t)value}, 4);
}

static uint32_t item_get(const unsigned char *data, int64_t bytes, int64_t i)
{
    uint32_t value = data[i];
    if (bytes == 4)
        memcpy(&value, data + i * 4, 4);
    return value;
}

static uint32_t sum_of(const collective *c, int64_t i)
{
    uint32_t sum = 0;
    for (int r = 0; r < ranks(); r++)
        sum += (uint32_t)c->value(r, i);
    return c->item_bytes == 1 ? sum & 0xFF : sum;
}

// The backend's buffer of `items` values of this rank with a redzone behind it; host is as large.
static void *buffer_new(const collective *c, int64_t items, unsigned char **host)
{
    int64_t bytes = items * c->item_bytes;
    *host = malloc((size_t)bytes + REDZONE);
    assert_non_null(*host);
    memset(*host, REDZONE_BYTE, (size_t)bytes + REDZONE);
    for (int64_t i = 0; i < items; i++)
        if (!c->gather || i / (items / ranks()) == my_rank())
            item_put(*host, c->item_bytes, i, c->value(my_rank(), i));
    return memory_give(*host, bytes + REDZONE);
}

static void buffer_read(const collective *c, int64_t items, void *memory, unsigned char *host)
{
    int64_t bytes = items * c->item_bytes;
    memset(host, 0, (size_t)bytes + REDZONE);
    memory_take(memory, host, bytes + REDZONE);
    for (int64_t i = bytes; i < bytes + REDZONE; i++)
        assert_int_equal(host[i], REDZONE_BYTE);
}

// One more collective, of `bytes` for `what`.
static void assert_counted(uint64_t sequence, int64_t before, tv_wire what, int64_t bytes)
{
    assert_int_equal(tv_comm_sequence(fixture_comm), sequence + 1);
    assert_int_equal(tv_comm_wire_bytes(fixture_comm, what) - before, bytes);
}

static void check_sum(const collective *c, int64_t count)
{
    unsigned char *host;
    void *memory = buffer_new(c, count, &host);
    uint64_t sequence = tv_comm_sequence(fixture_comm);
    int64_t before = tv_comm_wire_bytes(fixture_comm, TV_WIRE_VOTES);
    if (c->item_bytes == 1)
        assert_ok(tv_comm_device_sum_i8(fixture_comm, memory, count, TV_WIRE_VOTES, NULL));
    else
        assert_ok(tv_comm_device_sum_u32(fixture_comm, memory, count, TV_WIRE_VOTES, NULL));
    assert_counted(sequence, before, TV_WIRE_VOTES, count * c->item_bytes);
    assert_ok(tv_comm_device_wait(fixture_comm, NULL));
    buffer_read(c, count, memory, host);
    for (int64_t i = 0; i < count; i++)
        assert_int_equal(item_get(host, c->item_bytes, i), sum_of(c, i));
    free(host);
}

static void check_scatter(const collective *c, int64_t block)
{
    unsigned char *host;
    int64_t items = block * ranks();
    void *memory = buffer_new(c, items, &host);
    uint64_t sequence = tv_comm_sequence(fixture_comm);
    int64_t before = tv_comm_wire_bytes(fixture_comm, TV_WIRE_VOTES);
    if (c->item_bytes == 1)
        assert_ok(tv_comm_device_reduce_scatter_i8(fixture_comm, memory, block, TV_WIRE_VOTES, NULL));
    else
        assert_ok(tv_comm_device_reduce_scatter_u32(fixture_comm, memory, block, TV_WIRE_VOTES, NULL));
    assert_counted(sequence, before, TV_WIRE_VOTES, items * c->item_bytes);
    assert_ok(tv_comm_device_wait(fixture_comm, NULL));
    buffer_read(c, items, memory, host);
    for (int64_t i = my_rank() * block; i < (my_rank() + 1) * block; i++)
        assert_int_equal(item_get(host, c->item_bytes, i), sum_of(c, i));
    free(host);
}

static void check_gather(const collective *c, int64_t block)
{
    unsigned char *host;
    int64_t items = block * ranks();
    void *memory = buffer_new(c, items, &host);
    uint64_t sequence = tv_comm_sequence(fixture_comm);
    int64_t before = tv_comm_wire_bytes(fixture_comm, TV_WIRE_STATE);
    assert_ok(tv_comm_device_all_gather_bytes(fixture_comm, memory, (size_t)block, TV_WIRE_STATE, NULL));
    assert_counted(sequence, before, TV_WIRE_STATE, items);
    assert_ok(tv_comm_device_wait(fixture_comm, NULL));
    buffer_read(c, items, memory, host);
    for (int64_t i = 0; i < items; i++)
        assert_int_equal(host[i], c->value((int)(i / block), i) & 0xFF);
    free(host);
}

static void for_sizes(void (*check)(const collective *, int64_t), collective c)
{
    for (int s = 0; s < COUNT_OF(sizes); s++)
        check(&c, sizes[s]);
}

static void test_sum(void **state)
{
    (void)state;
    for_sizes(check_sum, (collective){narrow_value, 1, 0});
    for_sizes(check_sum, (collective){wide_value, 4, 0});
}

static void test_reduce_scatter(void **state)
{
    (void)state;
    for_sizes(check_scatter, (collective){narrow_value, 1, 0});
    for_sizes(check_scatter, (collective){wide_value, 4, 0});
}

static void test_all_gather(void **state)
{
    (void)state;
    for_sizes(check_gather, (collective){wide_value, 1, 1});
}

// Queued one behind the other on one buffer, waited for once: sums of sums.
static void test_queue(void **state)
{
    (void)state;
    enum { ITEMS = 1000, TIMES = 3 };
    uint32_t host[ITEMS], factor = 1;
    for (uint32_t i = 0; i < ITEMS; i++)
        host[i] = i + (uint32_t)my_rank();
    uint32_t *memory = memory_give(host, sizeof host);
    for (int t = 0; t < TIMES; t++)
        assert_ok(tv_comm_device_sum_u32(fixture_comm, memory, ITEMS, TV_WIRE_OTHER, NULL));
    assert_ok(tv_comm_device_wait(fixture_comm, NULL));
    memory_take(memory, host, sizeof host);
    for (int t = 1; t < TIMES; t++)
        factor *= (uint32_t)ranks();
    for (uint32_t i = 0; i < ITEMS; i++)
        assert_int_equal(host[i], factor * (i * (uint32_t)ranks() + (uint32_t)(ranks() * (ranks() - 1) / 2)));
}

// On the communicator's own stream, between work of the backend: behind what fills the buffer, before what reads it.
static void test_beside(void **state)
{
    (void)state;
    enum { ITEMS = 300007, TIMES = 20 };
    void *stream = tv_comm_device_stream(fixture_comm), *memory = NULL;
    float *zeros = calloc(ITEMS, sizeof *zeros);
    assert_non_null(zeros);
    memory = memory_give(zeros, ITEMS * sizeof *zeros);
    for (int t = 0; t < TIMES; t++) {
        tv_fill_args fill = {.count = ITEMS, .value = t % 2 == 0 ? 1e-40f : 2e-40f, .y = memory};
        uint32_t bits, *words = (uint32_t *)zeros;
        memcpy(&bits, &fill.value, sizeof bits);
        assert_ok(fixture_backend->fill(&fill, NULL));
        assert_ok(tv_comm_device_follow(fixture_comm, stream, NULL));
        assert_ok(tv_comm_device_sum_u32(fixture_comm, memory, ITEMS, TV_WIRE_OTHER, stream));
        assert_ok(tv_comm_device_follow(fixture_comm, NULL, stream));
        assert_ok(fixture_backend->copy(words, memory, ITEMS * sizeof *words, TV_COPY_TO_HOST, NULL));
        for (int i = 0; i < ITEMS; i++)
            assert_int_equal(words[i], bits * (uint32_t)ranks());
    }
    assert_ok(tv_comm_device_wait(fixture_comm, stream));
    memory_take(memory, zeros, ITEMS * sizeof *zeros);
    free(zeros);
}

// Different collectives noted and queued together.
static void test_batch(void **state)
{
    (void)state;
    enum { ITEMS = 600, PARTS = 30 };
    const collective sum = {wide_value, 4, 0}, gather = {wide_value, 1, 1};
    void *sums[PARTS], *gathers[PARTS];
    unsigned char *host;
    assert_ok(tv_comm_device_begin(fixture_comm));
    for (int i = 0; i < PARTS; i++) {
        int64_t block = (ITEMS + i) / ranks();
        sums[i] = buffer_new(&sum, ITEMS + i, &host);
        free(host);
        gathers[i] = buffer_new(&gather, block * ranks(), &host);
        free(host);
        assert_ok(tv_comm_device_sum_u32(fixture_comm, sums[i], ITEMS + i, TV_WIRE_OTHER, NULL));
        assert_ok(tv_comm_device_all_gather_bytes(fixture_comm, gathers[i], (size_t)block, TV_WIRE_OTHER, NULL));
    }
    assert_ok(tv_comm_device_end(fixture_comm));
    assert_ok(tv_comm_device_wait(fixture_comm, NULL));
    host = malloc(4 * (ITEMS + PARTS) + REDZONE);
    assert_non_null(host);
    for (int i = 0; i < PARTS; i++) {
        int64_t block = (ITEMS + i) / ranks();
        buffer_read(&sum, ITEMS + i, sums[i], host);
        for (int64_t k = 0; k < ITEMS + i; k++)
            assert_int_equal(item_get(host, 4, k), sum_of(&sum, k));
        buffer_read(&gather, block * ranks(), gathers[i], host);
        for (int64_t k = 0; k < block * ranks(); k++)
            assert_int_equal(host[k], wide_value((int)(k / block), k) & 0xFF);
    }
    free(host);
}

static void test_wrong_arguments(void **state)
{
    (void)state;
    uint32_t x = 5;
    uint64_t before = tv_comm_sequence(fixture_comm);
    assert_status(TV_INTERNAL, tv_comm_device_sum_u32(fixture_comm, &x, -1, TV_WIRE_OTHER, NULL));
    assert_status(TV_INTERNAL, tv_comm_device_sum_u32(fixture_comm, &x, INT64_MAX, TV_WIRE_OTHER, NULL));
    assert_status(TV_INTERNAL, tv_comm_device_reduce_scatter_u32(fixture_comm, &x, 1, TV_WIRE_COUNT, NULL));
    assert_int_equal(tv_comm_sequence(fixture_comm), before);
    assert_int_equal(x, 5);
    assert_ok(tv_comm_barrier(fixture_comm));
}

// Opening again is free; ranks of two kinds are told so, and nobody waits for the other kind.
static void test_open_again(void **state)
{
    (void)state;
    int host_memory = fixture_backend->host_memory;
    assert_ok(tv_comm_device_open(fixture_comm, host_memory));
    if (ranks() == 1)
        return;
    assert_status(TV_COMM, tv_comm_device_open(fixture_comm, my_rank() == 0));
    assert_message("some ranks compute on a GPU and others do not");
    check_sum(&(collective){wide_value, 4, 0}, 100);
}

static int run(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sum),        cmocka_unit_test(test_reduce_scatter),  cmocka_unit_test(test_all_gather),
        cmocka_unit_test(test_queue),      cmocka_unit_test(test_beside),          cmocka_unit_test(test_batch),
        cmocka_unit_test(test_open_again), cmocka_unit_test(test_wrong_arguments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(int argc, char **argv) { return fixture_main(argc, argv, run); }
