// base/config.h: defaults, the written text, the help.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/config.h"
#include "base/config_schema.h"
#include "base/rng.h"
#include "kernels/kernels.h"

static const char default_text[] = "model:\n"
                                   "  width: 128\n"
                                   "  blocks: 4\n"
                                   "  heads: 2\n"
                                   "  context: 128\n"
                                   "  ffn: 384\n"
                                   "  latent_kv: 0\n"
                                   "  sequencer: true\n"
                                   "  scale_type: T32\n"
                                   "  scale_mantissa_bits: 0\n"
                                   "  head_exponent: 0\n"
                                   "  rope_base: 10000\n"
                                   "moe:\n"
                                   "  experts: 0\n"
                                   "  top_k: 2\n"
                                   "  width: 0\n"
                                   "  shared: 0\n"
                                   "  wire_digits: 3\n"
                                   "  balance: true\n"
                                   "  dense_dispatch_max_tokens: 128\n"
                                   "codebook:\n"
                                   "  rows: 0\n"
                                   "  width: 64\n"
                                   "  bucket_rows: 1024\n"
                                   "  exact_rows: 65536\n"
                                   "  probes: 8\n"
                                   "  beta: 0\n"
                                   "  usage_halving: 200\n"
                                   "  restart_every: 4\n"
                                   "composite:\n"
                                   "  rows: 0\n"
                                   "memgram:\n"
                                   "  rows: 0\n"
                                   "  orders: [3, 4, 5, 6, 8]\n"
                                   "  strength: false\n"
                                   "  decay_every: 1000\n"
                                   "modality:\n"
                                   "  image_width: 0\n"
                                   "  image_frames: 1\n"
                                   "  audio_width: 0\n"
                                   "  audio_frames: 1\n"
                                   "graph:\n"
                                   "  hops: 0\n"
                                   "  width: 64\n"
                                   "  edges_per_node: 8\n"
                                   "  max_edges: 4194304\n"
                                   "  lora_rank: 8\n"
                                   "  decay_every: 1000\n"
                                   "  dense: false\n"
                                   "focus:\n"
                                   "  width: 0\n"
                                   "  segment: 32\n"
                                   "  codebook_rows: 0\n"
                                   "  bptt: 64\n"
                                   "loss:\n"
                                   "  cross_entropy_weight: 1\n"
                                   "  cross_entropy_groups: [\"all\"]\n"
                                   "  commitment_weight: 0.002\n"
                                   "  commitment_groups: [\"all\"]\n"
                                   "parallel:\n"
                                   "  expert_ranks: 0\n"
                                   "  table_ranks: 0\n"
                                   "data:\n"
                                   "  train: [\"bible.txt\"]\n"
                                   "  valid: \"\"\n"
                                   "  valid_bytes: 200000\n"
                                   "  image_features: \"\"\n"
                                   "  audio_features: \"\"\n"
                                   "  order: random\n"
                                   "train:\n"
                                   "  steps: 400\n"
                                   "  units: 2\n"
                                   "  unit_windows: 32\n"
                                   "  seed: 1\n"
                                   "  eval_every: 100\n"
                                   "  eval_windows: 64\n"
                                   "  stop_at: 0\n"
                                   "vote:\n"
                                   "  dead_zone: 0.5\n"
                                   "  levels: 1\n"
                                   "  combine: majority\n"
                                   "  quorum: 1\n"
                                   "  exchange: allreduce\n"
                                   "  bucket_bytes: 16777216\n"
                                   "update:\n"
                                   "  rule: restart\n"
                                   "  threshold: 64\n"
                                   "  step: 8\n"
                                   "  schedule: linear\n"
                                   "  warmup: 50\n"
                                   "  final: 0.02\n"
                                   "  exponent_step: 0.02\n"
                                   "  exponent_threshold: 8\n"
                                   "  threshold_warmup: 0\n"
                                   "  flip_cap: 0\n"
                                   "  rho_first: 0.01\n"
                                   "  rho_last: 0.0005\n"
                                   "  theta_min: 1\n"
                                   "checkpoint:\n"
                                   "  every: 100\n"
                                   "  keep: 3\n"
                                   "  async: true\n"
                                   "  when_busy: wait\n"
                                   "  on_disk_full: skip\n"
                                   "  writers: \"rank\"\n"
                                   "guard:\n"
                                   "  hash_every: 100\n"
                                   "comm:\n"
                                   "  timeout: 600\n"
                                   "  start_timeout: 1800\n"
                                   "run:\n"
                                   "  dir: \"runs/quickstart\"\n"
                                   "  backend: auto\n"
                                   "  threads: 0\n"
                                   "  log_every: 1\n"
                                   "  log_parts: false\n"
                                   "  lag_every: 60\n";

static void set(tv_config *config, const char *assignment)
{
    if (tv_config_set(config, assignment) != TV_OK)
        fail_msg("%s", tv_status_message());
}

static char *text_of(const tv_config *config)
{
    char *text = NULL;
    assert_int_equal(tv_config_text(config, &text), TV_OK);
    return text;
}

static void read_back(tv_config *config, const char *text)
{
    assert_int_equal(tv_config_init(config), TV_OK);
    if (tv_config_read_text(config, "text", text, strlen(text)) != TV_OK)
        fail_msg("%s", tv_status_message());
}

static void test_defaults(void **state)
{
    tv_config c;
    (void)state;
    assert_int_equal(tv_config_init(&c), TV_OK);
    char *text = text_of(&c);
    assert_string_equal(text, default_text);
    assert_int_equal(c.model.width, 128);
    assert_int_equal(c.model.sequencer, 1);
    assert_int_equal(c.model.scale_type, TV_T32);
    assert_true(c.model.rope_base == 10000.0);
    assert_int_equal(c.data.train_count, 1);
    assert_string_equal(c.data.train[0], "bible.txt");
    assert_string_equal(c.data.valid, "");
    assert_true(c.vote.dead_zone == 0.5 && c.update.step == 8.0 && c.update.rho_last == 0.0005);
    assert_int_equal(c.update.rule, TV_UPDATE_RESTART);
    assert_string_equal(c.run.backend, "auto");
    assert_int_equal(tv_config_check(&c), TV_OK);
    free(text);
    tv_config_free(&c);
    assert_null(c.run.dir);
    tv_config_free(&c);
    tv_config_free(NULL);
}

// The enums of the config, of the kernels and of the scale types name the same things in the same order.
static void test_enums(void **state)
{
    tv_config c;
    (void)state;
    _Static_assert((int)TV_UPDATE_RESTART == (int)TV_RULE_RESTART && (int)TV_UPDATE_BUDGET == (int)TV_RULE_BUDGET,
                   "rules");
    _Static_assert((int)TV_UPDATE_CLASSIC == (int)TV_RULE_CLASSIC, "rules");
    _Static_assert((int)TV_VOTE_MAJORITY == (int)TV_COMBINE_MAJORITY && (int)TV_VOTE_MEAN == (int)TV_COMBINE_MEAN,
                   "combines");
    static const struct {
        const char *assignment;
        size_t offset;
        int64_t value;
    } cases[] = {
        {"update.rule=budget", offsetof(tv_config, update.rule), TV_UPDATE_BUDGET},
        {"update.rule=classic", offsetof(tv_config, update.rule), TV_UPDATE_CLASSIC},
        {"update.schedule=cosine", offsetof(tv_config, update.schedule), TV_SCHEDULE_COSINE},
        {"update.schedule=constant", offsetof(tv_config, update.schedule), TV_SCHEDULE_CONSTANT},
        {"update.schedule=linear", offsetof(tv_config, update.schedule), TV_SCHEDULE_LINEAR},
        {"vote.combine=mean", offsetof(tv_config, vote.combine), TV_VOTE_MEAN},
        {"vote.exchange=sharded", offsetof(tv_config, vote.exchange), TV_EXCHANGE_SHARDED},
        {"model.sequencer=false", offsetof(tv_config, model.sequencer), 0},
    };
    assert_int_equal(tv_config_init(&c), TV_OK);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t value = -1;
        set(&c, cases[i].assignment);
        memcpy(&value, (char *)&c + cases[i].offset, sizeof value);
        assert_int_equal(value, cases[i].value);
    }
    for (int type = 0; type < TV_SCALE_TYPE_COUNT; type++) {
        char assignment[64];
        snprintf(assignment, sizeof assignment, "model.scale_type=%s", tv_scale_type_name((tv_scale_type)type));
        set(&c, assignment);
        assert_int_equal(c.model.scale_type, type);
    }
    tv_config_free(&c);
}

// Any double of a key's range is written with digits that read back to the same bits, and with few where few suffice.
static void test_numbers(void **state)
{
    static const struct {
        double value;
        const char *text;
    } shortest[] = {{0.1, "0.1"},
                    {1e-7, "1e-07"},
                    {100, "100"},
                    {0.3, "0.3"},
                    {2.0 / 3.0, "0.6666666666666666"},
                    {0x1p-40, NULL},
                    {0.1 + 0.2, "0.30000000000000004"}};
    tv_config c, back;
    char text[TV_CONFIG_NUMBER_BYTES];
    const tv_config_field *field = tv_config_find("vote", "dead_zone");
    (void)state;
    assert_non_null(field);
    assert_int_equal(tv_config_init(&c), TV_OK);
    assert_int_equal(tv_config_init(&back), TV_OK);
    for (size_t i = 0; i < sizeof shortest / sizeof *shortest; i++) {
        c.vote.dead_zone = shortest[i].value;
        tv_config_field_format(&c, field, text);
        if (shortest[i].text)
            assert_string_equal(text, shortest[i].text);
    }
    for (uint64_t i = 0; i < 20000; i++) {
        char assignment[128];
        uint64_t bits = tv_rng64((tv_rng_key){.seed = 7}, i);
        double value = 100.0 * (double)(bits >> 11) * 0x1p-53;
        c.vote.dead_zone = i % 2 ? value : ldexp(value, -(int)(bits & 511));
        tv_config_field_format(&c, field, text);
        snprintf(assignment, sizeof assignment, "vote.dead_zone=%s", text);
        set(&back, assignment);
        assert_memory_equal(&back.vote.dead_zone, &c.vote.dead_zone, sizeof(double));
    }
    set(&back, "vote.dead_zone=-0.0");
    assert_false(signbit(back.vote.dead_zone));
    tv_config_free(&c);
    tv_config_free(&back);
}

static void test_text_reads_back(void **state)
{
    static const char *const odd[] = {
        "",
        "a b",
        " lead and trail ",
        "null",
        "~",
        "true",
        "12",
        "a: b",
        "- a",
        "#no comment",
        "'single' \"double\" \\",
        "tab\there",
        "line\nbreak\n",
        "\x01\x1b\x7f",
        "caf\xc3\xa9",
        "\xe2\x80\xa8",
        "\xc2\x85",
        "\xef\xbb\xbf",
        "\xf0\x9f\x98\x80",
        "%x",
        "@at",
        "!tag",
        "&a",
        "*a",
        "[x]",
        "{x: y}",
        "...",
        "---",
    };
    tv_config c, back;
    char long_text[TV_CONFIG_TEXT_MAX + 1];
    (void)state;
    memset(long_text, 'x', TV_CONFIG_TEXT_MAX);
    for (int i = 0; i < TV_CONFIG_TEXT_MAX; i += 50)
        long_text[i] = ' '; // where a writer could fold the line
    long_text[TV_CONFIG_TEXT_MAX] = '\0';
    assert_int_equal(tv_config_init(&c), TV_OK);
    for (size_t i = 0; i <= sizeof odd / sizeof *odd; i++) {
        const char *word = i < sizeof odd / sizeof *odd ? odd[i] : long_text;
        assert_int_equal(tv_config_assign(&c, "data", "valid", word), TV_OK);
        if (*word)
            assert_int_equal(tv_config_assign(&c, "data", "train", word), TV_OK);
        char *text = text_of(&c);
        read_back(&back, text);
        char *again = text_of(&back);
        assert_string_equal(back.data.valid, word);
        assert_string_equal(back.data.train[0], c.data.train[0]);
        assert_string_equal(text, again);
        free(text), free(again);
        tv_config_free(&back);
    }
    set(&c, "data.train=[a, 'b c', \"d\"]");
    set(&c, "model.head_exponent=-3");
    char *text = text_of(&c);
    read_back(&back, text);
    assert_int_equal(back.data.train_count, 3);
    assert_string_equal(back.data.train[1], "b c");
    assert_int_equal(back.model.head_exponent, -3);
    free(text);
    tv_config_free(&back);
    tv_config_free(&c);
}

static void test_difference(void **state)
{
    char out[256], small[16];
    tv_config c;
    (void)state;
    assert_int_equal(tv_config_init(&c), TV_OK);
    set(&c, "run.dir=elsewhere");
    assert_int_equal(tv_config_difference(&c, default_text, out, sizeof out), TV_OK);
    assert_string_equal(out, "");
    set(&c, "train.units=12");
    set(&c, "update.rule=budget");
    assert_int_equal(tv_config_difference(&c, default_text, out, sizeof out), TV_OK);
    assert_string_equal(out, "train.units: 12 here, 2 there; update.rule: budget here, restart there");
    assert_int_equal(tv_config_difference(&c, default_text, small, sizeof small), TV_OK);
    assert_string_equal(small, "train.units: 12");
    set(&c, "train.units=2");
    set(&c, "update.rule=restart");
    set(&c, "moe.top_k=1"); // says nothing while there are no experts on either side
    assert_int_equal(tv_config_difference(&c, default_text, out, sizeof out), TV_OK);
    assert_string_equal(out, "");
    set(&c, "moe.experts=16");
    assert_int_equal(tv_config_difference(&c, default_text, out, sizeof out), TV_OK);
    assert_string_equal(out, "moe.experts: 16 here, 0 there; moe.top_k: 1 here, 2 there");
    assert_int_equal(tv_config_difference(&c, "moe:\n  experts: 8\n  top_k: 1\n", out, sizeof out), TV_OK);
    assert_string_equal(out, "moe.experts: 16 here, 8 there");
    assert_int_equal(tv_config_difference(&c, "modle:\n  width: 3\n", out, sizeof out), TV_CONFIG);
    tv_config_free(&c);
}

// Every key stands once in the help, with its default.
static void test_help_names_every_key(void **state)
{
    char *help = NULL;
    size_t bytes = 0;
    (void)state;
    FILE *out = open_memstream(&help, &bytes);
    assert_non_null(out);
    tv_config_print_help(out);
    assert_int_equal(fclose(out), 0);
    for (int64_t i = 0; i < tv_config_field_count; i++) {
        char name[64];
        snprintf(name, sizeof name, "\n    %s ", tv_config_fields[i].name);
        const char *line = strstr(help, name);
        assert_non_null(line);
        assert_null(strstr(line + 1, name));
        const char *initial = strstr(line, tv_config_fields[i].initial);
        assert_true(initial && initial < strchr(line + 1, '\n'));
    }
    free(help);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),   cmocka_unit_test(test_enums),
        cmocka_unit_test(test_numbers),    cmocka_unit_test(test_text_reads_back),
        cmocka_unit_test(test_difference), cmocka_unit_test(test_help_names_every_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
