// Ranks and the collectives between them. Three implementations: self (one rank, no MPI), mpi (host memory) and, for
// the memory of a GPU, nccl beside mpi.
//
// The first word of each function's comment says whether it is Collective (every rank must call it, in the same order)
// or Local. A rank that failed locally calls tv_comm_agree before it leaves, so that nobody waits for ever. After a
// collective failed in the library (TV_COMM), this rank enters no other: each returns TV_COMM at once, and
// tv_comm_close does not wait for the other ranks. Counts are items, never bytes, except where the name says bytes.
// Buffers are host memory, except those of the tv_comm_device functions.
#ifndef TV_COMM_H
#define TV_COMM_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct tv_comm tv_comm;

// Payload bytes of this rank's collectives since the start, by what they were for: the whole buffer that one call works
// on, the same for every implementation and also for one rank alone (docs/distribution.md gives the formulas):
//   sum, max: count * item bytes;  reduce_scatter: size * block * item bytes
//   all_gather: size * block_bytes;  all_gather_v: sum of bytes[r];  broadcast: bytes;  barrier: 0
//   agree: 24, and 1024 more when a rank failed (broadcast and agree count as OTHER)
//   all_to_all: what this rank gives to other ranks; its own block does not travel and is not counted
// What a child communicator moves is counted in its parent too.
typedef enum tv_wire {
    TV_WIRE_VOTES,
    TV_WIRE_STATE,
    TV_WIRE_METRICS,
    TV_WIRE_GUARD,
    TV_WIRE_TOKENS,
    TV_WIRE_OTHER,
    TV_WIRE_COUNT
} tv_wire;

// Collective. Joins the ranks that mpirun or srun started; alone (no launcher in the environment) it is the self
// communicator and MPI is never started. argc/argv (may be NULL) are handed to MPI. A launcher without a usable MPI
// gives one sentence (TV_COMM). MPI can be opened once.
tv_status tv_comm_open(int *argc, char ***argv, tv_comm **out);
// Local. The self communicator, for tests and for commands that run alone.
tv_status tv_comm_open_self(tv_comm **out);
// Collective. Takes NULL.
void tv_comm_close(tv_comm *comm);

// Local. For a rank that failed where it cannot say so, in the midst of collectives of others: as after a failed
// collective, it enters no other, of this communicator or its children.
void tv_comm_abandon(tv_comm *comm);
// Local. 1: a collective of this communicator or a parent failed on this rank, or was abandoned. That is final: the rank enters no other,
// tv_comm_agree neither, so it can tell its error to no other rank and has to print it itself.
int tv_comm_is_broken(const tv_comm *comm);
// Collective. A communicator of the ranks that give the same colour (>= 0), in the order of their keys, for the memory
// that tv_comm_device_open named for `comm`. All ranks of `comm` agree on whether all children opened. A failure in a
// child breaks its parent, and the parent's other children, on this rank. The child is closed before its parent.
tv_status tv_comm_split(tv_comm *comm, int color, int key, tv_comm **child);

// Local.
int tv_comm_rank(const tv_comm *comm);
int tv_comm_size(const tv_comm *comm);
int tv_comm_local_rank(const tv_comm *comm); // among the ranks of this host
int tv_comm_local_size(const tv_comm *comm);
uint64_t tv_comm_sequence(const tv_comm *comm); // collectives entered so far, also those of no items
int64_t tv_comm_wire_bytes(const tv_comm *comm, tv_wire what);

// Collective. All ranks return the same verdict: TV_OK when every rank passed TV_OK; else, on ranks that passed an
// error, that error with its message; on the others TV_REMOTE with "rank R: <message>" of the lowest failing rank. When
// every failing rank has the same code and that code has an exit status of its own (USAGE, CONFIG, STOPPED), the others
// return that code instead of TV_REMOTE, so that the exit status of the whole program does not depend on which rank
// leaves first.
tv_status tv_comm_agree(tv_comm *comm, tv_status mine);
// Collective.
tv_status tv_comm_barrier(tv_comm *comm);
// Collective. bytes of `data` on rank `root` reach all.
tv_status tv_comm_broadcast_bytes(tv_comm *comm, void *data, size_t bytes, int root);
// Collective. Sums in place over the ranks. The i8 sum must stay in [-127, 127] by construction.
tv_status tv_comm_sum_i8(tv_comm *comm, int8_t *data, int64_t count, tv_wire what);
tv_status tv_comm_sum_u32(tv_comm *comm, uint32_t *data, int64_t count, tv_wire what);
tv_status tv_comm_sum_i64(tv_comm *comm, int64_t *data, int64_t count, tv_wire what);
tv_status tv_comm_sum_u64(tv_comm *comm, uint64_t *data, int64_t count, tv_wire what);
tv_status tv_comm_max_i64(tv_comm *comm, int64_t *data, int64_t count, tv_wire what);
// Collective. data holds size * block items; afterwards rank r's block data[r * block ..] is the sum over ranks (other
// blocks undefined).
tv_status tv_comm_reduce_scatter_i8(tv_comm *comm, int8_t *data, int64_t block, tv_wire what);
tv_status tv_comm_reduce_scatter_u32(tv_comm *comm, uint32_t *data, int64_t block, tv_wire what);
// Collective. data holds size * block_bytes; rank r gives its block at data + r * block_bytes; afterwards all ranks
// hold all blocks.
tv_status tv_comm_all_gather_bytes(tv_comm *comm, void *data, size_t block_bytes, tv_wire what);
// Collective. Blocks of different length: rank r gives bytes[r] bytes at data + sum of the bytes before it, in place.
tv_status tv_comm_all_gather_v_bytes(tv_comm *comm, void *data, const int64_t *bytes, tv_wire what);

// Collective. Rank r's block of `items` numbers, send[r * items ..], goes to rank r; recv[s * items ..] came from rank s.
tv_status tv_comm_all_to_all_i64(tv_comm *comm, const int64_t *send, int64_t *recv, int64_t items, tv_wire what);

// ---- the memory of the compute backend -------------------------------------------------------------------------------
//
// The same collectives on whatever memory the backend computes in, with the same count of wire bytes. In host memory
// they are the functions above. In the memory of a GPU they are queued on `stream` (the backend's; NULL: its default
// one) and go through NCCL; with one rank nothing moves. A queued collective is done when tv_comm_device_wait returns.

// Collective. Says which memory it is, once the backend is up: host_memory 1 (so it is before the first call) or 0, the
// GPU that is current in the calling thread. Any number of times. TV_COMM, on all ranks: ranks disagree on the kind of
// memory, two ranks share a GPU, the build has no NCCL (several ranks only), or the GPUs do not find each other in time.
tv_status tv_comm_device_open(tv_comm *comm, int host_memory);
// Collective. As the functions without `device`.
tv_status tv_comm_device_sum_i8(tv_comm *comm, int8_t *data, int64_t count, tv_wire what, void *stream);
tv_status tv_comm_device_sum_u32(tv_comm *comm, uint32_t *data, int64_t count, tv_wire what, void *stream);
tv_status tv_comm_device_reduce_scatter_i8(tv_comm *comm, int8_t *data, int64_t block, tv_wire what, void *stream);
tv_status tv_comm_device_reduce_scatter_u32(tv_comm *comm, uint32_t *data, int64_t block, tv_wire what, void *stream);
tv_status tv_comm_device_all_gather_bytes(tv_comm *comm, void *data, size_t block_bytes, tv_wire what, void *stream);
// Blocks of bytes for and from each rank, one after the other in rank order. send and recv do not overlap.
typedef struct tv_all_to_all {
    const uint8_t *send;
    const int64_t *send_bytes; // [size] host memory
    uint8_t *recv;
    const int64_t *recv_bytes; // [size] host memory; what the sender gives
} tv_all_to_all;
// Collective, among several ranks. Each rank's block to that rank; the own block is copied. Any block may be empty. Not
// between begin and end. In host memory a block of another length than expected is TV_COMM, on the receiver, and breaks
// it; NCCL does not compare lengths, so on GPUs they must be proven equal before (comm/row_exchange.h).
tv_status tv_comm_device_all_to_all_v_bytes(tv_comm *comm, const tv_all_to_all *args, tv_wire what, void *stream);
// Collective, among several ranks. The library's own all-to-all of blocks of one length, where it has one: what the one
// above is measured by.
tv_status tv_comm_device_all_to_all_bytes(tv_comm *comm, const void *send, void *recv, int64_t block_bytes,
                                          tv_wire what, void *stream);
// Collective. Between the two, the collectives on the backend's memory are only noted; end queues them together, which
// is quicker for many small buffers. The buffers must not overlap, and the stream is one. In host memory each is done at
// once, as without the two.
tv_status tv_comm_device_begin(tv_comm *comm);
tv_status tv_comm_device_end(tv_comm *comm);
// Local. The stream for collectives that run beside the backend's work: the communicator's own on GPUs; NULL in host
// memory and with one rank, where nothing runs beside anything.
void *tv_comm_device_stream(const tv_comm *comm);
// Local. What is queued on `stream` from here on waits for what is queued on `ahead` now.
tv_status tv_comm_device_follow(tv_comm *comm, void *stream, void *ahead);
// Local. Returns when everything queued on `stream` is done. TV_COMM when NCCL reports an error, or when it is not done
// in time because another rank is missing; then what was queued is abandoned.
tv_status tv_comm_device_wait(tv_comm *comm, void *stream);

#endif
