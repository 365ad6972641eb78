// The part of a communicator that every implementation shares: argument checks, the sequence number, the count of wire
// bytes, agreement.
#include "comm/comm.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comm/comm_impl.h"

#define AGREE_MESSAGE_BYTES 1024 // the whole record of base/status.h

tv_status tv_comm_new(const tv_comm_ops *ops, int rank, int size, tv_comm **out)
{
    *out = NULL;
    tv_comm *comm = calloc(1, sizeof *comm);
    unsigned char *scratch = calloc((size_t)size, TV_COMM_SCRATCH_BYTES);
    if (comm == NULL || scratch == NULL) {
        free(scratch);
        free(comm);
        return TV_FAIL(TV_MEMORY, "no memory for a communicator of %d ranks", size);
    }
    comm->ops = ops;
    comm->rank = rank;
    comm->size = size;
    comm->local_size = 1;
    comm->chunk_items = TV_COMM_CHUNK_ITEMS;
    comm->color = -1;
    comm->device = &tv_comm_host_device_ops;
    comm->scratch = scratch;
    *out = comm;
    return TV_OK;
}

static tv_status open_launched(int *argc, char ***argv, const tv_launcher *launcher, tv_comm **out)
{
    // The faults of the start: a wrong TV_FAULT is told by the caller's own call, when there is a rank to tell it.
    if (tv_fault_open(tv_launcher_rank()) == TV_OK)
        TV_TRY(tv_fault_status(TV_FAULT_COMM_START_POINT, TV_COMM));
    tv_board_place(tv_launcher_rank(), launcher->size > 0 && launcher->size <= INT_MAX ? (int)launcher->size : 1);
    tv_ring_enter(&(tv_ring_entry){.op = TV_OP_START, .wire = TV_WIRE_OTHER, .color = -1});
    tv_status st = tv_comm_open_mpi(argc, argv, launcher, out);
    tv_ring_leave();
    if (st == TV_OK)
        tv_board_place((*out)->rank, (*out)->size);
    return st;
}

tv_status tv_comm_open(int *argc, char ***argv, tv_comm **out)
{
    tv_launcher launcher;
    *out = NULL;
    TV_TRY(tv_launcher_detect(&launcher));
    TV_TRY(tv_watch_open());
    TV_TRY(launcher.name == NULL ? tv_comm_open_self(out) : open_launched(argc, argv, &launcher, out));
    (*out)->watched = 1;
    return TV_OK;
}

void tv_comm_close(tv_comm *comm)
{
    if (comm == NULL)
        return;
    comm->broken = tv_comm_is_broken(comm);
    int root = comm->parent == NULL;
    if (root && !comm->broken && comm->size > 1) {
        tv_fault_at(TV_FAULT_COMM_END_POINT);
        tv_ring_enter(&(tv_ring_entry){.op = TV_OP_END, .wire = TV_WIRE_OTHER, .color = -1});
    }
    if (comm->gpu != NULL)
        comm->gpu->close(comm);
    comm->ops->close(comm);
    tv_ring_leave();
    if (comm->watched)
        tv_watch_close();
    free(comm->scratch);
    free(comm);
}

void tv_comm_abandon(tv_comm *comm) { comm->broken = 1; }

int tv_comm_rank(const tv_comm *comm) { return comm->rank; }

int tv_comm_size(const tv_comm *comm) { return comm->size; }

int tv_comm_local_rank(const tv_comm *comm) { return comm->local_rank; }

int tv_comm_local_size(const tv_comm *comm) { return comm->local_size; }

uint64_t tv_comm_sequence(const tv_comm *comm) { return comm->sequence; }

int64_t tv_comm_wire_bytes(const tv_comm *comm, tv_wire what)
{
    return (unsigned)what < TV_WIRE_COUNT ? comm->wire[what] : 0;
}

void *tv_comm_scratch(tv_comm *comm) { return comm->scratch; }

int64_t tv_comm_item_bytes(tv_comm_item item)
{
    static const int64_t bytes[TV_ITEM_COUNT] = {
        [TV_ITEM_I8] = 1, [TV_ITEM_U32] = 4, [TV_ITEM_I64] = 8, [TV_ITEM_U64] = 8};
    return bytes[item];
}

static void count_wire(tv_comm *comm, int64_t bytes, tv_wire what)
{
    for (tv_comm *c = comm; c != NULL; c = c->parent)
        c->wire[what] += bytes;
}

// The sequence number counts calls, also those that move nothing, so that it is equal on all ranks that ran the same
// program.
tv_status tv_comm_enter(tv_comm *comm, tv_op op, int64_t items, int64_t item_bytes, tv_wire what)
{
    int64_t bytes = 0;
    if (tv_comm_is_broken(comm))
        return TV_FAIL(TV_COMM, "rank %d takes no part in collectives any more, because one of them failed",
                       comm->rank);
    if ((unsigned)what >= TV_WIRE_COUNT || items < 0 || __builtin_mul_overflow(items, item_bytes, &bytes))
        return TV_FAIL(TV_INTERNAL, "collective %llu: %lld items of %lld bytes for purpose %d",
                       (unsigned long long)comm->sequence, (long long)items, (long long)item_bytes, (int)what);
    tv_status st = tv_fault_status(tv_op_fault(op), TV_COMM);
    if (st != TV_OK)
        return tv_comm_leave(comm, st);
    comm->sequence++;
    count_wire(comm, bytes, what);
    tv_ring_enter(&(tv_ring_entry){
        .op = op, .wire = what, .bytes = bytes, .sequence = (int64_t)comm->sequence, .color = comm->color});
    return TV_OK;
}

int tv_comm_is_broken(const tv_comm *comm)
{
    while (comm != NULL && !comm->broken)
        comm = comm->parent;
    return comm != NULL;
}

// Remember that a collective failed: the others may still wait inside it, so this rank must not wait for them in
// MPI_Finalize.
tv_status tv_comm_leave(tv_comm *comm, tv_status st)
{
    tv_ring_leave();
    for (tv_comm *c = comm; st != TV_OK && c != NULL; c = c->parent)
        c->broken = 1;
    return st;
}

typedef struct fold_args {
    tv_op op;
    void *data;
    int64_t count;
    tv_comm_item item;
    tv_comm_fold how;
} fold_args;

static tv_status fold(tv_comm *comm, const fold_args *a, tv_wire what)
{
    TV_TRY(tv_comm_enter(comm, a->op, a->count, tv_comm_item_bytes(a->item), what));
    return tv_comm_leave(comm, a->count == 0 ? TV_OK : comm->ops->fold(comm, a->data, a->count, a->item, a->how));
}

// A failing rank's code is kept by all when it says more than "it failed" to whoever started the program; the exit
// status of a parallel program is that of whichever rank leaves first.
static int is_shared_verdict(tv_status code) { return tv_status_exit_code(code) != 1; }

// The lowest failing rank's message to all. message: its own text on that rank.
static tv_status agree_tell(tv_comm *comm, char message[AGREE_MESSAGE_BYTES], int speaker)
{
    count_wire(comm, AGREE_MESSAGE_BYTES, TV_WIRE_OTHER);
    tv_ring_enter(&(tv_ring_entry){.op = TV_OP_AGREE,
                                   .wire = TV_WIRE_OTHER,
                                   .bytes = AGREE_MESSAGE_BYTES,
                                   .sequence = (int64_t)comm->sequence,
                                   .color = comm->color});
    TV_TRY(tv_comm_leave(comm, comm->ops->broadcast(comm, message, AGREE_MESSAGE_BYTES, speaker)));
    message[AGREE_MESSAGE_BYTES - 1] = '\0';
    return TV_OK;
}

tv_status tv_comm_agree(tv_comm *comm, tv_status mine)
{
    char message[AGREE_MESSAGE_BYTES] = "";
    if (mine != TV_OK)
        snprintf(message, sizeof message, "%s", tv_status_message());
    if (tv_comm_is_broken(comm) && mine != TV_OK)
        return mine;
    // Maxima over the ranks: the code; minus the code, which gives the smallest failing one; and size - rank of those
    // that failed.
    int64_t verdict[3] = {mine, mine == TV_OK ? INT64_MIN : -(int64_t)mine,
                          mine == TV_OK ? 0 : comm->size - comm->rank};
    tv_status st = fold(comm, &(fold_args){TV_OP_AGREE, verdict, 3, TV_ITEM_I64, TV_FOLD_MAX}, TV_WIRE_OTHER);
    if (st == TV_OK && verdict[2] == 0)
        return TV_OK;
    int speaker = comm->size - (int)verdict[2];
    if (st == TV_OK)
        st = agree_tell(comm, message, speaker);
    if (st != TV_OK)
        return mine == TV_OK ? st : TV_FAIL(mine, "%s (and the other ranks could not be told)", message);
    if (mine != TV_OK)
        return mine;
    int one_code = verdict[0] == -verdict[1];
    tv_status code = one_code && is_shared_verdict((tv_status)verdict[0]) ? (tv_status)verdict[0] : TV_REMOTE;
    return TV_FAIL(code, "rank %d: %s", speaker, message);
}

tv_status tv_comm_barrier(tv_comm *comm)
{
    TV_TRY(tv_comm_enter(comm, TV_OP_BARRIER, 0, 1, TV_WIRE_OTHER));
    return tv_comm_leave(comm, comm->ops->barrier(comm));
}

tv_status tv_comm_broadcast_bytes(tv_comm *comm, void *data, size_t bytes, int root)
{
    if (root < 0 || root >= comm->size)
        return TV_FAIL(TV_INTERNAL, "broadcast from rank %d of %d", root, comm->size);
    TV_TRY(tv_comm_enter(comm, TV_OP_BROADCAST, (int64_t)bytes, 1, TV_WIRE_OTHER));
    return tv_comm_leave(comm, bytes == 0 ? TV_OK : comm->ops->broadcast(comm, data, (int64_t)bytes, root));
}

tv_status tv_comm_sum_i8(tv_comm *comm, int8_t *data, int64_t count, tv_wire what)
{
    return fold(comm, &(fold_args){TV_OP_SUM_I8, data, count, TV_ITEM_I8, TV_FOLD_SUM}, what);
}

tv_status tv_comm_sum_u32(tv_comm *comm, uint32_t *data, int64_t count, tv_wire what)
{
    return fold(comm, &(fold_args){TV_OP_SUM_U32, data, count, TV_ITEM_U32, TV_FOLD_SUM}, what);
}

tv_status tv_comm_sum_i64(tv_comm *comm, int64_t *data, int64_t count, tv_wire what)
{
    return fold(comm, &(fold_args){TV_OP_SUM_I64, data, count, TV_ITEM_I64, TV_FOLD_SUM}, what);
}

tv_status tv_comm_sum_u64(tv_comm *comm, uint64_t *data, int64_t count, tv_wire what)
{
    return fold(comm, &(fold_args){TV_OP_SUM_U64, data, count, TV_ITEM_U64, TV_FOLD_SUM}, what);
}

tv_status tv_comm_max_i64(tv_comm *comm, int64_t *data, int64_t count, tv_wire what)
{
    return fold(comm, &(fold_args){TV_OP_MAX_I64, data, count, TV_ITEM_I64, TV_FOLD_MAX}, what);
}

static tv_status reduce_scatter(tv_comm *comm, void *data, int64_t block, tv_comm_item item, tv_wire what)
{
    tv_op op = item == TV_ITEM_I8 ? TV_OP_REDUCE_SCATTER_I8 : TV_OP_REDUCE_SCATTER_U32;
    TV_TRY(tv_comm_enter(comm, op, block, comm->size * tv_comm_item_bytes(item), what));
    return tv_comm_leave(comm, block == 0 ? TV_OK : comm->ops->reduce_scatter(comm, data, block, item));
}

tv_status tv_comm_reduce_scatter_i8(tv_comm *comm, int8_t *data, int64_t block, tv_wire what)
{
    return reduce_scatter(comm, data, block, TV_ITEM_I8, what);
}

tv_status tv_comm_reduce_scatter_u32(tv_comm *comm, uint32_t *data, int64_t block, tv_wire what)
{
    return reduce_scatter(comm, data, block, TV_ITEM_U32, what);
}

tv_status tv_comm_all_gather_bytes(tv_comm *comm, void *data, size_t block_bytes, tv_wire what)
{
    TV_TRY(tv_comm_enter(comm, TV_OP_ALL_GATHER, (int64_t)block_bytes, comm->size, what));
    return tv_comm_leave(comm, block_bytes == 0 ? TV_OK : comm->ops->all_gather(comm, data, (int64_t)block_bytes));
}

tv_status tv_comm_all_gather_v_bytes(tv_comm *comm, void *data, const int64_t *bytes, tv_wire what)
{
    int64_t total = 0;
    for (int r = 0; r < comm->size; r++)
        if (bytes[r] < 0 || __builtin_add_overflow(total, bytes[r], &total))
            return TV_FAIL(TV_INTERNAL, "gather: rank %d is to give %lld bytes", r, (long long)bytes[r]);
    TV_TRY(tv_comm_enter(comm, TV_OP_ALL_GATHER, total, 1, what));
    return tv_comm_leave(comm, total == 0 ? TV_OK : comm->ops->all_gather_v(comm, data, bytes));
}
