// What a step's transitions and votes make of the edges.
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/rng.h"
#include "base/thread.h"
#include "model/graph_store.h"

enum { DIGIT_BITS = 11, DIGITS = 1 << DIGIT_BITS };

typedef struct edge {
    int32_t dst, src;
    int8_t attr, accum, score;
} edge;

static void sort_pass(const tv_graph_record *from, tv_graph_record *to, int64_t count, int shift, int by_src)
{
    int64_t start[DIGITS + 1] = {0};
    for (int64_t i = 0; i < count; i++)
        start[((by_src ? from[i].src : from[i].dst) >> shift & (DIGITS - 1)) + 1]++;
    for (int d = 0; d < DIGITS; d++)
        start[d + 1] += start[d];
    for (int64_t i = 0; i < count; i++)
        to[start[(by_src ? from[i].src : from[i].dst) >> shift & (DIGITS - 1)]++] = from[i];
}

void tv_graph_sort(tv_graph_record *records, tv_graph_record *spare, int64_t count, int by_src)
{
    sort_pass(records, spare, count, 0, by_src);
    sort_pass(spare, records, count, DIGIT_BITS, by_src);
    sort_pass(records, spare, count, 2 * DIGIT_BITS, by_src);
    if (count > 0)
        memcpy(records, spare, (size_t)count * sizeof *records);
}

static tv_status make_room(void **memory, int64_t *capacity, int64_t count, size_t item)
{
    if (count <= *capacity)
        return TV_OK;
    void *more = realloc(*memory, (size_t)(count + count / 4) * item);
    if (more == NULL)
        return TV_FAIL(TV_MEMORY, "no memory for %lld changes of the graph", (long long)count);
    *memory = more;
    *capacity = count + count / 4;
    return TV_OK;
}

static tv_status sort_records(tv_graph_store *s, tv_graph_record *records, int64_t count, int by_edge)
{
    void *memory = s->records;
    TV_TRY(make_room(&memory, &s->record_capacity, count, sizeof *s->records));
    s->records = memory;
    if (by_edge)
        tv_graph_sort(records, s->records, count, 1);
    tv_graph_sort(records, s->records, count, 0);
    return TV_OK;
}

// ---- votes ---------------------------------------------------------------------------------------------------------------------

// The step of a counter for the votes' sum v (docs/numerics.md, section 4).
static int counter_step(const tv_step_rule *rule, int64_t v, uint32_t r16)
{
    uint64_t size = (uint64_t)(v < 0 ? -v : v), step = ((uint64_t)rule->eta_q + r16) >> 16;
    int sign = (v > 0) - (v < 0);
    if (rule->rule == TV_RULE_CLASSIC)
        return size >= (uint64_t)rule->quorum ? sign * rule->classic_step : 0;
    if (rule->combine == TV_COMBINE_MEAN)
        step = ((uint64_t)rule->eta_q * size / (uint64_t)rule->units + r16) >> 16;
    else if (size < (uint64_t)rule->quorum)
        return 0;
    return sign * (int)(step > 127 ? 127 : step);
}

// 1 when attr moved.
static int move_attr(tv_graph_store *s, int64_t place, const tv_unit *unit, int64_t votes)
{
    const tv_step_rule *rule = unit->rule;
    uint64_t element = (uint64_t)s->dst[place] * (uint64_t)s->rows + (uint64_t)s->src[place];
    tv_rng_key key = {unit->seed, TV_RNG_BALLOT_T, tv_hash_name("graph.attr"), unit->step};
    uint32_t r16 = tv_rng_lane(tv_rng_at(key, element >> 3), (int)(element & 7));
    int d = counter_step(rule, votes, r16), a = s->accum[place] - d, most = rule->threshold - 1, flip = 0;
    if (d != 0 && a >= rule->threshold && s->attr[place] < 1)
        flip = 1;
    if (d != 0 && a <= -rule->threshold && s->attr[place] > -1)
        flip = -1;
    s->attr[place] = (int8_t)(s->attr[place] + flip);
    a = rule->rule == TV_RULE_CLASSIC && flip != 0 ? 0 : a - flip * rule->threshold;
    s->accum[place] = (int8_t)(a < -most ? -most : a > most ? most : a);
    return flip != 0;
}

tv_status tv_graph_store_vote(tv_graph_store *s, const tv_unit *unit, tv_graph_record *votes, int64_t count,
                              tv_graph_changes *changes)
{
    TV_TRY(sort_records(s, votes, count, 1));
    for (int64_t i = 0, next; i < count; i = next) {
        int64_t sum = 0;
        for (next = i; next < count && votes[next].dst == votes[i].dst && votes[next].src == votes[i].src; next++)
            sum += votes[next].value;
        tv_graph_list list = tv_graph_store_find(s, votes[i].dst);
        for (int64_t k = list.first; k < list.first + list.count; k++)
            if (s->src[k] == votes[i].src)
                changes->flips += move_attr(s, k, unit, sum);
    }
    return TV_OK;
}

// ---- transitions -------------------------------------------------------------------------------------------------------------

static edge edge_at(const tv_graph_store *s, int64_t place)
{
    return (edge){s->dst[place], s->src[place], s->attr[place], s->accum[place], s->score[place]};
}

// One transition into a list of `*count` edges.
static void take_transition(const tv_graph_store *s, edge *list, int64_t *count, const tv_graph_record *t,
                            tv_graph_changes *changes)
{
    int64_t lowest = 0;
    for (int64_t i = 0; i < *count; i++) {
        if (list[i].src == t->src) {
            list[i].score = (int8_t)(list[i].score + (list[i].score < TV_GRAPH_SCORE_MAX));
            return;
        }
        if (list[i].score < list[lowest].score ||
            (list[i].score == list[lowest].score && list[i].src < list[lowest].src))
            lowest = i;
    }
    int full = *count == s->list;
    int64_t at = full ? lowest : (*count)++;
    changes->replaced += full;
    changes->made++;
    list[at] = (edge){t->dst, t->src, 1, 0, 1};
}

static void sort_list(edge *list, int64_t count)
{
    for (int64_t i = 1; i < count; i++) {
        edge e = list[i];
        int64_t k = i;
        for (; k > 0 && list[k - 1].src > e.src; k--)
            list[k] = list[k - 1];
        list[k] = e;
    }
}

// A run's edges and `count` transitions into its rows, both by dst, into `out`; how many edges these are.
static int64_t merge_run(const tv_graph_store *s, int64_t run, const tv_graph_record *t, int64_t count, edge *out,
                         tv_graph_changes *changes)
{
    int64_t place = run * s->room, end = place + s->used[run], made = 0;
    for (int64_t i = 0; i < count;) {
        int32_t dst = t[i].dst;
        int64_t length = 0;
        for (; place < end && s->dst[place] < dst; place++)
            out[made++] = edge_at(s, place);
        for (; place < end && s->dst[place] == dst; place++)
            out[made + length++] = edge_at(s, place);
        for (; i < count && t[i].dst == dst; i++)
            take_transition(s, out + made, &length, &t[i], changes);
        sort_list(out + made, length);
        made += length;
    }
    for (; place < end; place++)
        out[made++] = edge_at(s, place);
    return made;
}

// The `count` edges of a run become those that it has room for.
static int64_t evict(const tv_graph_store *s, edge *edges, int64_t count)
{
    int64_t scores[TV_GRAPH_SCORE_MAX + 1] = {0}, left = count - s->room, kept = 0;
    int cut = 0;
    if (left <= 0)
        return count;
    for (int64_t i = 0; i < count; i++)
        scores[edges[i].score]++;
    while (left > scores[cut])
        left -= scores[cut++];
    for (int64_t i = 0; i < count; i++) {
        if (edges[i].score < cut || (edges[i].score == cut && left-- > 0))
            continue;
        edges[kept++] = edges[i];
    }
    return kept;
}

static void write_run(tv_graph_store *s, int64_t run, const edge *edges, int64_t count)
{
    int64_t first = run * s->room, before = s->used[run], most = count > before ? count : before;
    static const edge none = {0, 0, 0, 0, 0};
    for (int64_t i = 0; i < most; i++) {
        const edge *e = i < count ? &edges[i] : &none;
        s->dst[first + i] = e->dst;
        s->src[first + i] = e->src;
        s->attr[first + i] = e->attr;
        s->accum[first + i] = e->accum;
        s->score[first + i] = e->score;
    }
    s->used[run] = (int32_t)count;
}

// The runs that a step's transitions change, each taken by one of the threads: what becomes of a run depends on no other.
typedef struct change {
    tv_graph_store *store;
    const tv_graph_record *transitions;              // by dst
    int64_t start[(1 << TV_GRAPH_RUN_BITS_MAX) + 1]; // first transition into each run held here, and the end
    int64_t most;                                    // edges of a run on the way
    atomic_int next_run, next_thread;
    tv_graph_changes made[TV_THREADS_MAX]; // by each thread
} change;

static void *change_runs(void *argument)
{
    change *c = argument;
    tv_graph_store *s = c->store;
    int thread = atomic_fetch_add(&c->next_thread, 1);
    edge *merged = (edge *)s->merged + thread * c->most;
    for (int64_t run; (run = atomic_fetch_add(&c->next_run, 1)) < s->runs;) {
        int64_t first = c->start[run], count = c->start[run + 1] - first;
        if (count == 0)
            continue;
        int64_t all = merge_run(s, run, c->transitions + first, count, merged, &c->made[thread]);
        int64_t kept = evict(s, merged, all);
        c->made[thread].evicted += all - kept;
        write_run(s, run, merged, kept);
    }
    return NULL;
}

// Cuts the transitions up by run; returns the edges of all runs on the way.
static int64_t cut_by_run(change *c, int64_t count)
{
    const tv_graph_store *s = c->store;
    int64_t next = 0, edges = count;
    for (int64_t run = 0; run < s->runs; run++) {
        int64_t end = tv_vq_bucket_first(s->rows, s->bits, s->first_run + run + 1);
        c->start[run] = next;
        while (next < count && c->transitions[next].dst < end)
            next++;
        int64_t all = s->used[run] + next - c->start[run];
        c->most = all > c->most ? all : c->most;
        edges += s->used[run];
    }
    c->start[s->runs] = next;
    return edges;
}

// One thread for this many edges, which take it some ten times as long as its start.
static int threads_for(int64_t edges)
{
    enum { EDGES_A_THREAD = 1 << 16 };
    int64_t wanted = 1 + edges / EDGES_A_THREAD, cores = wanted > 1 ? tv_thread_cores() : 1;
    wanted = wanted < cores ? wanted : cores;
    return (int)(wanted < TV_THREADS_MAX ? wanted : TV_THREADS_MAX);
}

tv_status tv_graph_store_learn(tv_graph_store *s, tv_graph_record *transitions, int64_t count,
                               tv_graph_changes *changes)
{
    change c = {.store = s, .transitions = transitions};
    TV_TRY(sort_records(s, transitions, count, 0));
    int threads = threads_for(cut_by_run(&c, count));
    TV_TRY(make_room(&s->merged, &s->merged_capacity, threads * c.most, sizeof(edge)));
    s->indexed = 0;
    tv_thread_share(threads, change_runs, &c);
    for (int i = 0; i < threads; i++) {
        changes->made += c.made[i].made;
        changes->replaced += c.made[i].replaced;
        changes->evicted += c.made[i].evicted;
    }
    return TV_OK;
}

void tv_graph_store_decay(tv_graph_store *s, int64_t step)
{
    if ((step + 1) % s->decay_every != 0)
        return;
    for (int64_t run = 0; run < s->runs; run++)
        for (int64_t i = run * s->room; i < run * s->room + s->used[run]; i++)
            s->score[i] = (int8_t)(s->score[i] >> 1);
}
