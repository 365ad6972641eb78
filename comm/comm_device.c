// Collectives on the memory of the compute backend: the choice of the implementation, what all of them share, and the
// one for host memory.
#include "comm/comm_impl.h"

static void host_close(tv_comm *comm) { (void)comm; }

static tv_status host_sum(tv_comm *comm, void *data, int64_t count, tv_comm_item item, void *stream)
{
    (void)stream;
    return comm->ops->fold(comm, data, count, item, TV_FOLD_SUM);
}

static tv_status host_reduce_scatter(tv_comm *comm, void *data, int64_t block, tv_comm_item item, void *stream)
{
    (void)stream;
    return comm->ops->reduce_scatter(comm, data, block, item);
}

static tv_status host_all_gather(tv_comm *comm, void *data, int64_t block_bytes, void *stream)
{
    (void)stream;
    return comm->ops->all_gather(comm, data, block_bytes);
}

static tv_status host_all_to_all_v(tv_comm *comm, const tv_all_to_all *args, void *stream)
{
    (void)stream;
    return comm->ops->all_to_all_v(comm, args);
}

static tv_status host_all_to_all(tv_comm *comm, const void *send, void *recv, int64_t block_bytes, void *stream)
{
    (void)stream;
    return comm->ops->all_to_all(comm, send, recv, block_bytes);
}

static tv_status host_mark(tv_comm *comm)
{
    (void)comm;
    return TV_OK;
}

static tv_status host_shift_lanes(tv_comm *comm, const tv_lane_shift *shift, void *stream)
{
    int beyond = 0;
    (void)stream;
    for (int64_t i = 0; i < shift->count; i++) {
        uint16_t lane = (uint16_t)(shift->lanes[i] + shift->add);
        beyond |= lane > shift->most;
        shift->lanes[i] = lane;
    }
    comm->votes_beyond |= beyond;
    return TV_OK;
}

static tv_status host_wait(tv_comm *comm, void *stream)
{
    (void)comm, (void)stream;
    return TV_OK;
}

const tv_comm_device_ops tv_comm_host_device_ops = {
    .close = host_close,
    .sum = host_sum,
    .reduce_scatter = host_reduce_scatter,
    .all_gather = host_all_gather,
    .all_to_all_v = host_all_to_all_v,
    .all_to_all = host_all_to_all,
    .begin = host_mark,
    .end = host_mark,
    .shift_lanes = host_shift_lanes,
    .wait = host_wait,
};

#ifndef TV_COMM_NCCL
tv_status tv_comm_open_nccl(tv_comm *comm)
{
    return TV_FAIL(TV_COMM,
                   "this build has no NCCL, so %d ranks cannot exchange votes between GPUs: build with NCCL, start one "
                   "rank, or take run.backend=cpu",
                   comm->size);
}
#endif

// Fails on all ranks when some compute in host memory and others on a GPU: each kind would wait for the other.
static tv_status check_same_kind(tv_comm *comm, int host_memory)
{
    int64_t seen[2] = {host_memory != 0, host_memory == 0};
    TV_TRY(tv_comm_max_i64(comm, seen, 2, TV_WIRE_OTHER));
    if (seen[0] && seen[1])
        return TV_FAIL(TV_COMM,
                       "some ranks compute on a GPU and others do not: name one backend for all (run.backend)");
    return TV_OK;
}

tv_status tv_comm_device_open(tv_comm *comm, int host_memory)
{
    TV_TRY(check_same_kind(comm, host_memory));
    if (host_memory) {
        comm->device = &tv_comm_host_device_ops;
        return TV_OK;
    }
    if (comm->size == 1) {
        comm->device = &tv_comm_self_device_ops;
        return TV_OK;
    }
    if (comm->gpu == NULL)
        TV_TRY(tv_comm_open_nccl(comm));
    comm->device = comm->gpu;
    return TV_OK;
}

typedef struct device_args {
    void *data;
    int64_t count;
    tv_comm_item item;
    void *stream;
} device_args;

static tv_status device_sum(tv_comm *comm, const device_args *a, tv_wire what)
{
    tv_op op = a->item == TV_ITEM_I8 ? TV_OP_SUM_I8 : TV_OP_SUM_U32;
    TV_TRY(tv_comm_enter(comm, op, a->count, tv_comm_item_bytes(a->item), what));
    tv_status st = a->count == 0 ? TV_OK : comm->device->sum(comm, a->data, a->count, a->item, a->stream);
    return tv_comm_leave(comm, st);
}

static tv_status device_reduce_scatter(tv_comm *comm, const device_args *a, tv_wire what)
{
    tv_op op = a->item == TV_ITEM_I8 ? TV_OP_REDUCE_SCATTER_I8 : TV_OP_REDUCE_SCATTER_U32;
    TV_TRY(tv_comm_enter(comm, op, a->count, comm->size * tv_comm_item_bytes(a->item), what));
    tv_status st = a->count == 0 ? TV_OK : comm->device->reduce_scatter(comm, a->data, a->count, a->item, a->stream);
    return tv_comm_leave(comm, st);
}

tv_status tv_comm_device_sum_i8(tv_comm *comm, int8_t *data, int64_t count, tv_wire what, void *stream)
{
    return device_sum(comm, &(device_args){data, count, TV_ITEM_I8, stream}, what);
}

tv_status tv_comm_device_sum_u32(tv_comm *comm, uint32_t *data, int64_t count, tv_wire what, void *stream)
{
    return device_sum(comm, &(device_args){data, count, TV_ITEM_U32, stream}, what);
}

tv_status tv_comm_device_reduce_scatter_i8(tv_comm *comm, int8_t *data, int64_t block, tv_wire what, void *stream)
{
    return device_reduce_scatter(comm, &(device_args){data, block, TV_ITEM_I8, stream}, what);
}

tv_status tv_comm_device_reduce_scatter_u32(tv_comm *comm, uint32_t *data, int64_t block, tv_wire what, void *stream)
{
    return device_reduce_scatter(comm, &(device_args){data, block, TV_ITEM_U32, stream}, what);
}

tv_status tv_comm_device_all_gather_bytes(tv_comm *comm, void *data, size_t block_bytes, tv_wire what, void *stream)
{
    TV_TRY(tv_comm_enter(comm, TV_OP_ALL_GATHER, (int64_t)block_bytes, comm->size, what));
    tv_status st = block_bytes == 0 ? TV_OK : comm->device->all_gather(comm, data, (int64_t)block_bytes, stream);
    return tv_comm_leave(comm, st);
}

tv_status tv_comm_shift_lanes(tv_comm *comm, const tv_lane_shift *shift, void *stream)
{
    return shift->count == 0 ? TV_OK : tv_comm_leave(comm, comm->device->shift_lanes(comm, shift, stream));
}

tv_status tv_comm_device_begin(tv_comm *comm)
{
    return tv_comm_is_broken(comm) ? TV_OK : tv_comm_leave(comm, comm->device->begin(comm));
}

tv_status tv_comm_device_end(tv_comm *comm)
{
    return tv_comm_is_broken(comm) ? TV_OK : tv_comm_leave(comm, comm->device->end(comm));
}

void *tv_comm_device_stream(const tv_comm *comm)
{
    return comm->device->stream == NULL ? NULL : comm->device->stream(comm);
}

tv_status tv_comm_device_follow(tv_comm *comm, void *stream, void *ahead)
{
    if (tv_comm_is_broken(comm) || comm->device->follow == NULL)
        return TV_OK;
    return tv_comm_leave(comm, comm->device->follow(comm, stream, ahead));
}

tv_status tv_comm_device_wait(tv_comm *comm, void *stream)
{
    if (tv_comm_is_broken(comm))
        return TV_FAIL(TV_COMM, "rank %d waits for nothing any more, because a collective failed", comm->rank);
    tv_status st = tv_fault_status(TV_FAULT_COMM_WAIT_POINT, TV_COMM);
    if (st == TV_OK && comm->device == comm->gpu)
        tv_ring_enter(&(tv_ring_entry){
            .op = TV_OP_GPU_WAIT, .wire = TV_WIRE_OTHER, .sequence = (int64_t)comm->sequence, .color = comm->color});
    return tv_comm_leave(comm, st != TV_OK ? st : comm->device->wait(comm, stream));
}
