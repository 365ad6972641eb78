// Hopper's own instructions, one small function each: barriers in shared memory, the tensor copy engine (TMA), warpgroup products
// of s8, clusters. They compile for sm_90a alone. The PTX ISA manual defines each.
#ifndef TV_KERNELS_HOPPER_PARTS_CUH
#define TV_KERNELS_HOPPER_PARTS_CUH

#include <cuda.h>

#include "kernels/cuda/cuda_common.cuh"

__device__ static inline uint32_t tv_hopper_shared(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }

// ---- barriers in shared memory: a phase ends when `count` arrivals and all announced bytes are in --------------------------

__device__ static inline void tv_barrier_init(uint64_t *barrier, int count)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(tv_hopper_shared(barrier)), "r"(count) : "memory");
}

// Make the barriers of this block seen by the copy engine and by the cluster.
__device__ static inline void tv_barrier_init_done(void)
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

// Arrive, and announce `bytes` that the copy engine will bring.
__device__ static inline void tv_barrier_expect(uint64_t *barrier, int bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(tv_hopper_shared(barrier)), "r"(bytes)
                 : "memory");
}

// Arrive at the same barrier of block `rank` of the cluster.
__device__ static inline void tv_barrier_arrive(uint64_t *barrier, int rank)
{
    asm volatile("{\n"
                 ".reg .b32 remote;\n"
                 "mapa.shared::cluster.u32 remote, %0, %1;\n"
                 "mbarrier.arrive.shared::cluster.b64 _, [remote];\n"
                 "}" ::"r"(tv_hopper_shared(barrier)),
                 "r"(rank)
                 : "memory");
}

// Wait for the end of the phase of this parity.
__device__ static inline void tv_barrier_wait(uint64_t *barrier, uint32_t parity)
{
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@done bra over;\n"
                 "bra again;\n"
                 "over:\n"
                 "}" ::"r"(tv_hopper_shared(barrier)),
                 "r"(parity)
                 : "memory");
}

// ---- the copy engine ----------------------------------------------------------------------------------------------------------

__device__ static inline void tv_copy_map_prefetch(const CUtensorMap *map)
{
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

// The map's box at (k, row) to shared memory `to`; what lies outside of the matrix comes as zeros.
__device__ static inline void tv_copy_box(void *to, const CUtensorMap *map, uint64_t *barrier, int k, int row)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, "
                 "%4}], [%2];" ::"r"(tv_hopper_shared(to)),
                 "l"(map), "r"(tv_hopper_shared(barrier)), "r"(k), "r"(row)
                 : "memory");
}

// The same box to the same place in all blocks of `mask`, each told by its own barrier.
__device__ static inline void tv_copy_box_to(void *to, const CUtensorMap *map, uint64_t *barrier, int k, int row,
                                             uint16_t mask)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster "
                 "[%0], [%1, "
                 "{%3, %4}], [%2], %5;" ::"r"(tv_hopper_shared(to)),
                 "l"(map), "r"(tv_hopper_shared(barrier)), "r"(k), "r"(row), "h"(mask)
                 : "memory");
}

// Shared memory `from` to the map's box at (col, row); what lies outside of the matrix is left out.
__device__ static inline void tv_copy_box_out(const CUtensorMap *map, const void *from, int col, int row)
{
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%0, {%2, %3}], [%1];" ::"l"(map),
                 "r"(tv_hopper_shared(from)), "r"(col), "r"(row)
                 : "memory");
}

// This thread's copies out so far form a group.
__device__ static inline void tv_copy_out_commit(void) { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }

// Until all of this thread's groups have read their shared memory.
__device__ static inline void tv_copy_out_wait(void) { asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory"); }

// What this thread stored into shared memory is seen by the copy engine behind the next barrier.
__device__ static inline void tv_copy_out_fence(void) { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// ---- clusters and warpgroups ---------------------------------------------------------------------------------------------------

__device__ static inline int tv_cluster_rank(void)
{
    uint32_t rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return (int)rank;
}

__device__ static inline void tv_cluster_sync(void)
{
    asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
}

// Named barriers, id 1..15: wait for `threads` threads, or count as one of them and go on.
__device__ static inline void tv_named_sync(int id, int threads)
{
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ static inline void tv_named_arrive(int id, int threads)
{
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

template <int COUNT> __device__ static inline void tv_registers_fewer(void)
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT));
}
template <int COUNT> __device__ static inline void tv_registers_more(void)
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT));
}

// ---- warpgroup products ---------------------------------------------------------------------------------------------------------

// Descriptor of a K-major tile with rows of 128 bytes in the copy engine's 128-byte swizzle: eight rows are 1024 bytes. A step
// of 32 bytes along K adds 2.
__device__ static inline uint64_t tv_wgmma_operand(const void *tile)
{
    uint64_t start = (tv_hopper_shared(tile) & 0x3FFFF) >> 4;
    return start | (uint64_t)1 << 16 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62;
}

__device__ static inline void tv_wgmma_begin(void) { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ static inline void tv_wgmma_commit(void) { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int PENDING> __device__ static inline void tv_wgmma_wait(void)
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

#define TV_R4(d, i) "+r"(d[i]), "+r"(d[(i) + 1]), "+r"(d[(i) + 2]), "+r"(d[(i) + 3])
#define TV_R16(d, i) TV_R4(d, i), TV_R4(d, (i) + 4), TV_R4(d, (i) + 8), TV_R4(d, (i) + 12)
#define TV_R64(d) TV_R16(d, 0), TV_R16(d, 16), TV_R16(d, 32), TV_R16(d, 48)

// sums = A B^T (add 0) or sums + A B^T: 64 rows x 128 columns over 32 bytes of K.
__device__ static inline void tv_wgmma(int32_t (&sums)[64], uint64_t a, uint64_t b, int add)
{
    asm volatile("{\n"
                 ".reg .pred p;\n"
                 "setp.ne.b32 p, %66, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k32.s32.s8.s8 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, "
                 "%12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, "
                 "%52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, %64, %65, p;\n"
                 "}"
                 : TV_R64(sums)
                 : "l"(a), "l"(b), "r"(add));
}

// Behind the last wait: no use of the sums may move in front of it.
__device__ static inline void tv_wgmma_settle(int32_t (&sums)[64]) { asm volatile("" : TV_R64(sums)::"memory"); }

#endif
