// Where this process is: its last collectives, and a seat that tells the other ranks of the host.
//
// One ring and one seat a process. The thread that communicates writes them, a few relaxed stores a collective; the watch
// (comm/watch.h) reads them. Times are nanoseconds of the host's monotonic clock, 0: not yet.
#ifndef TV_COMM_RING_H
#define TV_COMM_RING_H

#include "base/fault.h"
#include "comm/watch.h"

#define TV_RING_ENTRIES 64

// X(id, text, fail point)
#define TV_OP_LIST(X)                                                                                                  \
    X(NONE, "nothing", COMM_START)                                                                                     \
    X(START, "start of MPI", COMM_START)                                                                               \
    X(SUM_I8, "sum of int8", COMM_SUM)                                                                                 \
    X(SUM_U32, "sum of uint32", COMM_SUM)                                                                              \
    X(SUM_I64, "sum of int64", COMM_SUM)                                                                               \
    X(SUM_U64, "sum of uint64", COMM_SUM)                                                                              \
    X(MAX_I64, "maximum of int64", COMM_SUM)                                                                           \
    X(REDUCE_SCATTER_I8, "reduce-scatter of int8", COMM_REDUCE_SCATTER)                                                \
    X(REDUCE_SCATTER_U32, "reduce-scatter of uint32", COMM_REDUCE_SCATTER)                                             \
    X(ALL_GATHER, "all-gather", COMM_ALL_GATHER)                                                                       \
    X(BROADCAST, "broadcast", COMM_BROADCAST)                                                                          \
    X(ALL_TO_ALL, "all-to-all", COMM_ALL_TO_ALL)                                                                       \
    X(BARRIER, "barrier", COMM_BARRIER)                                                                                \
    X(AGREE, "agreement", COMM_AGREE)                                                                                  \
    X(SPLIT, "split", COMM_SPLIT)                                                                                      \
    X(GPU_START, "start of NCCL", COMM_GPU_START)                                                                      \
    X(GPU_WAIT, "wait for queued collectives", COMM_WAIT)                                                              \
    X(END, "end of MPI", COMM_END)

typedef enum tv_op {
#define TV_OP_ENUM(id, text, point) TV_OP_##id,
    TV_OP_LIST(TV_OP_ENUM)
#undef TV_OP_ENUM
        TV_OP_COUNT
} tv_op;

typedef struct tv_ring_entry {
    int64_t number;   // of this process, from 1; equal on ranks that do the same
    int64_t sequence; // of the communicator
    int64_t op, wire; // tv_op, tv_wire
    int64_t bytes;
    int64_t color; // of the child, -1: the communicator of all ranks
    int64_t entered, left;
} tv_ring_entry;

// What the ranks of a host see of each other.
typedef struct tv_seat {
    tv_ring_entry last;
    int64_t step, phase, marked; // tv_watch_mark
    int64_t beat;                // the watch was awake
    int64_t reported;            // a hang, tv_hang_kind
    int64_t run;                 // in the seat of the board's maker
    int64_t spare[2];
} tv_seat;

_Static_assert(sizeof(tv_seat) == 128, "seats share no cache line");

const char *tv_op_text(tv_op op);
tv_fault_point tv_op_fault(tv_op op);
const char *tv_wire_text(int64_t wire);

// Local. `entry` gives op, wire, bytes, sequence and color. tv_ring_leave closes the last entry, once.
void tv_ring_enter(const tv_ring_entry *entry);
void tv_ring_leave(void);
// Local. The last collectives, oldest first, from any thread; returns their number.
int tv_ring_read(tv_ring_entry out[TV_RING_ENTRIES]);
int64_t tv_ring_now(void);

// Local. This process is rank `rank` of `size`, on its own board of one seat until tv_board_open.
void tv_board_place(int rank, int size);
// Collective. Seats of the ranks of this host lie in memory that they share, without a name;
// where that fails, each rank sees its own seat only. `run` names the run, the same on all ranks.
tv_status tv_board_open(tv_comm *comm, uint64_t run);
int tv_board_rank(void);
int tv_board_size(void);
tv_seat *tv_board_mine(void);
// A copy of a rank's seat; 0 when it is on another host.
int tv_board_read(int rank, tv_seat *out);

#endif
