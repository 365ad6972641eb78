// Goes wrong on GPUs in the way that its argument names. Prints "skipped: ..." where there are too few of them.
//   share    all ranks take the first GPU
//   absent   the last rank never enters the collective that the others queue
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "mpi_fixture.h"

static tv_status leave_out_last(tv_comm *comm)
{
    uint32_t numbers[4] = {1, 2, 3, 4};
    comm->gpu_seconds = 3;
    if (tv_comm_rank(comm) == tv_comm_size(comm) - 1) {
        sleep(30);
        return TV_OK;
    }
    void *memory = memory_give(numbers, sizeof numbers), *stream = tv_comm_device_stream(comm);
    TV_TRY(tv_comm_device_follow(comm, stream, NULL));
    TV_TRY(tv_comm_device_sum_u32(comm, memory, 4, TV_WIRE_OTHER, stream));
    return tv_comm_device_wait(comm, stream);
}

static tv_status go_wrong(tv_comm *comm, int shared)
{
    tv_status st = tv_comm_device_open(comm, fixture_backend->host_memory);
    if (shared || st != TV_OK) {
        if (!shared && strstr(tv_status_message(), "share the GPU") != NULL)
            printf("skipped: %s\n", tv_status_message());
        return st;
    }
    return leave_out_last(comm);
}

int main(int argc, char **argv)
{
    tv_comm *comm = NULL;
    int shared = argc > 1 && strcmp(argv[1], "share") == 0;
    tv_status st = tv_comm_open(&argc, &argv, &comm);
    if (st == TV_OK && fixture_backend_open(comm, "cuda", shared ? 0 : tv_comm_local_rank(comm),
                                            shared ? 1 : tv_comm_local_size(comm)) == 0) {
        st = go_wrong(comm, shared);
        fixture_backend->close();
    }
    if (st != TV_OK)
        fprintf(stderr, "%s\n", tv_status_message());
    tv_comm_close(comm);
    return tv_status_exit_code(st);
}
