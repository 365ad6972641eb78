// Blocks from every rank to every rank, and communicators of some of the ranks.
#include "comm/comm_impl.h"

tv_status tv_comm_split(tv_comm *comm, int color, int key, tv_comm **child)
{
    int host_memory = comm->device == &tv_comm_host_device_ops;
    *child = NULL;
    if (color < 0)
        return TV_FAIL(TV_INTERNAL, "a split with colour %d", color);
    TV_TRY(tv_comm_enter(comm, TV_OP_SPLIT, 0, 1, TV_WIRE_OTHER));
    TV_TRY(tv_comm_leave(comm, comm->ops->split(comm, color, key, child)));
    (*child)->parent = comm;
    (*child)->color = color;
    (*child)->gpu_seconds = comm->gpu_seconds;
    // One child may fail to open where the others do not; their ranks must hear of it before they go on.
    tv_status st = tv_comm_agree(comm, tv_comm_device_open(*child, host_memory));
    if (st != TV_OK) {
        tv_comm_close(*child);
        *child = NULL;
    }
    return st;
}

tv_status tv_comm_all_to_all_i64(tv_comm *comm, const int64_t *send, int64_t *recv, int64_t items, tv_wire what)
{
    TV_TRY(tv_comm_enter(comm, TV_OP_ALL_TO_ALL, items, (comm->size - 1) * (int64_t)sizeof *send, what));
    int64_t bytes = items * (int64_t)sizeof *send;
    return tv_comm_leave(comm, bytes == 0 ? TV_OK : comm->ops->all_to_all(comm, send, recv, bytes));
}

tv_status tv_comm_device_all_to_all_v_bytes(tv_comm *comm, const tv_all_to_all *args, tv_wire what, void *stream)
{
    int64_t total = 0;
    for (int r = 0; r < comm->size; r++) {
        if (args->send_bytes[r] < 0 || args->recv_bytes[r] < 0 ||
            __builtin_add_overflow(total, r == comm->rank ? 0 : args->send_bytes[r], &total))
            return TV_FAIL(TV_INTERNAL, "all-to-all: %lld bytes for rank %d, %lld from it",
                           (long long)args->send_bytes[r], r, (long long)args->recv_bytes[r]);
    }
    if (args->send_bytes[comm->rank] != args->recv_bytes[comm->rank])
        return TV_FAIL(TV_INTERNAL, "all-to-all: rank %d gives itself %lld bytes and takes %lld", comm->rank,
                       (long long)args->send_bytes[comm->rank], (long long)args->recv_bytes[comm->rank]);
    TV_TRY(tv_comm_enter(comm, TV_OP_ALL_TO_ALL, total, 1, what));
    return tv_comm_leave(comm, comm->device->all_to_all_v(comm, args, stream));
}

tv_status tv_comm_device_all_to_all_bytes(tv_comm *comm, const void *send, void *recv, int64_t block_bytes,
                                          tv_wire what, void *stream)
{
    TV_TRY(tv_comm_enter(comm, TV_OP_ALL_TO_ALL, block_bytes, comm->size - 1, what));
    tv_status st = block_bytes == 0 ? TV_OK : comm->device->all_to_all(comm, send, recv, block_bytes, stream);
    return tv_comm_leave(comm, st);
}
