// tv_config_check: the rules between keys, and the configs that come with the program. Runs in the root of the tree.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/config.h"

static void set(tv_config *config, const char *assignment)
{
    if (tv_config_set(config, assignment) != TV_OK)
        fail_msg("%s", tv_status_message());
}

static void test_rules_between_keys(void **state)
{
    static const struct {
        const char *sets[3], *message; // message NULL: allowed
    } cases[] = {
        {{"model.heads=3"}, "model.width 128 is not divisible by model.heads 3; take a width of 132 or other heads"},
        {{"model.heads=128"}, "model.width 128 / model.heads 128 = 1, but rotary"},
        {{"model.heads=64"}, NULL},
        {{"model.latent_kv=129"}, "model.latent_kv 129 is more than model.width 128"},
        {{"model.latent_kv=128"}, NULL},
        {{"model.width=46968", "model.scale_mantissa_bits=3"}, NULL},
        {{"model.width=46972", "model.scale_mantissa_bits=3"}, "3 x model.width = 140916 is a sum too long"},
        {{"model.width=65536"}, NULL},
        {{"model.ffn=70455", "model.scale_mantissa_bits=3"}, NULL},
        {{"model.ffn=70456", "model.scale_mantissa_bits=3"}, "2 x model.ffn = 140912 is a sum too long"},
        {{"moe.experts=16"}, NULL},
        {{"moe.experts=1"}, "moe.top_k 2 is more than moe.experts 1; a token goes to an expert once"},
        {{"moe.experts=1", "moe.top_k=1"}, NULL},
        {{"moe.top_k=64"}, NULL}, // there are no experts
        {{"moe.experts=16", "parallel.expert_ranks=8"}, NULL},
        {{"moe.experts=16", "parallel.expert_ranks=6"},
         "moe.experts 16 = 2 x parallel.expert_ranks 6 + 4, but every rank holds equally many"},
        {{"moe.experts=16", "moe.width=70456", "model.scale_mantissa_bits=3"},
         "2 x moe.width = 140912 is a sum too long for int32 with model.scale_mantissa_bits 3, at most 140911; take a "
         "smaller moe.width"},
        {{"moe.experts=16", "moe.shared=70456", "model.scale_mantissa_bits=3"}, "2 x moe.shared = 140912 is a sum"},
        {{"codebook.rows=2", "composite.rows=2"}, NULL},
        {{"codebook.rows=1"}, "codebook.rows is 1, but a choice needs 2 rows; take at least 2, or 0 for no table"},
        {{"codebook.rows=2", "composite.rows=1"}, "composite.rows is 1, but a choice needs 2 rows"},
        {{"composite.rows=2"}, "composite.rows 2 needs the motifs of a codebook, but codebook.rows is 0"},
        {{"loss.commitment_groups=[a, b, c, d, e, f, g, h, i, j, k, l, m, n, o]"},
         NULL}, // names are the model's matter
        {{"loss.commitment_groups=[a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]"},
         "loss.commitment_groups has 16 groups; take at most 15: kinds of parts instead of their names"},
        {{"memgram.rows=2", "memgram.orders=[2, 8]"}, NULL},
        {{"memgram.rows=1"}, "memgram.rows is 1, but a choice needs 2 rows"},
        {{"memgram.rows=2", "memgram.orders=[3, 2]"}, "memgram.orders has 2 behind 3, but they ascend"},
        {{"memgram.rows=2", "memgram.orders=[3, 3]"}, "memgram.orders has 3 behind 3, but they ascend"},
        {{"memgram.orders=[3, 2]"}, NULL}, // there is no table
        {{"codebook.rows=2", "graph.hops=2"}, NULL},
        {{"graph.hops=1"}, "graph.hops 1 needs the motifs of a codebook"},
        {{"codebook.rows=2", "graph.hops=1", "graph.width=32"}, "graph.width 32 is not codebook.width 64"},
        {{"codebook.rows=2", "graph.hops=1", "graph.max_edges=7"},
         "graph.max_edges 7 is less than graph.edges_per_node 8"},
        {{"codebook.rows=65537", "graph.hops=1", "graph.dense=true"},
         "graph.dense keeps an index of codebook.rows 65537"},
        {{"graph.width=32"}, NULL}, // there is no graph
        {{"focus.width=8", "focus.segment=64"}, NULL},
        {{"focus.segment=3"}, NULL}, // there are no cells
        {{"focus.width=8", "focus.codebook_rows=1"}, "focus.codebook_rows is 1, but a choice needs 2 rows"},
        {{"focus.width=8", "focus.segment=48"},
         "model.context = 128 is no multiple of focus.segment = 48; take a context of 144 or another segment"},
        {{"focus.width=8", "focus.segment=300"},
         "model.context = 128 is no multiple of focus.segment = 300; take a context of 600 or another segment"},
        {{"focus.width=8", "focus.segment=128"},
         "model.context = 128 is one segment of focus.segment = 128, whose state nothing in the window would see; "
         "take a segment of at most 64"},
        {{"train.unit_windows=1024"}, NULL},
        {{"train.unit_windows=1025"},
         "train.unit_windows 1025 x model.context 128 = 131200 tokens a unit, more than 131072; take "
         "train.unit_windows of at most 1024 "
         "and more train.units"},
        {{"train.units=2184", "vote.levels=15"}, NULL},
        {{"train.units=2185", "vote.levels=15"},
         "train.units 2185 x vote.levels 15 = 32775, but a vote sum holds at most 32767"},
        {{"vote.quorum=2"}, NULL},
        {{"vote.quorum=3"}, "vote.quorum 3 is more than train.units 2 x vote.levels 1 = 2"},
        {{"train.stop_at=400"}, NULL},
        {{"train.stop_at=401"}, "train.stop_at 401 lies behind train.steps 400"},
        {{"update.flip_cap=0.1"}, NULL},
        {{"update.flip_cap=0.1", "update.rule=budget"}, "update.flip_cap does not go with update.rule budget"},
        {{"update.rho_last=0.02"}, "update.rho_last 0.02 is more than update.rho_first 0.01"},
        {{"update.rho_last=0"}, NULL},
        {{"update.rho_last=0", "update.rule=budget"}, "update.rho_last is 0"},
        {{"data.valid_bytes=0"}, "train.eval_every is 100, but there is no text to validate on"},
        {{"data.valid_bytes=0", "train.eval_every=0"}, NULL},
        {{"data.valid_bytes=0", "data.valid=a.txt"}, NULL},
        {{"data.valid_bytes=128"}, "data.valid_bytes 128 is less than one window of model.context + 1 = 129 bytes"},
        {{"data.valid_bytes=129"}, NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tv_config c;
        assert_int_equal(tv_config_init(&c), TV_OK);
        for (int j = 0; j < 3 && cases[i].sets[j]; j++)
            set(&c, cases[i].sets[j]);
        tv_status st = tv_config_check(&c);
        if (!cases[i].message && st != TV_OK)
            fail_msg("%s: %s", cases[i].sets[0], tv_status_message());
        if (cases[i].message && (st != TV_CONFIG || !strstr(tv_status_message(), cases[i].message)))
            fail_msg("%s: got '%s', not '%s'", cases[i].sets[0], tv_status_message(), cases[i].message);
        tv_config_free(&c);
    }
}

// auto: the largest divisor of the ranks that is at most the number of experts and divides it.
static void test_expert_ranks(void **state)
{
    tv_config c;
    int got;
    (void)state;
    assert_int_equal(tv_config_init(&c), TV_OK);
    for (int64_t experts = 0; experts <= 24; experts++)
        for (int ranks = 1; ranks <= 24; ranks++) {
            int expected = 1;
            for (int p = 1; p <= ranks; p++)
                if (ranks % p == 0 && p <= experts && experts % p == 0)
                    expected = p;
            c.moe.experts = experts;
            assert_int_equal(tv_config_expert_ranks(&c, ranks, &got), TV_OK);
            assert_int_equal(got, expected);
        }
    c.moe.experts = 16;
    c.parallel.expert_ranks = 4;
    assert_int_equal(tv_config_expert_ranks(&c, 12, &got), TV_OK);
    assert_int_equal(got, 4);
    assert_int_equal(tv_config_expert_ranks(&c, 6, &got), TV_CONFIG);
    assert_non_null(strstr(tv_status_message(), "parallel.expert_ranks 4 does not divide the 6 ranks"));
    c.moe.experts = 0; // a dense model splits nothing, whatever the key says
    assert_int_equal(tv_config_expert_ranks(&c, 6, &got), TV_OK);
    assert_int_equal(got, 1);
    tv_config_free(&c);
}

static void test_shipped_configs(void **state)
{
    static const char *const paths[] = {"configs/quickstart.yaml", "configs/small.yaml", "tests/data/invariance.yaml"};
    tv_config c;
    (void)state;
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        assert_int_equal(tv_config_init(&c), TV_OK);
        if (tv_config_read_file(&c, paths[i]) != TV_OK || tv_config_check(&c) != TV_OK)
            fail_msg("%s", tv_status_message());
        if (i == 1) { // its weights without those of the norms: embedding, sequencer, blocks, head
            int64_t d = c.model.width, f = c.model.ffn;
            int64_t weights = 264 * d + d * 3 * d + c.model.blocks * (4 * d * d + 3 * d * f) + 264 * d;
            assert_in_range(weights, 20600000, 20800000);
            assert_int_equal(f % 16, 0); // rows that the GPU's products take without copies a byte at a time
            assert_int_equal(c.train.unit_windows * c.model.context, 16384);
        }
        tv_config_free(&c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rules_between_keys),
        cmocka_unit_test(test_expert_ranks),
        cmocka_unit_test(test_shipped_configs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
