#include "model/graph_link.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "comm/comm.h"

enum { INT = sizeof(int32_t) };

tv_status tv_graph_link_plan(tv_graph_link *link, const tv_plan *plan, tv_graph_store *store)
{
    link->store = store;
    link->pool.backend = plan->params->backend;
    if (plan->params->backend == NULL)
        return TV_OK;
    link->host.backend = plan->params->host;
    // A unit may ask for every row once; a step's records come from all units.
    TV_TRY(tv_table_link_open(&link->rows, plan, plan->params->items[link->table].spec.bits, store->rows));
    return tv_table_link_open(&link->edges, plan, store->bits, INT32_MAX);
}

void tv_graph_link_free(tv_graph_link *link)
{
    tv_table_link_close(&link->rows);
    tv_table_link_close(&link->edges);
    tv_pool_free(&link->pool);
    tv_pool_free(&link->host);
}

int64_t tv_graph_link_bytes(const tv_graph_link *link) { return link->rows.wire_bytes + link->edges.wire_bytes; }

void tv_graph_link_reset(tv_graph_link *link)
{
    link->rows.wire_bytes = link->edges.wire_bytes = 0;
    link->rows_asked = link->lists_asked = link->records_sent = 0;
}

// ---- lists of edges ------------------------------------------------------------------------------------------------------------

static void write_list(const tv_graph_store *store, int32_t row, uint8_t *out)
{
    tv_graph_list list = tv_graph_store_find(store, row);
    int32_t count = (int32_t)list.count;
    memset(out, 0, (size_t)tv_graph_list_bytes(store->list));
    memcpy(out, &count, INT);
    memcpy(out + INT, store->src + list.first, (size_t)list.count * INT);
    memcpy(out + INT + INT * store->list, store->attr + list.first, (size_t)list.count);
}

static tv_status write_lists(const tv_graph_store *store, const int32_t *rows, int64_t count, const char *layer,
                             uint8_t *out)
{
    for (int64_t i = 0; i < count; i++) {
        int64_t at = rows[i] - store->first_row;
        if (at < 0 || at >= store->held_rows)
            return TV_FAIL(TV_COMM, "%s: a rank asks for the edges into row %d, which lie elsewhere", layer, rows[i]);
        write_list(store, rows[i], out + i * tv_graph_list_bytes(store->list));
    }
    return TV_OK;
}

// What came is looked at before anything is done with it.
static tv_status check_lists(const tv_graph_store *store, const uint8_t *lists, int64_t count, const char *layer)
{
    int64_t size = tv_graph_list_bytes(store->list);
    for (int64_t i = 0; i < count; i++, lists += size) {
        int32_t n, src;
        memcpy(&n, lists, INT);
        int bad = n < 0 || n > store->list;
        for (int64_t k = 0; !bad && k < n; k++) {
            memcpy(&src, lists + INT + INT * k, INT);
            int attr = (int8_t)lists[INT + INT * store->list + k];
            bad = src < 0 || src >= store->rows || attr < -1 || attr > 1;
        }
        if (bad)
            return TV_FAIL(TV_COMM, "%s: a list of edges came that no run can have made", layer);
    }
    return TV_OK;
}

typedef struct list_buffers {
    uint8_t *ids, *asked, *out, *in; // backend memory: row ids, as they come, lists out, lists in
    int32_t *host_asked;
    uint8_t *host_out, *host_in;
} list_buffers;

static tv_status bind_lists(tv_graph_link *link, int64_t count, int64_t came, list_buffers *b)
{
    int64_t size = tv_graph_list_bytes(link->store->list);
    tv_arena device, host;
    tv_arena_init(&device, "the edges of a unit");
    tv_arena_init(&host, "the edges of a unit");
    for (int pass = 0; pass < 2; pass++) {
        b->ids = tv_arena_take(&device, count * INT, 1);
        b->asked = tv_arena_take(&device, came * INT, 1);
        b->out = tv_arena_take(&device, came * size, 1);
        b->in = tv_arena_take(&device, count * size, 1);
        b->host_asked = tv_arena_take(&host, came, INT);
        b->host_out = tv_arena_take(&host, came * size, 1);
        b->host_in = tv_arena_take(&host, count * size, 1);
        if (pass == 0) {
            TV_TRY(tv_pool_bind(&link->pool, &device));
            TV_TRY(tv_pool_bind(&link->host, &host));
        }
    }
    return TV_OK;
}

// The store's rows, split as its runs are.
static tv_tensor_spec runs_of(const tv_graph_store *store)
{
    return (tv_tensor_spec){.rows = store->rows, .bits = store->bits};
}

tv_status tv_graph_link_lists(tv_graph_link *link, tv_unit *unit, const int32_t *rows, int64_t count,
                              const uint8_t **lists)
{
    const tv_backend *backend = unit->backend;
    tv_graph_store *store = link->store;
    const char *layer = "graph";
    tv_table_link *edges = &link->edges;
    int64_t size = tv_graph_list_bytes(store->list), came = count;
    tv_tensor_spec runs = runs_of(store);
    list_buffers b;
    tv_graph_store_refresh(store);
    if (edges->ranks == 1) {
        TV_TRY(bind_lists(link, count, 0, &b));
        *lists = b.host_in;
        return write_lists(store, rows, count, layer, b.host_in);
    }
    TV_TRY(tv_fault_status(TV_FAULT_GRAPH_EDGES_POINT, TV_BACKEND));
    int64_t away = tv_table_link_address(edges, &runs, rows, count);
    link->lists_asked += unit->training ? away : 0;
    TV_TRY(tv_table_link_counts(edges, unit, layer));
    came = tv_table_link_total(edges, edges->received);
    TV_TRY(bind_lists(link, count, came, &b));
    TV_TRY(backend->copy(b.ids, rows, (size_t)count * INT, TV_COPY_TO_DEVICE, unit->stream));
    edges->out = b.ids;
    edges->in = b.asked;
    TV_TRY(tv_table_link_travel(edges, unit, INT, 0));
    TV_TRY(backend->copy(b.host_asked, b.asked, (size_t)came * INT, TV_COPY_TO_HOST, unit->stream));
    TV_TRY(write_lists(store, b.host_asked, came, layer, b.host_out));
    TV_TRY(backend->copy(b.out, b.host_out, (size_t)(came * size), TV_COPY_TO_DEVICE, unit->stream));
    edges->out = b.out;
    edges->in = b.in;
    TV_TRY(tv_table_link_travel(edges, unit, size, 1));
    TV_TRY(backend->copy(b.host_in, b.in, (size_t)(count * size), TV_COPY_TO_HOST, unit->stream));
    *lists = b.host_in;
    return check_lists(store, b.host_in, count, layer);
}

// ---- rows ----------------------------------------------------------------------------------------------------------------------

tv_status tv_graph_link_rows(tv_graph_link *link, tv_unit *unit, const int32_t *rows, int64_t count, uint8_t *answers)
{
    const tv_backend *backend = unit->backend;
    const tv_param *param = &unit->params->items[link->table];
    tv_table_link *table = &link->rows;
    int64_t size = tv_vq_answer_bytes(param->spec.cols), came = count;
    tv_vq_answer_args answer = {.table = tv_param_table(param), .fault = unit->fault};
    uint8_t *ids = NULL, *asked = NULL;
    int32_t *score = NULL;
    tv_arena arena;
    if (table->ranks > 1) {
        int64_t away = tv_table_link_address(table, &param->spec, rows, count);
        link->rows_asked += unit->training ? away : 0;
        TV_TRY(tv_table_link_counts(table, unit, "graph"));
        came = tv_table_link_total(table, table->received);
    }
    tv_arena_init(&arena, "the rows of a unit's motifs");
    for (int pass = 0; pass < 2; pass++) {
        ids = tv_arena_take(&arena, count * INT, 1);
        asked = table->ranks > 1 ? tv_arena_take(&arena, came * INT, 1) : ids;
        score = tv_arena_take(&arena, came, INT);
        answer.bytes = table->ranks > 1 ? tv_arena_take(&arena, came * size, 1) : answers;
        if (pass == 0)
            TV_TRY(tv_pool_bind(&link->pool, &arena));
    }
    TV_TRY(backend->copy(ids, rows, (size_t)count * INT, TV_COPY_TO_DEVICE, unit->stream));
    TV_TRY(backend->zero(score, (size_t)came * INT, unit->stream));
    table->out = ids;
    table->in = asked;
    if (table->ranks > 1)
        TV_TRY(tv_table_link_travel(table, unit, INT, 0));
    answer.count = came;
    answer.row = (const int32_t *)asked;
    answer.score = score;
    TV_TRY(backend->vq.answer(&answer, unit->stream));
    if (table->ranks == 1)
        return TV_OK;
    table->out = answer.bytes;
    table->in = answers;
    return tv_table_link_travel(table, unit, size, 1);
}

// ---- records -------------------------------------------------------------------------------------------------------------------

// Counts of records by owner in link->sent, and the records by owner, in their order, in `out`.
static void address_records(const tv_graph_store *store, tv_table_link *link, const tv_graph_records *list,
                            tv_graph_record *out)
{
    const tv_graph_record *records = list->items;
    int64_t count = list->count;
    int64_t *next = link->sent_bytes, first = 0; // sent_bytes is written anew when they travel
    memset(link->sent, 0, (size_t)link->ranks * sizeof *link->sent);
    for (int64_t i = 0; i < count; i++)
        link->sent[tv_vq_place_of(store->bits, link->places,
                                  tv_vq_bucket_of(store->rows, store->bits, records[i].dst))]++;
    for (int r = 0; r < link->ranks; r++) {
        next[r] = first;
        first += link->sent[r];
    }
    for (int64_t i = 0; i < count; i++)
        out[next[tv_vq_place_of(store->bits, link->places,
                                tv_vq_bucket_of(store->rows, store->bits, records[i].dst))]++] = records[i];
}

static tv_status check_records(const tv_graph_store *store, const tv_graph_record *records, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        int64_t at = records[i].dst - store->first_row;
        if (at < 0 || at >= store->held_rows || records[i].src < 0 || records[i].src >= store->rows)
            return TV_FAIL(TV_COMM, "graph: a transition from motif %d to %d came, which is not of this rank",
                           records[i].src, records[i].dst);
    }
    return TV_OK;
}

tv_status tv_graph_link_deliver(tv_graph_link *link, tv_unit *unit, tv_graph_records *records)
{
    const tv_backend *backend = unit->backend;
    tv_table_link *edges = &link->edges;
    const tv_graph_store *store = link->store;
    int64_t size = sizeof(tv_graph_record), count = records->count, came;
    tv_unit after = *unit; // no unit of the step: all ranks say the same one
    tv_arena arena;
    after.index = 0;
    after.training = 0;
    tv_arena_init(&arena, "a step's transitions");
    tv_arena_take(&arena, count * size, 1);
    TV_TRY(tv_pool_bind(&link->host, &arena));
    tv_graph_record *sorted = tv_arena_take(&arena, count * size, 1);
    address_records(store, edges, records, sorted);
    for (int r = 0; r < edges->ranks; r++)
        link->records_sent += r == edges->rank ? 0 : edges->sent[r];
    TV_TRY(tv_table_link_counts(edges, &after, "graph"));
    came = tv_table_link_total(edges, edges->received);
    tv_arena_init(&arena, "a step's transitions");
    for (int pass = 0; pass < 2; pass++) {
        edges->out = tv_arena_take(&arena, count * size, 1);
        edges->in = tv_arena_take(&arena, came * size, 1);
        if (pass == 0)
            TV_TRY(tv_pool_bind(&link->pool, &arena));
    }
    TV_TRY(backend->copy(edges->out, sorted, (size_t)(count * size), TV_COPY_TO_DEVICE, unit->stream));
    TV_TRY(tv_table_link_travel(edges, unit, size, 0));
    tv_arena_init(&arena, "a step's transitions");
    tv_arena_take(&arena, came * size, 1);
    TV_TRY(tv_pool_bind(&link->host, &arena));
    *records = (tv_graph_records){tv_arena_take(&arena, came * size, 1), came, came};
    TV_TRY(backend->copy(records->items, edges->in, (size_t)(came * size), TV_COPY_TO_HOST, unit->stream));
    return check_records(store, records->items, came);
}
