#include "model/graph_nodes.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { INT = sizeof(int32_t), MAP_FIRST = 1024 };

void tv_graph_nodes_free(tv_graph_nodes *n)
{
    free(n->node), free(n->start), free(n->source), free(n->dst), free(n->attr);
    free(n->source_start), free(n->by_source), free(n->key), free(n->value);
    free(n->ascending), free(n->place), free(n->sorted), free(n->spare);
    memset(n, 0, sizeof *n);
}

static tv_status resize(void *array, int64_t count, size_t item)
{
    void **at = array, *more = realloc(*at, (size_t)count * item);
    if (more == NULL)
        return TV_FAIL(TV_MEMORY, "no memory for %" PRId64 " nodes of the graph", count);
    *at = more;
    return TV_OK;
}

static tv_status reserve_nodes(tv_graph_nodes *n, int64_t count)
{
    if (count < n->node_room)
        return TV_OK;
    int64_t room = count + count / 4 + 16;
    TV_TRY(resize(&n->node, room, INT));
    TV_TRY(resize(&n->start, room + 1, INT));
    TV_TRY(resize(&n->source_start, room + 2, INT));
    TV_TRY(resize(&n->ascending, room, INT));
    TV_TRY(resize(&n->place, room, INT));
    TV_TRY(resize(&n->sorted, room, sizeof *n->sorted));
    TV_TRY(resize(&n->spare, room, sizeof *n->spare));
    n->node_room = room;
    return TV_OK;
}

static tv_status reserve_edges(tv_graph_nodes *n, int64_t count)
{
    if (count > INT32_MAX)
        return TV_FAIL(TV_CONFIG,
                       "a unit's motifs have %" PRId64 " edges within graph.hops, more than 2^31; take fewer", count);
    if (count < n->edge_room)
        return TV_OK;
    int64_t room = count + count / 4 + 16;
    TV_TRY(resize(&n->source, room, INT));
    TV_TRY(resize(&n->dst, room, INT));
    TV_TRY(resize(&n->attr, room, 1));
    TV_TRY(resize(&n->by_source, room, INT));
    n->edge_room = room;
    return TV_OK;
}

// ---- rows to nodes -------------------------------------------------------------------------------------------------------------

static int64_t map_place(const tv_graph_nodes *n, int32_t row)
{
    int64_t at = (int64_t)((uint32_t)row * 0x9E3779B1u >> 3) & (n->map_size - 1);
    while (n->key[at] >= 0 && n->key[at] != row)
        at = (at + 1) & (n->map_size - 1);
    return at;
}

static tv_status map_clear(tv_graph_nodes *n, int64_t size)
{
    if (size > n->map_size) {
        TV_TRY(resize(&n->key, size, INT));
        TV_TRY(resize(&n->value, size, INT));
        n->map_size = size;
    }
    memset(n->key, 0xFF, (size_t)n->map_size * INT);
    n->map_used = 0;
    return TV_OK;
}

// 1 in *added when the row had no node.
static tv_status map_add(tv_graph_nodes *n, int32_t row, int32_t value, int *added)
{
    if (2 * (n->map_used + 1) > n->map_size) {
        TV_TRY(map_clear(n, 2 * n->map_size));
        for (int64_t i = 0; i < n->count; i++) {
            int64_t at = map_place(n, n->node[i]);
            n->key[at] = n->node[i];
            n->value[at] = (int32_t)i;
        }
        n->map_used = n->count;
    }
    int64_t at = map_place(n, row);
    *added = n->key[at] < 0;
    if (*added) {
        n->key[at] = row;
        n->value[at] = value;
        n->map_used++;
    }
    return TV_OK;
}

static tv_status add_node(tv_graph_nodes *n, int32_t row)
{
    int added;
    TV_TRY(map_add(n, row, (int32_t)n->count, &added));
    if (!added)
        return TV_OK;
    TV_TRY(reserve_nodes(n, n->count + 1));
    n->node[n->count++] = row;
    return TV_OK;
}

static int by_row(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

// ---- levels --------------------------------------------------------------------------------------------------------------------

// The lists of nodes [first, end), and their sources as rows and as new nodes.
static tv_status take_lists(tv_graph_nodes *n, const uint8_t *lists, int64_t list, int64_t first, int64_t end)
{
    int64_t size = tv_graph_list_bytes(list);
    for (int64_t v = first; v < end; v++, lists += size) {
        int32_t count;
        memcpy(&count, lists, INT);
        TV_TRY(reserve_edges(n, n->edges + count));
        memcpy(n->source + n->edges, lists + INT, (size_t)count * INT);
        memcpy(n->attr + n->edges, lists + INT + INT * list, (size_t)count);
        for (int32_t k = 0; k < count; k++) {
            n->dst[n->edges + k] = (int32_t)v;
            TV_TRY(add_node(n, n->source[n->edges + k]));
        }
        n->edges += count;
        n->start[v + 1] = (int32_t)n->edges;
    }
    return TV_OK;
}

static tv_status expand(tv_graph_nodes *n, tv_graph_link *link, tv_unit *unit, int level)
{
    int64_t first = level > 0 ? n->level_end[level - 1] : 0, end = n->level_end[level], edges = n->edges;
    const uint8_t *lists = NULL;
    TV_TRY(tv_graph_link_lists(link, unit, n->node + first, end - first, &lists));
    TV_TRY(take_lists(n, lists, link->store->list, first, end));
    n->level_end[level + 1] = n->count;
    qsort(n->node + end, (size_t)(n->count - end), sizeof *n->node, by_row);
    for (int64_t i = end; i < n->count; i++)
        n->value[map_place(n, n->node[i])] = (int32_t)i;
    for (int64_t e = edges; e < n->edges; e++)
        n->source[e] = n->value[map_place(n, n->source[e])];
    return TV_OK;
}

static void order_by_source(tv_graph_nodes *n)
{
    // Counted two places up, then one: filling moves each start to the next node's.
    int32_t *start = n->source_start;
    memset(start, 0, (size_t)(n->count + 2) * INT);
    for (int64_t e = 0; e < n->edges; e++)
        start[n->source[e] + 2]++;
    for (int64_t u = 0; u < n->count; u++)
        start[u + 2] += start[u + 1];
    for (int64_t e = 0; e < n->edges; e++)
        n->by_source[start[n->source[e] + 1]++] = (int32_t)e;
}

tv_status tv_graph_nodes_find(tv_graph_nodes *n, tv_graph_link *link, tv_unit *unit, const int32_t *rows, int64_t count)
{
    n->count = n->edges = 0;
    TV_TRY(reserve_nodes(n, count));
    TV_TRY(reserve_edges(n, 0));
    TV_TRY(map_clear(n, MAP_FIRST));
    for (int64_t i = 0; i < count; i++)
        TV_TRY(add_node(n, rows[i]));
    n->level_end[0] = n->count;
    n->start[0] = 0;
    for (int level = 0; level < n->hops; level++)
        TV_TRY(expand(n, link, unit, level));
    order_by_source(n);
    return TV_OK;
}

tv_status tv_graph_nodes_ascend(tv_graph_nodes *n, const int32_t **rows, const int32_t **places)
{
    for (int64_t i = 0; i < n->count; i++)
        n->sorted[i] = (tv_graph_record){n->node[i], (int32_t)i, 0};
    tv_graph_sort(n->sorted, n->spare, n->count, 0);
    for (int64_t i = 0; i < n->count; i++) {
        n->ascending[i] = n->sorted[i].dst;
        n->place[n->sorted[i].src] = (int32_t)i;
    }
    *rows = n->ascending;
    *places = n->place;
    return TV_OK;
}
