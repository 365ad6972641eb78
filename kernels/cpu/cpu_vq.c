// Codebooks: the search through packed rows, and a table's initial state.
//
// An item is a run of queries that are sorted by bucket. Rows of a bucket are decoded a block at a time into a panel of pairs of
// int16, rows side by side, which stays in L1 while all queries of the run go over it; each lane keeps the best of its own rows, and
// a strict comparison leaves ties to the lower one.
#include <immintrin.h>

#include "kernels/cpu/cpu_isa.h"
#include "kernels/cpu/cpu_threads.h"
#include "kernels/cpu/cpu_trits.h"
#include "kernels/ref/vq_common.h"

#if defined(TV_ISA_AVX512)
typedef __m512i vec;
enum { LANES = 16 };
static inline vec load(const void *at) { return _mm512_loadu_si512(at); }
static inline void store(void *at, vec v) { _mm512_storeu_si512(at, v); }
static inline vec all(int32_t x) { return _mm512_set1_epi32(x); }
static inline vec add_pairs(vec sum, vec a, vec b) { return _mm512_add_epi32(sum, _mm512_madd_epi16(a, b)); }
static inline vec add(vec a, vec b) { return _mm512_add_epi32(a, b); }
static inline vec subtract(vec a, vec b) { return _mm512_sub_epi32(a, b); }
static inline vec times(vec a, vec b) { return _mm512_mullo_epi32(a, b); }
static inline void keep_best(vec *best, vec *row, vec score, vec at)
{
    __mmask16 better = _mm512_cmpgt_epi32_mask(score, *best);
    *best = _mm512_mask_mov_epi32(*best, better, score);
    *row = _mm512_mask_mov_epi32(*row, better, at);
}
#else
typedef __m256i vec;
enum { LANES = 8 };
static inline vec load(const void *at) { return _mm256_loadu_si256(at); }
static inline void store(void *at, vec v) { _mm256_storeu_si256(at, v); }
static inline vec all(int32_t x) { return _mm256_set1_epi32(x); }
static inline vec add_pairs(vec sum, vec a, vec b) { return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b)); }
static inline vec add(vec a, vec b) { return _mm256_add_epi32(a, b); }
static inline vec subtract(vec a, vec b) { return _mm256_sub_epi32(a, b); }
static inline vec times(vec a, vec b) { return _mm256_mullo_epi32(a, b); }
static inline void keep_best(vec *best, vec *row, vec score, vec at)
{
    vec better = _mm256_cmpgt_epi32(score, *best);
    *best = _mm256_blendv_epi8(*best, score, better);
    *row = _mm256_blendv_epi8(*row, at, better);
}
#endif

enum {
    PAIRS = TV_VQ_COLS_MAX / 2,
    GROUP = 2 * LANES, // rows that are scored together
    BLOCK = 128,       // rows of a panel; a multiple of GROUP
    TOGETHER = 4,      // queries that share a load of rows
    RUN = 256,         // queries of an item
    INIT_ROWS = 4096
};
// The norm of a row that is not there: its score is below every real one.
#define NO_ROW INT32_MAX

typedef struct workspace {
    _Alignas(64) int16_t panel[BLOCK / GROUP][PAIRS][GROUP][2];
    int32_t norm[BLOCK]; // 256 <w8, w8>
    int16_t query[RUN][PAIRS][2];
    int32_t scale[RUN]; // 2 sq
    tv_trit_table trits;
} workspace;

// Rows [first, last) of the table, at most a block.
static void fill_panel(const tv_vq_table *table, int64_t first, int64_t last, workspace *w)
{
    int64_t cols = table->cols, bytes = tv_row_bytes(cols);
    for (int i = 0; i < BLOCK; i++) {
        int8_t w8[TV_VQ_COLS_MAX] = {0};
        int64_t at = first + i - table->first_row;
        w->norm[i] = NO_ROW;
        if (first + i < last) {
            int value = tv_lattice_value(table->mantissa_bits, table->E[at] - table->base), squares = 0;
            tv_trits_unpack(&w->trits, table->T + at * bytes, cols, w8);
            for (int64_t c = 0; c < cols; c++) {
                squares += w8[c] * w8[c];
                w8[c] = (int8_t)(w8[c] * value);
            }
            w->norm[i] = 256 * squares * value * value;
        }
        if (first + i / GROUP * GROUP >= last)
            break; // no row of this group or the next ones
        for (int p = 0; p < PAIRS; p++) {
            w->panel[i / GROUP][p][i % GROUP][0] = w8[2 * p];
            w->panel[i / GROUP][p][i % GROUP][1] = w8[2 * p + 1];
        }
    }
}

// Queries [at, at + TOGETHER) of the run over the panel: best score and row (counted from the panel's first) of each lane.
static void score_panel(const workspace *w, int at, int groups, int32_t best[TOGETHER][LANES],
                        int32_t row[TOGETHER][LANES])
{
    static const int32_t lane[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    vec top[TOGETHER], top_row[TOGETHER], number = load(lane);
    for (int i = 0; i < TOGETHER; i++) {
        top[i] = all(INT32_MIN);
        top_row[i] = all(0);
    }
    for (int g = 0; g < groups; g++) {
        vec sum[TOGETHER][2];
        for (int i = 0; i < TOGETHER; i++)
            sum[i][0] = sum[i][1] = all(0);
        for (int p = 0; p < PAIRS; p++) {
            vec w0 = load(w->panel[g][p][0]), w1 = load(w->panel[g][p][LANES]);
#pragma GCC unroll 4
            for (int i = 0; i < TOGETHER; i++) {
                int32_t two;
                memcpy(&two, w->query[at + i][p], sizeof two);
                sum[i][0] = add_pairs(sum[i][0], w0, all(two));
                sum[i][1] = add_pairs(sum[i][1], w1, all(two));
            }
        }
        for (int half = 0; half < 2; half++) {
            vec norm = load(w->norm + g * GROUP + half * LANES), rows = add(number, all(g * GROUP + half * LANES));
#pragma GCC unroll 4
            for (int i = 0; i < TOGETHER; i++)
                keep_best(&top[i], &top_row[i], subtract(times(sum[i][half], all(w->scale[at + i])), norm), rows);
        }
    }
    for (int i = 0; i < TOGETHER; i++) {
        store(best[i], top[i]);
        store(row[i], top_row[i]);
    }
}

// The lanes' bests join what the pair has from lower rows.
static void join(const tv_vq_search_args *a, int32_t pair, int64_t first, const int32_t *best, const int32_t *row)
{
    int32_t score = a->score[pair], found = a->row[pair];
    for (int l = 0; l < LANES; l++) {
        int32_t at = (int32_t)first + row[l];
        if (best[l] <= -NO_ROW)
            continue;
        if (found < 0 || best[l] > score || (best[l] == score && at < found)) {
            score = best[l];
            found = at;
        }
    }
    a->score[pair] = score;
    a->row[pair] = found;
}

// Pairs [from, to) of one bucket.
static void search_bucket(const tv_vq_search_args *a, int64_t bucket, int32_t from, int32_t to, workspace *w)
{
    tv_vq_range rows = tv_vq_bucket_rows(&a->table, bucket);
    int64_t cols = a->table.cols;
    int count = to - from;
    memset(w->query, 0, sizeof w->query);
    for (int i = 0; i < count; i++) {
        int64_t t = a->item[from + i] / a->probes;
        for (int64_t c = 0; c < cols; c++)
            w->query[i][c / 2][c % 2] = a->q[t * cols + c];
        w->scale[i] = 2 * tv_vq_scale(a->scale[t], a->table.base);
    }
    for (int i = count; i % TOGETHER != 0; i++)
        w->scale[i] = 0;
    for (int64_t first = rows.first; first < rows.last; first += BLOCK) {
        int64_t last = first + BLOCK < rows.last ? first + BLOCK : rows.last;
        fill_panel(&a->table, first, last, w);
        for (int i = 0; i < count; i += TOGETHER) {
            int32_t best[TOGETHER][LANES], row[TOGETHER][LANES];
            score_panel(w, i, (int)tv_ceil_div(last - first, GROUP), best, row);
            for (int j = 0; j < TOGETHER && i + j < count; j++)
                join(a, a->item[from + i + j], first, best[j], row[j]);
        }
    }
}

// Items of RUN pairs each, over as many buckets as they meet.
static void search_runs(const void *args, int64_t first, int64_t last, int thread)
{
    const tv_vq_search_args *a = args;
    workspace *w = tv_cpu_scratch(thread);
    tv_trit_table_fill(&w->trits);
    for (int64_t item = first; item < last; item++) {
        int32_t at = (int32_t)(item * RUN), end = a->start[a->buckets] < at + RUN ? a->start[a->buckets] : at + RUN;
        int64_t low = 0, high = a->buckets; // the bucket that holds pair `at`: start[low] <= at < start[low + 1]
        while (high - low > 1) {
            int64_t middle = (low + high) / 2;
            if (a->start[middle] <= at)
                low = middle;
            else
                high = middle;
        }
        for (; at < end; low++) {
            int32_t stop = a->start[low + 1] < end ? a->start[low + 1] : end;
            if (at < stop)
                search_bucket(a, a->first_bucket + low, at, stop, w);
            at = stop > at ? stop : at;
        }
    }
}

tv_status TV_ISA_NAME(vq_search)(const tv_vq_search_args *args, void *stream)
{
    (void)stream;
    for (int64_t i = 0; i < args->tokens * args->probes; i++) {
        args->row[i] = -1;
        args->score[i] = INT32_MIN;
    }
    if (args->tokens <= 0 || args->buckets <= 0)
        return TV_OK;
    TV_TRY(tv_cpu_scratch_reserve(sizeof(workspace)));
    int64_t rows = args->table.rows >> args->table.bits;
    tv_cpu_for(tv_ceil_div(args->start[args->buckets], RUN), RUN * rows + 1, search_runs, args);
    return TV_OK;
}

static void init_rows(const void *args, int64_t first, int64_t last, int thread)
{
    (void)thread;
    tv_vq_init_args part = *(const tv_vq_init_args *)args;
    tv_vq_table *t = &part.table;
    int64_t at = first * INIT_ROWS, end = last * INIT_ROWS < t->held_rows ? last * INIT_ROWS : t->held_rows;
    t->first_row += at;
    t->held_rows = end - at;
    t->T += at * tv_row_bytes(t->cols);
    t->E += at;
    t->T_accum = t->T_accum != NULL ? t->T_accum + at * t->cols : NULL;
    t->E_accum = t->E_accum != NULL ? t->E_accum + at : NULL;
    vq_init_ref(&part, NULL); // cannot fail
}

tv_status TV_ISA_NAME(vq_init)(const tv_vq_init_args *args, void *stream)
{
    (void)stream;
    if (args->table.cols > 0)
        tv_cpu_for(tv_ceil_div(args->table.held_rows, INIT_ROWS), INIT_ROWS * args->table.cols, init_rows, args);
    return TV_OK;
}
