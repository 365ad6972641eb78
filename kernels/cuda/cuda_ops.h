// Functions of the cuda backend's table.
#ifndef TV_KERNELS_CUDA_OPS_H
#define TV_KERNELS_CUDA_OPS_H

#ifdef __cplusplus
extern "C" {
#endif

#include "kernels/kernels.h"

const tv_backend *tv_backend_cuda(void);
// 1 when this process sees a GPU that runs this build's kernels. Quiet: writes no message, makes no context.
int usable_cuda(void);

const char *describe_cuda(void);
tv_status open_cuda(int local_rank, int local_size, int threads);
void close_cuda(void);
tv_status alloc_cuda(size_t bytes, void **out);
void free_cuda(void *memory);
tv_status copy_cuda(void *to, const void *from, size_t bytes, tv_copy_kind kind, void *stream);
tv_status zero_cuda(void *memory, size_t bytes, void *stream);
tv_status sync_cuda(void *stream);
tv_status device_memory_cuda(int64_t *used_bytes, int64_t *all_bytes);
void device_id_cuda(unsigned char id[TV_DEVICE_ID_BYTES]);
void range_push_cuda(const char *name);
void range_pop_cuda(void);
// Raise the products' shared-memory limits; called by open_cuda.
tv_status gemm_open_cuda(void);

tv_status pack_cuda(const tv_pack_args *args, void *stream);
tv_status unpack_cuda(const tv_pack_args *args, void *stream);
tv_status decode_cuda(const tv_decode_args *args, void *stream);
tv_status decode_many_cuda(const tv_decode_args *list, int64_t count, void *stream);
tv_status init_cuda(const tv_init_args *args, void *stream);
tv_status validate_cuda(const tv_validate_args *args, void *stream);
tv_status row_hash_cuda(const tv_row_hash_args *args, void *stream);
tv_status quantize_rows_cuda(const tv_quantize_rows_args *args, void *stream);
tv_status quantize_rows2_cuda(const tv_quantize_rows2_args *args, void *stream);
tv_status quantize_channels_cuda(const tv_quantize_channels_args *args, void *stream);
tv_status quantize_channels2_cuda(const tv_quantize_channels2_args *args, void *stream);
tv_status digits_pack_cuda(const tv_digits_args *args, void *stream);
tv_status digits_unpack_cuda(const tv_digits_args *args, void *stream);
tv_status gemm_cuda(const tv_gemm_args *args, void *stream);
tv_status gemm_vote_cuda(const tv_gemm_vote_args *args, void *stream);
tv_status embed_cuda(const tv_embed_args *args, void *stream);
tv_status embed_vote_cuda(const tv_embed_vote_args *args, void *stream);
tv_status trigram_cuda(const tv_trigram_args *args, void *stream);
tv_status trigram_backward_cuda(const tv_trigram_args *args, void *stream);
tv_status norm_cuda(const tv_norm_args *args, void *stream);
tv_status norm_backward_cuda(const tv_norm_backward_args *args, void *stream);
tv_status rotary_cuda(const tv_rotary_args *args, void *stream);
tv_status attention_cuda(const tv_attention_args *args, void *stream);
tv_status attention_backward_cuda(const tv_attention_backward_args *args, void *stream);
tv_status gate_cuda(const tv_gate_args *args, void *stream);
tv_status gate_backward_cuda(const tv_gate_backward_args *args, void *stream);
tv_status norm_quantize_cuda(const tv_norm_quantize_args *args, void *stream);
tv_status heads_cuda(const tv_heads_args *args, void *stream);
tv_status heads_backward_cuda(const tv_heads_backward_args *args, void *stream);
tv_status gate_quantize_cuda(const tv_gate_quantize_args *args, void *stream);
tv_status quantize_both_cuda(const tv_quantize_both_args *args, void *stream);
tv_status gate_backward_both_cuda(const tv_gate_backward_both_args *args, void *stream);
tv_status trigram_quantize_cuda(const tv_trigram_quantize_args *args, void *stream);
tv_status xent_cuda(const tv_xent_args *args, void *stream);
tv_status row_sum_cuda(const tv_row_sum_args *args, void *stream);
tv_status add_cuda(const tv_add_args *args, void *stream);
tv_status fill_cuda(const tv_fill_args *args, void *stream);
tv_status ballot_histogram_cuda(const tv_ballot_args *args, void *stream);
tv_status ballot_cuda(const tv_ballot_args *args, void *stream);
tv_status ballot_many_cuda(const tv_ballot_args *list, int64_t count, void *stream);
tv_status ballot_e_cuda(const tv_ballot_e_args *args, void *stream);
tv_status moe_route_cuda(const tv_moe_route_args *a, void *stream);
tv_status moe_route_backward_cuda(const tv_moe_route_backward_args *a, void *stream);
tv_status moe_plan_cuda(const tv_moe_plan_args *a, void *stream);
tv_status rows_gather_cuda(const tv_rows_gather_args *a, void *stream);
tv_status rows_pack_cuda(const tv_rows_pack_args *a, void *stream);
tv_status rows_unpack_cuda(const tv_rows_unpack_args *a, void *stream);
tv_status moe_gemm_cuda(const tv_moe_gemm_args *a, void *stream);
tv_status moe_channels_cuda(const tv_moe_channels_args *a, void *stream);
tv_status moe_vote_cuda(const tv_moe_vote_args *a, void *stream);
tv_status moe_activate_cuda(const tv_moe_activate_args *a, void *stream);
tv_status moe_activate_backward_cuda(const tv_moe_activate_backward_args *a, void *stream);
tv_status moe_combine_cuda(const tv_moe_combine_args *a, void *stream);
tv_status moe_combine_backward_cuda(const tv_moe_combine_backward_args *a, void *stream);
tv_status linear_turn_cuda(const tv_linear_turn_args *a, void *stream);
tv_status norm_digits_cuda(const tv_norm_digits_args *a, void *stream);
tv_status moe_query_cuda(const tv_moe_query_args *a, void *stream);
tv_status moe_place_cuda(const tv_moe_place_args *a, void *stream);
tv_status moe_sum_cuda(const tv_moe_sum_args *a, void *stream);
tv_status moe_split_cuda(const tv_moe_split_args *a, void *stream);
tv_status moe_turn_cuda(const tv_moe_turn_args *a, void *stream);
tv_status moe_join_cuda(const tv_moe_join_args *a, void *stream);
tv_status memgram_hash_cuda(const tv_memgram_hash_args *a, void *stream);
tv_status memgram_place_cuda(const tv_memgram_place_args *a, void *stream);
tv_status memgram_strength_cuda(const tv_memgram_strength_args *a, void *stream);
tv_status memgram_mix_cuda(const tv_memgram_mix_args *a, void *stream);
tv_status memgram_back_cuda(const tv_memgram_back_args *a, void *stream);
tv_status memgram_raise_cuda(const tv_memgram_raise_args *a, void *stream);
tv_status memgram_decay_cuda(const tv_memgram_decay_args *a, void *stream);
tv_status modality_add_cuda(const tv_modality_add_args *a, void *stream);
tv_status modality_back_cuda(const tv_modality_back_args *a, void *stream);
tv_status graph_decode_cuda(const tv_graph_decode_args *a, void *stream);
tv_status graph_aggregate_cuda(const tv_graph_aggregate_args *a, void *stream);
tv_status graph_aggregate_backward_cuda(const tv_graph_aggregate_backward_args *a, void *stream);
tv_status graph_scale_cuda(const tv_graph_scale_args *a, void *stream);
tv_status graph_scale_backward_cuda(const tv_graph_scale_backward_args *a, void *stream);
tv_status graph_gather_cuda(const tv_graph_gather_args *a, void *stream);
tv_status graph_gather_backward_cuda(const tv_graph_gather_backward_args *a, void *stream);
tv_status graph_hop_cuda(const tv_graph_hop_args *a, void *stream);
tv_status focus_kinds_cuda(const tv_focus_kinds_args *a, void *stream);
tv_status focus_gather_cuda(const tv_focus_gather_args *a, void *stream);
tv_status focus_scatter_cuda(const tv_focus_scatter_args *a, void *stream);
tv_status focus_load_cuda(const tv_focus_load_args *a, void *stream);
tv_status focus_save_cuda(const tv_focus_save_args *a, void *stream);
tv_status focus_cell_cuda(const tv_focus_cell_args *a, void *stream);
tv_status focus_back_cuda(const tv_focus_back_args *a, void *stream);
tv_status focus_gates_cuda(const tv_focus_gates_args *a, void *stream);
tv_status moe_open_cuda(void); // before the experts' products
tv_status ballot_e_many_cuda(const tv_ballot_e_args *list, int64_t count, void *stream);

#ifdef __cplusplus
}
#endif

#endif
