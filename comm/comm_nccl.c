// The NCCL implementation, in the memory of GPUs. With kernels/cuda the only place that knows CUDA, and the only one
// that knows nccl.h.
//
// MPI brings the ranks together. Collectives are queued and waited for by polls with a deadline, so that a rank whose peers
// are gone reports it instead of hanging. On an error or at the deadline the communicator is aborted, which takes its
// kernels off the GPU. NCCL's own way of not blocking costs each collective a thread that sleeps for a tick of the kernel's
// timer, up to milliseconds; so the communicator blocks, and what waits for other ranks on the host, its start and its
// end, runs in a thread with a deadline.
#include <cuda_runtime.h>
#include <nccl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "comm/comm_impl.h"
#include "comm/hang.h"
#include "comm/nccl_lanes.h"

#define CLOSE_SECONDS 60.0
#define BUSY_POLLS 1000000  // polls without a sleep, which may last a tick of the kernel's timer: some seconds
#define STOPPED_SECONDS 2.0 // between two polls: the process was stopped meanwhile, which does not count

typedef struct nccl_state {
    ncclComm_t comm; // NULL before the start and after an abort
    int *beyond;     // host memory that the GPU can write: a lane was out of range
    int noting;      // between begin and end
    void *stream;    // runs beside the default stream
    cudaEvent_t turn;
    cudaEvent_t done; // behind the collective queued last
    void *queued_on;  // its stream
} nccl_state;

// The communicator of the collective that this process queued last. Collectives of two communicators at work beside each other can wait for each
// other across ranks; so each waits for the one queued before it, in the program's order, which all ranks share.
static nccl_state *queued_last;

// Where a rank computes.
typedef struct gpu_place {
    int32_t host; // the lowest rank of the host
    char bus[36]; // PCI bus id
} gpu_place;

_Static_assert(sizeof(gpu_place) <= TV_COMM_SCRATCH_BYTES, "a place fits its rank's scratch");

static nccl_state *state_of(const tv_comm *comm) { return comm->gpu_state; }

static void pause_after(int64_t polls)
{
    if (polls > BUSY_POLLS)
        nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
    else
        sched_yield();
}

static void abort_comm(nccl_state *state)
{
    if (state->noting)
        ncclGroupEnd();
    state->noting = 0;
    if (state->comm != NULL)
        ncclCommAbort(state->comm);
    state->comm = NULL;
}

static tv_status nccl_check(const tv_comm *comm, ncclResult_t result, const char *call, int line)
{
    if (result == ncclSuccess || result == ncclInProgress)
        return TV_OK;
    nccl_state *state = state_of(comm);
    const char *detail = ncclGetLastError(state->comm);
    tv_status st = tv_status_set(TV_COMM, __FILE__, line, "%s on rank %d: %s%s%s", call, comm->rank,
                                 ncclGetErrorString(result), detail && detail[0] ? ": " : "", detail ? detail : "");
    abort_comm(state);
    return st;
}

static tv_status cuda_check(const tv_comm *comm, cudaError_t error, const char *call, int line)
{
    if (error == cudaSuccess)
        return TV_OK;
    return tv_status_set(TV_COMM, __FILE__, line, "%s on rank %d: %s", call, comm->rank, cudaGetErrorString(error));
}

// Every call into NCCL and CUDA that can fail.
#define NCCL_TRY(comm, function, ...) TV_TRY(nccl_check(comm, function(__VA_ARGS__), #function, __LINE__))
#define CUDA_TRY(comm, function, ...) TV_TRY(cuda_check(comm, function(__VA_ARGS__), #function, __LINE__))

typedef struct poll_clock {
    double start, last, limit;
} poll_clock;

// limit: 0 for that of the communicator, or the watch's.
static poll_clock start_clock(const tv_comm *comm, double limit)
{
    double now = tv_clock_seconds(), usual = comm->gpu_seconds > 0 ? comm->gpu_seconds : tv_watch_limit();
    return (poll_clock){now, now, limit > 0 ? limit : usual};
}

static tv_status check_deadline(const tv_comm *comm, poll_clock *clock)
{
    double now = tv_clock_seconds(), limit = clock->limit;
    if (now - clock->last > STOPPED_SECONDS)
        clock->start += now - clock->last;
    clock->last = now;
    if (now - clock->start < limit)
        return TV_OK;
    abort_comm(state_of(comm));
    tv_hang_report(TV_HANG_COLLECTIVE, limit);
    return TV_FAIL(TV_HANG, "rank %d waited %.0f s for the GPUs of the other ranks; one of them is missing or hangs",
                   comm->rank, limit);
}

// What NCCL found out since the last call; *result is ncclSuccess or ncclInProgress.
static tv_status poll_comm(const tv_comm *comm, ncclResult_t *result)
{
    nccl_state *state = state_of(comm);
    NCCL_TRY(comm, ncclCommGetAsyncError, state->comm, result);
    return nccl_check(comm, *result, "NCCL", __LINE__);
}

// Before a collective is queued on `stream`.
static tv_status take_turn(const tv_comm *comm, void *stream)
{
    nccl_state *state = state_of(comm);
    if (queued_last != NULL && (queued_last != state || queued_last->queued_on != stream))
        CUDA_TRY(comm, cudaStreamWaitEvent, stream, queued_last->done, 0);
    queued_last = state;
    state->queued_on = stream;
    return TV_OK;
}

// Behind it: what NCCL found out, and the end of the turn. Collectives noted for later, all on one stream, have theirs at their end.
static tv_status end_turn(const tv_comm *comm)
{
    nccl_state *state = state_of(comm);
    ncclResult_t result;
    if (state->noting)
        return TV_OK;
    TV_TRY(poll_comm(comm, &result));
    if (queued_last == state)
        CUDA_TRY(comm, cudaEventRecord, state->done, state->queued_on);
    return TV_OK;
}

static ncclDataType_t item_type(tv_comm_item item)
{
    switch (item) {
    case TV_ITEM_I8: return ncclInt8;
    case TV_ITEM_U32: return ncclUint32;
    case TV_ITEM_I64: return ncclInt64;
    case TV_ITEM_U64: return ncclUint64;
    default: return ncclNumTypes;
    }
}

static tv_status nccl_sum(tv_comm *comm, void *data, int64_t count, tv_comm_item item, void *stream)
{
    TV_TRY(take_turn(comm, stream));
    NCCL_TRY(comm, ncclAllReduce, data, data, (size_t)count, item_type(item), ncclSum, state_of(comm)->comm, stream);
    return end_turn(comm);
}

// In place: NCCL leaves the result in the rank's own block.
static tv_status nccl_reduce_scatter(tv_comm *comm, void *data, int64_t block, tv_comm_item item, void *stream)
{
    char *mine = (char *)data + comm->rank * block * tv_comm_item_bytes(item);
    TV_TRY(take_turn(comm, stream));
    NCCL_TRY(comm, ncclReduceScatter, data, mine, (size_t)block, item_type(item), ncclSum, state_of(comm)->comm,
             stream);
    return end_turn(comm);
}

static tv_status nccl_all_gather(tv_comm *comm, void *data, int64_t block_bytes, void *stream)
{
    const char *mine = (const char *)data + comm->rank * block_bytes;
    TV_TRY(take_turn(comm, stream));
    NCCL_TRY(comm, ncclAllGather, mine, data, (size_t)block_bytes, ncclUint8, state_of(comm)->comm, stream);
    return end_turn(comm);
}

// Sends and receives of one group run together, so no order among ranks can block.
static tv_status nccl_all_to_all_v(tv_comm *comm, const tv_all_to_all *a, void *stream)
{
    nccl_state *state = state_of(comm);
    const uint8_t *send = a->send;
    uint8_t *recv = a->recv;
    TV_TRY(take_turn(comm, stream));
    NCCL_TRY(comm, ncclGroupStart);
    state->noting = 1;
    for (int r = 0; r < comm->size; send += a->send_bytes[r], recv += a->recv_bytes[r], r++) {
        if (r == comm->rank) {
            CUDA_TRY(comm, cudaMemcpyAsync, recv, send, (size_t)a->send_bytes[r], cudaMemcpyDeviceToDevice, stream);
            continue;
        }
        if (a->send_bytes[r] > 0)
            NCCL_TRY(comm, ncclSend, send, (size_t)a->send_bytes[r], ncclUint8, r, state->comm, stream);
        if (a->recv_bytes[r] > 0)
            NCCL_TRY(comm, ncclRecv, recv, (size_t)a->recv_bytes[r], ncclUint8, r, state->comm, stream);
    }
    state->noting = 0;
    NCCL_TRY(comm, ncclGroupEnd);
    return end_turn(comm);
}

// NCCL's own from 2.28 on.
static tv_status nccl_all_to_all(tv_comm *comm, const void *send, void *recv, int64_t block_bytes, void *stream)
{
    TV_TRY(take_turn(comm, stream));
#if NCCL_VERSION_CODE >= NCCL_VERSION(2, 28, 0)
    NCCL_TRY(comm, ncclAlltoAll, send, recv, (size_t)block_bytes, ncclUint8, state_of(comm)->comm, stream);
#else
    NCCL_TRY(comm, ncclGroupStart);
    for (int r = 0; r < comm->size; r++) {
        NCCL_TRY(comm, ncclSend, (const char *)send + r * block_bytes, (size_t)block_bytes, ncclUint8, r,
                 state_of(comm)->comm, stream);
        NCCL_TRY(comm, ncclRecv, (char *)recv + r * block_bytes, (size_t)block_bytes, ncclUint8, r,
                 state_of(comm)->comm, stream);
    }
    NCCL_TRY(comm, ncclGroupEnd);
#endif
    return end_turn(comm);
}

static tv_status nccl_begin(tv_comm *comm)
{
    NCCL_TRY(comm, ncclGroupStart);
    state_of(comm)->noting = 1;
    return TV_OK;
}

static tv_status nccl_end(tv_comm *comm)
{
    state_of(comm)->noting = 0;
    NCCL_TRY(comm, ncclGroupEnd);
    return end_turn(comm);
}

static tv_status nccl_shift_lanes(tv_comm *comm, const tv_lane_shift *shift, void *stream)
{
    void *words = shift->lanes;
    const char *problem = tv_nccl_shift_lanes(words, shift->count / 2, (uint16_t)shift->add, (uint16_t)shift->most,
                                              state_of(comm)->beyond, stream);
    return problem == NULL ? TV_OK : TV_FAIL(TV_COMM, "launch of the vote lanes on rank %d: %s", comm->rank, problem);
}

static void *nccl_stream(const tv_comm *comm) { return state_of(comm)->stream; }

// A stream that waits keeps what the event stood for, so one event serves all turns.
static tv_status nccl_follow(tv_comm *comm, void *stream, void *ahead)
{
    CUDA_TRY(comm, cudaEventRecord, state_of(comm)->turn, ahead);
    CUDA_TRY(comm, cudaStreamWaitEvent, stream, state_of(comm)->turn, 0);
    return TV_OK;
}

static tv_status nccl_wait(tv_comm *comm, void *stream)
{
    poll_clock clock = start_clock(comm, 0);
    for (int64_t polls = 0;; polls++) {
        ncclResult_t result;
        cudaError_t error = cudaStreamQuery(stream);
        if (error == cudaSuccess)
            break;
        if (error != cudaErrorNotReady) {
            abort_comm(state_of(comm));
            return cuda_check(comm, error, "cudaStreamQuery", __LINE__);
        }
        TV_TRY(poll_comm(comm, &result));
        TV_TRY(check_deadline(comm, &clock));
        pause_after(polls);
    }
    int *beyond = state_of(comm)->beyond;
    comm->votes_beyond |= *beyond;
    *beyond = 0;
    return TV_OK;
}

// A call that waits for other ranks, in a thread of its own.
typedef struct slow_call {
    ncclResult_t (*run)(struct slow_call *call);
    ncclComm_t comm; // out for the start, in for the end
    ncclUniqueId id; // of the start
    int ranks, rank, device;
    ncclResult_t result;
    atomic_int done;
} slow_call;

static ncclResult_t start_comm(slow_call *call)
{
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    return ncclCommInitRankConfig(&call->comm, call->ranks, call->id, call->rank, &config);
}

static ncclResult_t end_comm(slow_call *call)
{
    ncclResult_t result = ncclCommFinalize(call->comm);
    return result == ncclSuccess ? ncclCommDestroy(call->comm) : result;
}

static void *run_call(void *argument)
{
    slow_call *call = argument;
    call->result = cudaSetDevice(call->device) == cudaSuccess ? call->run(call) : ncclUnhandledCudaError;
    atomic_store(&call->done, 1);
    return NULL;
}

// Runs *given. When it is not done at the deadline its thread and memory stay, since nothing can stop it: the process is
// about to leave.
static tv_status run_in_time(tv_comm *comm, slow_call *given, const char *name, double limit)
{
    pthread_t thread;
    poll_clock clock = start_clock(comm, limit);
    slow_call *call = malloc(sizeof *call);
    if (call == NULL)
        return TV_FAIL(TV_MEMORY, "no memory for a call of NCCL");
    *call = *given;
    call->ranks = comm->size;
    call->rank = comm->rank;
    tv_status st = cuda_check(comm, cudaGetDevice(&call->device), "cudaGetDevice", __LINE__);
    if (st == TV_OK && pthread_create(&thread, NULL, run_call, call) != 0)
        st = TV_FAIL(TV_MEMORY, "no thread for a call of NCCL");
    if (st != TV_OK) {
        free(call);
        return st;
    }
    while (!atomic_load(&call->done)) {
        st = check_deadline(comm, &clock);
        if (st != TV_OK) {
            pthread_detach(thread);
            return st;
        }
        nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
    }
    pthread_join(thread, NULL);
    *given = *call;
    free(call);
    return nccl_check(comm, given->result, name, __LINE__);
}

// Close must work, so what fails here is passed over.
static void nccl_close(tv_comm *comm)
{
    nccl_state *state = state_of(comm);
    if (state == NULL)
        return;
    if (state->comm != NULL && !comm->broken) {
        slow_call call = {.run = end_comm, .comm = state->comm};
        state->comm = NULL; // also where the call fails: what it left behind nobody can use
        run_in_time(comm, &call, "ncclCommFinalize", CLOSE_SECONDS);
    }
    abort_comm(state);
    if (queued_last == state)
        queued_last = NULL;
    if (state->turn != NULL)
        cudaEventDestroy(state->turn);
    if (state->done != NULL)
        cudaEventDestroy(state->done);
    if (state->stream != NULL)
        cudaStreamDestroy(state->stream);
    cudaFreeHost(state->beyond);
    free(state);
    comm->gpu_state = NULL;
}

static const tv_comm_device_ops nccl_ops = {
    .close = nccl_close,
    .sum = nccl_sum,
    .reduce_scatter = nccl_reduce_scatter,
    .all_gather = nccl_all_gather,
    .all_to_all_v = nccl_all_to_all_v,
    .all_to_all = nccl_all_to_all,
    .begin = nccl_begin,
    .end = nccl_end,
    .shift_lanes = nccl_shift_lanes,
    .stream = nccl_stream,
    .follow = nccl_follow,
    .wait = nccl_wait,
};

// The stream does not wait for the default stream by itself, and its kernels go first when both have some: what an
// exchange needs is little, and other ranks wait for it.
static tv_status open_stream(const tv_comm *comm)
{
    int least = 0, greatest = 0;
    cudaStream_t stream = NULL;
    CUDA_TRY(comm, cudaDeviceGetStreamPriorityRange, &least, &greatest);
    CUDA_TRY(comm, cudaStreamCreateWithPriority, &stream, cudaStreamNonBlocking, greatest);
    state_of(comm)->stream = stream;
    CUDA_TRY(comm, cudaEventCreateWithFlags, &state_of(comm)->turn, cudaEventDisableTiming);
    CUDA_TRY(comm, cudaEventCreateWithFlags, &state_of(comm)->done, cudaEventDisableTiming);
    return TV_OK;
}

static tv_status open_local(tv_comm *comm, gpu_place *place)
{
    int device = 0;
    void *beyond = NULL;
    *place = (gpu_place){.host = comm->host};
    comm->gpu_state = calloc(1, sizeof(nccl_state));
    if (comm->gpu_state == NULL)
        return TV_FAIL(TV_MEMORY, "no memory for the state of NCCL");
    CUDA_TRY(comm, cudaGetDevice, &device);
    CUDA_TRY(comm, cudaDeviceGetPCIBusId, place->bus, (int)sizeof place->bus, device);
    CUDA_TRY(comm, cudaHostAlloc, &beyond, sizeof(int), cudaHostAllocMapped);
    memset(beyond, 0, sizeof(int));
    state_of(comm)->beyond = beyond;
    return open_stream(comm);
}

// NCCL would refuse a GPU that two ranks share only after a while, and less plainly.
static tv_status check_places(tv_comm *comm, const gpu_place *mine)
{
    gpu_place *places = tv_comm_scratch(comm);
    places[comm->rank] = *mine;
    TV_TRY(tv_comm_all_gather_bytes(comm, places, sizeof *places, TV_WIRE_OTHER));
    for (int a = 0; a < comm->size; a++)
        for (int b = a + 1; b < comm->size; b++)
            if (places[a].host == places[b].host && memcmp(places[a].bus, places[b].bus, sizeof places[a].bus) == 0)
                return TV_FAIL(TV_COMM, "ranks %d and %d share the GPU %s of their host: start at most one rank a GPU",
                               a, b, places[a].bus);
    return TV_OK;
}

// The id of a new communicator, on rank 0. NVLink SHARP cannot sum int8 and takes memory on every GPU, so it stays off
// unless the user asked for it.
static tv_status make_id(const tv_comm *comm, ncclUniqueId *id)
{
    setenv("NCCL_NVLS_ENABLE", "0", 0);
    setenv("NCCL_RUNTIME_CONNECT", "0", 0); // rings and trees connect at the start, which has a deadline
    memset(id, 0, sizeof *id);
    if (comm->rank == 0)
        NCCL_TRY(comm, ncclGetUniqueId, id);
    return TV_OK;
}

static tv_status join(tv_comm *comm, const ncclUniqueId *id)
{
    slow_call call = {.run = start_comm, .id = *id};
    TV_TRY(tv_fault_status(TV_FAULT_COMM_GPU_START_POINT, TV_COMM));
    tv_ring_enter(&(tv_ring_entry){.op = TV_OP_GPU_START, .wire = TV_WIRE_OTHER, .color = comm->color});
    TV_TRY(run_in_time(comm, &call, "ncclCommInitRankConfig", 0));
    state_of(comm)->comm = call.comm;
    return TV_OK;
}

tv_status tv_comm_open_nccl(tv_comm *comm)
{
    gpu_place place;
    ncclUniqueId id;
    tv_status st = TV_OK;
    TV_TRY_GOTO(st, failed, tv_comm_agree(comm, open_local(comm, &place)));
    TV_TRY_GOTO(st, failed, check_places(comm, &place));
    TV_TRY_GOTO(st, failed, tv_comm_agree(comm, make_id(comm, &id)));
    TV_TRY_GOTO(st, failed, tv_comm_broadcast_bytes(comm, &id, sizeof id, 0));
    TV_TRY_GOTO(st, failed, tv_comm_leave(comm, join(comm, &id)));
    comm->gpu = &nccl_ops;
    return TV_OK;
failed:
    nccl_close(comm);
    return st;
}
