// The ref backend: its table, and host memory.
#include <stdlib.h>

#include "base/arena.h"
#include "kernels/ref/ref_common.h"
#include "kernels/ref/ref_ops.h"

static _Thread_local void *scratch;
static _Thread_local size_t scratch_bytes;

void scratch_free_ref(void)
{
    free(scratch);
    scratch = NULL;
    scratch_bytes = 0;
}

tv_status tv_ref_scratch(size_t bytes, void **out)
{
    if (bytes > scratch_bytes) {
        scratch_free_ref();
        TV_TRY(alloc_ref(bytes, &scratch));
        scratch_bytes = bytes;
    }
    *out = scratch;
    return TV_OK;
}

static const char *describe_ref(void) { return "ref: plain C, one thread"; }

tv_status open_ref(int local_rank, int local_size, int threads)
{
    (void)local_rank, (void)local_size, (void)threads;
    return TV_OK;
}

void close_ref(void) { scratch_free_ref(); }

tv_status alloc_ref(size_t bytes, void **out)
{
    *out = NULL;
    if (bytes <= SIZE_MAX - TV_ARENA_ALIGN) {
        size_t rounded = (bytes + TV_ARENA_ALIGN - 1) / TV_ARENA_ALIGN * TV_ARENA_ALIGN;
        *out = aligned_alloc(TV_ARENA_ALIGN, rounded ? rounded : TV_ARENA_ALIGN);
    }
    if (!*out)
        return TV_FAIL(TV_MEMORY,
                       "cannot allocate %zu bytes of host memory: use a smaller model or unit, or more ranks", bytes);
    return TV_OK;
}

void free_ref(void *memory) { free(memory); }

tv_status copy_ref(void *to, const void *from, size_t bytes, tv_copy_kind kind, void *stream)
{
    (void)kind, (void)stream;
    if (bytes)
        memcpy(to, from, bytes);
    return TV_OK;
}

tv_status zero_ref(void *memory, size_t bytes, void *stream)
{
    (void)stream;
    if (bytes)
        memset(memory, 0, bytes);
    return TV_OK;
}

tv_status sync_ref(void *stream)
{
    (void)stream;
    return TV_OK;
}

const tv_backend *tv_backend_ref(void)
{
    static const tv_backend table = {
        .name = "ref",
        .describe = describe_ref,
        .open = open_ref,
        .close = close_ref,
        .host_memory = 1,
        .alloc = alloc_ref,
        .free = free_ref,
        .copy = copy_ref,
        .zero = zero_ref,
        .sync = sync_ref,
        .pack = pack_ref,
        .unpack = unpack_ref,
        .decode = decode_ref,
        .init = init_ref,
        .validate = validate_ref,
        .row_hash = row_hash_ref,
        .quantize_rows = quantize_rows_ref,
        .quantize_rows2 = quantize_rows2_ref,
        .quantize_channels = quantize_channels_ref,
        .quantize_channels2 = quantize_channels2_ref,
        .digits_pack = digits_pack_ref,
        .digits_unpack = digits_unpack_ref,
        .gemm = gemm_ref,
        .gemm_vote = gemm_vote_ref,
        .embed = embed_ref,
        .embed_vote = embed_vote_ref,
        .trigram = trigram_ref,
        .trigram_backward = trigram_backward_ref,
        .norm = norm_ref,
        .norm_backward = norm_backward_ref,
        .rotary = rotary_ref,
        .attention = attention_ref,
        .attention_backward = attention_backward_ref,
        .gate = gate_ref,
        .gate_backward = gate_backward_ref,
        .norm_quantize = norm_quantize_ref,
        .heads = heads_ref,
        .heads_backward = heads_backward_ref,
        .gate_quantize = gate_quantize_ref,
        .quantize_both = quantize_both_ref,
        .gate_backward_both = gate_backward_both_ref,
        .trigram_quantize = trigram_quantize_ref,
        .xent = xent_ref,
        .row_sum = row_sum_ref,
        .add = add_ref,
        .fill = fill_ref,
        .ballot_histogram = ballot_histogram_ref,
        .ballot = ballot_ref,
        .ballot_e = ballot_e_ref,
        .moe_route = moe_route_ref,
        .moe_route_backward = moe_route_backward_ref,
        .moe_plan = moe_plan_ref,
        .rows_gather = rows_gather_ref,
        .rows_pack = rows_pack_ref,
        .rows_unpack = rows_unpack_ref,
        .moe_gemm = moe_gemm_ref,
        .moe_channels = moe_channels_ref,
        .moe_vote = moe_vote_ref,
        .moe_activate = moe_activate_ref,
        .moe_activate_backward = moe_activate_backward_ref,
        .moe_combine = moe_combine_ref,
        .moe_combine_backward = moe_combine_backward_ref,
        .vq = TV_VQ_OPS_WITH(vq_init_ref, vq_search_ref),
        .memgram = TV_MEMGRAM_OPS_WITH(memgram_mix_ref, memgram_back_ref),
        .modality = {.add = modality_add_ref, .back = modality_back_ref},
        .graph = TV_GRAPH_OPS_OF(ref),
        .focus = TV_FOCUS_OPS_WITH(_ref),
    };
    return &table;
}
