// Steps that a backend may do at once: part of the contract (kernels.h says the common rules).
//
// Each is defined as the ops whose arguments it holds, one after the other in the struct's order, and has their bits. A backend without a way
// of its own leaves the table's entry NULL; the functions below then call the ops. What only passes from one op to the next, named with each
// struct, is left open afterwards. Arrays that two of the ops share are given to both.
#ifndef TV_KERNELS_OPS_JOINT_H
#define TV_KERNELS_OPS_JOINT_H

struct tv_backend;

// ---- layers --------------------------------------------------------------------------------------------------------------

// A layer's operands for grad-x and votes: both forms of the gradient, and the input's channels.
typedef struct tv_linear_turn_args {
    tv_quantize_both_args gradient;
    tv_quantize_channels_args input;
} tv_linear_turn_args;

// A norm whose result is rounded twice. Open: norm.y.
typedef struct tv_norm_digits_args {
    tv_norm_args norm;
    tv_quantize_rows_args input, digits; // x: norm.y
} tv_norm_digits_args;

// ---- mixture of experts ----------------------------------------------------------------------------------------------------

// From norm(x) to the tokens' experts. Open: query.y.
typedef struct tv_moe_query_args {
    tv_gemm_args query;
    tv_quantize_rows_args z; // of query.y
    tv_gemm_args centroid;   // of z
    tv_moe_route_args route; // of centroid.y
} tv_moe_query_args;

// Where rows lie, and the tokens' rows there.
typedef struct tv_moe_place_args {
    tv_moe_plan_args plan;
    tv_rows_gather_args gather; // item: the plan's; no factor
} tv_moe_place_args;

// The gated sum, rounded. Open: combine.y.
typedef struct tv_moe_sum_args {
    tv_moe_combine_args combine;
    tv_quantize_rows_args rows; // of combine.y
} tv_moe_sum_args;

// The gradient of the gated sum, to the gates and to the experts' rows. Open: digits.q and digits.scale.
typedef struct tv_moe_split_args {
    tv_moe_combine_backward_args combine;
    tv_moe_route_backward_args route; // grad: combine.grad
    tv_quantize_rows_args digits;     // of combine.dy
    tv_rows_gather_args gather;       // of digits; item: of the plan that gave combine.place
} tv_moe_split_args;

// The experts' operands for grad-x and votes, over the same segments.
typedef struct tv_moe_turn_args {
    tv_moe_activate_backward_args gradient;
    tv_moe_channels_args input;
} tv_moe_turn_args;

// What experts give back, to the gradient before the norm. Every row that has no place is zeros. Open: digits.q and digits.scale.
typedef struct tv_moe_join_args {
    tv_quantize_rows_args digits;
    tv_moe_combine_args combine; // of digits; no gate, accumulate
    tv_norm_backward_args norm;  // dy: combine.y
} tv_moe_join_args;

// A backend's own ways; each may be NULL.
typedef struct tv_joint_ops {
    tv_status (*linear_turn)(const tv_linear_turn_args *, void *stream);
    tv_status (*norm_digits)(const tv_norm_digits_args *, void *stream);
    tv_status (*moe_query)(const tv_moe_query_args *, void *stream);
    tv_status (*moe_place)(const tv_moe_place_args *, void *stream);
    tv_status (*moe_sum)(const tv_moe_sum_args *, void *stream);
    tv_status (*moe_split)(const tv_moe_split_args *, void *stream);
    tv_status (*moe_turn)(const tv_moe_turn_args *, void *stream);
    tv_status (*moe_join)(const tv_moe_join_args *, void *stream);
} tv_joint_ops;

tv_status tv_linear_turn(const struct tv_backend *backend, const tv_linear_turn_args *a, void *stream);
tv_status tv_norm_digits(const struct tv_backend *backend, const tv_norm_digits_args *a, void *stream);
tv_status tv_moe_query(const struct tv_backend *backend, const tv_moe_query_args *a, void *stream);
tv_status tv_moe_place(const struct tv_backend *backend, const tv_moe_place_args *a, void *stream);
tv_status tv_moe_sum(const struct tv_backend *backend, const tv_moe_sum_args *a, void *stream);
tv_status tv_moe_split(const struct tv_backend *backend, const tv_moe_split_args *a, void *stream);
tv_status tv_moe_turn(const struct tv_backend *backend, const tv_moe_turn_args *a, void *stream);
tv_status tv_moe_join(const struct tv_backend *backend, const tv_moe_join_args *a, void *stream);

#endif
