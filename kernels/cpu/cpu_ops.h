// The overridden ops of each instruction set, by the contract of kernels/kernels.h. Ops that are not listed are
// ref's.
#ifndef TV_KERNELS_CPU_OPS_H
#define TV_KERNELS_CPU_OPS_H

#include "kernels/kernels.h"
#include "kernels/ref/ref_ops.h"

// X(op, type of its arguments)
#define TV_CPU_OPS(X)                                                                                                  \
    X(unpack, tv_pack_args)                                                                                            \
    X(decode, tv_decode_args)                                                                                          \
    X(quantize_rows, tv_quantize_rows_args)                                                                            \
    X(quantize_rows2, tv_quantize_rows2_args)                                                                          \
    X(quantize_channels, tv_quantize_channels_args)                                                                    \
    X(quantize_channels2, tv_quantize_channels2_args)                                                                  \
    X(gemm, tv_gemm_args)                                                                                              \
    X(gemm_vote, tv_gemm_vote_args)                                                                                    \
    X(embed, tv_embed_args)                                                                                            \
    X(embed_vote, tv_embed_vote_args)                                                                                  \
    X(trigram, tv_trigram_args)                                                                                        \
    X(trigram_backward, tv_trigram_args)                                                                               \
    X(norm, tv_norm_args)                                                                                              \
    X(norm_backward, tv_norm_backward_args)                                                                            \
    X(rotary, tv_rotary_args)                                                                                          \
    X(attention, tv_attention_args)                                                                                    \
    X(attention_backward, tv_attention_backward_args)                                                                  \
    X(gate, tv_gate_args)                                                                                              \
    X(gate_backward, tv_gate_backward_args)                                                                            \
    X(norm_quantize, tv_norm_quantize_args)                                                                            \
    X(heads, tv_heads_args)                                                                                            \
    X(heads_backward, tv_heads_backward_args)                                                                          \
    X(gate_quantize, tv_gate_quantize_args)                                                                            \
    X(quantize_both, tv_quantize_both_args)                                                                            \
    X(gate_backward_both, tv_gate_backward_both_args)                                                                  \
    X(trigram_quantize, tv_trigram_quantize_args)                                                                      \
    X(xent, tv_xent_args)                                                                                              \
    X(row_sum, tv_row_sum_args)                                                                                        \
    X(add, tv_add_args)                                                                                                \
    X(fill, tv_fill_args)                                                                                              \
    X(ballot_histogram, tv_ballot_args)                                                                                \
    X(ballot, tv_ballot_args)                                                                                          \
    X(ballot_e, tv_ballot_e_args)                                                                                      \
    X(rows_gather, tv_rows_gather_args)                                                                                \
    X(rows_pack, tv_rows_pack_args)                                                                                    \
    X(rows_unpack, tv_rows_unpack_args)                                                                                \
    X(moe_gemm, tv_moe_gemm_args)                                                                                      \
    X(moe_channels, tv_moe_channels_args)                                                                              \
    X(moe_vote, tv_moe_vote_args)                                                                                      \
    X(moe_activate, tv_moe_activate_args)                                                                              \
    X(moe_activate_backward, tv_moe_activate_backward_args)                                                            \
    X(moe_combine, tv_moe_combine_args)                                                                                \
    X(moe_combine_backward, tv_moe_combine_backward_args)

#define TV_CPU_DECLARE(op, args_type)                                                                                  \
    tv_status op##_avx512(const args_type *, void *stream);                                                            \
    tv_status op##_avx2(const args_type *, void *stream);
TV_CPU_OPS(TV_CPU_DECLARE)
TV_CPU_DECLARE(vq_init, tv_vq_init_args) // of tv_backend.vq
TV_CPU_DECLARE(vq_search, tv_vq_search_args)
TV_CPU_DECLARE(memgram_mix, tv_memgram_mix_args) // of tv_backend.memgram
TV_CPU_DECLARE(memgram_back, tv_memgram_back_args)
TV_CPU_DECLARE(modality_add, tv_modality_add_args) // of tv_backend.modality
TV_CPU_DECLARE(modality_back, tv_modality_back_args)
TV_CPU_DECLARE(graph_decode, tv_graph_decode_args) // of tv_backend.graph
TV_CPU_DECLARE(graph_aggregate, tv_graph_aggregate_args)
TV_CPU_DECLARE(graph_aggregate_backward, tv_graph_aggregate_backward_args)
TV_CPU_DECLARE(graph_gather, tv_graph_gather_args)
TV_CPU_DECLARE(graph_gather_backward, tv_graph_gather_backward_args)
TV_CPU_DECLARE(graph_hop, tv_graph_hop_args)
TV_CPU_DECLARE(focus_gather, tv_focus_gather_args) // of tv_backend.focus
TV_CPU_DECLARE(focus_scatter, tv_focus_scatter_args)
TV_CPU_DECLARE(focus_cell, tv_focus_cell_args)
TV_CPU_DECLARE(focus_back, tv_focus_back_args)
#undef TV_CPU_DECLARE

#endif
