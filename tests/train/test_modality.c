// Features of images and sounds in training, on one rank: where they stand in a window and what is predicted there, the gate's votes, and
// that what only features tell is learnt.
#include "run_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "train/modalities.h"

#define CONFIG "tests/data/invariance-modality.yaml"

enum { IMAGE_EVERY = 61, IMAGE_FRAMES = 2, IMAGE_WIDTH = 24, SOUND_EVERY = 83, SOUND_FRAMES = 3, SOUND_WIDTH = 10 };

// ---- windows ---------------------------------------------------------------------------------------------------------------

// A window of 17 bytes at `start` of the text 0, 1, 2 .. mod 251, of which `left` are there.
static void fill_window(tv_modalities *m, int64_t start, int64_t left, int32_t ids[16], int32_t targets[16])
{
    uint8_t text[64];
    for (int i = 0; i < 64; i++)
        text[i] = (uint8_t)((start + i) % 251);
    tv_corpus_span span = {.bytes = text, .position = start, .left = left};
    tv_window_place place = {.window = 0, .ids = ids, .targets = targets};
    tv_modalities_begin(m);
    TRY(tv_modalities_window(m, &span, &place));
}

static int64_t next_multiple(int64_t from, int64_t of) { return (from + of - 1) / of * of; }

// What the header says, one token after the other.
static void check_window(tv_modalities *m, int64_t start, int64_t left)
{
    int32_t ids[16], targets[16];
    int64_t image = next_multiple(start, IMAGE_EVERY), sound = next_multiple(start, SOUND_EVERY), used = 0, images = 0,
            sounds = 0, predicted = 0;
    int64_t first = image < sound ? image : sound, text = first;
    fill_window(m, start, left, ids, targets);
    if (first >= start + 16)
        text = start;
    if (first < start + 16 && image == first) {
        assert_int_equal(ids[used++], TV_ID_IMAGE);
        for (; images < IMAGE_FRAMES; images++) {
            assert_int_equal(ids[used], TV_ID_PAD);
            assert_int_equal(m->of[TV_IMAGE].host_at[images], used++);
        }
    }
    if (first < start + 16 && sound == first) {
        assert_int_equal(ids[used++], TV_ID_AUDIO);
        for (; sounds < SOUND_FRAMES; sounds++) {
            assert_int_equal(ids[used], TV_ID_PAD);
            assert_int_equal(m->of[TV_AUDIO].host_at[sounds], used++);
        }
    }
    assert_true(m->of[TV_IMAGE].count == images && m->of[TV_AUDIO].count == sounds);
    for (int64_t t = 0; t < 16; t++) {
        int64_t at = text + t - used; // the byte of the token
        int there = t >= used && at + 1 < start + left, before = used > 0 && t == used - 1;
        assert_int_equal(targets[t], there || before ? (at + 1) % 251 : -1);
        if (t >= used)
            assert_int_equal(ids[t], there ? at % 251 : TV_ID_PAD);
        predicted += targets[t] >= 0;
    }
    assert_true(m->predicted == predicted);
}

static void test_windows(void **state)
{
    (void)state;
    const char *none[] = {NULL};
    run r;
    run_open(&r, CONFIG, none, "cpu");
    tv_modalities *m = &r.trainer.modalities;
    for (int64_t start = 0; start < 6000; start++) {
        check_window(m, start, 40);
        check_window(m, start, 17); // the text ends with the window
        check_window(m, start, 21);
    }
    run_close(&r);
}

// ---- the gate --------------------------------------------------------------------------------------------------------------

// It moves by one a step at most, towards its votes, and stops at its ends; without a vote it stays.
static void test_gate(void **state)
{
    (void)state;
    const char *sets[] = {"vote.dead_zone=0", NULL};
    run r;
    run_open(&r, CONFIG, sets, "cpu");
    static const char *const parts[] = {"image", "audio"};
    int moved = 0;
    for (int s = 0; s < 24; s++) {
        double before[2];
        for (int i = 0; i < 2; i++) {
            int8_t *gate = run_side(&r, parts[i], "gate")->data;
            if (s == 0)
                assert_int_equal(*gate, 0);
            if (s == 20)
                *gate = i ? 127 : -128;
            before[i] = *gate;
        }
        run_step(&r);
        for (int i = 0; i < 2; i++) {
            const int8_t *gate = run_side(&r, parts[i], "gate")->data;
            double votes = run_figure(&r, parts[i], "gate_votes"), want = before[i] - (votes > 0) + (votes < 0);
            want = want < -128 ? -128 : want > 127 ? 127 : want;
            assert_true(*gate == want);
            assert_true(run_figure(&r, parts[i], "gate") == (want + 128) / 256);
            assert_true(run_figure(&r, parts[i], "frames") > 0);
            moved += want != before[i];
        }
    }
    assert_true(moved > 10);
    run_close(&r);
}

// ---- learning --------------------------------------------------------------------------------------------------------------

static char folder[] = "/tmp/trivote-modality-XXXXXX";

static const char *path_of(const char *name)
{
    static char paths[4][sizeof folder + 20];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof *paths, "%s/%s", folder, name);
    return path;
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) == NULL;
}

static int drop_folder(void **state)
{
    (void)state;
    unlink(path_of("text"));
    return rmdir(folder);
}

// A text whose bytes at the images' places follow those of invariance.txt that the made features tell of; all others are random letters.
static void write_text(void)
{
    FILE *in = fopen("tests/data/invariance.txt", "rb"), *out = fopen(path_of("text"), "wb");
    uint32_t state = 1;
    assert_true(in != NULL && out != NULL);
    for (int64_t i = 0;; i++) {
        int byte = fgetc(in);
        if (byte == EOF)
            break;
        state = state * 1664525u + 1013904223u;
        fputc(i % IMAGE_EVERY < IMAGE_FRAMES ? byte : 'a' + (int)(state >> 28), out);
    }
    fclose(in);
    fclose(out);
}

// Sum of losses and number of targets of the step's windows that have an image.
static void add_losses(const run *r, double *sum, int64_t *targets)
{
    const tv_modality_batch *images = &r->trainer.modalities.of[TV_IMAGE];
    const tv_batch *batch = &r->trainer.batch;
    int64_t context = r->config.model.context;
    for (int64_t i = 0; i < images->count; i += IMAGE_FRAMES) {
        int64_t window = images->host_at[i] / context;
        *sum += (double)batch->window_loss[window];
        for (int64_t t = window * context; t < (window + 1) * context; t++)
            *targets += batch->host_targets[t] >= 0;
    }
}

// Mean loss a byte of the windows with an image, in the last 20 of 150 steps.
static double learn(int seed, int shut)
{
    char text[80], seeds[40];
    snprintf(text, sizeof text, "data.train=[%s]", path_of("text"));
    snprintf(seeds, sizeof seeds, "train.seed=%d", seed);
    const char *sets[] = {text,
                          seeds,
                          "train.steps=150",
                          "train.units=1",
                          "train.unit_windows=128",
                          "update.step=8",
                          "update.schedule=linear",
                          "update.exponent_step=0.02",
                          "update.exponent_threshold=8",
                          "update.rho_first=0.01",
                          "update.rho_last=0.0005",
                          "modality.audio_width=0",
                          "data.audio_features=",
                          NULL};
    run r;
    double sum = 0;
    int64_t targets = 0;
    run_open(&r, CONFIG, sets, "cpu");
    for (int s = 0; s < 150; s++) {
        if (shut) // g = 0: the features say nothing, and all else is the same
            *(int8_t *)run_side(&r, "image", "gate")->data = -128;
        run_step(&r);
        if (s >= 130)
            add_losses(&r, &sum, &targets);
    }
    run_close(&r);
    assert_true(targets > 1000);
    return sum / (double)targets;
}

static void test_learning(void **state)
{
    (void)state;
    write_text();
    double with = learn(1, 0), without = learn(1, 1);
    print_message("loss %.4f with features, %.4f with the gate shut\n", with, without);
    assert_true(with < without - 0.1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_windows), cmocka_unit_test(test_gate),
                                       cmocka_unit_test_setup_teardown(test_learning, make_folder, drop_folder)};
    return cmocka_run_group_tests_name("modality", tests, NULL, NULL);
}
