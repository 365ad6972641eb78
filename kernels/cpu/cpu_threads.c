#include "kernels/cpu/cpu_threads.h"

#include <stdlib.h>
#include <unistd.h>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "base/tensor.h"

enum {
    THREADS_MAX = 1024,
    PIECE_NS = 20000,    // less work than this is not worth waking a thread
    PIECES_A_THREAD = 4, // spare pieces, so that a thread which lost its core does not hold up the others
    SCRATCH_ALIGN = 64,
    SCRATCH_PAGE = 4096
};

static int thread_count = 1;
static void *scratch_slab;
static size_t scratch_stride; // bytes a thread

void tv_cpu_threads_open(int local_size, int threads)
{
#ifdef _OPENMP
    if (threads <= 0) {
        int procs = omp_get_num_procs();
        long online = sysconf(_SC_NPROCESSORS_ONLN);
        threads = procs < online || local_size < 1 ? procs : procs / local_size;
    }
    tv_cpu_threads_close();
    thread_count = threads < 1 ? 1 : threads > THREADS_MAX ? THREADS_MAX : threads;
#else
    (void)local_size, (void)threads;
    tv_cpu_threads_close();
#endif
}

int tv_cpu_threads(void) { return thread_count; }

void tv_cpu_threads_close(void)
{
    free(scratch_slab);
    scratch_slab = NULL;
    scratch_stride = 0;
    thread_count = 1;
}

tv_status tv_cpu_scratch_reserve(size_t bytes)
{
    if (bytes <= scratch_stride)
        return TV_OK;
    size_t stride = (bytes + SCRATCH_PAGE - 1) / SCRATCH_PAGE * SCRATCH_PAGE;
    // An odd number of cache lines more, so that the threads' buffers do not share cache sets.
    stride += SCRATCH_ALIGN;
    void *slab = aligned_alloc(SCRATCH_ALIGN, stride * (size_t)thread_count);
    if (slab == NULL)
        return TV_FAIL(TV_MEMORY, "cpu backend: no memory for %zu bytes of scratch on %d threads; use fewer threads",
                       stride, thread_count);
    free(scratch_slab);
    scratch_slab = slab;
    scratch_stride = stride;
    return TV_OK;
}

void *tv_cpu_scratch(int thread) { return (char *)scratch_slab + scratch_stride * (size_t)thread; }

void tv_cpu_for(int64_t count, int64_t item_cost, tv_cpu_body body, const void *args)
{
    if (count <= 0)
        return;
#ifdef _OPENMP
    int64_t items = tv_ceil_div(PIECE_NS, item_cost < 1 ? 1 : item_cost); // fewest items a piece
    int64_t pieces = tv_ceil_div(count, items);
    if (pieces > thread_count * (int64_t)PIECES_A_THREAD)
        pieces = thread_count * (int64_t)PIECES_A_THREAD;
    int team = pieces < thread_count ? (int)pieces : thread_count;
    if (team > 1) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(team)
        for (int64_t p = 0; p < pieces; p++)
            body(args, count / pieces * p + (count % pieces) * p / pieces,
                 count / pieces * (p + 1) + (count % pieces) * (p + 1) / pieces, omp_get_thread_num());
        return;
    }
#else
    (void)item_cost;
#endif
    body(args, 0, count, 0);
}
