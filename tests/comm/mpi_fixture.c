#include "mpi_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

tv_comm *fixture_comm;
const tv_backend *fixture_backend;

int fixture_backend_open(tv_comm *comm, const char *name, int device, int places)
{
    tv_status st = tv_backend_find(name, &fixture_backend);
    if (st == TV_OK)
        st = fixture_backend->open(device, places, 1);
    if (tv_comm_agree(comm, st) == TV_OK)
        return 0;
    printf("skipped: %s\n", tv_status_message());
    return 77;
}

static int run_on_backend(const char *name, int (*run)(void))
{
    int skipped =
        fixture_backend_open(fixture_comm, name, tv_comm_local_rank(fixture_comm), tv_comm_local_size(fixture_comm));
    if (skipped)
        return skipped;
    int failed = 1;
    if (tv_comm_device_open(fixture_comm, fixture_backend->host_memory) == TV_OK)
        failed = run() != 0;
    else if (strstr(tv_status_message(), "this build has no NCCL") || strstr(tv_status_message(), "share the GPU"))
        failed = 77;
    if (failed)
        printf("%s%s\n", failed == 77 ? "skipped: " : "", tv_status_message());
    fixture_backend->close();
    return failed;
}

int fixture_main(int argc, char **argv, int (*run)(void))
{
    tv_status st = tv_comm_open(&argc, &argv, &fixture_comm);
    if (st != TV_OK) {
        fprintf(stderr, "%s\n", tv_status_message());
        return 1;
    }
    int expected = argc > 1 ? atoi(argv[1]) : 0;
    if (tv_comm_size(fixture_comm) != expected || fixture_comm->ops == &tv_comm_self_ops) {
        fprintf(stderr, "%d ranks instead of %d, or not started by MPI\n", tv_comm_size(fixture_comm), expected);
        return 1;
    }
    int failed = run_on_backend(argc > 2 ? argv[2] : "ref", run);
    tv_comm_close(fixture_comm);
    return failed;
}

void *memory_give(const void *host, int64_t bytes)
{
    void *memory = NULL;
    assert_ok(fixture_backend->alloc((size_t)bytes, &memory));
    assert_ok(fixture_backend->copy(memory, host, (size_t)bytes, TV_COPY_TO_DEVICE, NULL));
    return memory;
}

void memory_take(void *memory, void *host, int64_t bytes)
{
    assert_ok(fixture_backend->copy(host, memory, (size_t)bytes, TV_COPY_TO_HOST, NULL));
    fixture_backend->free(memory);
}

void fixture_expect(tv_status got, tv_status expected, const char *file, int line)
{
    if (got == expected)
        return;
    print_error("%s instead of %s: %s (%s)\n", tv_status_name(got), tv_status_name(expected), tv_status_message(),
                tv_status_place());
    _fail(file, line);
}

void fixture_expect_message(const char *part, const char *file, int line)
{
    if (strstr(tv_status_message(), part) != NULL)
        return;
    print_error("'%s' is not in the message '%s'\n", part, tv_status_message());
    _fail(file, line);
}
