// The parameter table: every persistent tensor, declared once by the part that owns it.
//
// Audit, memory plan, initial state, vote exchange, ballot, digest and checkpoint walk this table and know no part by
// name.
#ifndef TV_MODEL_PARAMS_H
#define TV_MODEL_PARAMS_H

#include <stdint.h>

#include "base/arena.h"
#include "base/state.h"
#include "base/status.h"
#include "base/tensor.h"
#include "kernels/kernels.h"

// Which ranks hold a tensor. A group is P consecutive ranks that hold every expert once; a rank's place is rank mod P,
// and the R / P ranks of one place are replicas of each other. Tables have one holder for each row and no replicas: place
// p is rank p, and ranks beyond the places hold no row.
typedef enum tv_placement {
    TV_PLACE_REPLICATED, // every rank
    TV_PLACE_EXPERT, // a stack of matrices, consecutive blocks of them over the P = expert_ranks places; replicated with P = 1
    TV_PLACE_TABLE, // a table of 2^bits buckets, consecutive blocks of them over the first table_ranks ranks
    TV_PLACE_UNITS  // side state only: a row a window of the step, with the rank that runs its unit
} tv_placement;

// How a part declares a ternary tensor W[rows, cols].
typedef struct tv_tensor_spec {
    char name[64]; // "block.0.attention.q"
    char part[24]; // the part's kind, for audit's table: "attention"
    int64_t rows, cols;
    tv_scale_type scale_type;
    int64_t stack;  // matrices of rows / stack rows that stand below each other; 0 or 1: it is one matrix
    int residual;   // writes into the residual stream: initial exponent less by this, 1 unless it must start quietly
    int lookup;     // a table that is looked up: initial exponent as for K = 1
    int zeros;      // a table whose trits start at 0
    int unit_scale; // initial exponent as for K = 1, although an operand of products (centroids)
    int ones;       // starts at +1 with exponent 0 (norm weights)
    int frozen;     // takes no step: has no T_accum, E_accum, votes
    tv_placement placement;
    // A table stays packed: it has neither w8 nor votes, and its part runs the ballot on the rows that were used. One
    // exponent a row (T64, cols <= 64), the initial exponent of a lookup. pattern_bits: `bits` when the rows of a bucket carry its
    // pattern in their first trits (codebooks), or 0 when buckets do no more than split the rows.
    int bits, pattern_bits;
} tv_tensor_spec;

// One tensor of the table. Pointers are backend memory and point at the first row that this rank holds.
typedef struct tv_param {
    tv_tensor_spec spec;            // of the whole tensor, on every rank
    uint32_t id;                    // XXH32 of the name
    uint32_t losses_off;            // the losses that reach it, but may not move it (model/losses.h)
    int group, base, mantissa_bits; // G, b, m
    int exponent;                   // initial E
    // Rows are numbered in the whole tensor. Replicated: first_row 0, held_rows = rows. Expert: the place's matrices.
    // Table: the place's buckets.
    int64_t first_row, held_rows;
    uint8_t *T; // [padded rows, ceil(K/5)]; padded rows = R block for the all-gather of a replicated tensor, else held
    int8_t *E;  // [padded rows, ceil(K/G)]
    int8_t *T_accum,
        *E_accum; // own rows only (all held rows when exchange is allreduce); NULL when frozen or not training
    // Rows whose ballot this rank runs. Expert: the held rows, with either form of exchange, since the replicas sum their
    // votes with an all-reduce and each moves all of them. Table: the held rows.
    int64_t own_first, own_count;
    int64_t share_first, share_count; // rows that this rank writes into a checkpoint (its block of the split by ranks,
                                      // expert: of the held rows by replicas; table: the held rows)
    int64_t block;                    // rows of such a split; one more where 16-bit sharded votes need block K even
    // Decoded weights of the held matrices, each [N, K] in w8 and [K, N] in w8t, N = rows / stack; w8t only when
    // training, not for lookup and ones. NULL for tables.
    int8_t *w8, *w8t;
    void *votes; // [padded rows, K] int8 or int16, even count; NULL when frozen or not training, and for tables
} tv_param;

// Rows of one of the tensor's matrices, and how many matrices this rank holds.
static inline int64_t tv_param_matrix_rows(const tv_param *param)
{
    return param->spec.stack > 1 ? param->spec.rows / param->spec.stack : param->spec.rows;
}
static inline int64_t tv_param_matrices(const tv_param *param)
{
    return param->held_rows / tv_param_matrix_rows(param);
}
// Packed trits and exponents of row `row` of the whole tensor, which this rank must hold.
static inline uint8_t *tv_param_T(const tv_param *param, int64_t row)
{
    return param->T + (row - param->first_row) * tv_row_bytes(param->spec.cols);
}
static inline int8_t *tv_param_E(const tv_param *param, int64_t row)
{
    return param->E + (row - param->first_row) * tv_row_groups(param->spec.cols, param->group);
}

// Side state of a part (usage counts, strengths, routing biases): an int8, int16 or int32 array that starts at zero. It is
// part of the state (digest, checkpoint, hashes of replicas) and, unlike T_accum, also there when not training.
typedef struct tv_side_spec {
    char name[64], part[24], group[24]; // owner's name, array name ("usage"), shard folder ("tables")
    tv_dtype dtype;
    int64_t rows, cols;
    tv_placement
        placement; // TV_PLACE_REPLICATED: every rank makes the same changes to all rows; TV_PLACE_TABLE: with the rows;
                   // TV_PLACE_UNITS: consecutive blocks of equal length over all ranks
    int bits;      // of a table
    int host;      // lies in host memory on every backend: for what the host alone reads and changes
} tv_side_spec;

typedef struct tv_side {
    tv_side_spec spec;
    int64_t first_row, held_rows;     // as in tv_param
    int64_t share_first, share_count; // rows that this rank writes into a checkpoint
    void *data;                       // [held_rows, cols] backend memory, or host memory (spec.host)
} tv_side;

typedef struct tv_params {
    tv_param *items;
    int64_t count, capacity;
    tv_side *sides;
    int64_t side_count, side_capacity;
    int mantissa_bits;
    const tv_backend *backend, *host; // host: one whose memory is the host's
    int rank, ranks, sharded, training, vote_bits;
    int expert_ranks; // P
    int table_ranks;  // most places of a table
    void *state_slab, *decoded_slab, *vote_slab;
    void *host_slab;                                           // the part of the state that lies in host memory
    size_t state_bytes, decoded_bytes, vote_bytes, host_bytes; // slab sizes of this rank
} tv_params;

void tv_params_init(tv_params *params, int mantissa_bits);
void tv_params_free(tv_params *params); // slabs and table

// Declare a tensor; *index is its place in the table. Errors: a name or tensor id already taken (TV_INTERNAL /
// TV_CONFIG with both names), a reduced length (cols, or rows of one matrix) over tv_reduced_length_max (TV_CONFIG), rows
// that the stack does not divide, or experts that are no stack (TV_INTERNAL).
tv_status tv_params_add(tv_params *params, const tv_tensor_spec *spec, int64_t *index);
// Declare side state; *index is its place among the sides. TV_INTERNAL: an empty shape or name, a type that no state has, a
// pair of name and part that is taken.
tv_status tv_params_add_side(tv_params *params, const tv_side_spec *spec, int64_t *index);

// Places over which a table is split, and the table as the codebook ops see it, with what this rank holds.
int tv_param_places(const tv_params *params, int bits);
tv_vq_table tv_param_table(const tv_param *param);
// 1 when forward and backward exchange rows with other ranks, so that all must run equally many of them.
int tv_params_in_lockstep(const tv_params *params);

// Where this process stands and what it needs.
typedef struct tv_params_layout_args {
    const tv_backend *backend; // NULL: measure only (slab sizes, no memory) for --dry-run and audit
    int rank, ranks;
    int sharded;      // vote.exchange = sharded
    int training;     // 0: T and E only
    int vote_bits;    // 8 or 16
    int expert_ranks; // P; 0: 1
    int table_ranks;  // ranks over which tables are split; 0: as many as there are, or buckets where those are fewer
} tv_params_layout_args;
// Fix owners and addresses; allocates the three slabs. Call once, after all parts have declared. TV_CONFIG: P does not
// divide the ranks, or the matrices of an expert tensor; more table ranks than ranks, or than a table has buckets.
tv_status tv_params_layout(tv_params *params, const tv_params_layout_args *args);

// Initial state of every tensor (numerics.md section 1), zeros in side state. threshold = H of step 0.
tv_status tv_params_initialise(tv_params *params, uint32_t seed, int threshold);
// w8 and w8t from T and E, all tensors (`all` 0: those not frozen). Once a step.
tv_status tv_params_decode(tv_params *params, int all, void *stream);
tv_status tv_params_clear_votes(tv_params *params, void *stream);
// Invalid trit bytes or exponents outside their window: TV_NUMERIC naming the tensor.
tv_status tv_params_validate(tv_params *params, void *stream);

// The state as arrays of this rank's share, in host memory, table order: T, E, T_accum, E_accum of each tensor
// (`full` 0: T and E only, as frozen tensors always), then the side state. With a host backend the arrays point into the
// table; otherwise into `staging` (see tv_params_state_staging_bytes), to which the state is copied when copy_out is set,
// and which holds at least those bytes. *arrays is malloc'd and owned by the caller; *count entries. staging may be NULL
// with a host backend, or when nothing is copied and only the shapes are wanted (data is then NULL).
tv_status tv_params_state(tv_params *params, int full, void *staging, int copy_out, tv_state_array **arrays,
                          int64_t *count);
size_t tv_params_state_staging_bytes(const tv_params *params, int full);
// As tv_params_state, but for loading: T and E arrays and side state cover all held rows (every rank reads all of a
// replicated tensor), T_accum and E_accum the own rows. After filling them call tv_params_state_loaded to copy staging to
// the backend (a no-op for a host backend). *staging is malloc'd (NULL for a host backend) and owned by the caller, who
// frees it after tv_params_state_loaded.
tv_status tv_params_state_for_load(tv_params *params, int full, void **staging, tv_state_array **arrays,
                                   int64_t *count);
tv_status tv_params_state_loaded(tv_params *params, const tv_state_array *arrays, int64_t count, void *staging);

#endif
