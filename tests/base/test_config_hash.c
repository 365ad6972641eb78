// base/config.h: which keys define the bits of a run.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/config.h"
#include "base/config_schema.h"

// What tv_config_hash hashes for the defaults: the keys that define the bits, and no others. With experts the keys of moe, and
// with a codebook those of codebook, composite and loss, and with n-grams those of memgram, and with features those of modality, and with a graph its own, with cells those of focus, stand between those of model and data.
#define MODEL_BITS                                                                                                     \
    "model.width=128\nmodel.blocks=4\nmodel.heads=2\nmodel.context=128\nmodel.ffn=384\nmodel.latent_kv=0\n"            \
    "model.sequencer=true\nmodel.scale_type=T32\nmodel.scale_mantissa_bits=0\nmodel.head_exponent=0\n"                 \
    "model.rope_base=10000\n"
#define OTHER_BITS                                                                                                     \
    "data.valid_bytes=200000\ntrain.steps=400\ntrain.units=2\ntrain.unit_windows=32\n"                                 \
    "train.seed=1\nvote.dead_zone=0.5\nvote.levels=1\nvote.combine=majority\nvote.quorum=1\nupdate.rule=restart\n"     \
    "update.threshold=64\nupdate.step=8\nupdate.schedule=linear\nupdate.warmup=50\nupdate.final=0.02\n"                \
    "update.exponent_step=0.02\nupdate.exponent_threshold=8\nupdate.threshold_warmup=0\nupdate.flip_cap=0\n"           \
    "update.rho_first=0.01\nupdate.rho_last=0.0005\nupdate.theta_min=1\n"
static const char default_bits[] = MODEL_BITS OTHER_BITS;
#define EXPERT_BITS "moe.experts=4\nmoe.top_k=2\nmoe.width=0\nmoe.shared=0\nmoe.wire_digits=3\nmoe.balance=true\n"
#define TABLE_BITS                                                                                                     \
    "codebook.rows=2\ncodebook.width=64\ncodebook.bucket_rows=1024\ncodebook.exact_rows=65536\ncodebook.probes=8\n"    \
    "codebook.beta=0\ncodebook.usage_halving=200\ncodebook.restart_every=4\ncomposite.rows=0\n"                        \
    "memgram.rows=2\nmemgram.orders=[3, 4, 5, 6, 8]\nmemgram.strength=false\nmemgram.decay_every=1000\n"               \
    "modality.image_width=8\nmodality.image_frames=1\nmodality.audio_width=0\nmodality.audio_frames=1\n"               \
    "graph.hops=1\ngraph.width=64\ngraph.edges_per_node=8\ngraph.max_edges=4194304\ngraph.lora_rank=8\n"               \
    "graph.decay_every=1000\n"                                                                                         \
    "focus.width=8\nfocus.segment=32\nfocus.codebook_rows=0\nfocus.bptt=64\n"                                          \
    "loss.commitment_weight=0.002\nloss.commitment_groups=all\n"
static const char bits_of_4_experts[] = MODEL_BITS EXPERT_BITS OTHER_BITS;
static const char bits_of_all[] = MODEL_BITS EXPERT_BITS TABLE_BITS OTHER_BITS;

static void set(tv_config *config, const char *assignment)
{
    if (tv_config_set(config, assignment) != TV_OK)
        fail_msg("%s", tv_status_message());
}

static tv_hash128 hash_of(const tv_config *config)
{
    tv_hash128 hash;
    assert_int_equal(tv_config_hash(config, &hash), TV_OK);
    return hash;
}

static void test_hash_of_defaults(void **state)
{
    tv_config c;
    (void)state;
    assert_int_equal(tv_config_init(&c), TV_OK);
    assert_true(tv_hash_equal(hash_of(&c), tv_hash_bytes(default_bits, sizeof default_bits - 1)));
    set(&c, "moe.top_k=1"); // of no account without experts
    assert_true(tv_hash_equal(hash_of(&c), tv_hash_bytes(default_bits, sizeof default_bits - 1)));
    set(&c, "moe.top_k=2");
    set(&c, "moe.experts=4");
    set(&c, "loss.commitment_weight=2"); // of no account without a codebook
    assert_true(tv_hash_equal(hash_of(&c), tv_hash_bytes(bits_of_4_experts, sizeof bits_of_4_experts - 1)));
    set(&c, "loss.commitment_weight=0.002");
    set(&c, "codebook.rows=2");
    set(&c, "memgram.orders=[2, 3]"); // of no account without rows
    set(&c, "memgram.orders=[3, 4, 5, 6, 8]");
    set(&c, "memgram.rows=2");
    set(&c, "modality.image_frames=2"); // of no account without a width
    set(&c, "modality.image_frames=1");
    set(&c, "modality.image_width=8");
    set(&c, "graph.lora_rank=7"); // of no account without hops
    set(&c, "graph.lora_rank=8");
    set(&c, "graph.hops=1");
    set(&c, "focus.width=8");
    assert_true(tv_hash_equal(hash_of(&c), tv_hash_bytes(bits_of_all, sizeof bits_of_all - 1)));
    // As it was written when it was one word.
    char difference[256];
    static const char older[] =
        "moe:\n  experts: 4\ncodebook:\n  rows: 2\nmemgram:\n  rows: 2\nmodality:\n  image_width: 8\ngraph:\n  hops: "
        "1\nfocus:\n  width: 8\nloss:\n  commitment_groups: part\n";
    assert_int_equal(tv_config_difference(&c, older, difference, sizeof difference), TV_OK);
    assert_string_equal(difference, "loss.commitment_groups: all here, part there");
    set(&c, "loss.commitment_groups=[part]");
    assert_int_equal(tv_config_difference(&c, older, difference, sizeof difference), TV_OK);
    assert_string_equal(difference, "");
    tv_config_free(&c);
}

// One other value for every key; the hash changes for those of bits_of_all only.
static void test_hash_by_key(void **state)
{
    static const char *const changes[] = {
        "model.width=130",
        "model.blocks=5",
        "model.heads=4",
        "model.context=64",
        "model.ffn=385",
        "model.latent_kv=8",
        "model.sequencer=false",
        "model.scale_type=T8",
        "model.scale_mantissa_bits=1",
        "model.head_exponent=-1",
        "model.rope_base=5000",
        "moe.experts=5",
        "moe.top_k=1",
        "moe.width=7",
        "moe.shared=7",
        "moe.wire_digits=5",
        "moe.balance=false",
        "moe.dense_dispatch_max_tokens=7",
        "codebook.rows=3",
        "codebook.width=32",
        "codebook.bucket_rows=7",
        "codebook.exact_rows=7",
        "codebook.probes=7",
        "codebook.beta=0.5",
        "codebook.usage_halving=7",
        "codebook.restart_every=7",
        "composite.rows=7",
        "memgram.rows=7",
        "memgram.orders=[2, 3, 4, 6]",
        "memgram.strength=true",
        "memgram.decay_every=7",
        "loss.cross_entropy_weight=0.5",
        "loss.cross_entropy_groups=[head, ffn]",
        "modality.image_width=7",
        "modality.image_frames=7",
        "modality.audio_width=7",
        "modality.audio_frames=7",
        "graph.hops=2",
        "graph.width=32",
        "graph.edges_per_node=7",
        "graph.max_edges=7000",
        "graph.lora_rank=7",
        "graph.decay_every=7",
        "graph.dense=true",
        "focus.width=7",
        "focus.segment=16",
        "focus.codebook_rows=7",
        "focus.bptt=7",
        "loss.commitment_weight=0.5",
        "loss.commitment_groups=part",
        "parallel.expert_ranks=2",
        "parallel.table_ranks=2",
        "data.train=[other.txt]",
        "data.valid=\"\"",
        "data.valid_bytes=200001",
        "data.image_features=a.h5",
        "data.audio_features=a.h5",
        "data.order=stream",
        "train.steps=401",
        "train.units=3",
        "train.unit_windows=33",
        "train.seed=2",
        "train.eval_every=7",
        "train.eval_windows=7",
        "train.stop_at=7",
        "vote.dead_zone=0.25",
        "vote.levels=3",
        "vote.combine=mean",
        "vote.quorum=2",
        "vote.exchange=sharded",
        "vote.bucket_bytes=7",
        "update.rule=budget",
        "update.threshold=65",
        "update.step=8.5",
        "update.schedule=cosine",
        "update.warmup=51",
        "update.final=0.03",
        "update.exponent_step=0.03",
        "update.exponent_threshold=9",
        "update.threshold_warmup=1",
        "update.flip_cap=0.5",
        "update.rho_first=0.02",
        "update.rho_last=0.0006",
        "update.theta_min=2",
        "checkpoint.every=7",
        "checkpoint.keep=7",
        "checkpoint.async=false",
        "checkpoint.when_busy=skip",
        "checkpoint.on_disk_full=stop",
        "checkpoint.writers=node",
        "guard.hash_every=7",
        "comm.timeout=7",
        "comm.start_timeout=7",
        "run.dir=elsewhere",
        "run.backend=ref",
        "run.threads=7",
        "run.log_every=7",
        "run.log_parts=true",
        "run.lag_every=7",
    };
    tv_config c;
    (void)state;
    assert_int_equal(sizeof changes / sizeof *changes, tv_config_field_count);
    assert_int_equal(tv_config_init(&c), TV_OK);
    set(&c, "moe.experts=4");
    set(&c, "codebook.rows=2");
    set(&c, "memgram.rows=2");
    set(&c, "modality.image_width=8");
    set(&c, "graph.hops=1");
    set(&c, "focus.width=8");
    tv_hash128 before = hash_of(&c);
    tv_config_free(&c);
    for (int64_t i = 0; i < tv_config_field_count; i++) {
        char line[64];
        int length = (int)strcspn(changes[i], "=") + 1;
        snprintf(line, sizeof line, "\n%.*s", length, changes[i]);
        int counts = strncmp(changes[i], "loss.cross_entropy", 18) == 0 || // only with another value than the default
                     strncmp(bits_of_all, changes[i], (size_t)length) == 0 || strstr(bits_of_all, line) != NULL;
        counts |= strcmp(changes[i], "data.order=stream") == 0; // the default is not named
        assert_int_equal(tv_config_init(&c), TV_OK);
        set(&c, "moe.experts=4");
        set(&c, "codebook.rows=2");
        set(&c, "memgram.rows=2");
        set(&c, "modality.image_width=8");
        set(&c, "graph.hops=1");
        set(&c, "focus.width=8");
        set(&c, changes[i]);
        if (tv_hash_equal(before, hash_of(&c)) == counts)
            fail_msg("%s %s the hash", changes[i], counts ? "does not change" : "changes");
        tv_config_free(&c);
    }
}

// A file to validate on frees the held-out bytes for training, so it changes the bits; which file does not.
static void test_hash_of_hold_out(void **state)
{
    tv_config c;
    (void)state;
    assert_int_equal(tv_config_init(&c), TV_OK);
    tv_hash128 tail = hash_of(&c);
    set(&c, "data.valid=a.txt");
    tv_hash128 file = hash_of(&c);
    assert_false(tv_hash_equal(tail, file));
    set(&c, "data.valid=b.txt");
    set(&c, "data.valid_bytes=17");
    assert_true(tv_hash_equal(file, hash_of(&c)));
    set(&c, "data.valid=");
    set(&c, "data.valid_bytes=0");
    assert_true(tv_hash_equal(file, hash_of(&c)));
    tv_config_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hash_of_defaults),
        cmocka_unit_test(test_hash_by_key),
        cmocka_unit_test(test_hash_of_hold_out),
    };
    return cmocka_run_group_tests_name("config_hash", tests, NULL, NULL);
}
