// Causal attention, backward. An item is one window and head. Blocks of queries come in ascending order: each gives
// its own rows of dq, and some of the blocks of dk and dv, whose sums wait in scratch.
#include "kernels/cpu/cpu_attention.h"
#include "kernels/cpu/cpu_rows.h"
#include "kernels/cpu/cpu_threads.h"

// Scratch of one head.
typedef struct buffers {
    void *k_panels, *v_panels, *a_panel;
    uint32_t *q, *k, *g;      // [context / 2, channels]
    float *dk, *dv;           // [context + TV_SUM_ROWS, channels]
    float *k_scale, *v_scale; // [keys]
    int32_t *sums;            // [2, TV_GEMM_MR, keys]: q k, then g v
    float *to_q;              // [keys]: weights of dq, one query
    int16_t *integers;        // [TV_QUERY_BLOCK, keys]: the same as integers
    float *from;              // [TV_QUERY_BLOCK, blocks]
    float *to_k, *to_v;       // [TV_QUERY_BLOCK, keys]: weights of dk and dv
    uint32_t *pairs;          // [TV_BLOCK_PAIRS, keys]: one block of either as integers
    float *from_keys;         // [keys]
    float *dq;                // [TV_SUM_ROWS, channels]
} buffers;

typedef struct job {
    const tv_attention_backward_args *args;
    tv_head_shape shape;
} job;

static size_t carve_buffers(const tv_head_shape *shape, char *base, buffers *b)
{
    tv_carve carve = {.base = base};
    int64_t rows = shape->context * shape->channels, more = TV_SUM_ROWS * shape->channels;
    int64_t pairs = (shape->context + 1) / 2 * shape->channels;
    b->k_panels = TV_ISA_NAME(tv_carve_panels)(&carve, shape);
    b->v_panels = TV_ISA_NAME(tv_carve_panels)(&carve, shape);
    b->a_panel = TV_ISA_NAME(tv_carve_take)(&carve, TV_GEMM_PACK_ROWS * TV_GEMM_DEPTH, TV_GEMM_ITEM_BYTES);
    b->q = TV_ISA_NAME(tv_carve_take)(&carve, pairs, sizeof(uint32_t));
    b->k = TV_ISA_NAME(tv_carve_take)(&carve, pairs, sizeof(uint32_t));
    b->g = TV_ISA_NAME(tv_carve_take)(&carve, pairs, sizeof(uint32_t));
    b->dk = TV_ISA_NAME(tv_carve_take)(&carve, rows + more, sizeof(float));
    b->dv = TV_ISA_NAME(tv_carve_take)(&carve, rows + more, sizeof(float));
    b->k_scale = TV_ISA_NAME(tv_carve_take)(&carve, shape->keys, sizeof(float));
    b->v_scale = TV_ISA_NAME(tv_carve_take)(&carve, shape->keys, sizeof(float));
    b->sums = TV_ISA_NAME(tv_carve_take)(&carve, 2 * TV_GEMM_MR * shape->keys, sizeof(int32_t));
    b->to_q = TV_ISA_NAME(tv_carve_take)(&carve, shape->keys, sizeof(float));
    b->integers = TV_ISA_NAME(tv_carve_take)(&carve, TV_QUERY_BLOCK * shape->keys, sizeof(int16_t));
    b->from = TV_ISA_NAME(tv_carve_take)(&carve, TV_QUERY_BLOCK * shape->blocks, sizeof(float));
    b->to_k = TV_ISA_NAME(tv_carve_take)(&carve, TV_QUERY_BLOCK * shape->keys, sizeof(float));
    b->to_v = TV_ISA_NAME(tv_carve_take)(&carve, TV_QUERY_BLOCK * shape->keys, sizeof(float));
    b->pairs = TV_ISA_NAME(tv_carve_take)(&carve, TV_BLOCK_PAIRS * shape->keys, sizeof(uint32_t));
    b->from_keys = TV_ISA_NAME(tv_carve_take)(&carve, shape->keys, sizeof(float));
    b->dq = TV_ISA_NAME(tv_carve_take)(&carve, more, sizeof(float));
    return carve.used;
}

// Query i of a block: where its rows of the buffers lie.
typedef struct query {
    int64_t token;        // [M, H] index
    int64_t count, whole; // keys it sees; weights that the sums may read, whole blocks
    const int32_t *qk, *gv;
    float *to_k, *to_v;
    int16_t *integers;
    float *from;
} query;

// The weights of one query. Before the last loop over keys to_v holds p and to_k holds dp. The loops run
// over whole vectors: items from `count` on add the product -0 0 to a lane, which leaves it as it is.
static void query_weights(const job *j, const buffers *b, const query *at)
{
    const tv_attention_backward_args *a = j->args;
    const int32_t *restrict qk = at->qk, *restrict gv = at->gv;
    const float *restrict k_scale = b->k_scale, *restrict v_scale = b->v_scale;
    int64_t whole = tv_head_whole(at->count);
    float *restrict to_q = b->to_q, *restrict to_k = at->to_k, *restrict to_v = at->to_v;
    float c = a->q_scale[at->token] * j->shape.inv_sqrt, s_g = a->g_scale[at->token];
    float top = a->top[at->token], inverse = 1.0f / a->norm[at->token];
    for (int64_t k = 0; k < whole; k++) {
        to_v[k] = tv_exp((float)qk[k] * (c * k_scale[k]) - top) * inverse;
        to_k[k] = (float)gv[k] * (s_g * v_scale[k]);
    }
    for (int64_t k = at->count; k < whole; k++)
        to_v[k] = -0.0f, to_k[k] = 0.0f;
    float delta = tv_row_dot(to_v, to_k, whole);
    for (int64_t k = 0; k < whole; k++) {
        float p = to_v[k], ds = p * (to_k[k] - delta);
        to_q[k] = ds * k_scale[k];
        to_k[k] = ds * c;
        to_v[k] = p * s_g;
    }
    for (int64_t k = at->count; k < at->whole; k++)
        to_q[k] = to_k[k] = to_v[k] = 0.0f;
    TV_ISA_NAME(tv_block_row)(to_q, at->whole, at->integers, at->from);
}

// Weights of the queries [first, last) of a head.
static void block_weights(const job *j, const buffers *b, int64_t item, int64_t first, int64_t last)
{
    const tv_head_shape *shape = &j->shape;
    for (int64_t row = first; row < last; row += TV_GEMM_MR) {
        int64_t end = row + TV_GEMM_MR < last ? row + TV_GEMM_MR : last;
        tv_head_product product = {.shape = shape,
                                   .x8 = j->args->q,
                                   .item = item,
                                   .first = row,
                                   .last = end,
                                   .panels = b->k_panels,
                                   .a_panel = b->a_panel,
                                   .sums = b->sums};
        TV_ISA_NAME(tv_head_product_run)(&product);
        product.x8 = j->args->g;
        product.panels = b->v_panels;
        product.sums = b->sums + TV_GEMM_MR * shape->keys;
        TV_ISA_NAME(tv_head_product_run)(&product);
        for (int64_t i = row; i < end; i++) {
            int64_t sums = (i - row) * shape->keys, weights = (i - first) * shape->keys;
            const query at = {.token = item + i * shape->heads,
                              .count = i + 1,
                              .whole = tv_block_whole(last + TV_SUM_ROWS),
                              .qk = b->sums + sums,
                              .gv = product.sums + sums,
                              .to_k = b->to_k + weights,
                              .to_v = b->to_v + weights,
                              .integers = b->integers + weights,
                              .from = b->from + (i - first) * shape->blocks};
            query_weights(j, b, &at);
        }
    }
}

// One block of queries, [first, last), with x [pairs, channels] its rows: added to out [keys, channels] for the keys that they see. w is the
// block's rows of to_k or to_v.
static void add_to_keys(const job *j, const buffers *b, int64_t first, int64_t last, const float *w, const uint32_t *x,
                        float *out)
{
    const tv_head_shape *shape = &j->shape;
    const tv_block_columns columns = {.w = w,
                                      .rows = last - first,
                                      .stride = shape->keys,
                                      .keys = tv_block_whole(last + TV_SUM_ROWS),
                                      .pairs = b->pairs,
                                      .from = b->from_keys};
    TV_ISA_NAME(tv_block_columns_pack)(&columns);
    for (int64_t key = 0; key < last; key += TV_SUM_ROWS) {
        const tv_block_sum sum = {.w = b->pairs + key,
                                  .row_stride = 1,
                                  .pair_stride = shape->keys,
                                  .skip = key > first ? (key - first) / 2 : 0, // queries before the key
                                  .pairs = (last - first + 1) / 2,
                                  .from = b->from_keys + key,
                                  .from_stride = 1,
                                  .x = x,
                                  .out = out + key * shape->channels,
                                  .channels = shape->channels};
        TV_ISA_NAME(tv_block_sum_run)(&sum);
    }
}

// dk and dv of the queries [first, last).
static void block_keys(const job *j, const buffers *b, int64_t first, int64_t last)
{
    const tv_head_shape *shape = &j->shape;
    for (int64_t begin = first; begin < last; begin += TV_BLOCK_ROWS) {
        int64_t end = begin + TV_BLOCK_ROWS < last ? begin + TV_BLOCK_ROWS : last;
        int64_t weights = (begin - first) * shape->keys, rows = begin / 2 * shape->channels;
        add_to_keys(j, b, begin, end, b->to_k + weights, b->q + rows, b->dk);
        add_to_keys(j, b, begin, end, b->to_v + weights, b->g + rows, b->dv);
    }
}

static void load_head(const job *j, const buffers *b, int64_t item)
{
    const tv_head_shape *shape = &j->shape;
    size_t sums = (size_t)((shape->context + TV_SUM_ROWS) * shape->channels) * sizeof(float);
    TV_ISA_NAME(tv_head_pack)(shape, j->args->k, item, b->k_panels);
    TV_ISA_NAME(tv_head_pack)(shape, j->args->v, item, b->v_panels);
    TV_ISA_NAME(tv_head_pairs)(shape, j->args->q, item, b->q);
    TV_ISA_NAME(tv_head_pairs)(shape, j->args->k, item, b->k);
    TV_ISA_NAME(tv_head_pairs)(shape, j->args->g, item, b->g);
    TV_ISA_NAME(tv_head_gather)(shape, j->args->k_scale, item, b->k_scale);
    TV_ISA_NAME(tv_head_gather)(shape, j->args->v_scale, item, b->v_scale);
    memset(b->dk, 0, sums);
    memset(b->dv, 0, sums);
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
                               .x = b.k,
                               .factor = &shape->inv_sqrt,
                               .room = b.dq,
                               .out = j->args->dq};
    for (int64_t index = begin; index < end; index++) {
        int64_t item = tv_head_item(shape, index);
        load_head(j, &b, item);
        for (int64_t first = 0; first < shape->context; first += TV_QUERY_BLOCK) {
            int64_t last = first + TV_QUERY_BLOCK < shape->context ? first + TV_QUERY_BLOCK : shape->context;
            block_weights(j, &b, item, first, last);
            TV_ISA_NAME(tv_head_sums_run)(&sums, item, first, last);
            block_keys(j, &b, first, last);
        }
        for (int64_t i = 0; i < shape->context; i++) {
            int64_t at = (item + i * shape->heads) * shape->width;
            memcpy(j->args->dk + at, b.dk + i * shape->channels, (size_t)shape->width * sizeof(float));
            memcpy(j->args->dv + at, b.dv + i * shape->channels, (size_t)shape->width * sizeof(float));
        }
    }
}

tv_status TV_ISA_NAME(attention_backward)(const tv_attention_backward_args *args, void *stream)
{
    if (args->tokens <= 0 || args->heads <= 0 || args->width <= 0 || args->context <= 0)
        return TV_OK;
    if (!TV_ISA_NAME(tv_head_fits)(args->width))
        return attention_backward_ref(args, stream);
    const job j = {.args = args, .shape = TV_ISA_NAME(tv_head_shape_of)(args->heads, args->context, args->width)};
    buffers b;
    TV_TRY(tv_cpu_scratch_reserve(carve_buffers(&j.shape, NULL, &b)));
    tv_cpu_for(args->tokens / args->context * args->heads, args->context * args->context * 3, run_heads, &j);
    return TV_OK;
}
