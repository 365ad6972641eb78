// The seats of the ranks of one host. A stopped process cannot tell where it is, so each writes that down beforehand
// where the others can read it.
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "comm/comm_impl.h"
#include "comm/ring.h"

static tv_seat alone;
static tv_seat *mine = &alone;
static tv_seat *seats; // [size], by rank; those of other hosts stay empty. NULL: nothing is shared
static int own_rank, own_size = 1;

void tv_board_place(int rank, int size)
{
    __atomic_store_n(&own_rank, rank, __ATOMIC_RELAXED);
    __atomic_store_n(&own_size, size, __ATOMIC_RELAXED);
}

int tv_board_rank(void) { return __atomic_load_n(&own_rank, __ATOMIC_RELAXED); }

int tv_board_size(void) { return __atomic_load_n(&own_size, __ATOMIC_RELAXED); }

tv_seat *tv_board_mine(void) { return __atomic_load_n(&mine, __ATOMIC_ACQUIRE); }

static tv_seat *map_seats(const char *path, int flags, size_t bytes)
{
    int fd = open(path, flags | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0)
        return NULL;
    void *memory = MAP_FAILED;
    if (!(flags & O_CREAT) || posix_fallocate(fd, 0, (off_t)bytes) == 0)
        memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    return memory == MAP_FAILED ? NULL : memory;
}

// Word by word, since its owner goes on writing. `left` first, as in comm/ring.c.
static void copy_seat(tv_seat *to, const tv_seat *from)
{
    int64_t *a = (int64_t *)to;
    const int64_t *b = (const int64_t *)from;
    int64_t left = __atomic_load_n(&from->last.left, __ATOMIC_ACQUIRE);
    for (size_t i = 0; i < sizeof *to / sizeof *a; i++)
        a[i] = __atomic_load_n(&b[i], __ATOMIC_RELAXED);
    to->last.left = left;
}

// The lowest rank of the host makes the file, the others open it, and its name goes as soon as all have.
tv_status tv_board_open(tv_comm *comm, uint64_t run)
{
    char path[96];
    int first = comm->rank == comm->host;
    size_t bytes = (size_t)comm->size * sizeof(tv_seat);
    tv_seat *memory = NULL;
    if (comm->local_size == 1 || seats != NULL)
        return TV_OK;
    snprintf(path, sizeof path, "/dev/shm/trivote-%016llx-%d", (unsigned long long)run, comm->host);
    if (first)
        memory = map_seats(path, O_CREAT | O_EXCL, bytes);
    tv_status st = tv_comm_barrier(comm);
    if (st == TV_OK && !first)
        memory = map_seats(path, 0, bytes);
    if (st == TV_OK)
        st = tv_comm_barrier(comm);
    if (first && memory != NULL)
        unlink(path);
    if (memory == NULL)
        return st;
    copy_seat(&memory[comm->rank], &alone);
    __atomic_store_n(&seats, memory, __ATOMIC_RELEASE);
    __atomic_store_n(&mine, &memory[comm->rank], __ATOMIC_RELEASE);
    return st;
}

int tv_board_read(int rank, tv_seat *out)
{
    const tv_seat *board = __atomic_load_n(&seats, __ATOMIC_ACQUIRE);
    if (rank == tv_board_rank())
        copy_seat(out, tv_board_mine());
    else if (board != NULL)
        copy_seat(out, &board[rank]);
    else
        return 0;
    return out->beat != 0; // nobody sits there: a rank of another host
}
