// One rank alone: every collective is in place, so there is nothing to move.
#include <string.h>

#include "comm/comm_impl.h"

static void self_close(tv_comm *comm) { (void)comm; }

static tv_status self_barrier(tv_comm *comm)
{
    (void)comm;
    return TV_OK;
}

static tv_status self_broadcast(tv_comm *comm, void *data, int64_t bytes, int root)
{
    (void)comm, (void)data, (void)bytes, (void)root;
    return TV_OK;
}

static tv_status self_fold(tv_comm *comm, void *data, int64_t count, tv_comm_item item, tv_comm_fold how)
{
    (void)comm, (void)data, (void)count, (void)item, (void)how;
    return TV_OK;
}

static tv_status self_reduce_scatter(tv_comm *comm, void *data, int64_t block, tv_comm_item item)
{
    (void)comm, (void)data, (void)block, (void)item;
    return TV_OK;
}

static tv_status self_all_gather(tv_comm *comm, void *data, int64_t block_bytes)
{
    (void)comm, (void)data, (void)block_bytes;
    return TV_OK;
}

static tv_status self_all_gather_v(tv_comm *comm, void *data, const int64_t *bytes)
{
    (void)comm, (void)data, (void)bytes;
    return TV_OK;
}

static tv_status self_all_to_all(tv_comm *comm, const void *send, void *recv, int64_t block_bytes)
{
    (void)comm;
    memcpy(recv, send, (size_t)block_bytes);
    return TV_OK;
}

static tv_status self_all_to_all_v(tv_comm *comm, const tv_all_to_all *args)
{
    (void)comm;
    memcpy(args->recv, args->send, (size_t)args->send_bytes[0]);
    return TV_OK;
}

static tv_status self_split(tv_comm *comm, int color, int key, tv_comm **child)
{
    (void)comm, (void)color, (void)key;
    return tv_comm_open_self(child);
}

const tv_comm_ops tv_comm_self_ops = {
    .close = self_close,
    .barrier = self_barrier,
    .broadcast = self_broadcast,
    .fold = self_fold,
    .reduce_scatter = self_reduce_scatter,
    .all_gather = self_all_gather,
    .all_gather_v = self_all_gather_v,
    .all_to_all = self_all_to_all,
    .all_to_all_v = self_all_to_all_v,
    .split = self_split,
};

// One rank on a GPU: nothing touches its memory, and what is queued is the backend's to wait for.
static void alone_close(tv_comm *comm) { (void)comm; }

static tv_status alone_fold(tv_comm *comm, void *data, int64_t count, tv_comm_item item, void *stream)
{
    (void)comm, (void)data, (void)count, (void)item, (void)stream;
    return TV_OK;
}

static tv_status alone_all_gather(tv_comm *comm, void *data, int64_t block_bytes, void *stream)
{
    (void)comm, (void)data, (void)block_bytes, (void)stream;
    return TV_OK;
}

static tv_status alone_all_to_all_v(tv_comm *comm, const tv_all_to_all *args, void *stream)
{
    (void)comm, (void)args, (void)stream;
    return TV_FAIL(TV_INTERNAL, "one rank alone sends its rows to nobody");
}

static tv_status alone_all_to_all(tv_comm *comm, const void *send, void *recv, int64_t block_bytes, void *stream)
{
    (void)comm, (void)send, (void)recv, (void)block_bytes, (void)stream;
    return TV_FAIL(TV_INTERNAL, "one rank alone sends its blocks to nobody");
}

static tv_status alone_mark(tv_comm *comm)
{
    (void)comm;
    return TV_OK;
}

static tv_status alone_shift_lanes(tv_comm *comm, const tv_lane_shift *shift, void *stream)
{
    (void)comm, (void)shift, (void)stream;
    return TV_OK;
}

static tv_status alone_wait(tv_comm *comm, void *stream)
{
    (void)comm, (void)stream;
    return TV_OK;
}

const tv_comm_device_ops tv_comm_self_device_ops = {
    .close = alone_close,
    .sum = alone_fold,
    .reduce_scatter = alone_fold,
    .all_gather = alone_all_gather,
    .all_to_all_v = alone_all_to_all_v,
    .all_to_all = alone_all_to_all,
    .begin = alone_mark,
    .end = alone_mark,
    .shift_lanes = alone_shift_lanes,
    .wait = alone_wait,
};

tv_status tv_comm_open_self(tv_comm **out) { return tv_comm_new(&tv_comm_self_ops, 0, 1, out); }
