// N-grams: rows by hashing, the gated sum of a token's rows and its gradient.
#include <math.h>
#include <string.h>

#include "base/pack.h"
#include "base/tensor.h"
#include "vq_case.h"

// ---- hashing ---------------------------------------------------------------------------------------------------------------

typedef struct grams {
    int64_t tokens, context, entries;
    tv_memgram_hash_args args;
    int32_t *ids, *row;
} grams;

static grams random_grams(op_random *random, int64_t most_windows)
{
    grams g = {.context = op_int(random, 1, 12)};
    int n = 1;
    g.tokens = g.context * op_int(random, 0, (int)most_windows);
    g.args = (tv_memgram_hash_args){.tokens = g.tokens, .context = g.context, .rows = op_int(random, 1, 1000)};
    g.args.slots = op_int(random, 1, TV_MEMGRAM_SLOTS_MAX);
    for (int j = 0; j < g.args.slots; j++)
        g.args.orders[j] = n += op_int(random, 0, 1);
    g.entries = g.tokens * g.args.slots;
    g.ids = op_host((size_t)g.tokens * 4);
    g.row = op_host((size_t)g.entries * 4);
    for (int64_t t = 0; t < g.tokens; t++)
        g.ids[t] = op_int(random, 0, 3) ? op_int(random, 0, 5) : op_int(random, 0, 100000000);
    return g;
}

static void run_hash(const op_backend *on, grams *g)
{
    op_call call = op_begin(on);
    tv_memgram_hash_args a = g->args;
    a.ids = op_in(&call, g->ids, (size_t)g->tokens * 4);
    a.row = op_out(&call, g->row, (size_t)g->entries * 4);
    op_end(&call, on->backend->memgram.hash(&a, NULL));
}

// By hand for a few n-grams: the definition's arithmetic, in 128 bits.
static void check_hash_values(const op_backend *on)
{
    int32_t ids[5] = {104, 101, 108, 108, 111}, row[5];
    for (int n = 1; n <= 5; n++) {
        unsigned __int128 whole = (unsigned __int128)1 << 64, h = (unsigned __int128)n * 0x9E3779B97F4A7C15u % whole;
        for (int i = n - 1; i >= 0; i--) {
            h = (h ^ (uint32_t)ids[4 - i]) * 0xFF51AFD7ED558CCDu % whole;
            h ^= h >> 32;
        }
        op_call call = op_begin(on);
        tv_memgram_hash_args a = {.tokens = 5, .context = 5, .rows = 9999991, .slots = 1, .orders = {n}};
        a.ids = op_in(&call, ids, sizeof ids);
        a.row = op_out(&call, row, sizeof row);
        op_end(&call, on->backend->memgram.hash(&a, NULL));
        assert_int_equal(row[4], (int32_t)(h % 9999991));
        for (int t = 0; t < 4; t++)
            assert_true((row[t] < 0) == (t + 1 < n));
    }
}

// A row depends on the last n ids of the window and on nothing else.
static void check_hash(const op_backend *on)
{
    op_random random = {501, 0};
    for (int i = 0; i < 60; i += op_stride()) {
        grams g = random_grams(&random, 5);
        run_hash(on, &g);
        for (int64_t e = 0; e < g.entries; e++) {
            int64_t t = e / g.args.slots, n = g.args.orders[e % g.args.slots];
            if (t % g.context + 1 < n) {
                assert_int_equal(g.row[e], -1);
                continue;
            }
            assert_in_range(g.row[e], 0, g.args.rows - 1);
            for (int64_t f = 0; f < e; f++) {
                int64_t s = f / g.args.slots;
                if (g.row[f] >= 0 && g.args.orders[f % g.args.slots] == n &&
                    memcmp(g.ids + s - n + 1, g.ids + t - n + 1, (size_t)n * 4) == 0)
                    assert_int_equal(g.row[f], g.row[e]);
            }
        }
        if (g.tokens == 0)
            continue;
        grams h = g;
        int64_t changed = op_int(&random, 0, (int)g.tokens - 1), end = (changed / g.context + 1) * g.context;
        h.ids = op_host_copy(g.ids, (size_t)g.tokens * 4);
        h.row = op_host((size_t)g.entries * 4);
        h.ids[changed] ^= 1;
        run_hash(on, &h);
        for (int64_t e = 0; e < g.entries; e++) {
            int64_t t = e / g.args.slots;
            if (t < changed || t >= end || t - changed >= g.args.orders[e % g.args.slots])
                assert_int_equal(h.row[e], g.row[e]);
        }
    }
}

static void test_hash(void **state)
{
    (void)state;
    op_on_each(check_hash_values);
    op_on_each(check_hash);
}

// ---- what a unit looks up ----------------------------------------------------------------------------------------------------

// Entries, answers and a unit's numbers; `bytes` are answers of a random table.
typedef struct looked_up {
    vq_case table;
    int64_t tokens, entries, count;
    int slots;
    int32_t *slot;
    uint8_t *bytes;
    size_t answer_bytes;
    float *z, *dy;
    int *strength; // [count]
} looked_up;

static looked_up random_look_up(op_random *random, int64_t tokens)
{
    looked_up k = {.table = vq_random_case(random, 60), .tokens = tokens};
    int64_t cols = k.table.table.cols, packed = (cols + 4) / 5, size = tv_vq_answer_bytes(cols);
    k.slots = op_int(random, 1, TV_MEMGRAM_SLOTS_MAX);
    k.entries = k.tokens * k.slots;
    k.count = op_int(random, 1, 40);
    k.answer_bytes = (size_t)(k.count * size);
    k.bytes = op_host(k.answer_bytes);
    k.strength = op_host((size_t)k.count * sizeof(int));
    for (int64_t u = 0; u < k.count; u++) {
        uint8_t *at = k.bytes + u * size;
        int32_t row = op_int(random, 0, 9) ? op_int(random, 0, (int)k.table.table.rows - 1) : -1;
        int32_t strength = k.strength[u] = op_int(random, 0, TV_MEMGRAM_STRENGTH_WHOLE);
        int8_t none[TV_VQ_COLS_MAX] = {0};
        memcpy(at, &row, 4);
        memcpy(at + 4, &strength, 4);
        tv_pack_row(none, cols, at + 8);
        if (row >= 0 && op_int(random, 0, 9)) // else a row of zeros
            memcpy(at + 8, k.table.table.T + row * packed, (size_t)packed);
        at[8 + packed] = (uint8_t)(row >= 0 ? k.table.table.E[row] : k.table.table.base);
    }
    k.slot = op_host((size_t)k.entries * 4);
    for (int64_t e = 0; e < k.entries; e++)
        k.slot[e] = op_int(random, -1, (int)k.count - 1);
    k.z = op_floats(random, tokens * cols, 3.0f);
    k.dy = op_floats(random, tokens * cols, 2.0f);
    return k;
}

static void run_mix(const op_backend *on, const looked_up *k, int accumulate, float *y, int32_t *fault)
{
    const tv_vq_table *t = &k->table.table;
    size_t bytes = (size_t)(k->tokens * t->cols) * 4;
    op_call call = op_begin(on);
    tv_memgram_mix_args a = {.tokens = k->tokens, .cols = t->cols, .slots = k->slots, .accumulate = accumulate};
    a.base = t->base, a.mantissa_bits = t->mantissa_bits;
    a.slot = op_in(&call, k->slot, (size_t)k->entries * 4);
    a.bytes = op_in(&call, k->bytes, k->answer_bytes);
    a.z = op_in(&call, k->z, bytes);
    a.y = op_out(&call, y, bytes);
    a.fault = op_out(&call, fault, 4);
    op_end(&call, on->backend->memgram.mix(&a, NULL));
}

static void run_back(const op_backend *on, const looked_up *k, int accumulate, float *row_grad, float *dz)
{
    const tv_vq_table *t = &k->table.table;
    size_t bytes = (size_t)(k->tokens * t->cols) * 4;
    op_call call = op_begin(on);
    tv_memgram_back_args a = {.tokens = k->tokens, .cols = t->cols, .slots = k->slots, .accumulate = accumulate};
    a.base = t->base, a.mantissa_bits = t->mantissa_bits;
    a.slot = op_in(&call, k->slot, (size_t)k->entries * 4);
    a.bytes = op_in(&call, k->bytes, k->answer_bytes);
    a.z = op_in(&call, k->z, bytes);
    a.dy = op_in(&call, k->dy, bytes);
    a.row_grad = op_out(&call, row_grad, bytes * (size_t)k->slots);
    a.dz = op_out(&call, dz, bytes);
    op_end(&call, on->backend->memgram.back(&a, NULL));
}

// ---- against an oracle ---------------------------------------------------------------------------------------------------------

// One token's y in double, from rows of real numbers: rows [slots, cols], `here` of each; f the factors.
static void oracle_mix(const looked_up *k, const double *z, const double *rows, const int *here, const double *f,
                       double *y)
{
    int64_t cols = k->table.table.cols;
    double zz = 0;
    memset(y, 0, (size_t)cols * sizeof *y);
    for (int64_t c = 0; c < cols; c++)
        zz += z[c] * z[c];
    for (int j = 0; j < k->slots; j++) {
        const double *row = rows + j * cols;
        double ww = 0, dot = 0;
        for (int64_t c = 0; here[j] && c < cols; c++) {
            ww += row[c] * row[c];
            dot += z[c] * row[c];
        }
        // <norm(z), norm(row)> / 8; norm(row) = row / rms(row)
        double cosine = ww > 0 ? dot / sqrt(zz / (double)cols + 1e-5) / sqrt(ww / (double)cols) : 0;
        for (int64_t c = 0; here[j] && c < cols; c++)
            y[c] += f[j] / (1 + exp(-cosine / 8)) * row[c];
    }
}

static double objective(const looked_up *k, int64_t t, const double *z, const double *rows, const int *here,
                        const double *f)
{
    double y[TV_VQ_COLS_MAX], sum = 0;
    int64_t cols = k->table.table.cols;
    oracle_mix(k, z, rows, here, f, y);
    for (int64_t c = 0; c < cols; c++)
        sum += (double)k->dy[t * cols + c] * y[c];
    return sum;
}

static double slope(const looked_up *k, int64_t t, const double *z, const double *rows, const int *here,
                    const double *f, double *at)
{
    const double step = 1e-6 * (1 + fabs(*at)), keep = *at;
    *at = keep + step;
    double up = objective(k, t, z, rows, here, f);
    *at = keep - step;
    double down = objective(k, t, z, rows, here, f);
    *at = keep;
    return (up - down) / (2 * step);
}

// Rows, presence and factors of token t.
static void read_rows(const looked_up *k, int64_t t, double *rows, int *here, double *f)
{
    const tv_vq_table *table = &k->table.table;
    int64_t cols = table->cols, packed = (cols + 4) / 5, size = tv_vq_answer_bytes(cols);
    for (int j = 0; j < k->slots; j++) {
        int32_t u = k->slot[t * k->slots + j], row = -1;
        int8_t trits[TV_VQ_COLS_MAX] = {0};
        if (u >= 0)
            memcpy(&row, k->bytes + u * size, 4);
        here[j] = row >= 0;
        f[j] = here[j] ? (k->strength[u] + 128) / 256.0 : 0;
        if (here[j])
            tv_unpack_row(k->bytes + u * size + 8, cols, trits);
        int code = here[j] ? (int8_t)k->bytes[u * size + 8 + packed] - table->base : 0;
        for (int64_t c = 0; c < cols; c++)
            rows[j * cols + c] = trits[c] * ldexp(tv_lattice_value(table->mantissa_bits, code), table->base);
    }
}

static void check_token(const looked_up *k, int64_t t, const float *y, const float *row_grad, const float *dz)
{
    static double rows[TV_MEMGRAM_SLOTS_MAX * TV_VQ_COLS_MAX];
    double z[TV_VQ_COLS_MAX], want[TV_VQ_COLS_MAX], f[TV_MEMGRAM_SLOTS_MAX];
    int here[TV_MEMGRAM_SLOTS_MAX];
    int64_t cols = k->table.table.cols;
    read_rows(k, t, rows, here, f);
    for (int64_t c = 0; c < cols; c++)
        z[c] = k->z[t * cols + c];
    oracle_mix(k, z, rows, here, f, want);
    for (int64_t c = 0; c < cols; c++) {
        op_near("y", want[c], y[t * cols + c], 1e-5);
        op_near("dz", slope(k, t, z, rows, here, f, &z[c]), dz[t * cols + c], 2e-4);
    }
    for (int j = 0; j < k->slots; j++) {
        double size = 0;
        for (int64_t c = 0; c < cols; c++)
            size += fabs(rows[j * cols + c]);
        for (int64_t c = 0; c < cols; c++) {
            float got = row_grad[(t * k->slots + j) * cols + c];
            if (!here[j])
                assert_true(got == 0);
            else if (size > 0) // the norm of a row of zeros has no slope
                op_near("row_grad", slope(k, t, z, rows, here, f, &rows[j * cols + c]), got, 2e-4);
            else
                op_near("row_grad of zeros", 0.5 * f[j] * (double)k->dy[t * cols + c], got, 1e-5);
        }
    }
}

static void check_oracle(const op_backend *on)
{
    op_random random = {502, 0};
    for (int i = 0; i < 40; i += op_stride()) {
        looked_up k = random_look_up(&random, op_int(&random, 1, 6));
        size_t values = (size_t)(k.tokens * k.table.table.cols);
        float *y = op_host(values * 4), *dz = op_host(values * 4), *row_grad = op_host(values * 4 * (size_t)k.slots);
        int32_t fault = 0;
        run_mix(on, &k, 0, y, &fault);
        run_back(on, &k, 0, row_grad, dz);
        assert_int_equal(fault, 0);
        for (int64_t t = 0; t < k.tokens; t++)
            check_token(&k, t, y, row_grad, dz);
    }
}

static void test_oracle(void **state)
{
    (void)state;
    op_on_each(check_oracle);
}

// ---- against ref -------------------------------------------------------------------------------------------------------------

static void compare_one(const op_backend *on, op_random *random, int64_t tokens)
{
    looked_up k = random_look_up(random, tokens);
    int64_t values = k.tokens * k.table.table.cols;
    size_t bytes = (size_t)values * 4;
    int accumulate = op_int(random, 0, 1);
    float *start = op_floats(random, values, 1.0f), *row_grad[2], *dz[2], *y[2];
    int32_t fault[2] = {0};
    for (int side = 0; side < 2; side++) {
        const op_backend *at = side ? on : op_ref();
        y[side] = op_host_copy(start, bytes), dz[side] = op_host_copy(start, bytes);
        row_grad[side] = op_host(bytes * (size_t)k.slots);
        run_mix(at, &k, accumulate, y[side], &fault[side]);
        run_back(at, &k, accumulate, row_grad[side], dz[side]);
    }
    op_same("y", on, y[0], y[1], bytes);
    op_same("row_grad", on, row_grad[0], row_grad[1], bytes * (size_t)k.slots);
    op_same("dz", on, dz[0], dz[1], bytes);
    assert_int_equal(fault[1], 0);
}

static void compare(const op_backend *on)
{
    op_random random = {503, 0};
    for (int i = 0; i < op_edge_count; i += op_stride())
        compare_one(on, &random, op_edges[i]);
    compare_one(on, &random, 4 * OP_LARGE_ROWS);
}

static void test_against_ref(void **state)
{
    (void)state;
    op_against_ref(compare);
}

// ---- what is refused -----------------------------------------------------------------------------------------------------------

// A damaged answer raises the fault and counts as absent.
static void check_damage(const op_backend *on)
{
    op_random random = {504, 0};
    for (int i = 0; i < 24; i++) {
        looked_up k = random_look_up(&random, 3);
        const tv_vq_table *t = &k.table.table;
        int64_t packed = (t->cols + 4) / 5, size = tv_vq_answer_bytes(t->cols);
        size_t bytes = (size_t)(k.tokens * t->cols) * 4;
        float *y = op_host(bytes), *want = op_host(bytes);
        int32_t fault = 0, row = 0, strength = i % 2 ? 129 : -1;
        k.slot[k.slots] = 0;
        memcpy(k.bytes, &row, 4);
        uint8_t *answer = op_host_copy(k.bytes, (size_t)size);
        if (i % 4 == 0)
            k.bytes[8 + op_int(&random, 0, (int)packed - 1)] = 243;
        else if (i % 4 == 1)
            memcpy(k.bytes + 4, &strength, 4);
        else
            k.bytes[8 + packed] = (uint8_t)(i % 4 == 2 ? t->base - 1 : t->base + tv_lattice_codes(t->mantissa_bits));
        run_mix(on, &k, 0, y, &fault);
        assert_int_equal(fault, 1);
        row = -1;
        memcpy(k.bytes, answer, (size_t)size);
        memcpy(k.bytes, &row, 4);
        fault = 0;
        run_mix(on, &k, 0, want, &fault);
        op_same("y without it", on, want, y, bytes);
        assert_int_equal(fault, 0);
    }
}

static void test_damage(void **state)
{
    (void)state;
    op_on_each(check_damage);
}

static int clean_up(void **state)
{
    (void)state;
    op_host_free();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_hash, clean_up), cmocka_unit_test_teardown(test_oracle, clean_up),
        cmocka_unit_test_teardown(test_against_ref, clean_up), cmocka_unit_test_teardown(test_damage, clean_up)};
    return op_run("op_memgram", tests);
}
