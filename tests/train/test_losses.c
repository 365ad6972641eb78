// Losses by group, on one rank: the votes of every tensor are, to the bit, those of a run in which just the losses that may move it move
// everything; what nothing may move gets none; passes are as few as there are sets; groups that are none are refused. On the backend that
// TV_TEST_BACKEND names, else auto's.
#include "run_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TENSORS_MAX = 64, SETS_MAX = 8 };

// What one step made of every tensor: the units' votes, or for a table all of its state.
typedef struct outcome {
    int64_t count;
    char names[TENSORS_MAX][64];
    void *bytes[TENSORS_MAX];
    size_t sizes[TENSORS_MAX];
    int passes;
} outcome;

static void read_config(tv_config *config, const char *const *sets)
{
    TRY(tv_config_init(config));
    TRY(tv_config_read_file(config, "tests/data/invariance-loss.yaml"));
    for (; *sets; sets++)
        TRY(tv_config_set(config, *sets));
    TRY(tv_config_check(config));
}

static uint8_t *append(const tv_backend *backend, uint8_t *to, const void *from, int64_t bytes)
{
    TRY(backend->copy(to, from, (size_t)bytes, TV_COPY_TO_HOST, NULL));
    return to + bytes;
}

static void take_tensor(const tv_backend *backend, const tv_param *p, outcome *o)
{
    int64_t weights = p->spec.rows * p->spec.cols, T = p->spec.rows * tv_row_bytes(p->spec.cols), E = p->spec.rows;
    int table = p->spec.placement == TV_PLACE_TABLE;
    if (p->spec.frozen)
        return;
    assert_true(o->count < TENSORS_MAX);
    size_t size = (size_t)(table ? weights + T + 2 * E : weights);
    uint8_t *bytes = malloc(size);
    assert_non_null(bytes);
    memcpy(o->names[o->count], p->spec.name, sizeof p->spec.name);
    o->bytes[o->count] = bytes;
    o->sizes[o->count++] = size;
    if (!table) {
        append(backend, bytes, p->votes, weights);
        return;
    }
    bytes = append(backend, bytes, p->T, T);
    bytes = append(backend, bytes, p->E, E);
    bytes = append(backend, bytes, p->T_accum, weights);
    append(backend, bytes, p->E_accum, E);
}

static outcome outcome_of(const char *const *sets)
{
    run r;
    outcome o = {0};
    run_open(&r, "tests/data/invariance-loss.yaml", sets, run_backend_name());
    run_step(&r);
    for (int64_t i = 0; i < r.trainer.model.params.count; i++)
        take_tensor(r.backend, &r.trainer.model.params.items[i], &o);
    o.passes = r.trainer.model.losses.passes;
    run_close(&r);
    return o;
}

static void free_outcome(outcome *o)
{
    for (int64_t i = 0; i < o->count; i++)
        free(o->bytes[i]);
}

static int same(const outcome *a, const outcome *b, int64_t i)
{
    return a->sizes[i] == b->sizes[i] && memcmp(a->bytes[i], b->bytes[i], a->sizes[i]) == 0;
}

static int is_zero(const outcome *o, int64_t i)
{
    const uint8_t *bytes = o->bytes[i];
    for (size_t k = 0; k < o->sizes[i]; k++)
        if (bytes[k] != 0)
            return 0;
    return 1;
}

static int begins(const char *name, const char *prefix) { return strncmp(name, prefix, strlen(prefix)) == 0; }

#define WEIGHTS "loss.cross_entropy_weight=0.5", "loss.commitment_weight=0.02"
#define OPEN "loss.cross_entropy_groups=all", "loss.commitment_groups=all"

// Runs in which every loss moves everything: both, and each alone.
typedef struct references {
    outcome both, cross_entropy, commitment;
} references;

static references run_references(const char *option, const char *other)
{
    const char *both[] = {WEIGHTS, OPEN, option, other, NULL},
               *first[] = {WEIGHTS, OPEN, "loss.commitment_weight=0", option, other, NULL},
               *second[] = {WEIGHTS, OPEN, "loss.cross_entropy_weight=0", option, other, NULL};
    references r = {outcome_of(both), outcome_of(first), outcome_of(second)};
    assert_int_equal(r.both.passes, 1);
    assert_int_equal(r.cross_entropy.passes, 1);
    assert_int_equal(r.commitment.passes, 1);
    return r;
}

static void free_references(references *r)
{
    free_outcome(&r->both), free_outcome(&r->cross_entropy), free_outcome(&r->commitment);
}

// Tensors that a loss may move, by the beginnings of their names. `moved` by none: no votes at all.
typedef struct groups {
    const char *cross_entropy, *commitment; // options
    const char *by_first[SETS_MAX], *by_second[SETS_MAX];
    int passes;
} groups;

static int among(const char *name, const char *const *prefixes)
{
    for (; *prefixes; prefixes++)
        if (begins(name, *prefixes))
            return 1;
    return 0;
}

static void check_groups(const groups *g, const references *r, const char *option, const char *other)
{
    const char *sets[] = {WEIGHTS, g->cross_entropy, g->commitment, option, other, NULL};
    outcome o = outcome_of(sets);
    assert_int_equal(o.count, r->both.count);
    assert_int_equal(o.passes, g->passes);
    for (int64_t i = 0; i < o.count; i++) {
        int first = among(o.names[i], g->by_first), second = among(o.names[i], g->by_second);
        const outcome *want = first && second ? &r->both : first ? &r->cross_entropy : &r->commitment;
        if (first || second ? !same(&o, want, i) : !is_zero(&o, i))
            fail_msg("%s, %s, %s: '%s' has other votes than those of %s", g->cross_entropy, g->commitment, option,
                     o.names[i],
                     first && second ? "both"
                     : first         ? "the cross-entropy"
                     : second        ? "the commitment"
                                     : "nothing");
    }
    free_outcome(&o);
}

// The references differ where they should, so that comparing with them says something.
static void check_references(const references *r)
{
    int differ = 0;
    for (int64_t i = 0; i < r->both.count; i++) {
        const char *name = r->both.names[i];
        int reached = begins(name, "embed") || begins(name, "sequencer") || begins(name, "codebook.down");
        if (begins(name, "head")) {
            assert_true(is_zero(&r->commitment, i));
            assert_true(same(&r->both, &r->cross_entropy, i));
        }
        if (reached) {
            assert_false(is_zero(&r->commitment, i));
            assert_false(same(&r->both, &r->cross_entropy, i));
            assert_false(same(&r->both, &r->commitment, i));
            differ++;
        }
    }
    assert_int_equal(differ, 3);
}

static const groups cases[] = {
    // one pass: both may move all that they reach
    {"loss.cross_entropy_groups=all", "loss.commitment_groups=[all, embed]", {""}, {""}, 1},
    // the commitment moves one part, or one tensor
    {"loss.cross_entropy_groups=all", "loss.commitment_groups=codebook", {""}, {"codebook"}, 2},
    {"loss.cross_entropy_groups=all", "loss.commitment_groups=[codebook.down]", {""}, {"codebook.down"}, 2},
    // and the cross-entropy does not move what it moves
    {"loss.cross_entropy_groups=[sequencer, codebook, memgram, block, composite, head]",
     "loss.commitment_groups=[embed, codebook.down, block.0.attention]",
     {"sequencer", "codebook", "memgram", "block", "composite", "head"},
     {"embed", "codebook.down", "block.0.attention"},
     3},
    // block.1 is moved by nothing, the sequencer by the commitment alone
    {"loss.cross_entropy_groups=[embed, codebook, memgram.struct, memgram.conv, block.0, composite]",
     "loss.commitment_groups=[sequencer, embed, block.0.attention]",
     {"embed", "codebook", "memgram.struct", "memgram.conv", "block.0.", "composite"},
     {"sequencer", "embed", "block.0.attention"},
     3},
    // kinds of parts
    {"loss.cross_entropy_groups=all",
     "loss.commitment_groups=[attention]",
     {""},
     {"block.0.attention", "block.1.attention"},
     2},
};

static void check_cases(const char *option)
{
    references r = run_references(option, "train.seed=1");
    check_references(&r);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_groups(&cases[i], &r, option, "train.seed=1");
    free_references(&r);
}

static void test_votes_ffn(void **state)
{
    (void)state;
    check_cases("moe.experts=0");
}

static void test_votes_moe(void **state)
{
    (void)state;
    check_cases("moe.experts=12");
}

static void test_votes_two_digits(void **state)
{
    (void)state;
    check_cases("vote.levels=7");
}

// `part` is the part that has the loss. With one codebook that is the codebook; with a composite too each moves its own.
static void test_part(void **state)
{
    (void)state;
    static const groups alone = {"loss.cross_entropy_groups=all", "loss.commitment_groups=part", {""}, {"codebook"}, 2};
    static const groups head_only = {"loss.cross_entropy_groups=[part, codebook.table]",
                                     "loss.commitment_groups=[part, embed]",
                                     {"head", "codebook.table"},
                                     {"codebook", "embed"},
                                     2};
    references r = run_references("composite.rows=0", "memgram.rows=0");
    check_groups(&alone, &r, "composite.rows=0", "memgram.rows=0");
    check_groups(&head_only, &r, "composite.rows=0", "memgram.rows=0");
    free_references(&r);
    const char *sets[] = {WEIGHTS, "loss.cross_entropy_groups=all", "loss.commitment_groups=part", NULL};
    references two = run_references("train.seed=1", "train.seed=1");
    outcome o = outcome_of(sets);
    assert_int_equal(o.passes, 3);
    for (int64_t i = 0; i < o.count; i++)
        if (begins(o.names[i], "composite"))
            assert_true(same(&o, &two.both, i));
        else if (begins(o.names[i], "codebook.down"))
            assert_false(same(&o, &two.both, i) || same(&o, &two.cross_entropy, i));
        else
            assert_true(same(&o, &two.cross_entropy, i));
    free_outcome(&o);
    free_references(&two);
}

static void refuse(const char *option, const char *other, const char *message)
{
    const char *sets[] = {option, other, NULL};
    tv_config config;
    tv_model model;
    read_config(&config, sets);
    tv_status st = tv_model_create(&model, &config);
    if (st != TV_CONFIG || strstr(tv_status_message(), message) == NULL)
        fail_msg("%s: '%s' does not say '%s'", option, st == TV_OK ? "" : tv_status_message(), message);
    tv_model_free(&model);
    tv_config_free(&config);
}

static void test_bad_groups(void **state)
{
    (void)state;
    refuse(
        "loss.commitment_groups=[codebook, atention]", "train.seed=1",
        "loss.commitment_groups: 'atention' is no group of this model; take of all, part, embed, sequencer, codebook, "
        "memgram, attention, moe, composite, head, or the name of a part or tensor, such as head.out");
    refuse("loss.cross_entropy_groups=block.0.ffn", "train.seed=1", "loss.cross_entropy_groups: 'block.0.ffn' is no");
    refuse("loss.cross_entropy_groups=[all, block.0.at]", "train.seed=1", "'block.0.at' is no group");
    refuse("loss.cross_entropy_groups=[head]", "loss.commitment_groups=[embed]",
           "no loss may move 'codebook.table', but its rows' use is counted with their votes; name codebook in "
           "loss.cross_entropy_groups");
    refuse("loss.cross_entropy_weight=0", "loss.commitment_weight=0", "no loss may move 'codebook.table'");
}

// Without a codebook there is one loss.
static void test_cross_entropy_alone(void **state)
{
    (void)state;
    static const char *const off[] = {"codebook.rows=0", "composite.rows=0", "memgram.rows=0",
                                      "loss.cross_entropy_weight=0", NULL};
    static const char *const all[] = {"codebook.rows=0", "composite.rows=0", "memgram.rows=0", OPEN, NULL};
    static const char *const some[] = {"codebook.rows=0",
                                       "composite.rows=0",
                                       "memgram.rows=0",
                                       "loss.cross_entropy_groups=[head, moe]",
                                       "loss.commitment_groups=no_group",
                                       NULL};
    tv_config config;
    tv_model model;
    read_config(&config, off);
    assert_int_equal(tv_model_create(&model, &config), TV_CONFIG);
    assert_non_null(strstr(tv_status_message(), "no loss moves anything; give loss.cross_entropy_weight a value"));
    tv_model_free(&model);
    tv_config_free(&config);
    outcome a = outcome_of(all), b = outcome_of(some);
    assert_int_equal(a.passes, 1);
    assert_int_equal(b.passes, 1);
    for (int64_t i = 0; i < a.count; i++)
        if (begins(a.names[i], "head") || strstr(a.names[i], ".moe."))
            assert_true(same(&a, &b, i) && !is_zero(&a, i));
        else
            assert_true(is_zero(&b, i) && !is_zero(&a, i));
    free_outcome(&a), free_outcome(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_votes_ffn),        cmocka_unit_test(test_votes_moe),
        cmocka_unit_test(test_votes_two_digits), cmocka_unit_test(test_part),
        cmocka_unit_test(test_bad_groups),       cmocka_unit_test(test_cross_entropy_alone)};
    const tv_backend *backend;
    if (tv_backend_find(run_backend_name(), &backend) != TV_OK || backend->open(0, 1, 1) != TV_OK) {
        printf("skipped: %s\n", tv_status_message());
        return 77;
    }
    backend->close();
    return cmocka_run_group_tests_name("losses", tests, NULL, NULL);
}
