// Reading: files, text, assignments; every mistake with the message it gives.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/config.h"

typedef struct wrong_case {
    const char *text, *message;
} wrong_case;

static tv_status read_text(tv_config *config, const char *text)
{
    return tv_config_read_text(config, "run.yaml", text, strlen(text));
}

// Each text is refused with exactly this message, and leaves a config that can be written and freed.
static void expect_refused(const wrong_case *cases, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        tv_config c;
        char *text = NULL;
        assert_int_equal(tv_config_init(&c), TV_OK);
        assert_int_equal(read_text(&c, cases[i].text), TV_CONFIG);
        assert_string_equal(tv_status_message(), cases[i].message);
        assert_int_equal(tv_config_text(&c, &text), TV_OK);
        free(text);
        tv_config_free(&c);
    }
}

#define EXPECT_REFUSED(cases) expect_refused(cases, sizeof(cases) / sizeof *(cases))

static void test_values(void **state)
{
    tv_config c;
    (void)state;
    assert_int_equal(tv_config_init(&c), TV_OK);
    assert_int_equal(read_text(&c, "%YAML 1.1\n"
                                   "--- # a comment\n"
                                   "train: {steps: +1000, seed: 4294967295}\n"
                                   "data:\n"
                                   "  train:\n"
                                   "    - a.txt\n"
                                   "    - 'b: c.txt'\n"
                                   "  valid: 2024\n"
                                   "vote:\n"
                                   "  dead_zone: .5e+0\n"
                                   "  levels: 15\n"
                                   "  \"combine\": 'mean'\n"
                                   "update: {step: 12, final: 1., rho_first: 1E-3, rho_last: 0}\n"
                                   "model: {sequencer: false, scale_type: T6, head_exponent: -2}\n"
                                   "run:\n"
                                   "  dir: \"caf\\u00e9 \\\"x\\\"\"\n"
                                   "  backend: ref\n"
                                   "guard:\n"
                                   "...\n"),
                     TV_OK);
    assert_int_equal(c.train.steps, 1000);
    assert_int_equal(c.train.seed, 4294967295);
    assert_int_equal(c.data.train_count, 2);
    assert_string_equal(c.data.train[0], "a.txt");
    assert_string_equal(c.data.train[1], "b: c.txt");
    assert_string_equal(c.data.valid, "2024");
    assert_true(c.vote.dead_zone == 0.5);
    assert_int_equal(c.vote.levels, 15);
    assert_int_equal(c.vote.combine, TV_VOTE_MEAN);
    assert_true(c.update.step == 12.0 && c.update.final == 1.0 && c.update.rho_first == 1e-3 &&
                c.update.rho_last == 0.0);
    assert_int_equal(c.model.sequencer, 0);
    assert_int_equal(c.model.scale_type, TV_T6);
    assert_int_equal(c.model.head_exponent, -2);
    assert_string_equal(c.run.dir, "caf\xc3\xa9 \"x\"");
    assert_string_equal(c.run.backend, "ref");
    assert_int_equal(c.train.units, 2); // not named, so as before
    tv_config_free(&c);
}

// What holds no key changes nothing; a text goes over what an earlier one set.
static void test_empty_and_layered(void **state)
{
    static const char *const empty[] = {
        "", "\n\n", "# only a comment\n", "---\n", "--- ~\n...\n", "\xef\xbb\xbf", "train:\n", "train: {}\n"};
    tv_config c;
    char *before = NULL;
    (void)state;
    assert_int_equal(tv_config_init(&c), TV_OK);
    assert_int_equal(read_text(&c, "train: {units: 12, steps: 5}"), TV_OK);
    assert_int_equal(tv_config_text(&c, &before), TV_OK);
    for (size_t i = 0; i < sizeof empty / sizeof *empty; i++) {
        char *after = NULL;
        assert_int_equal(read_text(&c, empty[i]), TV_OK);
        assert_int_equal(tv_config_text(&c, &after), TV_OK);
        assert_string_equal(before, after);
        free(after);
    }
    assert_int_equal(read_text(&c, "train:\n  steps: 6\n"), TV_OK);
    assert_int_equal(c.train.units, 12);
    assert_int_equal(c.train.steps, 6);
    free(before);
    tv_config_free(&c);
}

static void test_unknown_names(void **state)
{
    static const wrong_case cases[] = {
        {"\nvote:\n  dead_zon: 1\n", "run.yaml:3: key 'vote.dead_zon' is unknown; did you mean 'vote.dead_zone'?"},
        {"train:\n  dead_zone: 1\n", "run.yaml:2: key 'train.dead_zone' is unknown; did you mean 'vote.dead_zone'?"},
        {"train:\n  unit_window: 1\n",
         "run.yaml:2: key 'train.unit_window' is unknown; did you mean 'train.unit_windows'?"},
        {"guard:\n  zzzzzzzzzzzzzzzzzzz: 1\n",
         "run.yaml:2: key 'guard.zzzzzzzzzzzzzzzzzzz' is unknown; section 'guard' has: hash_every"},
        {"trian:\n  steps: 1\n", "run.yaml:1: section 'trian' is unknown; did you mean 'train'?"},
        {"# first\nsteps: 1\n", "run.yaml:2: section 'steps' is unknown; did you mean 'train.steps'?"},
        {"parallel_settings: 1\n", "run.yaml:1: section 'parallel_settings' is unknown; there are: model, moe, "
                                   "codebook, composite, memgram, modality, graph, focus, loss, parallel, data, train, "
                                   "vote, update, checkpoint, guard, comm, run"},
        {"\"\": 1\n",
         "run.yaml:1: section '' is unknown; there are: model, moe, codebook, composite, memgram, modality, graph, "
         "focus, "
         "loss, parallel, "

         "data, train, vote, update, "

         "checkpoint, guard, comm, run"},
    };
    (void)state;
    EXPECT_REFUSED(cases);
}

static void test_wrong_values(void **state)
{
    static const wrong_case cases[] = {
        {"train:\n  units: 0\n", "run.yaml:2: key 'train.units': 0 is outside 1..32767"},
        {"train:\n  units: 32768\n", "run.yaml:2: key 'train.units': 32768 is outside 1..32767"},
        {"train:\n  seed: -1\n", "run.yaml:2: key 'train.seed': -1 is outside 0..4294967295"},
        {"train:\n  seed: 99999999999999999999\n",
         "run.yaml:2: key 'train.seed': 99999999999999999999 is outside 0..4294967295"},
        {"train:\n  steps: many\n", "run.yaml:2: key 'train.steps': 'many' is no whole number"},
        {"train:\n  steps: 4.5\n", "run.yaml:2: key 'train.steps': '4.5' is no whole number"},
        {"train:\n  steps: 1e3\n", "run.yaml:2: key 'train.steps': '1e3' is no whole number"},
        {"train:\n  steps: 1_000\n", "run.yaml:2: key 'train.steps': '1_000' is no whole number"},
        {"train:\n  steps: 0x10\n", "run.yaml:2: key 'train.steps': '0x10' is no whole number"},
        {"train:\n  steps: 010\n", "run.yaml:2: key 'train.steps': '010' is no whole number"},
        {"train:\n  steps:\n", "run.yaml:2: key 'train.steps': '' is no whole number"},
        {"train:\n  steps: \"400\"\n", "run.yaml:2: key 'train.steps': the quoted text \"400\" is no whole number"},
        {"train:\n  steps: 4 00\n", "run.yaml:2: key 'train.steps': '4 00' is no whole number"},
        {"update:\n  step: 126.001\n", "run.yaml:2: key 'update.step': 126.001 is outside 0..126"},
        {"update:\n  step: 1e999\n", "run.yaml:2: key 'update.step': 1e999 is outside 0..126"},
        {"update:\n  step: -1e-9\n", "run.yaml:2: key 'update.step': -1e-9 is outside 0..126"},
        {"update:\n  step: .nan\n", "run.yaml:2: key 'update.step': '.nan' is no number"},
        {"update:\n  step: inf\n", "run.yaml:2: key 'update.step': 'inf' is no number"},
        {"update:\n  step: 0x1p3\n", "run.yaml:2: key 'update.step': '0x1p3' is no number"},
        {"update:\n  step: 8,5\n", "run.yaml:2: key 'update.step': '8,5' is no number"},
        {"update:\n  step: .\n", "run.yaml:2: key 'update.step': '.' is no number"},
        {"update:\n  step: 1e\n", "run.yaml:2: key 'update.step': '1e' is no number"},
        {"model:\n  sequencer: yes\n",
         "run.yaml:2: key 'model.sequencer': 'yes' is no truth value; write true or false"},
        {"model:\n  sequencer: 1\n", "run.yaml:2: key 'model.sequencer': '1' is no truth value; write true or false"},
        {"model:\n  scale_type: T33\n",
         "run.yaml:2: key 'model.scale_type': 'T33' is none of T4, T6, T8, T16, T32, T64; did you mean 'T32'?"},
        {"update:\n  rule: buget\n",
         "run.yaml:2: key 'update.rule': 'buget' is none of restart, budget, classic; did you mean 'budget'?"},
        {"run:\n  backend: quantum-computer\n",
         "run.yaml:2: key 'run.backend': 'quantum-computer' is none of auto, ref, cpu, cuda"},
        {"vote:\n  levels: 2\n", "run.yaml:2: key 'vote.levels': '2' is none of 1, 3, 7, 15"},
        {"vote:\n  levels: 17\n", "run.yaml:2: key 'vote.levels': '17' is none of 1, 3, 7, 15"},
        {"run:\n  dir: \"\"\n", "run.yaml:2: key 'run.dir' must not be empty"},
        {"run:\n  dir:\n", "run.yaml:2: key 'run.dir' has no value; write \"\" for an empty text"},
        {"data:\n  valid: null\n", "run.yaml:2: key 'data.valid' has no value; write \"\" for an empty text"},
        {"data:\n  valid: \"a\\0b\"\n", "run.yaml:2: key 'data.valid': the text holds a NUL byte"},
        {"train:\n  steps: \"\\e[31m\\0\"\n",
         "run.yaml:2: key 'train.steps': the quoted text \"?[31m?\" is no whole number"},
        {"train:\n  steps: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n",
         "run.yaml:2: key 'train.steps': 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...' is no whole "
         "number"},
    };
    (void)state;
    EXPECT_REFUSED(cases);
}

static void test_wrong_shapes(void **state)
{
    static const wrong_case cases[] = {
        {"just words\n", "run.yaml:1: a config must be made of sections, as 'train:' with its keys indented below it"},
        {"- train\n", "run.yaml:1: a config must be made of sections, as 'train:' with its keys indented below it"},
        {"train: 7\n", "run.yaml:1: section 'train' must hold keys, each as 'key: value' on an indented line"},
        {"train: [steps]\n", "run.yaml:1: section 'train' must hold keys, each as 'key: value' on an indented line"},
        {"? [a]\n: 1\n", "run.yaml:1: the name of a section must be one word"},
        {"train:\n  ? {a: b}\n  : 1\n", "run.yaml:2: the name of a key must be one word"},
        {"train:\n  \"steps\\0\": 1\n", "run.yaml:2: the name of a key holds a NUL byte"},
        {"train:\n  steps: [1]\n", "run.yaml:2: key 'train.steps' takes one value, not a list"},
        {"train:\n  steps:\n    a: 1\n", "run.yaml:3: key 'train.steps' takes one value, not a mapping"},
        {"memgram:\n  orders: [2, 9]\n", "run.yaml:2: key 'memgram.orders': 9 is outside 2..8"},
        {"memgram:\n  orders: 1\n", "run.yaml:2: key 'memgram.orders': 1 is outside 2..8"},
        {"memgram:\n  orders: [2, a]\n", "run.yaml:2: key 'memgram.orders': 'a' is no whole number"},
        {"memgram:\n  orders: []\n", "run.yaml:2: key 'memgram.orders': the list is empty; it needs at least one item"},
        {"memgram:\n  orders: [2, 3, 4, 5, 6, 7, 8, 8]\n", "run.yaml:2: key 'memgram.orders': more than 7 items"},
        {"memgram:\n  orders: {a: b}\n",
         "run.yaml:2: key 'memgram.orders' takes a list of whole numbers, not a mapping"},
        {"data:\n  train: {a: b}\n", "run.yaml:2: key 'data.train' takes a text or a list of texts, not a mapping"},
        {"data:\n  train: []\n", "run.yaml:2: key 'data.train': the list is empty; it needs at least one item"},
        {"data:\n  train:\n    - a\n    - [b]\n",
         "run.yaml:4: key 'data.train': an item must be one text, not a list or a mapping"},
        {"data:\n  train:\n    - a\n    - \"\"\n", "run.yaml:4: key 'data.train' must not be empty"},
        {"data:\n  train:\n    - a\n    -\n",
         "run.yaml:4: key 'data.train' has no value; write \"\" for an empty text"},
        {"train:\n  steps: 1\n  steps: 1\n", "run.yaml:3: key 'train.steps' is given twice, first on line 2"},
        {"train:\n  steps: 1\nvote:\n  levels: 1\ntrain:\n  units: 1\n",
         "run.yaml:5: section 'train' is given twice, first on line 1"},
        {"run: &r\n  dir: a\n", "run.yaml:1: anchors are not taken here; remove &r"},
        {"run:\n  dir: *r\n", "run.yaml:2: aliases are not taken here; write the value instead of *r"},
        {"run:\n  dir: !!str a\n", "run.yaml:2: tags are not taken here; remove the tag tag:yaml.org,2002:str"},
        {"run: !x {dir: a}\n", "run.yaml:1: tags are not taken here; remove the tag !x"},
        {"train:\n  steps: 1\n---\ntrain:\n  units: 1\n", "run.yaml:3: a second document starts here; a config is one"},
    };
    (void)state;
    EXPECT_REFUSED(cases);
}

static void test_syntax(void **state)
{
    static const wrong_case cases[] = {
        {"train:\n\tsteps: 1\n",
         "run.yaml:2: not valid YAML: while scanning for the next token, found character that cannot start any "
         "token; indent with blanks, not with tabs"},
        {"train:\n  steps: 1\n units: 2\n",
         "run.yaml:3: not valid YAML: while parsing a block mapping, did not find expected key"},
        {"train:\n  steps: \"1\n",
         "run.yaml:3: not valid YAML: while scanning a quoted scalar, found unexpected end of stream"},
        {"data:\n  train: [a, b\n",
         "run.yaml:3: not valid YAML: while parsing a flow sequence, did not find expected ',' or ']'"},
        {"train:\n  steps: 1\n  # \xff\n",
         "run.yaml:3: not valid YAML: invalid leading UTF-8 octet; the text must be UTF-8"},
        {"train:\n  steps: \x01\n",
         "run.yaml:2: not valid YAML: control characters are not allowed; the text must be UTF-8"},
    };
    (void)state;
    EXPECT_REFUSED(cases);
}

static void test_too_many_items(void **state)
{
    tv_config c;
    (void)state;
    assert_int_equal(tv_config_init(&c), TV_OK);
    for (int extra = 0; extra <= 1; extra++) {
        char *text = NULL;
        size_t bytes = 0;
        FILE *out = open_memstream(&text, &bytes);
        assert_non_null(out);
        fprintf(out, "data.train=[");
        for (int i = 0; i < TV_CONFIG_PATHS_MAX + extra; i++)
            fprintf(out, "%sf%d", i ? ", " : "", i);
        fprintf(out, "]");
        assert_int_equal(fclose(out), 0);
        assert_int_equal(tv_config_set(&c, text), extra ? TV_CONFIG : TV_OK);
        assert_int_equal(c.data.train_count, TV_CONFIG_PATHS_MAX);
        assert_string_equal(c.data.train[TV_CONFIG_PATHS_MAX - 1], "f1023");
        free(text);
    }
    assert_non_null(strstr(tv_status_message(), "key 'data.train': more than 1024 items"));
    tv_config_free(&c);
}

static void test_assignments(void **state)
{
    static const wrong_case cases[] = {
        {"vote.dead_zon=1", "--set vote.dead_zon=1: key 'vote.dead_zon' is unknown; did you mean 'vote.dead_zone'?"},
        {"steps=1", "--set steps=1: section 'steps' is unknown; did you mean 'train.steps'?"},
        {"vot.levels=1", "--set vot.levels=1: section 'vot' is unknown; did you mean 'vote'?"},
        {"train.steps", "--set train.steps: there is no '='; write --set section.key=value"},
        {"train.steps=0", "--set train.steps=0: key 'train.steps': 0 is outside 1..1000000000"},
        {"train.steps=", "--set train.steps=: key 'train.steps': '' is no whole number"},
        {"run.dir=", "--set run.dir=: key 'run.dir' must not be empty"},
        {"run.dir=a: b", "--set run.dir=a: b: key 'run.dir' takes one value, not a mapping"},
        {"train.steps=1\nvote: 1", "--set train.steps=1?vote: 1: key 'train.steps': '1 vote' is no whole number"},
        {"run.dir=a\n--- b", "--set run.dir=a?--- b: a second document starts here; a config is one"},
        {"data.train=[a",
         "--set data.train=[a: not valid YAML: while parsing a flow sequence, did not find expected ',' or ']'"},
        {"=1", "--set =1: section '' is unknown; there are: model, moe, codebook, composite, memgram, modality, graph, "
               "focus, loss, "
               ""
               "parallel, data, "

               "train, vote, update, "

               "checkpoint, guard, comm, run"},
    };
    tv_config c;
    (void)state;
    assert_int_equal(tv_config_init(&c), TV_OK);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(tv_config_set(&c, cases[i].text), TV_CONFIG);
        assert_string_equal(tv_status_message(), cases[i].message);
    }
    assert_int_equal(tv_config_set(&c, "train.steps= 17 "), TV_OK);
    assert_int_equal(tv_config_set(&c, "data.train=one.txt"), TV_OK);
    assert_int_equal(tv_config_set(&c, "data.valid=a=b.txt"), TV_OK);
    assert_int_equal(c.train.steps, 17);
    assert_int_equal(c.data.train_count, 1);
    assert_string_equal(c.data.train[0], "one.txt");
    assert_string_equal(c.data.valid, "a=b.txt");
    assert_int_equal(tv_config_set(&c, "data.valid="), TV_OK);
    assert_string_equal(c.data.valid, "");
    tv_config_free(&c);
}

static void test_files(void **state)
{
    char path[] = "/tmp/tv_config_XXXXXX", message[256];
    tv_config c;
    (void)state;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    FILE *file = fdopen(fd, "w");
    assert_non_null(file);
    fprintf(file, "train:\n  steps: 3\n");
    fflush(file);
    assert_int_equal(tv_config_init(&c), TV_OK);
    assert_int_equal(tv_config_read_file(&c, path), TV_OK);
    assert_int_equal(c.train.steps, 3);
    fprintf(file, "  steps: 3\n");
    fflush(file);
    assert_int_equal(tv_config_read_file(&c, path), TV_CONFIG);
    snprintf(message, sizeof message, "%s:3: key 'train.steps' is given twice, first on line 2", path);
    assert_string_equal(tv_status_message(), message);
    for (int i = 0; i < (1 << 20); i++)
        putc('\n', file);
    fclose(file);
    assert_int_equal(tv_config_read_file(&c, path), TV_CONFIG);
    assert_non_null(strstr(tv_status_message(), "more than 1048576 bytes, so this is no config"));
    unlink(path);
    assert_int_equal(tv_config_read_file(&c, path), TV_CONFIG);
    snprintf(message, sizeof message, "%s: cannot open the config: No such file or directory", path);
    assert_string_equal(tv_status_message(), message);
    assert_int_equal(tv_config_read_file(&c, "/"), TV_CONFIG);
    assert_string_equal(tv_status_message(), "/: cannot read the config: Is a directory");
    tv_config_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),         cmocka_unit_test(test_empty_and_layered),
        cmocka_unit_test(test_unknown_names),  cmocka_unit_test(test_wrong_values),
        cmocka_unit_test(test_wrong_shapes),   cmocka_unit_test(test_syntax),
        cmocka_unit_test(test_too_many_items), cmocka_unit_test(test_assignments),
        cmocka_unit_test(test_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
