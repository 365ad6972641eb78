// N-grams: tokens are independent, so threads share them.
#include "kernels/cpu/cpu_isa.h"
#include "kernels/cpu/cpu_threads.h"
#include "kernels/ref/memgram_loops.h"

enum { ENTRY_NS = 200 };

static void mix_tokens(const void *args, int64_t first, int64_t last, int thread)
{
    (void)thread;
    tv_memgram_mix_tokens(args, first, last);
}

tv_status TV_ISA_NAME(memgram_mix)(const tv_memgram_mix_args *a, void *stream)
{
    (void)stream;
    tv_cpu_for(a->tokens, ENTRY_NS * a->slots, mix_tokens, a);
    return TV_OK;
}

static void back_tokens(const void *args, int64_t first, int64_t last, int thread)
{
    (void)thread;
    tv_memgram_back_tokens(args, first, last);
}

tv_status TV_ISA_NAME(memgram_back)(const tv_memgram_back_args *a, void *stream)
{
    (void)stream;
    tv_cpu_for(a->tokens, 2 * ENTRY_NS * a->slots, back_tokens, a);
    return TV_OK;
}
