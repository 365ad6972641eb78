// What stands behind tv_comm: the struct, the table of an implementation's functions, the launcher. For comm/ and its
// tests only.
#ifndef TV_COMM_IMPL_H
#define TV_COMM_IMPL_H

#include "comm/comm.h"
#include "comm/ring.h"

typedef enum tv_comm_item { TV_ITEM_I8, TV_ITEM_U32, TV_ITEM_I64, TV_ITEM_U64, TV_ITEM_COUNT } tv_comm_item;
typedef enum tv_comm_fold { TV_FOLD_SUM, TV_FOLD_MAX, TV_FOLD_COUNT } tv_comm_fold;

// An implementation. comm.c has checked the arguments: counts are positive, roots are ranks. Semantics as in comm.h,
// all in place.
typedef struct tv_comm_ops {
    void (*close)(tv_comm *comm); // frees comm->state; with comm->broken set it must not wait for other ranks
    tv_status (*barrier)(tv_comm *comm);
    tv_status (*broadcast)(tv_comm *comm, void *data, int64_t bytes, int root);
    tv_status (*fold)(tv_comm *comm, void *data, int64_t count, tv_comm_item item, tv_comm_fold how);
    tv_status (*reduce_scatter)(tv_comm *comm, void *data, int64_t block, tv_comm_item item);
    tv_status (*all_gather)(tv_comm *comm, void *data, int64_t block_bytes);
    tv_status (*all_gather_v)(tv_comm *comm, void *data, const int64_t *bytes);
    tv_status (*all_to_all)(tv_comm *comm, const void *send, void *recv, int64_t block_bytes);
    tv_status (*all_to_all_v)(tv_comm *comm, const tv_all_to_all *args);
    tv_status (*split)(tv_comm *comm, int color, int key, tv_comm **child);
} tv_comm_ops;

// lanes[i] += add modulo 2^16; a lane that is then above `most` raises votes_beyond at the next wait.
typedef struct tv_lane_shift {
    uint16_t *lanes; // 4-byte aligned
    int64_t count;   // even
    int add, most;
} tv_lane_shift;

// The collectives on the backend's memory, and the one piece of arithmetic that the vote exchange needs there.
typedef struct tv_comm_device_ops {
    void (*close)(tv_comm *comm); // frees comm->gpu_state; with comm->broken set it must not wait for other ranks
    tv_status (*sum)(tv_comm *comm, void *data, int64_t count, tv_comm_item item, void *stream);
    tv_status (*reduce_scatter)(tv_comm *comm, void *data, int64_t block, tv_comm_item item, void *stream);
    tv_status (*all_gather)(tv_comm *comm, void *data, int64_t block_bytes, void *stream);
    tv_status (*all_to_all_v)(tv_comm *comm, const tv_all_to_all *args, void *stream);
    tv_status (*all_to_all)(tv_comm *comm, const void *send, void *recv, int64_t block_bytes, void *stream);
    tv_status (*begin)(tv_comm *comm);
    tv_status (*end)(tv_comm *comm);
    tv_status (*shift_lanes)(tv_comm *comm, const tv_lane_shift *shift, void *stream);
    void *(*stream)(const tv_comm *comm); // NULL, and with it follow: all is done when it is asked for
    tv_status (*follow)(tv_comm *comm, void *stream, void *ahead);
    tv_status (*wait)(tv_comm *comm, void *stream); // brings comm->votes_beyond up to date
} tv_comm_device_ops;

#define TV_COMM_SCRATCH_BYTES 64               // a rank; guard records and hashes are gathered there
#define TV_COMM_CHUNK_ITEMS ((int64_t)1 << 30) // well inside int, also after a library added a few counts

struct tv_comm {
    tv_comm *parent; // of a child, else NULL
    const tv_comm_ops *ops;
    void *state; // the implementation's
    int rank, size, local_rank, local_size;
    int host;            // the lowest rank of this host
    int broken;          // a collective failed or was spoilt here: this rank must not enter another one
    int64_t chunk_items; // largest count of one call into the library; larger exchanges are cut. Tests make it small
    uint64_t sequence;
    int64_t wire[TV_WIRE_COUNT];
    unsigned char *scratch;           // size * TV_COMM_SCRATCH_BYTES
    const tv_comm_device_ops *device; // of the memory in use
    const tv_comm_device_ops *gpu;    // NULL until several ranks use GPUs
    void *gpu_state;
    double gpu_seconds; // longest wait for GPUs; 0: the watch's limit. Tests set it
    int64_t color;      // of a child, else -1
    int watched;        // the watch ends with it
    int votes_beyond;   // a lane was out of range
};

extern const tv_comm_ops tv_comm_self_ops;
extern const tv_comm_device_ops tv_comm_self_device_ops; // one rank on a GPU
extern const tv_comm_device_ops tv_comm_host_device_ops; // the backend computes in host memory

// Bytes of one item.
int64_t tv_comm_item_bytes(tv_comm_item item);
// A communicator of `size` ranks without state, chunk_items at its default. TV_MEMORY.
tv_status tv_comm_new(const tv_comm_ops *ops, int rank, int size, tv_comm **out);
// The gathered 64-byte places of all ranks (rank r's at r * bytes for a gather of `bytes` a rank). Valid until the next
// use.
void *tv_comm_scratch(tv_comm *comm);

// What the environment says of how this process was started.
typedef struct tv_launcher {
    const char *name; // "mpirun", "pmi" ...; NULL when nobody launched it
    int64_t size;     // ranks that were started; 0 when the launcher does not say
} tv_launcher;

// Local. TV_COMM when srun started several tasks without PMI, where each would take itself for the only rank.
tv_status tv_launcher_detect(tv_launcher *out);
// Local. This process's rank by the launcher's account, before MPI knows; 0 when it does not say.
int tv_launcher_rank(void);
// Collective. MPI_Init_thread and a duplicate of the world; fails when MPI sees another number of ranks than the
// launcher started.
tv_status tv_comm_open_mpi(int *argc, char ***argv, const tv_launcher *launcher, tv_comm **out);
// Collective. Sets comm->gpu and comm->gpu_state: this thread's current GPU joins those of the other ranks. A rank that
// fails alone after the first agreement is broken, so that the launcher ends the others.
tv_status tv_comm_open_nccl(tv_comm *comm);

// Local. shift_lanes of the memory in use; a failure breaks the communicator, since the other ranks go on.
tv_status tv_comm_shift_lanes(tv_comm *comm, const tv_lane_shift *shift, void *stream);
// Every collective starts with enter (fail point, argument checks, sequence number, `items` of item_bytes as wire bytes,
// the ring) and hands its result to leave, which remembers a failure.
tv_status tv_comm_enter(tv_comm *comm, tv_op op, int64_t items, int64_t item_bytes, tv_wire what);
tv_status tv_comm_leave(tv_comm *comm, tv_status st);

#endif
