// The seats of the ranks of one host. A stopped process cannot tell where it is, so each writes that down beforehand
// where the others can read it.
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
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

static tv_seat *map_seats(int fd, size_t bytes)
{
    struct stat file;
    if (fd < 0 || fstat(fd, &file) != 0 || file.st_size != (off_t)bytes)
        return NULL;
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

// Memory without a name, so that nothing is left behind by a process that is killed. `run` stands in the seat of its maker.
static tv_seat *make_seats(const tv_comm *comm, uint64_t run, size_t bytes, int *fd)
{
    *fd = memfd_create("trivote-board", MFD_CLOEXEC);
    if (*fd < 0 || posix_fallocate(*fd, 0, (off_t)bytes) != 0)
        return NULL;
    tv_seat *memory = map_seats(*fd, bytes);
    if (memory != NULL)
        memory[comm->rank].run = (int64_t)run;
    return memory;
}

// Through the maker's descriptor. Another process of this number, in another container, has other contents there.
static tv_seat *join_seats(const tv_comm *comm, uint64_t run, size_t bytes, const int64_t place[2])
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%lld/fd/%lld", (long long)place[0], (long long)place[1]);
    int fd = place[1] < 0 ? -1 : open(path, O_RDWR | O_CLOEXEC);
    tv_seat *memory = map_seats(fd, bytes);
    if (fd >= 0)
        close(fd);
    if (memory == NULL || memory[comm->host].run == (int64_t)run)
        return memory;
    munmap(memory, bytes);
    return NULL;
}

static void sit_down(tv_seat *memory, int rank)
{
    int64_t run = memory[rank].run;
    copy_seat(&memory[rank], &alone);
    memory[rank].run = run;
    __atomic_store_n(&seats, memory, __ATOMIC_RELEASE);
    __atomic_store_n(&mine, &memory[rank], __ATOMIC_RELEASE);
}

tv_status tv_board_open(tv_comm *comm, uint64_t run)
{
    size_t bytes = (size_t)comm->size * sizeof(tv_seat);
    int64_t *places = tv_comm_scratch(comm); // process and descriptor of each rank
    tv_seat *memory = NULL;
    int fd = -1, first = comm->rank == comm->host;
    if (first && comm->local_size > 1)
        memory = make_seats(comm, run, bytes, &fd);
    places[2 * comm->rank] = getpid();
    places[2 * comm->rank + 1] = memory == NULL ? -1 : fd;
    tv_status st = tv_comm_all_gather_bytes(comm, places, 2 * sizeof *places, TV_WIRE_OTHER);
    if (st == TV_OK && !first)
        memory = join_seats(comm, run, bytes, places + 2 * comm->host);
    if (st == TV_OK)
        st = tv_comm_barrier(comm);
    if (fd >= 0)
        close(fd);
    if (memory != NULL && seats == NULL)
        sit_down(memory, comm->rank);
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
