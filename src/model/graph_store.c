#include "model/graph_store.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

// Runs are no shorter than this many full lists.
enum { LISTS_A_RUN = 16 };

static int run_bits(int64_t rows, int64_t max_edges, int64_t list)
{
    int bits = 0;
    while (bits < TV_GRAPH_RUN_BITS_MAX && rows >> (bits + 1) > 0 && max_edges >> (bits + 1) >= LISTS_A_RUN * list)
        bits++;
    return bits;
}

tv_status tv_graph_store_declare(tv_graph_store *s, const tv_part *part, tv_params *params, const tv_config *config)
{
    static const char *const leaves[TV_GRAPH_SIDES] = {"used", "dst", "src", "attr", "attr_accum", "score"};
    const tv_config_graph *c = &config->graph;
    s->rows = config->codebook.rows;
    s->list = c->edges_per_node;
    s->decay_every = c->decay_every;
    s->dense = c->dense;
    s->bits = run_bits(s->rows, c->max_edges, s->list);
    s->room = c->max_edges >> s->bits;
    for (int i = 0; i < TV_GRAPH_SIDES; i++) {
        tv_side_spec spec = {.group = "graph",
                             .dtype = i < TV_GRAPH_ATTR ? TV_I32 : TV_I8,
                             .rows = (int64_t)1 << s->bits,
                             .cols = i == TV_GRAPH_USED ? 1 : s->room,
                             .placement = TV_PLACE_TABLE,
                             .bits = s->bits,
                             .host = 1};
        TV_TRY(tv_part_declare_side(part, params, leaves[i], &spec, &s->side[i]));
    }
    return TV_OK;
}

static const tv_side *side_of(const tv_graph_store *s, int i) { return &s->params->sides[s->side[i]]; }

tv_status tv_graph_store_plan(tv_graph_store *s, const tv_plan *plan)
{
    s->params = plan->params;
    s->indexed = 0;
    if (plan->params->backend == NULL)
        return TV_OK;
    const tv_side *used = side_of(s, TV_GRAPH_USED);
    s->first_run = used->first_row;
    s->runs = used->held_rows;
    s->first_row = tv_vq_bucket_first(s->rows, s->bits, s->first_run);
    s->held_rows = tv_vq_bucket_first(s->rows, s->bits, s->first_run + s->runs) - s->first_row;
    s->used = used->data;
    s->dst = side_of(s, TV_GRAPH_DST)->data;
    s->src = side_of(s, TV_GRAPH_SRC)->data;
    s->attr = side_of(s, TV_GRAPH_ATTR)->data;
    s->accum = side_of(s, TV_GRAPH_ACCUM)->data;
    s->score = side_of(s, TV_GRAPH_SCORE)->data;
    if (s->dense && s->index == NULL)
        s->index = malloc((size_t)(s->held_rows + 1) * sizeof *s->index);
    return !s->dense || s->index != NULL ? TV_OK : TV_FAIL(TV_MEMORY, "no memory for the graph's index");
}

void tv_graph_store_free(tv_graph_store *s)
{
    free(s->index);
    free(s->records);
    free(s->merged);
    memset(s, 0, sizeof *s);
}

// First place of each held row; the last row of all ends where its run's edges do.
static void make_index(tv_graph_store *s)
{
    for (int64_t run = 0; run < s->runs; run++) {
        int64_t place = run * s->room, end = place + s->used[run];
        int64_t last = tv_vq_bucket_first(s->rows, s->bits, s->first_run + run + 1);
        for (int64_t row = tv_vq_bucket_first(s->rows, s->bits, s->first_run + run); row < last; row++) {
            while (place < end && s->dst[place] < row)
                place++;
            s->index[row - s->first_row] = (int32_t)place;
        }
    }
}

void tv_graph_store_refresh(tv_graph_store *s)
{
    if (s->dense && !s->indexed)
        make_index(s);
    s->indexed = 1;
}

static tv_graph_list list_from(const tv_graph_store *s, int64_t first, int64_t end, int64_t row)
{
    tv_graph_list list = {first, 0};
    while (first + list.count < end && s->dst[first + list.count] == row)
        list.count++;
    return list;
}

tv_graph_list tv_graph_store_find(const tv_graph_store *s, int64_t row)
{
    int64_t run = tv_vq_bucket_of(s->rows, s->bits, row) - s->first_run;
    int64_t low = run * s->room, end = low + s->used[run], high = end;
    if (s->dense)
        return list_from(s, s->index[row - s->first_row], end, row);
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (s->dst[middle] < row)
            low = middle + 1;
        else
            high = middle;
    }
    return list_from(s, low, end, row);
}

// ---- what was read from a checkpoint -----------------------------------------------------------------------------------------

static tv_status check_edge(const tv_graph_store *s, int64_t run, int64_t place)
{
    int64_t first = run * s->room, dst = s->dst[place], src = s->src[place], back = place - s->list;
    int64_t lowest = tv_vq_bucket_first(s->rows, s->bits, s->first_run + run),
            end = tv_vq_bucket_first(s->rows, s->bits, s->first_run + run + 1);
    if (src < 0 || src >= s->rows)
        return TV_FAIL(TV_CHECKPOINT,
                       "the graph has an edge from motif %" PRId64 ", but the codebook has %" PRId64
                       " rows; go back to an older checkpoint",
                       src, s->rows);
    if (dst < lowest || dst >= end)
        return TV_FAIL(TV_CHECKPOINT,
                       "the graph has an edge into motif %" PRId64 " among those into %" PRId64 " .. %" PRId64
                       "; go back to an older checkpoint",
                       dst, lowest, end - 1);
    if (place > first && (dst < s->dst[place - 1] || (dst == s->dst[place - 1] && src <= s->src[place - 1])))
        return TV_FAIL(TV_CHECKPOINT,
                       "the graph's edge from motif %" PRId64 " into %" PRId64
                       " is out of order; go back to an older checkpoint",
                       src, dst);
    if ((back >= first && s->dst[back] == dst) || s->attr[place] < -1 || s->attr[place] > 1 || s->score[place] < 0)
        return TV_FAIL(TV_CHECKPOINT,
                       "the graph's edge from motif %" PRId64 " into %" PRId64
                       " has more beside it than graph.edges_per_node %" PRId64 ", attr %d or score %d that none has; "
                       "go back to an older checkpoint",
                       src, dst, s->list, s->attr[place], s->score[place]);
    return TV_OK;
}

tv_status tv_graph_store_check(tv_graph_store *s, tv_params *params)
{
    tv_status st = TV_OK;
    (void)params;
    s->indexed = 0;
    for (int64_t run = 0; st == TV_OK && run < s->runs; run++) {
        if (s->used[run] < 0 || s->used[run] > s->room)
            st = TV_FAIL(TV_CHECKPOINT,
                         "the graph has %d edges in a run of rows with room for %" PRId64
                         "; go back to an older checkpoint",
                         s->used[run], s->room);
        for (int64_t i = 0; st == TV_OK && i < s->used[run]; i++)
            st = check_edge(s, run, run * s->room + i);
    }
    return st;
}
