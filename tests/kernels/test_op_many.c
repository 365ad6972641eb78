// decode_many, ballot_many, ballot_e_many: a list of blocks of rows gives what the whole tensor gives.
#include <string.h>

#include "base/tensor.h"
#include "op_test.h"

#define BLOCK 2  // rows of an item
#define ITEMS 70 // more than any backend takes at once
#define EMPTY 2  // the last ones; the one before them has a single row
#define ROWS (BLOCK * (ITEMS - EMPTY) - 1)

typedef struct tensor {
    int64_t cols;
    int group;
    uint8_t *T;
    int8_t *E, *T_accum, *E_accum, *w8, *w8t;
    void *votes;
    int64_t stats[3];
    tv_ballot_args rule; // numbers only
} tensor;

static size_t trit_bytes(const tensor *x) { return (size_t)(ROWS * tv_row_bytes(x->cols)); }
static size_t exponent_bytes(const tensor *x) { return (size_t)(ROWS * tv_row_groups(x->cols, x->group)); }
static size_t items(const tensor *x) { return (size_t)(ROWS * x->cols); }

static tensor random_tensor(op_random *random, int64_t cols, tv_scale_type type)
{
    tensor x = {.cols = cols, .group = tv_scale_group(type)};
    x.T = op_trits(random, ROWS, cols);
    x.E = op_int8s(random, (int64_t)exponent_bytes(&x), -3, 3);
    x.T_accum = op_int8s(random, ROWS * cols, -63, 63);
    x.E_accum = op_int8s(random, (int64_t)exponent_bytes(&x), -7, 7);
    x.votes = op_int8s(random, 2 * ROWS * cols, -9, 9);
    x.rule = (tv_ballot_args){.rule = op_int(random, 0, 2) ? TV_RULE_RESTART : TV_RULE_CLASSIC,
                              .combine = op_int(random, 0, 1) ? TV_COMBINE_MEAN : TV_COMBINE_MAJORITY,
                              .vote_bits = op_int(random, 0, 1) ? 8 : 16,
                              .units = op_int(random, 1, 5),
                              .quorum = op_int(random, 1, 3),
                              .threshold = op_int(random, 4, 64),
                              .eta_q = (uint32_t)op_int(random, 1, 1 << 20),
                              .classic_step = 3,
                              .cut = -1,
                              .seed = op_next(random),
                              .tensor_id = op_next(random),
                              .step = op_next(random)};
    return x;
}

static tensor copy_of(const tensor *x)
{
    tensor out = *x;
    out.T = op_host_copy(x->T, trit_bytes(x));
    out.E = op_host_copy(x->E, exponent_bytes(x));
    out.T_accum = op_host_copy(x->T_accum, items(x));
    out.E_accum = op_host_copy(x->E_accum, exponent_bytes(x));
    out.w8 = op_host(items(x));
    out.w8t = op_host(items(x));
    return out;
}

static tv_decode_args decode_args(op_call *call, const tensor *x)
{
    return (tv_decode_args){.rows = ROWS,
                            .cols = x->cols,
                            .group = x->group,
                            .base = -3,
                            .T = op_in(call, x->T, trit_bytes(x)),
                            .E = op_in(call, x->E, exponent_bytes(x)),
                            .w8 = op_out(call, x->w8, items(x)),
                            .w8t = op_out(call, x->w8t, items(x))};
}

static tv_ballot_args trit_args(op_call *call, tensor *x)
{
    tv_ballot_args a = x->rule;
    a.rows = ROWS, a.cols = x->cols;
    a.T = op_out(call, x->T, trit_bytes(x));
    a.T_accum = op_out(call, x->T_accum, items(x));
    a.votes = op_in(call, x->votes, items(x) * (size_t)(a.vote_bits / 8));
    a.stats = op_out(call, x->stats, 2 * sizeof(int64_t));
    return a;
}

static tv_ballot_e_args exponent_args(op_call *call, tensor *x)
{
    return (tv_ballot_e_args){.rows = ROWS,
                              .cols = x->cols,
                              .group = x->group,
                              .base = -3,
                              .T = op_in(call, x->T, trit_bytes(x)),
                              .E = op_out(call, x->E, exponent_bytes(x)),
                              .E_accum = op_out(call, x->E_accum, exponent_bytes(x)),
                              .votes = op_in(call, x->votes, items(x) * (size_t)(x->rule.vote_bits / 8)),
                              .vote_bits = x->rule.vote_bits,
                              .eta_e_q = 3 << 16,
                              .threshold = 8,
                              .seed = x->rule.seed,
                              .tensor_id = x->rule.tensor_id,
                              .step = x->rule.step,
                              .stats = op_out(call, x->stats + 2, sizeof(int64_t))};
}

// Rows of item i.
static int64_t first_row(int i) { return (int64_t)BLOCK * i < ROWS ? (int64_t)BLOCK * i : ROWS; }
static int64_t row_count(int i) { return first_row(i + 1) - first_row(i); }

static void run_decode(const op_backend *on, tensor *x)
{
    tv_decode_args list[3];
    op_call call = op_begin(on);
    for (int i = 0; i < 3; i++)
        list[i] = decode_args(&call, &x[i]);
    op_end(&call, tv_decode_many(on->backend, list, 3, NULL));
}

static void run_trits(const op_backend *on, tensor *x)
{
    static tv_ballot_args list[ITEMS];
    op_call call = op_begin(on);
    tv_ballot_args all = trit_args(&call, x);
    for (int i = 0; i < ITEMS; i++) {
        list[i] = all;
        list[i].first_row = first_row(i), list[i].rows = row_count(i);
        list[i].T += first_row(i) * tv_row_bytes(all.cols);
        list[i].T_accum += first_row(i) * all.cols;
        list[i].votes = (const char *)all.votes + first_row(i) * all.cols * (all.vote_bits / 8);
    }
    op_end(&call, tv_ballot_many(on->backend, list, ITEMS, NULL));
}

static void run_exponents(const op_backend *on, tensor *x)
{
    static tv_ballot_e_args list[ITEMS];
    op_call call = op_begin(on);
    tv_ballot_e_args all = exponent_args(&call, x);
    for (int i = 0; i < ITEMS; i++) {
        list[i] = all;
        list[i].first_row = first_row(i), list[i].rows = row_count(i);
        list[i].T += first_row(i) * tv_row_bytes(all.cols);
        list[i].E += first_row(i) * tv_row_groups(all.cols, all.group);
        list[i].E_accum += first_row(i) * tv_row_groups(all.cols, all.group);
        list[i].votes = (const char *)all.votes + first_row(i) * all.cols * (all.vote_bits / 8);
    }
    op_end(&call, tv_ballot_e_many(on->backend, list, ITEMS, NULL));
}

static void run_whole(tensor *x)
{
    const op_backend *ref = op_ref();
    op_call call = op_begin(ref);
    tv_decode_args decode = decode_args(&call, x);
    op_end(&call, ref->backend->decode(&decode, NULL));
    call = op_begin(ref);
    tv_ballot_args trits = trit_args(&call, x);
    op_end(&call, ref->backend->ballot(&trits, NULL));
    call = op_begin(ref);
    tv_ballot_e_args exponents = exponent_args(&call, x);
    op_end(&call, ref->backend->ballot_e(&exponents, NULL));
}

static void check_many(const op_backend *on)
{
    op_random random = {71, 0};
    static const int64_t cols[] = {512, 8, 40, 333, 1440, 264, 96, 10400};
    static const tv_scale_type types[] = {TV_T32, TV_T8, TV_T64, TV_T32, TV_T16, TV_T6, TV_T4, TV_T32};
    for (int i = 0; i < 8; i += op_stride()) {
        tensor start[3], want[3], got[3];
        for (int j = 0; j < 3; j++) {
            start[j] = random_tensor(&random, j == 0 ? cols[i] : cols[(i + j) % 3], types[i]);
            want[j] = copy_of(&start[j]);
            got[j] = copy_of(&start[j]);
            run_whole(&want[j]);
        }
        run_decode(on, got);
        for (int j = 0; j < 3; j++) {
            run_trits(on, &got[j]);
            run_exponents(on, &got[j]);
            op_same("w8", on, want[j].w8, got[j].w8, items(&want[j]));
            op_same("w8t", on, want[j].w8t, got[j].w8t, items(&want[j]));
            op_same("T", on, want[j].T, got[j].T, trit_bytes(&want[j]));
            op_same("T_accum", on, want[j].T_accum, got[j].T_accum, items(&want[j]));
            op_same("E", on, want[j].E, got[j].E, exponent_bytes(&want[j]));
            op_same("E_accum", on, want[j].E_accum, got[j].E_accum, exponent_bytes(&want[j]));
            op_same("counts", on, want[j].stats, got[j].stats, sizeof want[j].stats);
        }
        op_host_free();
    }
}

static void test_many(void **state)
{
    (void)state;
    op_against_ref(check_many);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_many)};
    return op_run("op_many", tests);
}
