// Fail points: named places where a test, or a user who wants to see what happens, can break the program on purpose.
//
//   TV_FAULT="POINT[:rank=R][:hit=N]:ACTION[,...]"     e.g. TV_FAULT="save.fsync:rank=1:hit=2:errno=ENOSPC"
//
// The action is taken when rank R (default: every rank) comes to the point for the N-th time (default 1; hit=* is every time):
//   errno=NAME   the call there fails with this error: ENOSPC, EIO, EDQUOT, EACCES, EROFS, ENOENT, EMFILE, ENOMEM, EINTR, EOPNOTSUPP
//   kill, stop   SIGKILL or SIGSTOP to this process
//   delay=S      sleeps S seconds (a decimal number), then goes on
//   flip-bit     one bit of the data there is turned over
//   nan          a float there becomes NaN
// Every point takes kill, stop and delay; docs/operations.md lists the points with what happens at each.
#ifndef TV_BASE_FAULT_H
#define TV_BASE_FAULT_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

// Actions besides kill, stop and delay that a point takes.
enum { TV_FAULT_ERRNO = 1, TV_FAULT_FLIP = 2, TV_FAULT_NAN = 4 };

// X(id, name, actions, place)
#define TV_FAULT_LIST(X)                                                                                               \
    X(START_MODEL, "start.model", 0, "before the texts and the model are opened")                                      \
    X(STEP_START, "step.start", TV_FAULT_ERRNO, "before a step's first unit")                                          \
    X(STEP_FORWARD, "step.forward", 0, "in a unit's forward")                                                          \
    X(STEP_GRADIENT, "step.gradient", TV_FAULT_NAN, "the loss of a unit, before it is looked at")                      \
    X(STEP_GUARD, "step.guard", 0, "before the step's guard")                                                          \
    X(STEP_BALLOT, "step.ballot", 0, "between the exchange of votes and the ballot")                                   \
    X(EXPORT_WRITE, "export.write", TV_FAULT_ERRNO, "a write of an exported file")                                     \
    X(STATE_FLIP, "state.flip", TV_FAULT_FLIP, "the packed trits of a tensor, after a step")                           \
    X(COMM_START, "comm.start", TV_FAULT_ERRNO, "before MPI starts")                                                   \
    X(COMM_SUM, "comm.sum", TV_FAULT_ERRNO, "before a sum or maximum")                                                 \
    X(COMM_REDUCE_SCATTER, "comm.reduce_scatter", TV_FAULT_ERRNO, "before a reduce-scatter")                           \
    X(COMM_ALL_GATHER, "comm.all_gather", TV_FAULT_ERRNO, "before an all-gather")                                      \
    X(COMM_BROADCAST, "comm.broadcast", TV_FAULT_ERRNO, "before a broadcast")                                          \
    X(COMM_ALL_TO_ALL, "comm.all_to_all", TV_FAULT_ERRNO, "before an all-to-all")                                      \
    X(COMM_BARRIER, "comm.barrier", TV_FAULT_ERRNO, "before a barrier")                                                \
    X(COMM_AGREE, "comm.agree", TV_FAULT_ERRNO, "before ranks agree on a verdict")                                     \
    X(COMM_SPLIT, "comm.split", TV_FAULT_ERRNO, "before a child communicator opens")                                   \
    X(COMM_GPU_START, "comm.gpu_start", TV_FAULT_ERRNO, "before NCCL starts")                                          \
    X(COMM_WAIT, "comm.wait", TV_FAULT_ERRNO, "before a rank waits for queued collectives")                            \
    X(COMM_END, "comm.end", 0, "before MPI ends")                                                                      \
    X(SAVE_BEGIN, "save.begin", TV_FAULT_ERRNO, "before anything of a save")                                           \
    X(SAVE_MKDIR, "save.mkdir", TV_FAULT_ERRNO, "the unfinished folder is made (rank 0)")                              \
    X(SAVE_CREATE, "save.create", TV_FAULT_ERRNO, "a shard is created")                                                \
    X(SAVE_ROOM, "save.room", TV_FAULT_ERRNO, "a shard's room on the disk is taken")                                   \
    X(SAVE_WRITE, "save.write", TV_FAULT_ERRNO | TV_FAULT_FLIP, "each piece of a shard is written")                    \
    X(SAVE_CLOSE, "save.close", TV_FAULT_ERRNO, "a shard is closed")                                                   \
    X(SAVE_FSYNC, "save.fsync", TV_FAULT_ERRNO, "a shard is synced to disk")                                           \
    X(SAVE_REREAD, "save.reread", TV_FAULT_ERRNO | TV_FAULT_FLIP, "each piece of a shard is read again")               \
    X(SAVE_AGREE, "save.agree", TV_FAULT_ERRNO, "before all ranks agree on their shards")                              \
    X(SAVE_MANIFEST, "save.manifest", TV_FAULT_ERRNO, "manifest.json is written (rank 0)")                             \
    X(SAVE_LIST, "save.list", TV_FAULT_ERRNO, "checksums.xxh128 is written (rank 0)")                                  \
    X(SAVE_RENAME, "save.rename", TV_FAULT_ERRNO, "the folder gets its name (rank 0)")                                 \
    X(SAVE_SYNC_PARENT, "save.sync_parent", TV_FAULT_ERRNO, "the run folder is synced after it (rank 0)")              \
    X(SAVE_LATEST, "save.latest", TV_FAULT_ERRNO, "the hint 'latest' is written (rank 0)")                             \
    X(PRUNE_RENAME, "prune.rename", TV_FAULT_ERRNO, "an old checkpoint is renamed to be removed (rank 0)")             \
    X(PRUNE_REMOVE, "prune.remove", TV_FAULT_ERRNO, "an old checkpoint's files are removed (rank 0)")                  \
    X(LOAD_OPEN, "load.open", TV_FAULT_ERRNO, "a checkpoint's manifest is read")                                       \
    X(LOAD_HASH, "load.hash", TV_FAULT_ERRNO | TV_FAULT_FLIP, "each file of a checkpoint is hashed")                   \
    X(LOAD_READ, "load.read", TV_FAULT_ERRNO | TV_FAULT_FLIP, "each block of rows is read")                            \
    X(RESUME_LOAD, "resume.load", TV_FAULT_ERRNO, "before the state is loaded")                                        \
    X(RESUME_READY, "resume.ready", TV_FAULT_ERRNO, "between the loaded state and the first step")                     \
    X(CORPUS_OPEN, "corpus.open", TV_FAULT_ERRNO, "each file of a text is opened")                                     \
    X(CORPUS_READ, "corpus.read", TV_FAULT_ERRNO, "each window of a text is read")                                     \
    X(FEATURES_READ, "features.read", TV_FAULT_ERRNO, "each read of a file of features")                               \
    X(EVAL_BATCH, "eval.batch", 0, "before each batch of an evaluation")                                               \
    X(MEMGRAM_ROWS, "memgram.rows", TV_FAULT_ERRNO, "before a unit asks other ranks for the rows of its n-grams")      \
    X(GRAPH_EDGES, "graph.edges", TV_FAULT_ERRNO, "before a unit asks other ranks for the edges into its motifs")

typedef enum tv_fault_point {
#define TV_FAULT_ENUM(id, name, actions, place) TV_FAULT_##id##_POINT,
    TV_FAULT_LIST(TV_FAULT_ENUM)
#undef TV_FAULT_ENUM
        TV_FAULT_POINT_COUNT
} tv_fault_point;

// What a caller has to do itself: fail with `error` (0: not), spoil its data (0, TV_FAULT_FLIP or TV_FAULT_NAN).
typedef struct tv_fault {
    int error, spoil;
} tv_fault;

extern int tv_fault_armed; // some fault waits in this process

// Local. Reads TV_FAULT for this rank. TV_USAGE: an unknown point (the nearest one is named), a wrong action, or one that the point
// does not take.
tv_status tv_fault_open(int rank);
const char *tv_fault_name(tv_fault_point point);
// For tv_fault_at.
tv_fault tv_fault_take(tv_fault_point point);

// This process is at `point`. Kills, stops and sleeps by itself. From any thread.
static inline tv_fault tv_fault_at(tv_fault_point point)
{
    return tv_fault_armed ? tv_fault_take(point) : (tv_fault){0, 0};
}
// For a place whose failure would be an errno: 0, or the one to fail with (errno is set too).
int tv_fault_errno(tv_fault_point point);
// TV_OK, or `code` with "fail point NAME: <text of the errno>".
tv_status tv_fault_status(tv_fault_point point, tv_status code);
// Does to host memory what the point asks for: turns over the lowest bit of the middle byte, or makes the middle float NaN.
void tv_fault_spoil(tv_fault_point point, void *data, size_t bytes);
// The same for what tv_fault_at gave.
void tv_fault_apply(tv_fault fault, void *data, size_t bytes);

#endif
