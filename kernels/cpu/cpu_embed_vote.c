// One-hot votes of an embedding table.
//
// An item is a strip of 64 channels. Its gradients are transposed in squares of 64 tokens, so that a token adds 64
// neighbouring numbers to the sums of its row of the table. Sums are integers: their order is free.
#include "kernels/cpu/cpu_isa.h"
#include "kernels/cpu/cpu_rows.h"
#include "kernels/cpu/cpu_threads.h"
#include "kernels/cpu/cpu_transpose.h"

enum { TABLE_MAX = 16384 }; // rows; above that a strip's sums (8 MiB) are too much scratch, and ref serves

typedef struct row_sums {
    int32_t sum[TV_SQUARE], squares[TV_SQUARE];
} row_sums;

static void add_tokens(const tv_embed_vote_args *a, int64_t channel, int width, row_sums *sums)
{
    int8_t square[TV_SQUARE][TV_SQUARE], edge[TV_SQUARE][TV_SQUARE] = {{0}};
    for (int64_t t = 0; t < a->tokens; t += TV_SQUARE) {
        int count = a->tokens - t < TV_SQUARE ? (int)(a->tokens - t) : TV_SQUARE;
        for (int c = 0; c < width; c++)
            memcpy(edge[c], a->gt + (channel + c) * a->tokens + t, (size_t)count);
        tv_transpose_square(edge[0], TV_SQUARE, square);
        for (int i = 0; i < count; i++) {
            row_sums *row = sums + a->ids[t + i];
            for (int c = 0; c < TV_SQUARE; c++) {
                int32_t g = square[i][c];
                row->sum[c] += g;
                row->squares[c] += g * g;
            }
        }
    }
}

// vote[c] of one row of the table, for the strip's channels; the row's first element is `element`.
static void row_votes(const tv_embed_vote_args *a, const row_sums *row, uint64_t element, int width,
                      int vote[TV_SQUARE])
{
    float tau = a->rule.tau;
    if (a->rule.levels == 1) {
        for (int c = 0; c < TV_SQUARE; c++) {
            int32_t sum = row->sum[c], sign = (sum > 0) - (sum < 0);
            vote[c] = fabsf((float)sum) > tau * sqrtf((float)row->squares[c]) ? sign : 0;
        }
        return;
    }
    uint16_t draws[TV_SQUARE + 14];
    tv_row_draws(tv_vote_level_key(&a->rule), element, width, draws);
    for (int c = 0; c < width; c++)
        vote[c] = tv_vote_level((float)row->sum[c], sqrtf((float)row->squares[c]), a->rule.levels,
                                draws[(element & 7) + (uint64_t)c]);
}

static void vote_strips(const void *args, int64_t first, int64_t last, int thread)
{
    const tv_embed_vote_args *a = args;
    row_sums *sums = tv_cpu_scratch(thread);
    for (int64_t item = first; item < last; item++) {
        int64_t channel = item * TV_SQUARE;
        int width = a->width - channel < TV_SQUARE ? (int)(a->width - channel) : TV_SQUARE;
        memset(sums, 0, (size_t)a->table * sizeof *sums);
        add_tokens(a, channel, width, sums);
        for (int64_t v = 0; v < a->table; v++) {
            int64_t element = v * a->width + channel;
            int vote[TV_SQUARE];
            row_votes(a, sums + v, (uint64_t)element, width, vote);
            for (int c = 0; c < width; c++)
                tv_vote_add(a->votes, a->rule.vote_bits, element + c, vote[c]);
        }
    }
}

tv_status TV_ISA_NAME(embed_vote)(const tv_embed_vote_args *args, void *stream)
{
    if (args->tokens <= 0 || args->width <= 0 || args->table <= 0)
        return TV_OK;
    if (args->table > TABLE_MAX)
        return embed_vote_ref(args, stream);
    TV_TRY(tv_cpu_scratch_reserve((size_t)args->table * sizeof(row_sums)));
    tv_cpu_for(tv_ceil_div(args->width, TV_SQUARE), (args->tokens + args->table) * 12, vote_strips, args);
    return TV_OK;
}
