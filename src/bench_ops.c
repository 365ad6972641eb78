// The hot ops besides the products, on one shape: time, bytes a second (operands read once plus results written
// once) and ratio to ref.
#include <string.h>

#include "base/pack.h"
#include "base/tensor.h"
#include "bench.h"

enum {
    TOKENS = 2048,
    WIDTH = 512,
    FFN = 1536,
    HEADS = 8,
    HEAD = 64,
    CONTEXT = 256,
    VOCAB = 264,
    ROWS = 1536,
    GROUP = 32,
    ROUNDS = 7
};
enum { FLOAT = sizeof(float), INT = sizeof(int32_t) };

// Operands that the ops share. Names say shape and type.
typedef struct operands {
    float *x, *y, *wide, *trigram, *dq, *dk, *dv; // [TOKENS, WIDTH], wide [TOKENS, 2 FFN], trigram [TOKENS, 3 WIDTH]
    float *logits, *loss, *scale, *scale2, *top, *norm, *table;
    int8_t *q8, *k8, *v8, *g8, *saved, *qt, *weights, *weights_t, *T_accum, *E, *E_accum, *votes;
    uint8_t *T;
    int32_t *sumsq, *ids, *fault;
    int64_t *stats;
} operands;

static tv_status run_decode(const tv_backend *b, const operands *o)
{
    return b->decode(&(tv_decode_args){.rows = ROWS,
                                       .cols = WIDTH,
                                       .group = GROUP,
                                       .base = 0,
                                       .T = o->T,
                                       .E = o->E,
                                       .w8 = o->weights,
                                       .w8t = o->weights_t},
                     NULL);
}

static tv_status run_quantize_rows(const tv_backend *b, const operands *o)
{
    return b->quantize_rows(
        &(tv_quantize_rows_args){
            .rows = TOKENS, .cols = WIDTH, .qmax = 127, .x = o->x, .q = o->saved, .scale = o->loss, .fault = o->fault},
        NULL);
}

static tv_status run_quantize_channels(const tv_backend *b, const operands *o)
{
    return b->quantize_channels(
        &(tv_quantize_channels_args){
            .tokens = TOKENS, .channels = WIDTH, .x = o->x, .qt = o->qt, .sumsq = o->sumsq, .fault = o->fault},
        NULL);
}

static tv_status run_norm(const tv_backend *b, const operands *o)
{
    return b->norm(&(tv_norm_args){.rows = TOKENS,
                                   .cols = WIDTH,
                                   .x = o->x,
                                   .w8 = o->weights,
                                   .y = o->y,
                                   .saved_q = o->saved,
                                   .saved_scale = o->loss,
                                   .saved_rstd = o->dv,
                                   .fault = o->fault},
                   NULL);
}

static tv_status run_norm_backward(const tv_backend *b, const operands *o)
{
    return b->norm_backward(&(tv_norm_backward_args){.rows = TOKENS,
                                                     .cols = WIDTH,
                                                     .dy = o->x,
                                                     .w8 = o->weights,
                                                     .saved_q = o->q8,
                                                     .saved_scale = o->scale,
                                                     .saved_rstd = o->scale2,
                                                     .dx = o->y},
                            NULL);
}

static tv_status run_rotary(const tv_backend *b, const operands *o)
{
    return b->rotary(&(tv_rotary_args){.tokens = TOKENS,
                                       .heads = HEADS,
                                       .width = HEAD,
                                       .context = CONTEXT,
                                       .cos_table = o->table,
                                       .sin_table = o->table,
                                       .x = o->y},
                     NULL);
}

static tv_status run_attention(const tv_backend *b, const operands *o)
{
    return b->attention(&(tv_attention_args){.tokens = TOKENS,
                                             .heads = HEADS,
                                             .width = HEAD,
                                             .context = CONTEXT,
                                             .q = o->q8,
                                             .k = o->k8,
                                             .v = o->v8,
                                             .q_scale = o->scale,
                                             .k_scale = o->scale,
                                             .v_scale = o->scale2,
                                             .out = o->y,
                                             .top = o->top,
                                             .norm = o->norm},
                        NULL);
}

static tv_status run_attention_backward(const tv_backend *b, const operands *o)
{
    return b->attention_backward(&(tv_attention_backward_args){.tokens = TOKENS,
                                                               .heads = HEADS,
                                                               .width = HEAD,
                                                               .context = CONTEXT,
                                                               .q = o->q8,
                                                               .k = o->k8,
                                                               .v = o->v8,
                                                               .g = o->g8,
                                                               .q_scale = o->scale,
                                                               .k_scale = o->scale,
                                                               .v_scale = o->scale2,
                                                               .g_scale = o->scale2,
                                                               .top = o->top,
                                                               .norm = o->norm,
                                                               .dq = o->dq,
                                                               .dk = o->dk,
                                                               .dv = o->dv},
                                 NULL);
}

static tv_status run_gate(const tv_backend *b, const operands *o)
{
    return b->gate(&(tv_gate_args){.tokens = TOKENS / 4, .width = FFN, .gu = o->wide, .h = o->trigram}, NULL);
}

static tv_status run_gate_backward(const tv_backend *b, const operands *o)
{
    return b->gate_backward(
        &(tv_gate_backward_args){
            .tokens = TOKENS / 8, .width = FFN, .saved_q = o->q8, .saved_scale = o->scale, .dh = o->x, .dgu = o->wide},
        NULL);
}

static tv_status run_xent(const tv_backend *b, const operands *o)
{
    return b->xent(&(tv_xent_args){.rows = TOKENS,
                                   .vocab = VOCAB,
                                   .logits = o->logits,
                                   .targets = o->ids,
                                   .loss = o->loss,
                                   .grad = o->y,
                                   .weight = 1,
                                   .fault = o->fault},
                   NULL);
}

static tv_status run_embed(const tv_backend *b, const operands *o)
{
    return b->embed(&(tv_embed_args){.tokens = TOKENS, .width = WIDTH, .ids = o->ids, .w8 = o->weights, .x = o->y},
                    NULL);
}

static tv_status run_embed_vote(const tv_backend *b, const operands *o)
{
    return b->embed_vote(&(tv_embed_vote_args){.tokens = TOKENS,
                                               .width = WIDTH,
                                               .table = VOCAB,
                                               .ids = o->ids,
                                               .gt = o->g8,
                                               .rule = {.tau = 0.5f, .levels = 1, .vote_bits = 8},
                                               .votes = o->votes},
                         NULL);
}

static tv_status run_trigram(const tv_backend *b, const operands *o)
{
    return b->trigram(
        &(tv_trigram_args){.tokens = TOKENS, .channels = WIDTH, .context = CONTEXT, .in = o->x, .out = o->trigram},
        NULL);
}

static tv_status run_norm_quantize(const tv_backend *b, const operands *o)
{
    return b->norm_quantize(&(tv_norm_quantize_args){.rows = TOKENS,
                                                     .cols = WIDTH,
                                                     .x = o->x,
                                                     .w8 = o->weights,
                                                     .saved_q = o->saved,
                                                     .saved_scale = o->loss,
                                                     .saved_rstd = o->dv,
                                                     .q = o->qt,
                                                     .scale = o->dk,
                                                     .fault = o->fault},
                            NULL);
}

static tv_status run_heads(const tv_backend *b, const operands *o)
{
    return b->heads(&(tv_heads_args){.tokens = TOKENS,
                                     .heads = HEADS,
                                     .width = HEAD,
                                     .context = CONTEXT,
                                     .x = o->x,
                                     .w8 = o->weights,
                                     .cos_table = o->table,
                                     .sin_table = o->table,
                                     .saved_q = o->saved,
                                     .saved_scale = o->dq,
                                     .saved_rstd = o->dv,
                                     .q = o->qt,
                                     .scale = o->dk,
                                     .fault = o->fault},
                    NULL);
}

static tv_status run_heads_backward(const tv_backend *b, const operands *o)
{
    return b->heads_backward(&(tv_heads_backward_args){.tokens = TOKENS,
                                                       .heads = HEADS,
                                                       .width = HEAD,
                                                       .context = CONTEXT,
                                                       .w8 = o->weights,
                                                       .cos_table = o->table,
                                                       .sin_table = o->table,
                                                       .saved_q = o->q8,
                                                       .saved_scale = o->scale,
                                                       .saved_rstd = o->scale2,
                                                       .dx = o->y},
                             NULL);
}

static tv_status run_gate_quantize(const tv_backend *b, const operands *o)
{
    return b->gate_quantize(&(tv_gate_quantize_args){.tokens = TOKENS / 8,
                                                     .width = FFN,
                                                     .gu = o->wide,
                                                     .saved_q = o->saved,
                                                     .saved_scale = o->loss,
                                                     .q = o->qt,
                                                     .scale = o->dk,
                                                     .fault = o->fault},
                            NULL);
}

static tv_status run_quantize_both(const tv_backend *b, const operands *o)
{
    return b->quantize_both(&(tv_quantize_both_args){.tokens = TOKENS,
                                                     .channels = WIDTH,
                                                     .x = o->x,
                                                     .q = o->saved,
                                                     .scale = o->loss,
                                                     .qt = o->qt,
                                                     .sumsq = o->sumsq,
                                                     .fault = o->fault},
                            NULL);
}

static tv_status run_gate_backward_both(const tv_backend *b, const operands *o)
{
    return b->gate_backward_both(&(tv_gate_backward_both_args){.tokens = TOKENS / 8,
                                                               .width = FFN,
                                                               .saved_q = o->q8,
                                                               .saved_scale = o->scale,
                                                               .dh = o->x,
                                                               .dgu = o->wide,
                                                               .q = o->saved,
                                                               .scale = o->loss,
                                                               .qt = o->qt,
                                                               .sumsq = o->sumsq,
                                                               .fault = o->fault},
                                 NULL);
}

static tv_status run_trigram_quantize(const tv_backend *b, const operands *o)
{
    return b->trigram_quantize(&(tv_trigram_quantize_args){.tokens = TOKENS,
                                                           .channels = WIDTH,
                                                           .context = CONTEXT,
                                                           .x = o->x,
                                                           .q = (int8_t *)o->trigram,
                                                           .scale = o->loss,
                                                           .fault = o->fault},
                               NULL);
}

static tv_status run_add(const tv_backend *b, const operands *o)
{
    return b->add(&(tv_add_args){.count = TOKENS * WIDTH, .x = o->x, .y = o->y}, NULL);
}

static tv_ballot_args ballot_args(const operands *o)
{
    return (tv_ballot_args){.rows = ROWS,
                            .cols = WIDTH,
                            .T = o->T,
                            .T_accum = o->T_accum,
                            .votes = o->votes,
                            .vote_bits = 8,
                            .rule = TV_RULE_RESTART,
                            .units = 4,
                            .quorum = 1,
                            .threshold = 64,
                            .eta_q = 8 << 16,
                            .cut = -1,
                            .stats = o->stats};
}

static tv_status run_ballot(const tv_backend *b, const operands *o)
{
    tv_ballot_args args = ballot_args(o);
    return b->ballot(&args, NULL);
}

static tv_status run_ballot_e(const tv_backend *b, const operands *o)
{
    return b->ballot_e(&(tv_ballot_e_args){.rows = ROWS,
                                           .cols = WIDTH,
                                           .group = GROUP,
                                           .base = 0,
                                           .T = o->T,
                                           .E = o->E,
                                           .E_accum = o->E_accum,
                                           .votes = o->votes,
                                           .vote_bits = 8,
                                           .eta_e_q = 1311,
                                           .threshold = 8,
                                           .stats = o->stats},
                       NULL);
}

static const struct {
    const char *name;
    tv_status (*run)(const tv_backend *, const operands *);
    int64_t bytes; // read and written
} ops[] = {
    {"decode", run_decode, ROWS *WIDTH * 11 / 5},
    {"quantize_rows", run_quantize_rows, TOKENS *WIDTH * 5},
    {"quantize_channels", run_quantize_channels, TOKENS *WIDTH * 5},
    {"norm", run_norm, TOKENS *WIDTH * 9},
    {"norm_backward", run_norm_backward, TOKENS *WIDTH * 9},
    {"rotary", run_rotary, TOKENS *WIDTH * 8},
    {"attention", run_attention, TOKENS *WIDTH * 7},
    {"attention_backward", run_attention_backward, TOKENS *WIDTH * 16},
    {"gate", run_gate, TOKENS / 4 * FFN * 12},
    {"gate_backward", run_gate_backward, TOKENS / 8 * FFN * 14},
    {"xent", run_xent, TOKENS *VOCAB * 8},
    {"embed", run_embed, TOKENS *WIDTH * 5},
    {"embed_vote", run_embed_vote, TOKENS *WIDTH},
    {"trigram", run_trigram, TOKENS *WIDTH * 16},
    {"add", run_add, TOKENS *WIDTH * 12},
    {"norm_quantize", run_norm_quantize, TOKENS *WIDTH * 6},
    {"heads", run_heads, TOKENS *WIDTH * 6},
    {"heads_backward", run_heads_backward, TOKENS *WIDTH * 9},
    {"gate_quantize", run_gate_quantize, TOKENS / 8 * FFN * 11},
    {"quantize_both", run_quantize_both, TOKENS *WIDTH * 6},
    {"gate_backward_both", run_gate_backward_both, TOKENS / 8 * FFN * 10},
    {"trigram_quantize", run_trigram_quantize, TOKENS *WIDTH * 7},
    {"ballot", run_ballot, ROWS *WIDTH * 17 / 5},
    {"ballot_e", run_ballot_e, ROWS *WIDTH * 6 / 5},
};

// Packed trits of ROWS x WIDTH weights, pseudo-random.
static uint8_t *make_trits(tv_bench_pool *pool)
{
    static uint8_t bytes[ROWS][(WIDTH + 4) / 5];
    for (int64_t n = 0; n < ROWS; n++) {
        int8_t row[WIDTH];
        for (int64_t k = 0; k < WIDTH; k++)
            row[k] = (int8_t)((n * 7 + k * k) % 3 - 1);
        tv_pack_row(row, WIDTH, bytes[n]);
    }
    return tv_bench_copy(pool, bytes, sizeof bytes);
}

static int32_t *make_ids(tv_bench_pool *pool)
{
    int32_t ids[TOKENS];
    for (int64_t t = 0; t < TOKENS; t++)
        ids[t] = (int32_t)(t * 37 % VOCAB);
    return tv_bench_copy(pool, ids, sizeof ids);
}

// Positive floats: scales, sums of exponentials.
static float *make_positive(tv_bench_pool *pool, int64_t count, float value)
{
    float *array = tv_bench_zeros(pool, count * FLOAT);
    if (array != NULL)
        pool->status = pool->backend->fill(&(tv_fill_args){.count = count, .value = value, .y = array}, NULL);
    return array;
}

static void make_operands(tv_bench_pool *pool, operands *o)
{
    int64_t items = TOKENS * WIDTH, heads = TOKENS * HEADS;
    float **outputs[] = {&o->y, &o->dq, &o->dk, &o->dv};
    for (int i = 0; i < 4; i++)
        *outputs[i] = tv_bench_zeros(pool, items * FLOAT);
    o->x = tv_bench_floats(pool, items, 2.0f);
    o->wide = tv_bench_floats(pool, (int64_t)TOKENS / 4 * 2 * FFN, 4.0f);
    o->trigram = tv_bench_zeros(pool, items * 3 * FLOAT);
    o->logits = tv_bench_floats(pool, TOKENS * VOCAB, 8.0f);
    o->table = tv_bench_floats(pool, CONTEXT * HEAD / 2, 1.0f);
    o->loss = tv_bench_zeros(pool, TOKENS * FLOAT);
    o->scale = make_positive(pool, heads, 0.01f);
    o->scale2 = make_positive(pool, heads, 0.02f);
    o->top = make_positive(pool, heads, 1.0f);
    o->norm = make_positive(pool, heads, 8.0f);
    int8_t **bytes[] = {&o->q8, &o->k8, &o->v8, &o->g8, &o->weights};
    for (int i = 0; i < 5; i++)
        *bytes[i] = tv_bench_int8s(pool, items, -127, 127);
    o->saved = tv_bench_zeros(pool, items);
    o->qt = tv_bench_zeros(pool, items);
    o->weights_t = tv_bench_zeros(pool, items);
    o->T = make_trits(pool);
    o->E = tv_bench_int8s(pool, ROWS * WIDTH / GROUP, 0, 6);
    o->E_accum = tv_bench_int8s(pool, ROWS * WIDTH / GROUP, -7, 7);
    o->T_accum = tv_bench_int8s(pool, ROWS * WIDTH, -63, 63);
    o->votes = tv_bench_int8s(pool, ROWS * WIDTH, -4, 4);
    o->sumsq = tv_bench_zeros(pool, (int64_t)2 * FFN * INT);
    o->ids = make_ids(pool);
    o->fault = tv_bench_zeros(pool, INT);
    o->stats = tv_bench_zeros(pool, 2 * (int64_t)sizeof(int64_t));
}

static tv_status time_op(const tv_backend *b, int64_t op, const operands *o, double *seconds)
{
    double start = tv_bench_now();
    TV_TRY(ops[op].run(b, o));
    TV_TRY(b->sync(NULL));
    *seconds = tv_bench_now() - start;
    return TV_OK;
}

static tv_status bench_op(const tv_backend *backend, const tv_backend *ref, int64_t op, const operands *o, FILE *out)
{
    double ours[ROUNDS], theirs[ROUNDS] = {0};
    TV_TRY(time_op(backend, op, o, &ours[0])); // the first run grows scratch and touches memory
    for (int round = 0; round < ROUNDS; round++) {
        TV_TRY(time_op(backend, op, o, &ours[round]));
        if (ref != NULL)
            TV_TRY(time_op(ref, op, o, &theirs[round]));
    }
    double time = tv_bench_median(ours, ROUNDS);
    fprintf(out, "%-20s %9.3f %8.2f", ops[op].name, time * 1e3, (double)ops[op].bytes / time * 1e-9);
    if (ref != NULL)
        fprintf(out, " %9.3f %7.1f", tv_bench_median(theirs, ROUNDS) * 1e3, theirs[ROUNDS / 2] / time);
    fprintf(out, "\n");
    return TV_OK;
}

tv_status tv_bench_ops(const tv_backend *backend, FILE *out)
{
    const tv_backend *ref = NULL;
    tv_bench_pool pool = {.backend = backend};
    operands o;
    TV_TRY(tv_backend_find("ref", &ref));
    if (!backend->host_memory || strcmp(backend->name, ref->name) == 0)
        ref = NULL; // ref cannot read device memory, and is not compared with itself
    memset(&o, 0, sizeof o);
    make_operands(&pool, &o);
    tv_status st = pool.status;
    fprintf(out, "ops of %s: %d tokens, width %d, ffn %d, %d heads of %d, context %d; medians of %d rounds\n",
            backend->describe(), TOKENS, WIDTH, FFN, HEADS, HEAD, CONTEXT, ROUNDS);
    fprintf(out, "op                          ms     GB/s%s\n", ref != NULL ? "    ref ms   ratio" : "");
    for (int64_t i = 0; st == TV_OK && i < (int64_t)(sizeof ops / sizeof *ops); i++)
        st = bench_op(backend, ref, i, &o, out);
    tv_bench_pool_free(&pool);
    return st;
}
