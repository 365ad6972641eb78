// Which ranks write, and the way of the other ranks' rows to them.
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/thread.h"
#include "io/checkpoint_internal.h"
#include "io/checkpoint_saving.h"

enum {
    HOST_NAME_BYTES = 64,
    MEMORY_ALIGN = 2 << 20,
    DATA_ALIGN = 256,
    COPY_SLICE = 4 << 20, // bytes that a thread copies at a time
    COPY_THREADS = 4      // at most: a few cores fill the memory's bandwidth
};

// The lowest rank of this rank's host: ranks of one host name are one node.
static tv_status find_node(tv_comm *comm, int *first)
{
    int rank = tv_comm_rank(comm);
    char(*names)[HOST_NAME_BYTES] = calloc((size_t)tv_comm_size(comm), sizeof *names);
    tv_status st = tv_comm_agree(comm, names ? TV_OK : TV_FAIL(TV_MEMORY, "no memory for the hosts' names"));
    TV_TRY_GOTO(st, done, st);
    if (gethostname(names[rank], HOST_NAME_BYTES - 1) != 0)
        memcpy(names[rank], "?", 2);
    TV_TRY_GOTO(st, done, tv_comm_all_gather_bytes(comm, names, sizeof *names, TV_WIRE_OTHER));
    for (*first = 0; memcmp(names[*first], names[rank], sizeof *names) != 0;)
        ++*first;
done:
    free(names);
    return st;
}

// The number of this group among the groups, and how many there are: each group's first rank counts as one.
static tv_status count_groups(tv_checkpoint_writer *w)
{
    int size = tv_comm_size(w->comm), rank = tv_comm_rank(w->comm);
    int32_t *firsts = calloc((size_t)size, sizeof *firsts), first = tv_comm_rank(w->group) == 0 ? rank : -1;
    tv_status st = tv_comm_agree(w->comm, firsts ? TV_OK : TV_FAIL(TV_MEMORY, "no memory to count the writers"));
    TV_TRY_GOTO(st, done, st);
    firsts[rank] = first;
    TV_TRY_GOTO(st, done, tv_comm_all_gather_bytes(w->comm, firsts, sizeof *firsts, TV_WIRE_OTHER));
    w->count = 0;
    for (int r = 0; r < size; r++) {
        if (r == rank && first >= 0)
            w->index = w->count;
        w->count += firsts[r] >= 0;
    }
done:
    free(firsts);
    return st;
}

tv_status tv_save_groups_open(tv_checkpoint_writer *w, int64_t writers)
{
    int size = tv_comm_size(w->comm), rank = tv_comm_rank(w->comm), color = rank;
    w->index = rank;
    w->count = size;
    w->writes = 1;
    if (size == 1 || writers == TV_WRITERS_RANK || writers >= size)
        return TV_OK;
    if (writers == TV_WRITERS_NODE)
        TV_TRY(find_node(w->comm, &color));
    else
        color = (int)(rank * writers / size);
    TV_TRY(tv_comm_split(w->comm, color, rank, &w->group));
    w->writes = tv_comm_rank(w->group) == 0;
    return count_groups(w);
}

// ---- memory

// Large and touched, so that a save does not wait for the system to find the pages.
static tv_status need_memory(tv_checkpoint_writer *w, size_t bytes)
{
    if (bytes <= w->memory_bytes)
        return TV_OK;
    bytes += (MEMORY_ALIGN - bytes % MEMORY_ALIGN) % MEMORY_ALIGN;
    free(w->memory);
    w->memory_bytes = 0;
    w->memory = aligned_alloc(MEMORY_ALIGN, bytes);
    if (!w->memory)
        return TV_FAIL(TV_MEMORY,
                       "no memory for the copy of the state (%zu bytes) that is written beside training; set "
                       "checkpoint.async=false",
                       bytes);
    (void)madvise(w->memory, bytes, MADV_HUGEPAGE);
    memset(w->memory, 0, bytes);
    w->memory_bytes = bytes;
    return TV_OK;
}

static size_t padded(int64_t bytes) { return (size_t)((bytes + DATA_ALIGN - 1) / DATA_ALIGN * DATA_ALIGN); }

static int64_t block_bytes(const tv_state_array *a) { return a->count * tv_state_row_bytes(a); }

tv_status tv_checkpoint_writer_reserve(tv_checkpoint_writer *w, const tv_state_array *arrays, int64_t count)
{
    size_t total = 0;
    for (int64_t i = 0; i < count; i++)
        total += padded(block_bytes(&arrays[i]));
    return need_memory(w, total);
}

// ---- rows

static tv_status need_blocks(tv_checkpoint_writer *w, int64_t most)
{
    free(w->blocks);
    free(w->owners);
    w->block_count = 0;
    w->blocks = calloc((size_t)most + 1, sizeof *w->blocks);
    w->owners = calloc((size_t)most + 1, sizeof *w->owners);
    return w->blocks && w->owners ? TV_OK : TV_FAIL(TV_MEMORY, "no memory to list %" PRId64 " blocks", most);
}

// ---- copy: training waits for it, so that it is done by all cores that this rank may use

typedef struct copying {
    const tv_checkpoint_writer *writer;
    atomic_llong next; // slice that nobody has taken; slices are numbered through all blocks
} copying;

static void *copy_slices(void *argument)
{
    copying *c = argument;
    const tv_checkpoint_writer *w = c->writer;
    long long slice = 0, mine = atomic_fetch_add(&c->next, 1);
    for (int64_t i = 0; i < w->array_count; i++) {
        int64_t bytes = block_bytes(&w->arrays[i]);
        for (int64_t at = 0; at < bytes; at += COPY_SLICE, slice++) {
            if (slice != mine)
                continue;
            memcpy((char *)w->blocks[i].data + at, (const char *)w->arrays[i].data + at,
                   (size_t)(bytes - at < COPY_SLICE ? bytes - at : COPY_SLICE));
            mine = atomic_fetch_add(&c->next, 1);
        }
    }
    return NULL;
}

static void copy_blocks(const tv_checkpoint_writer *w)
{
    copying c = {.writer = w};
    int cores = tv_thread_cores();
    tv_thread_share(cores < COPY_THREADS ? cores : COPY_THREADS, copy_slices, &c);
}

static tv_status take_own(tv_checkpoint_writer *w, int copy)
{
    size_t at = 0;
    TV_TRY(need_blocks(w, w->array_count));
    if (copy)
        TV_TRY(tv_checkpoint_writer_reserve(w, w->arrays, w->array_count));
    for (int64_t i = 0; i < w->array_count; i++) {
        const tv_state_array *a = &w->arrays[i];
        w->blocks[i] = *a;
        w->owners[i] = i;
        if (!copy || a->count == 0)
            continue;
        w->blocks[i].data = w->memory + at;
        at += padded(block_bytes(a));
    }
    w->block_count = w->array_count;
    if (copy)
        copy_blocks(w);
    return TV_OK;
}

// first_row and count of each array on each rank of the group, [ranks, arrays].
typedef struct shares {
    int64_t (*rows)[2];
    int64_t *send, *recv; // [ranks] bytes of one array
    int ranks;
} shares;

static tv_status gather_shares(const tv_checkpoint_writer *w, shares *s)
{
    int rank = tv_comm_rank(w->group);
    s->ranks = tv_comm_size(w->group);
    s->rows = calloc((size_t)(s->ranks * w->array_count) + 1, sizeof *s->rows);
    s->send = calloc((size_t)s->ranks, sizeof *s->send);
    s->recv = calloc((size_t)s->ranks, sizeof *s->recv);
    tv_status st = s->rows && s->send && s->recv ? TV_OK : TV_FAIL(TV_MEMORY, "no memory for the ranks' shares");
    TV_TRY(tv_comm_agree(w->group, st));
    for (int64_t i = 0; i < w->array_count; i++) {
        s->rows[rank * w->array_count + i][0] = w->arrays[i].first_row;
        s->rows[rank * w->array_count + i][1] = w->arrays[i].count;
    }
    return tv_comm_all_gather_bytes(w->group, s->rows, (size_t)w->array_count * sizeof *s->rows, TV_WIRE_OTHER);
}

static tv_status need_group_memory(tv_checkpoint_writer *w, const shares *s)
{
    size_t total = 0;
    for (int64_t i = 0; i < w->array_count; i++) {
        int64_t rows = 0;
        for (int r = 0; r < s->ranks; r++)
            rows += s->rows[r * w->array_count + i][1];
        total += padded(rows * tv_state_row_bytes(&w->arrays[i]));
    }
    return w->writes ? need_memory(w, total) : TV_OK;
}

// Notes rows that lie at `data`; they join the block before when they follow its rows.
static void add_rows(tv_checkpoint_writer *w, int64_t array, int64_t first_row, int64_t count, unsigned char *data)
{
    tv_state_array *last = w->block_count > 0 ? &w->blocks[w->block_count - 1] : NULL;
    if (count == 0)
        return;
    if (last && w->owners[w->block_count - 1] == array && last->first_row + last->count == first_row) {
        last->count += count;
        return;
    }
    w->blocks[w->block_count] = w->arrays[array];
    w->blocks[w->block_count].first_row = first_row;
    w->blocks[w->block_count].count = count;
    w->blocks[w->block_count].data = data;
    w->owners[w->block_count++] = array;
}

static tv_status gather_array(tv_checkpoint_writer *w, const shares *s, int64_t i, size_t *at)
{
    const tv_state_array *a = &w->arrays[i];
    int rank = tv_comm_rank(w->group);
    size_t total = 0;
    memset(s->send, 0, (size_t)s->ranks * sizeof *s->send);
    memset(s->recv, 0, (size_t)s->ranks * sizeof *s->recv);
    s->send[0] = block_bytes(a);
    for (int r = 0; r < s->ranks && rank == 0; r++) {
        int64_t rows = s->rows[r * w->array_count + i][1];
        s->recv[r] = rows * tv_state_row_bytes(a);
        add_rows(w, i, s->rows[r * w->array_count + i][0], rows, w->memory + *at + total);
        total += (size_t)s->recv[r];
    }
    tv_all_to_all args = {.send = a->data, .send_bytes = s->send, .recv = w->memory + *at, .recv_bytes = s->recv};
    *at += padded((int64_t)total);
    return tv_comm_device_all_to_all_v_bytes(w->group, &args, TV_WIRE_OTHER, NULL);
}

static tv_status take_group(tv_checkpoint_writer *w)
{
    shares s = {0};
    size_t at = 0;
    tv_status st = TV_OK;
    TV_TRY_GOTO(st, done, gather_shares(w, &s));
    st = need_blocks(w, s.ranks * w->array_count);
    if (st == TV_OK)
        st = need_group_memory(w, &s);
    TV_TRY_GOTO(st, done, tv_comm_agree(w->group, st));
    for (int64_t i = 0; i < w->array_count; i++)
        TV_TRY_GOTO(st, done, gather_array(w, &s, i, &at));
done:
    free(s.rows);
    free(s.send);
    free(s.recv);
    return st;
}

tv_status tv_save_take_blocks(tv_checkpoint_writer *w, int copy)
{
    return w->group && tv_comm_size(w->group) > 1 ? take_group(w) : take_own(w, copy);
}
