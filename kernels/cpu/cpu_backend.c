// The cpu backend's tables and the choice between them.
#include "kernels/cpu/cpu_backend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/cpu_threads.h"

static char description[96] = "cpu: not open";

static tv_status open_isa(int local_size, int threads, const char *isa)
{
    tv_cpu_threads_open(local_size, threads);
    snprintf(description, sizeof description, "cpu: %s, %d thread%s", isa, tv_cpu_threads(),
             tv_cpu_threads() == 1 ? "" : "s");
    return TV_OK;
}

static tv_status open_base(int local_rank, int local_size, int threads)
{
    (void)local_rank;
    return open_isa(local_size, threads, "plain C");
}

static tv_status open_avx2(int local_rank, int local_size, int threads)
{
    (void)local_rank;
    return open_isa(local_size, threads, "AVX2");
}

static tv_status open_avx512(int local_rank, int local_size, int threads)
{
    (void)local_rank;
    return open_isa(local_size, threads, "AVX-512 VNNI");
}

static void close_cpu(void)
{
    tv_cpu_threads_close();
    close_ref();
}

static const char *describe_cpu(void) { return description; }

// What every table has in common.
#define HOST_AND_REF                                                                                                   \
    .name = "cpu", .describe = describe_cpu, .close = close_cpu, .host_memory = 1, .alloc = alloc_ref,                 \
    .free = free_ref, .copy = copy_ref, .zero = zero_ref, .sync = sync_ref, .pack = pack_ref, .init = init_ref,        \
    .validate = validate_ref, .row_hash = row_hash_ref, .digits_pack = digits_pack_ref,                                \
    .digits_unpack = digits_unpack_ref, .moe_route = moe_route_ref, .moe_route_backward = moe_route_backward_ref,      \
    .moe_plan = moe_plan_ref

#define USE_BASE(op, args_type) .op = op##_ref,
#define USE_AVX2(op, args_type) .op = op##_avx2,
#define USE_AVX512(op, args_type) .op = op##_avx512,

static const tv_backend table_base = {

    HOST_AND_REF,
    .open = open_base,
    TV_CPU_OPS(USE_BASE).vq = TV_VQ_OPS_WITH(vq_init_ref, vq_search_ref),

    .memgram = TV_MEMGRAM_OPS_WITH(memgram_mix_ref, memgram_back_ref),
    .graph = TV_GRAPH_OPS_OF(ref),
    .focus = TV_FOCUS_OPS_WITH(_ref),
    .modality = {.add = modality_add_ref, .back = modality_back_ref}};
static const tv_backend table_avx2 = {

    HOST_AND_REF,
    .open = open_avx2,
    TV_CPU_OPS(USE_AVX2).vq = TV_VQ_OPS_WITH(vq_init_avx2, vq_search_avx2),

    .memgram = TV_MEMGRAM_OPS_WITH(memgram_mix_avx2, memgram_back_avx2),
    .graph = TV_GRAPH_OPS_OF(avx2),
    .focus = TV_FOCUS_OPS_WITH(_avx2),
    .modality = {.add = modality_add_avx2, .back = modality_back_avx2}};
static const tv_backend table_avx512 = {

    HOST_AND_REF,
    .open = open_avx512,
    TV_CPU_OPS(USE_AVX512).vq = TV_VQ_OPS_WITH(vq_init_avx512, vq_search_avx512),

    .memgram = TV_MEMGRAM_OPS_WITH(memgram_mix_avx512, memgram_back_avx512),
    .modality = {.add = modality_add_avx512, .back = modality_back_avx512},
    .graph = TV_GRAPH_OPS_OF(avx512),
    .focus = TV_FOCUS_OPS_WITH(_avx512)};

// Each level contains the lower ones, so a machine has all tables up to its best.
static tv_cpu_isa best_isa(void)
{
    if (!__builtin_cpu_supports("x86-64-v3"))
        return TV_CPU_BASE;
    if (!__builtin_cpu_supports("x86-64-v4") || !__builtin_cpu_supports("avx512vnni"))
        return TV_CPU_AVX2;
    return TV_CPU_AVX512;
}

const tv_backend *tv_backend_cpu_isa(tv_cpu_isa isa)
{
    static const tv_backend *const tables[TV_CPU_ISA_COUNT] = {&table_base, &table_avx2, &table_avx512};
    return isa <= best_isa() ? tables[isa] : NULL;
}

const tv_backend *tv_backend_cpu(void)
{
    static const char *const names[TV_CPU_ISA_COUNT] = {"base", "avx2", "avx512"};
    const char *wanted = getenv("TV_CPU_ISA");
    tv_cpu_isa isa = best_isa();
    for (int i = 0; wanted != NULL && i < (int)isa; i++)
        if (strcmp(wanted, names[i]) == 0)
            isa = (tv_cpu_isa)i;
    return tv_backend_cpu_isa(isa);
}
