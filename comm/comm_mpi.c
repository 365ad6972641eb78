// The MPI implementation, in host memory. The only file that knows mpi.h.
//
// One duplicate of the world carries everything, so that no library's traffic meets ours. Counts beyond chunk_items are
// cut: MPI's are int.
#include <limits.h>
#include <mpi.h>
#include <stdlib.h>
#include <string.h>

#include "comm/comm_impl.h"

#define ROWS_TAG 1

typedef struct mpi_state {
    MPI_Comm world;        // duplicate of MPI_COMM_WORLD that returns errors
    int *counts;           // size; of all_gather_v
    int *offsets;          // size
    MPI_Request *requests; // 2 size; of all_to_all_v
} mpi_state;

static tv_status mpi_check(int code, const char *call, int line)
{
    if (code == MPI_SUCCESS)
        return TV_OK;
    char text[MPI_MAX_ERROR_STRING] = "unknown error";
    int length = 0;
    if (MPI_Error_string(code, text, &length) != MPI_SUCCESS)
        return tv_status_set(TV_COMM, __FILE__, line, "%s failed with code %d", call, code);
    return tv_status_set(TV_COMM, __FILE__, line, "%s: %s", call, text);
}

// Every call into MPI that can fail.
#define MPI_TRY(function, ...) TV_TRY(mpi_check(function(__VA_ARGS__), #function, __LINE__))

// MPI counts are int. Chunks keep every count in range, so a failure here is a fault of this file.
static tv_status count_int(int64_t count, int *out)
{
    *out = 0;
    if (count < 0 || count > INT_MAX)
        return TV_FAIL(TV_INTERNAL, "a count of %lld does not fit MPI's int", (long long)count);
    *out = (int)count;
    return TV_OK;
}

static MPI_Comm world_of(const tv_comm *comm) { return ((const mpi_state *)comm->state)->world; }

static MPI_Datatype item_type(tv_comm_item item)
{
    switch (item) {
    case TV_ITEM_I8: return MPI_INT8_T;
    case TV_ITEM_U32: return MPI_UINT32_T;
    case TV_ITEM_I64: return MPI_INT64_T;
    case TV_ITEM_U64: return MPI_UINT64_T;
    default: return MPI_DATATYPE_NULL;
    }
}

static int64_t chunk_at(const tv_comm *comm, int64_t first, int64_t count)
{
    int64_t left = count - first;
    return left < comm->chunk_items ? left : comm->chunk_items;
}

// True when `size` blocks of `block` items go into one call, so that also the library's offsets stay within int.
static int fits_one_call(const tv_comm *comm, int64_t block) { return block <= comm->chunk_items / comm->size; }

static tv_status mpi_barrier(tv_comm *comm)
{
    MPI_TRY(MPI_Barrier, world_of(comm));
    return TV_OK;
}

static tv_status mpi_broadcast(tv_comm *comm, void *data, int64_t bytes, int root)
{
    for (int64_t first = 0; first < bytes; first += comm->chunk_items) {
        int n;
        TV_TRY(count_int(chunk_at(comm, first, bytes), &n));
        MPI_TRY(MPI_Bcast, (char *)data + first, n, MPI_BYTE, root, world_of(comm));
    }
    return TV_OK;
}

static tv_status mpi_fold(tv_comm *comm, void *data, int64_t count, tv_comm_item item, tv_comm_fold how)
{
    MPI_Op op = how == TV_FOLD_MAX ? MPI_MAX : MPI_SUM;
    for (int64_t first = 0; first < count; first += comm->chunk_items) {
        int n;
        TV_TRY(count_int(chunk_at(comm, first, count), &n));
        char *place = (char *)data + first * tv_comm_item_bytes(item);
        MPI_TRY(MPI_Allreduce, MPI_IN_PLACE, place, n, item_type(item), op, world_of(comm));
    }
    return TV_OK;
}

// Sum of block `owner` to its owner, cut into chunks.
static tv_status reduce_to_owner(tv_comm *comm, char *block_data, int64_t block, tv_comm_item item, int owner)
{
    for (int64_t first = 0; first < block; first += comm->chunk_items) {
        int n;
        TV_TRY(count_int(chunk_at(comm, first, block), &n));
        char *place = block_data + first * tv_comm_item_bytes(item);
        int mine = comm->rank == owner;
        MPI_TRY(MPI_Reduce, mine ? MPI_IN_PLACE : place, mine ? place : NULL, n, item_type(item), MPI_SUM, owner,
                world_of(comm));
    }
    return TV_OK;
}

static tv_status mpi_reduce_scatter(tv_comm *comm, void *data, int64_t block, tv_comm_item item)
{
    int64_t block_bytes = block * tv_comm_item_bytes(item);
    char *base = data;
    if (!fits_one_call(comm, block)) {
        // A chunk of every block would be strided, which MPI's reductions do not take: one reduction per owner instead.
        for (int owner = 0; owner < comm->size; owner++)
            TV_TRY(reduce_to_owner(comm, base + owner * block_bytes, block, item, owner));
        return TV_OK;
    }
    int n;
    TV_TRY(count_int(block, &n));
    MPI_TRY(MPI_Reduce_scatter_block, MPI_IN_PLACE, data, n, item_type(item), MPI_SUM, world_of(comm));
    // In place, MPI leaves the result at the start of the buffer; it never overlaps the block of another rank than 0.
    if (comm->rank > 0)
        memcpy(base + comm->rank * block_bytes, base, (size_t)block_bytes);
    return TV_OK;
}

static tv_status mpi_all_gather(tv_comm *comm, void *data, int64_t block_bytes)
{
    if (!fits_one_call(comm, block_bytes)) {
        for (int root = 0; root < comm->size; root++)
            TV_TRY(mpi_broadcast(comm, (char *)data + root * block_bytes, block_bytes, root));
        return TV_OK;
    }
    int n;
    TV_TRY(count_int(block_bytes, &n));
    MPI_TRY(MPI_Allgather, MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, data, n, MPI_BYTE, world_of(comm));
    return TV_OK;
}

static tv_status mpi_all_gather_v(tv_comm *comm, void *data, const int64_t *bytes)
{
    mpi_state *state = comm->state;
    int64_t total = 0;
    for (int r = 0; r < comm->size; r++)
        total += bytes[r];
    if (total > comm->chunk_items) {
        int64_t offset = 0;
        for (int root = 0; root < comm->size; offset += bytes[root], root++)
            TV_TRY(mpi_broadcast(comm, (char *)data + offset, bytes[root], root));
        return TV_OK;
    }
    int offset = 0;
    for (int r = 0; r < comm->size; r++) {
        TV_TRY(count_int(bytes[r], &state->counts[r]));
        state->offsets[r] = offset;
        offset += state->counts[r];
    }
    MPI_TRY(MPI_Allgatherv, MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, data, state->counts, state->offsets, MPI_BYTE,
            state->world);
    return TV_OK;
}

// Close must work, so what fails here is passed over. A broken rank leaves without MPI_Finalize, which would wait for
// the others; the launcher sees its non-zero exit and ends them.
static void mpi_close(tv_comm *comm)
{
    mpi_state *state = comm->state;
    if (!comm->broken) {
        MPI_Comm_free(&state->world);
        if (comm->parent == NULL)
            MPI_Finalize();
    }
    if (state != NULL) {
        free(state->requests);
        free(state->offsets);
        free(state->counts);
    }
    free(state);
}

static tv_status mpi_all_to_all(tv_comm *comm, const void *send, void *recv, int64_t block_bytes)
{
    int n;
    TV_TRY(count_int(block_bytes, &n));
    MPI_TRY(MPI_Alltoall, send, n, MPI_BYTE, recv, n, MPI_BYTE, world_of(comm));
    return TV_OK;
}

// The message of rank r, which is one of a block that should have state->counts[r] bytes left here.
static tv_status take_chunk(const tv_comm *comm, const tv_all_to_all *a, int r)
{
    mpi_state *state = comm->state;
    MPI_Status status;
    int bytes = -1, class = MPI_SUCCESS, code = MPI_Wait(&state->requests[r], &status);
    if (code == MPI_SUCCESS)
        MPI_TRY(MPI_Get_count, &status, MPI_BYTE, &bytes);
    else
        MPI_TRY(MPI_Error_class, code, &class);
    if (class == MPI_ERR_TRUNCATE || (class == MPI_SUCCESS && bytes != state->counts[r]))
        return TV_FAIL(TV_COMM, "rank %d expected %lld bytes of rank %d and gets %s", comm->rank,
                       (long long)a->recv_bytes[r], r, class == MPI_SUCCESS ? "fewer" : "more");
    return mpi_check(code, "MPI_Wait", __LINE__);
}

// Message number first / chunk_items for and from each other rank. A block ends with a message that is shorter than a
// chunk, if need be empty: so a receiver that expects less, or nothing, meets what is too much, and one that expects
// more sees the end.
static tv_status swap_chunks(tv_comm *comm, const tv_all_to_all *a, int64_t first)
{
    mpi_state *state = comm->state;
    int64_t sent = 0, received = 0;
    for (int r = 0; r < comm->size; sent += a->send_bytes[r], received += a->recv_bytes[r], r++) {
        int in = 0, out = 0;
        state->requests[r] = state->requests[comm->size + r] = MPI_REQUEST_NULL;
        state->counts[r] = -1;
        if (r != comm->rank && a->recv_bytes[r] >= first) {
            TV_TRY(count_int(chunk_at(comm, first, a->recv_bytes[r]), &in));
            MPI_TRY(MPI_Irecv, a->recv + received + first, in, MPI_BYTE, r, ROWS_TAG, state->world,
                    &state->requests[r]);
            state->counts[r] = in;
        }
        if (r != comm->rank && a->send_bytes[r] >= first) {
            TV_TRY(count_int(chunk_at(comm, first, a->send_bytes[r]), &out));
            MPI_TRY(MPI_Isend, a->send + sent + first, out, MPI_BYTE, r, ROWS_TAG, state->world,
                    &state->requests[comm->size + r]);
        }
    }
    // One by one: MPI_Waitall of Open MPI 4.1 can spin for ever when a message turns out too long.
    for (int r = 0; r < comm->size; r++)
        if (state->counts[r] >= 0)
            TV_TRY(take_chunk(comm, a, r));
    for (int r = 0; r < comm->size; r++)
        MPI_TRY(MPI_Wait, &state->requests[comm->size + r], MPI_STATUS_IGNORE);
    return TV_OK;
}

// Pairs of messages instead of MPI_Alltoallv, whose counts and offsets are int, and which does not say when a block is
// shorter than expected.
static tv_status mpi_all_to_all_v(tv_comm *comm, const tv_all_to_all *a)
{
    int64_t most = 0, sent = 0, received = 0;
    for (int r = 0; r < comm->size; r++) {
        if (r < comm->rank) {
            sent += a->send_bytes[r];
            received += a->recv_bytes[r];
        }
        if (r != comm->rank) {
            most = a->send_bytes[r] > most ? a->send_bytes[r] : most;
            most = a->recv_bytes[r] > most ? a->recv_bytes[r] : most;
        }
    }
    if (a->send_bytes[comm->rank] > 0)
        memcpy(a->recv + received, a->send + sent, (size_t)a->send_bytes[comm->rank]);
    for (int64_t first = 0; first <= most; first += comm->chunk_items)
        TV_TRY(swap_chunks(comm, a, first));
    return TV_OK;
}

static tv_status mpi_split(tv_comm *comm, int color, int key, tv_comm **child);

static const tv_comm_ops mpi_ops = {
    .close = mpi_close,
    .barrier = mpi_barrier,
    .broadcast = mpi_broadcast,
    .fold = mpi_fold,
    .reduce_scatter = mpi_reduce_scatter,
    .all_gather = mpi_all_gather,
    .all_gather_v = mpi_all_gather_v,
    .all_to_all = mpi_all_to_all,
    .all_to_all_v = mpi_all_to_all_v,
    .split = mpi_split,
};

static tv_status mpi_start(int *argc, char ***argv)
{
    int started = 0, provided = 0;
    MPI_TRY(MPI_Initialized, &started);
    if (started)
        return TV_FAIL(TV_COMM, "MPI was already started: a process opens its communicator once");
    MPI_TRY(MPI_Init_thread, argc, argv, MPI_THREAD_FUNNELED, &provided);
    MPI_TRY(MPI_Comm_set_errhandler, MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    if (provided < MPI_THREAD_FUNNELED)
        return TV_FAIL(TV_COMM,
                       "this MPI does not allow threads beside the one that communicates (MPI_THREAD_FUNNELED)");
    return TV_OK;
}

static tv_status check_size(const tv_launcher *launcher, int size)
{
    if (launcher->size == 0 || launcher->size == size)
        return TV_OK;
    return TV_FAIL(
        TV_COMM,
        "%s started %lld processes but MPI sees %d: start with the mpirun of the MPI that the program was built "
        "with, or with srun --mpi=pmix",
        launcher->name, (long long)launcher->size, size);
}

// The tables, and the place among the ranks of this host. state->world is the communicator's own.
static tv_status mpi_prepare(tv_comm *comm)
{
    mpi_state *state = comm->state;
    size_t size = (size_t)comm->size;
    state->counts = calloc(size, sizeof *state->counts);
    state->offsets = calloc(size, sizeof *state->offsets);
    state->requests = calloc(2 * size, sizeof(MPI_Request));
    if (state->counts == NULL || state->offsets == NULL || state->requests == NULL)
        return TV_FAIL(TV_MEMORY, "no memory for the tables of %d ranks", comm->size);
    MPI_TRY(MPI_Comm_set_errhandler, state->world, MPI_ERRORS_RETURN);
    MPI_Comm host = MPI_COMM_NULL;
    MPI_TRY(MPI_Comm_split_type, state->world, MPI_COMM_TYPE_SHARED, comm->rank, MPI_INFO_NULL, &host);
    MPI_TRY(MPI_Comm_rank, host, &comm->local_rank);
    MPI_TRY(MPI_Comm_size, host, &comm->local_size);
    comm->host = comm->rank;
    MPI_TRY(MPI_Bcast, &comm->host, 1, MPI_INT, 0, host);
    MPI_TRY(MPI_Comm_free, &host);
    return TV_OK;
}

// A communicator around `world`, which it owns from here on.
static tv_status mpi_wrap(MPI_Comm world, tv_comm *parent, tv_comm **out)
{
    int rank = 0, size = 0;
    tv_comm *comm = NULL;
    *out = NULL;
    MPI_TRY(MPI_Comm_rank, world, &rank);
    MPI_TRY(MPI_Comm_size, world, &size);
    TV_TRY(tv_comm_new(&mpi_ops, rank, size, &comm));
    comm->parent = parent;
    mpi_state *state = comm->state = calloc(1, sizeof(mpi_state));
    tv_status st = TV_OK;
    if (state == NULL) {
        st = TV_FAIL(TV_MEMORY, "no memory for the state of MPI");
    } else {
        state->world = world;
        st = mpi_prepare(comm);
    }
    if (st != TV_OK) {
        comm->broken = 1;
        tv_comm_close(comm);
        return st;
    }
    *out = comm;
    return TV_OK;
}

static tv_status mpi_split(tv_comm *comm, int color, int key, tv_comm **child)
{
    MPI_Comm part = MPI_COMM_NULL;
    MPI_TRY(MPI_Comm_split, world_of(comm), color, key, &part);
    TV_TRY(mpi_wrap(part, comm, child));
    (*child)->chunk_items = comm->chunk_items;
    return TV_OK;
}

tv_status tv_comm_open_mpi(int *argc, char ***argv, const tv_launcher *launcher, tv_comm **out)
{
    int size = 0;
    MPI_Comm world = MPI_COMM_NULL;
    *out = NULL;
    TV_TRY(mpi_start(argc, argv));
    MPI_TRY(MPI_Comm_size, MPI_COMM_WORLD, &size);
    tv_status st = check_size(launcher, size);
    if (st != TV_OK) {
        MPI_Finalize(); // every rank is here: all see the same two numbers
        return st;
    }
    MPI_TRY(MPI_Comm_dup, MPI_COMM_WORLD, &world);
    return mpi_wrap(world, NULL, out);
}
