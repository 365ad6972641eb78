// The ops of the ref backend, by name, so that another backend's table can start from them. Formulas: kernels/kernels.h.
#ifndef TV_KERNELS_REF_OPS_H
#define TV_KERNELS_REF_OPS_H

#include "kernels/kernels.h"

// The ref backend. Its ops are plain loops on one thread; `stream` is ignored, every call is complete when it returns.
const tv_backend *tv_backend_ref(void);

// Host memory and copies, usable by every backend with host_memory = 1. close_ref frees the calling thread's scratch memory; a
// backend that calls ops below from its own threads calls scratch_free_ref on each of them.
tv_status open_ref(int local_rank, int local_size, int threads);
void close_ref(void);
void scratch_free_ref(void);
tv_status alloc_ref(size_t bytes, void **out);
void free_ref(void *memory);
tv_status copy_ref(void *to, const void *from, size_t bytes, tv_copy_kind kind, void *stream);
tv_status zero_ref(void *memory, size_t bytes, void *stream);
tv_status sync_ref(void *stream);

tv_status pack_ref(const tv_pack_args *a, void *stream);
tv_status unpack_ref(const tv_pack_args *a, void *stream);
tv_status decode_ref(const tv_decode_args *a, void *stream);
tv_status init_ref(const tv_init_args *a, void *stream);
tv_status validate_ref(const tv_validate_args *a, void *stream);
tv_status row_hash_ref(const tv_row_hash_args *a, void *stream);
tv_status quantize_rows_ref(const tv_quantize_rows_args *a, void *stream);
tv_status quantize_rows2_ref(const tv_quantize_rows2_args *a, void *stream);
tv_status quantize_channels_ref(const tv_quantize_channels_args *a, void *stream);
tv_status quantize_channels2_ref(const tv_quantize_channels2_args *a, void *stream);
tv_status digits_pack_ref(const tv_digits_args *a, void *stream);
tv_status digits_unpack_ref(const tv_digits_args *a, void *stream);
tv_status gemm_ref(const tv_gemm_args *a, void *stream);
tv_status gemm_vote_ref(const tv_gemm_vote_args *a, void *stream);
tv_status embed_ref(const tv_embed_args *a, void *stream);
tv_status embed_vote_ref(const tv_embed_vote_args *a, void *stream);
tv_status trigram_ref(const tv_trigram_args *a, void *stream);
tv_status trigram_backward_ref(const tv_trigram_args *a, void *stream);
tv_status norm_ref(const tv_norm_args *a, void *stream);
tv_status norm_backward_ref(const tv_norm_backward_args *a, void *stream);
tv_status rotary_ref(const tv_rotary_args *a, void *stream);
tv_status attention_ref(const tv_attention_args *a, void *stream);
tv_status attention_backward_ref(const tv_attention_backward_args *a, void *stream);
tv_status gate_ref(const tv_gate_args *a, void *stream);
tv_status gate_backward_ref(const tv_gate_backward_args *a, void *stream);
tv_status norm_quantize_ref(const tv_norm_quantize_args *a, void *stream);
tv_status heads_ref(const tv_heads_args *a, void *stream);
tv_status heads_backward_ref(const tv_heads_backward_args *a, void *stream);
tv_status gate_quantize_ref(const tv_gate_quantize_args *a, void *stream);
tv_status quantize_both_ref(const tv_quantize_both_args *a, void *stream);
tv_status gate_backward_both_ref(const tv_gate_backward_both_args *a, void *stream);
tv_status trigram_quantize_ref(const tv_trigram_quantize_args *a, void *stream);
tv_status xent_ref(const tv_xent_args *a, void *stream);
tv_status row_sum_ref(const tv_row_sum_args *a, void *stream);
tv_status add_ref(const tv_add_args *a, void *stream);
tv_status fill_ref(const tv_fill_args *a, void *stream);
tv_status ballot_histogram_ref(const tv_ballot_args *a, void *stream);
tv_status ballot_ref(const tv_ballot_args *a, void *stream);
tv_status ballot_e_ref(const tv_ballot_e_args *a, void *stream);
tv_status moe_route_ref(const tv_moe_route_args *a, void *stream);
tv_status moe_route_backward_ref(const tv_moe_route_backward_args *a, void *stream);
tv_status moe_plan_ref(const tv_moe_plan_args *a, void *stream);
tv_status rows_gather_ref(const tv_rows_gather_args *a, void *stream);
tv_status rows_pack_ref(const tv_rows_pack_args *a, void *stream);
tv_status rows_unpack_ref(const tv_rows_unpack_args *a, void *stream);
tv_status moe_gemm_ref(const tv_moe_gemm_args *a, void *stream);
tv_status moe_channels_ref(const tv_moe_channels_args *a, void *stream);
tv_status moe_vote_ref(const tv_moe_vote_args *a, void *stream);
tv_status moe_activate_ref(const tv_moe_activate_args *a, void *stream);
tv_status moe_activate_backward_ref(const tv_moe_activate_backward_args *a, void *stream);
tv_status moe_combine_ref(const tv_moe_combine_args *a, void *stream);
tv_status moe_combine_backward_ref(const tv_moe_combine_backward_args *a, void *stream);

tv_status vq_init_ref(const tv_vq_init_args *a, void *stream);
tv_status vq_probes_ref(const tv_vq_probes_args *a, void *stream);
tv_status vq_send_ref(const tv_vq_send_args *a, void *stream);
tv_status vq_plan_ref(const tv_vq_plan_args *a, void *stream);
tv_status vq_search_ref(const tv_vq_search_args *a, void *stream);
tv_status vq_best_ref(const tv_vq_best_args *a, void *stream);
tv_status vq_answer_ref(const tv_vq_answer_args *a, void *stream);
tv_status vq_answer_unpack_ref(const tv_vq_answer_unpack_args *a, void *stream);
tv_status vq_rows_ref(const tv_vq_rows_args *a, void *stream);
tv_status vq_gradient_ref(const tv_vq_gradient_args *a, void *stream);
tv_status vq_group_ref(const tv_vq_group_args *a, void *stream);
tv_status vq_votes_ref(const tv_vq_votes_args *a, void *stream);
tv_status vq_votes_rows_ref(const tv_vq_votes_rows_args *a, void *stream);
tv_status vq_ballot_ref(const tv_vq_ballot_args *a, void *stream);
tv_status vq_farthest_ref(const tv_vq_farthest_args *a, void *stream);
tv_status vq_restart_ref(const tv_vq_restart_args *a, void *stream);
tv_status vq_usage_ref(const tv_vq_usage_args *a, void *stream);

tv_status memgram_hash_ref(const tv_memgram_hash_args *a, void *stream);
tv_status memgram_place_ref(const tv_memgram_place_args *a, void *stream);
tv_status memgram_strength_ref(const tv_memgram_strength_args *a, void *stream);
tv_status memgram_mix_ref(const tv_memgram_mix_args *a, void *stream);
tv_status memgram_back_ref(const tv_memgram_back_args *a, void *stream);
tv_status memgram_raise_ref(const tv_memgram_raise_args *a, void *stream);
tv_status memgram_decay_ref(const tv_memgram_decay_args *a, void *stream);

tv_status modality_add_ref(const tv_modality_add_args *a, void *stream);
tv_status modality_back_ref(const tv_modality_back_args *a, void *stream);

tv_status graph_decode_ref(const tv_graph_decode_args *a, void *stream);
tv_status graph_aggregate_ref(const tv_graph_aggregate_args *a, void *stream);
tv_status graph_aggregate_backward_ref(const tv_graph_aggregate_backward_args *a, void *stream);
tv_status graph_scale_ref(const tv_graph_scale_args *a, void *stream);
tv_status graph_scale_backward_ref(const tv_graph_scale_backward_args *a, void *stream);
tv_status graph_gather_ref(const tv_graph_gather_args *a, void *stream);
tv_status graph_gather_backward_ref(const tv_graph_gather_backward_args *a, void *stream);
tv_status graph_hop_ref(const tv_graph_hop_args *a, void *stream);

// The graph ops: `isa` names the versions of those that a backend has its own of, ref for the definition's.
#define TV_GRAPH_OPS_OF(isa)                                                                                           \
    {                                                                                                                  \
        .decode = graph_decode_##isa, .aggregate = graph_aggregate_##isa,                                              \
        .aggregate_backward = graph_aggregate_backward_##isa, .scale = graph_scale_ref,                                \
        .scale_backward = graph_scale_backward_ref, .gather = graph_gather_##isa,                                      \
        .gather_backward = graph_gather_backward_##isa, .hop = graph_hop_##isa                                         \
    }

// The n-gram ops of ref, with a backend's own versions of two of them.
#define TV_MEMGRAM_OPS_WITH(mix_, back_)                                                                               \
    {                                                                                                                  \
        .hash = memgram_hash_ref, .place = memgram_place_ref, .strength = memgram_strength_ref, .mix = mix_,           \
        .back = back_, .raise = memgram_raise_ref, .decay = memgram_decay_ref                                          \
    }

// The conversation's cells; kinds, load, save and gates are ref's in every host backend.
tv_status focus_kinds_ref(const tv_focus_kinds_args *a, void *stream);
tv_status focus_gather_ref(const tv_focus_gather_args *a, void *stream);
tv_status focus_scatter_ref(const tv_focus_scatter_args *a, void *stream);
tv_status focus_load_ref(const tv_focus_load_args *a, void *stream);
tv_status focus_save_ref(const tv_focus_save_args *a, void *stream);
tv_status focus_cell_ref(const tv_focus_cell_args *a, void *stream);
tv_status focus_back_ref(const tv_focus_back_args *a, void *stream);
tv_status focus_gates_ref(const tv_focus_gates_args *a, void *stream);
#define TV_FOCUS_OPS_WITH(suffix)                                                                                      \
    {                                                                                                                  \
        .kinds = focus_kinds_ref, .gather = focus_gather##suffix, .scatter = focus_scatter##suffix,                    \
        .load = focus_load_ref, .save = focus_save_ref, .cell = focus_cell##suffix, .back = focus_back##suffix,        \
        .gates = focus_gates_ref                                                                                       \
    }

// The codebook ops of ref, with a backend's own versions of two of them.
#define TV_VQ_OPS_WITH(init_, search_)                                                                                 \
    {                                                                                                                  \
        .init = init_, .probes = vq_probes_ref, .send = vq_send_ref, .plan = vq_plan_ref, .search = search_,           \
        .best = vq_best_ref, .answer = vq_answer_ref, .answer_unpack = vq_answer_unpack_ref, .rows = vq_rows_ref,      \
        .gradient = vq_gradient_ref, .group = vq_group_ref, .votes = vq_votes_ref, .votes_rows = vq_votes_rows_ref,    \
        .ballot = vq_ballot_ref, .farthest = vq_farthest_ref, .restart = vq_restart_ref, .usage = vq_usage_ref         \
    }

#endif
