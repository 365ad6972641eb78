// Causal attention, forward. An item is one window and head; its queries go in blocks, whose weights lie in scratch.
#include "kernels/cpu/cpu_attention.h"
#include "kernels/cpu/cpu_rows.h"
#include "kernels/cpu/cpu_threads.h"

// Scratch of one head.
typedef struct buffers {
    void *k_panels, *a_panel;
    uint32_t *v;                   // [context / 2, channels]
    float *k_scale, *v_scale;      // [keys]
    int32_t *sums;                 // [TV_GEMM_MR, keys]
    float *weights;                // [keys], one query
    int16_t *integers;             // [TV_QUERY_BLOCK, keys]
    float *from;                   // [TV_QUERY_BLOCK, blocks]
    float *out;                    // [TV_SUM_ROWS, channels]
    float inverse[TV_QUERY_BLOCK]; // 1 / l
} buffers;

typedef struct job {
    const tv_attention_args *args;
    tv_head_shape shape;
} job;

static size_t carve_buffers(const tv_head_shape *shape, char *base, buffers *b)
{
    tv_carve carve = {.base = base};
    b->k_panels = TV_ISA_NAME(tv_carve_panels)(&carve, shape);
    b->a_panel = TV_ISA_NAME(tv_carve_take)(&carve, TV_GEMM_PACK_ROWS * TV_GEMM_DEPTH, TV_GEMM_ITEM_BYTES);
    b->v = TV_ISA_NAME(tv_carve_take)(&carve, (shape->context + 1) / 2 * shape->channels, sizeof(uint32_t));
    b->k_scale = TV_ISA_NAME(tv_carve_take)(&carve, shape->keys, sizeof(float));
    b->v_scale = TV_ISA_NAME(tv_carve_take)(&carve, shape->keys, sizeof(float));
    b->sums = TV_ISA_NAME(tv_carve_take)(&carve, TV_GEMM_MR * shape->keys, sizeof(int32_t));
    b->weights = TV_ISA_NAME(tv_carve_take)(&carve, shape->keys, sizeof(float));
    b->integers = TV_ISA_NAME(tv_carve_take)(&carve, TV_QUERY_BLOCK * shape->keys, sizeof(int16_t));
    b->from = TV_ISA_NAME(tv_carve_take)(&carve, TV_QUERY_BLOCK * shape->blocks, sizeof(float));
    b->out = TV_ISA_NAME(tv_carve_take)(&carve, TV_SUM_ROWS * shape->channels, sizeof(float));
    return carve.used;
}

// One query and its rows of the buffers.
typedef struct query {
    int64_t token;        // [M, H] index
    int64_t count, whole; // keys it sees; weights that the sums may read, whole blocks
    const int32_t *sums;
    int16_t *integers;
    float *from;
} query;

// Scores of a query, from its integer products, become its weights e_j s_v[j] and 1 / l. Weights of later keys are 0.
// The loops run over whole vectors: items from `count` on hold a number that changes neither the maximum nor a lane
// (x + -0 = x).
static float query_weights(const job *j, const buffers *b, const query *at)
{
    const tv_attention_args *a = j->args;
    const int32_t *restrict sums = at->sums;
    float *restrict weights = b->weights;
    const float *restrict k_scale = b->k_scale, *restrict v_scale = b->v_scale;
    int64_t count = at->count, whole = tv_head_whole(count);
    float c = a->q_scale[at->token] * j->shape.inv_sqrt, lane[TV_LANES] = {0};
    for (int64_t k = 0; k < whole; k++)
        weights[k] = (float)sums[k] * (c * k_scale[k]);
    for (int64_t k = count; k < whole; k++)
        weights[k] = weights[0];
    float top = tv_row_max(weights, whole) + 0.0f;
    for (int64_t k = 0; k < whole; k++)
        weights[k] = tv_exp(weights[k] - top);
    for (int64_t k = count; k < whole; k++)
        weights[k] = -0.0f;
    tv_lanes_add(lane, weights, whole);
    for (int64_t k = 0; k < whole; k++)
        weights[k] = weights[k] * v_scale[k];
    for (int64_t k = count; k < at->whole; k++)
        weights[k] = 0.0f;
    TV_ISA_NAME(tv_block_row)(weights, at->whole, at->integers, at->from);
    float norm = tv_lanes_combine(lane);
    if (a->top != NULL)
        a->top[at->token] = top;
    if (a->norm != NULL)
        a->norm[at->token] = norm;
    return 1.0f / norm;
}

// Weights of the queries [first, last) of a head.
static void block_weights(const job *j, buffers *b, int64_t item, int64_t first, int64_t last)
{
    const tv_head_shape *shape = &j->shape;
    for (int64_t row = first; row < last; row += TV_GEMM_MR) {
        int64_t end = row + TV_GEMM_MR < last ? row + TV_GEMM_MR : last;
        const tv_head_product product = {.shape = shape,
                                         .x8 = j->args->q,
                                         .item = item,
                                         .first = row,
                                         .last = end,
                                         .panels = b->k_panels,
                                         .a_panel = b->a_panel,
                                         .sums = b->sums};
        TV_ISA_NAME(tv_head_product_run)(&product);
        for (int64_t i = row; i < end; i++) {
            const query at = {.token = item + i * shape->heads,
                              .count = i + 1,
                              .whole = tv_block_whole(last),
                              .sums = b->sums + (i - row) * shape->keys,
                              .integers = b->integers + (i - first) * shape->keys,
                              .from = b->from + (i - first) * shape->blocks};
            b->inverse[i - first] = query_weights(j, b, &at);
        }
    }
}

static void run_heads(const void *args, int64_t begin, int64_t end, int thread)
{
    const job *j = args;
    const tv_head_shape *shape = &j->shape;
    buffers b;
    carve_buffers(shape, tv_cpu_scratch(thread), &b);
    const tv_head_sums sums = {.shape = shape,
                               .integers = b.integers,
                               .from = b.from,
                               .x = b.v,
                               .factor = b.inverse,
                               .factor_stride = 1,
                               .room = b.out,
                               .out = j->args->out};
    for (int64_t index = begin; index < end; index++) {
        int64_t item = tv_head_item(shape, index);
        TV_ISA_NAME(tv_head_pack)(shape, j->args->k, item, b.k_panels);
        TV_ISA_NAME(tv_head_pairs)(shape, j->args->v, item, b.v);
        TV_ISA_NAME(tv_head_gather)(shape, j->args->k_scale, item, b.k_scale);
        TV_ISA_NAME(tv_head_gather)(shape, j->args->v_scale, item, b.v_scale);
        for (int64_t first = 0; first < shape->context; first += TV_QUERY_BLOCK) {
            int64_t last = first + TV_QUERY_BLOCK < shape->context ? first + TV_QUERY_BLOCK : shape->context;
            block_weights(j, &b, item, first, last);
            TV_ISA_NAME(tv_head_sums_run)(&sums, item, first, last);
        }
    }
}

tv_status TV_ISA_NAME(attention)(const tv_attention_args *args, void *stream)
{
    if (args->tokens <= 0 || args->heads <= 0 || args->width <= 0 || args->context <= 0)
        return TV_OK;
    if (!TV_ISA_NAME(tv_head_fits)(args->width))
        return attention_ref(args, stream);
    const job j = {.args = args, .shape = TV_ISA_NAME(tv_head_shape_of)(args->heads, args->context, args->width)};
    buffers b;
    TV_TRY(tv_cpu_scratch_reserve(carve_buffers(&j.shape, NULL, &b)));
    tv_cpu_for(args->tokens / args->context * args->heads, args->context * args->context, run_heads, &j);
    return TV_OK;
}
