#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "args.h"
#include "base/fmath.h"
#include "base/rng.h"
#include "command.h"
#include "model/modality.h"
#include "train/modalities.h"

#define BYTES 256 // specials are never generated
#define NO_ITEM INT64_MIN

typedef struct generate_args {
    const char *prompt;
    const char *features[TV_MODALITIES]; // NULL: none
    int64_t items[TV_MODALITIES];        // of them; NO_ITEM: none
    int64_t bytes, top_k, seed;
    double temperature;
} generate_args;

// A generation under way: what stands in front, the last bytes behind it, and room for one window.
typedef struct stream {
    tv_loaded *loaded;
    int32_t *host_ids; // [context]
    int32_t *ids, *fault;
    float *logits; // [BYTES] host
    int64_t length, context;
    tv_modalities modalities;
    int64_t head; // tokens of the items in front, which stay while the text moves on
} stream;

// Logits of the byte after the window.
static tv_status next_logits(stream *s)
{
    const tv_backend *backend = s->loaded->backend;
    TV_TRY(backend->copy(s->ids, s->host_ids, (size_t)s->length * sizeof(int32_t), TV_COPY_TO_DEVICE, NULL));
    tv_unit unit = {
        .backend = backend,
        .params = &s->loaded->model.params,
        .tokens = s->length,
        .context = s->length,
        .ids = s->ids,
        .fault = s->fault,
    };
    tv_modalities_describe(&s->modalities, &unit);
    TV_TRY(tv_model_forward(&s->loaded->model, &unit));
    return backend->copy(s->logits, s->loaded->model.logits + (s->length - 1) * TV_VOCAB, BYTES * sizeof(float),
                         TV_COPY_TO_HOST, NULL);
}

// Number of logits that stand before logit i in the order (value down, index up).
static int rank_of(const float *logits, int i)
{
    int before = 0;
    for (int j = 0; j < BYTES; j++)
        before += logits[j] > logits[i] || (logits[j] == logits[i] && j < i);
    return before;
}

// Draw byte number `index`: arg-max at temperature 0, else softmax(logits / temperature) over the top k (0: all), by the
// inverse of the cumulative sum in byte order at r64 2^-64 (purpose GENERATE, tensor id 0, step 0).
static int draw(const float *logits, const generate_args *args, int64_t index)
{
    float weight[BYTES], top = logits[0], sum = 0;
    int best = 0;
    for (int i = 1; i < BYTES; i++)
        if (logits[i] > top)
            top = logits[i], best = i;
    if (args->temperature == 0)
        return best;
    float inverse = 1.0f / (float)args->temperature;
    for (int i = 0; i < BYTES; i++) {
        int keep = args->top_k == 0 || rank_of(logits, i) < args->top_k;
        weight[i] = keep ? tv_exp((logits[i] - top) * inverse) : 0.0f;
        sum += weight[i];
    }
    tv_rng_key key = {.seed = (uint32_t)args->seed, .purpose = TV_RNG_GENERATE};
    float r = (float)(tv_rng64(key, (uint64_t)index) >> 40) * 0x1p-24f * sum, cumulative = 0;
    for (int i = 0; i < BYTES; i++) {
        cumulative += weight[i];
        if (r < cumulative && weight[i] > 0)
            return i;
    }
    return best;
}

static void append(stream *s, int byte)
{
    if (s->length == s->context)
        memmove(s->host_ids + s->head, s->host_ids + s->head + 1, (size_t)(--s->length - s->head) * sizeof(int32_t));
    s->host_ids[s->length++] = byte;
}

static tv_status open_stream(stream *s, tv_loaded *loaded)
{
    void *memory;
    *s = (stream){.loaded = loaded, .context = loaded->config.model.context};
    s->host_ids = calloc((size_t)s->context, sizeof(int32_t));
    s->logits = calloc(BYTES, sizeof(float));
    if (!s->host_ids || !s->logits)
        return TV_FAIL(TV_MEMORY, "no memory for a window of %lld bytes", (long long)s->context);
    TV_TRY(loaded->backend->alloc((size_t)s->context * sizeof(int32_t), &memory));
    s->ids = memory;
    TV_TRY(loaded->backend->alloc(sizeof(int32_t), &memory));
    s->fault = memory;
    return TV_OK;
}

static tv_status check_item(const stream *s, const generate_args *args, tv_modality modality)
{
    int64_t item = args->items[modality];
    if (item == NO_ITEM)
        return TV_OK;
    int64_t items = tv_features_items(s->modalities.of[modality].file);
    if (item < 0 || item >= items)
        return TV_FAIL(TV_USAGE, "--%s-item takes a number from 0 to %" PRId64 ", the last item of %s, not %" PRId64,
                       tv_modality_name(modality), items - 1, args->features[modality], item);
    return TV_OK;
}

// The items' marks and features, as they stand in front of a text in training. To which bytes of a text they belong does not count here.
static tv_status put_head(stream *s, const generate_args *args)
{
    tv_modalities_args open = {.config = &s->loaded->config, .backend = s->loaded->backend, .text_bytes = INT64_MAX};
    memcpy(open.paths, args->features, sizeof open.paths);
    TV_TRY(tv_modalities_open(&s->modalities, &open));
    for (int i = 0; i < TV_MODALITIES; i++)
        TV_TRY(check_item(s, args, (tv_modality)i));
    TV_TRY(tv_modalities_head(&s->modalities, args->items, s->host_ids, &s->head));
    s->length = s->head;
    return tv_modalities_upload(&s->modalities);
}

static void close_stream(stream *s)
{
    tv_modalities_close(&s->modalities);
    free(s->host_ids);
    free(s->logits);
    s->loaded->backend->free(s->ids);
    s->loaded->backend->free(s->fault);
}

static tv_status generate(tv_loaded *loaded, const generate_args *args)
{
    stream s;
    tv_status st;
    TV_TRY_GOTO(st, done, open_stream(&s, loaded));
    TV_TRY_GOTO(st, done, put_head(&s, args));
    for (const char *p = args->prompt; *p; p++)
        append(&s, (unsigned char)*p);
    fputs(args->prompt, stdout);
    for (int64_t i = 0; i < args->bytes; i++) {
        TV_TRY_GOTO(st, done, next_logits(&s));
        int byte = draw(s.logits, args, i);
        append(&s, byte);
        putchar(byte);
    }
    putchar('\n');
done:
    close_stream(&s);
    return st;
}

// *any: an item stands in front.
static tv_status check_items(const generate_args *args, int *any)
{
    for (int i = 0; i < TV_MODALITIES; i++) {
        const char *name = tv_modality_name((tv_modality)i);
        int file = args->features[i] && args->features[i][0], item = args->items[i] != NO_ITEM;
        if (file && !item)
            return TV_FAIL(TV_USAGE, "--%s-features needs --%s-item N, the item of the file that the text follows",
                           name, name);
        if (item && !file)
            return TV_FAIL(TV_USAGE, "--%s-item needs --%s-features FILE, the file that has the item", name, name);
        *any |= item;
    }
    return TV_OK;
}

static tv_status check(const generate_args *args)
{
    int any = 0;
    TV_TRY(check_items(args, &any));
    if (!args->prompt[0] && !any)
        return TV_FAIL(TV_USAGE, "--prompt is empty; give at least one byte to continue");
    if (args->bytes < 1)
        return TV_FAIL(TV_USAGE, "--bytes takes a number from 1, not %lld", (long long)args->bytes);
    if (args->temperature < 0)
        return TV_FAIL(TV_USAGE, "--temperature takes a number from 0, not %g", args->temperature);
    if (args->top_k < 0)
        return TV_FAIL(TV_USAGE, "--top-k takes a number from 0 (all), not %lld", (long long)args->top_k);
    if (args->seed < 0 || args->seed > UINT32_MAX)
        return TV_FAIL(TV_USAGE, "--seed takes a number from 0 to 4294967295, not %lld", (long long)args->seed);
    return TV_OK;
}

tv_status tv_cmd_generate(tv_comm *comm, int argc, char **argv)
{
    const char *dir = NULL;
    generate_args options = {.bytes = 256, .temperature = 0.8, .seed = 1, .items = {NO_ITEM, NO_ITEM}};
    const tv_arg args[] = {
        {"--checkpoint", TV_ARG_TEXT, &dir, "DIR", 1},
        {"--prompt", TV_ARG_TEXT, &options.prompt, "TEXT", 1},
        {"--bytes", TV_ARG_INT, &options.bytes, "N", 0},
        {"--temperature", TV_ARG_FLOAT, &options.temperature, "X", 0},
        {"--top-k", TV_ARG_INT, &options.top_k, "K", 0},
        {"--seed", TV_ARG_INT, &options.seed, "S", 0},
        {"--image-features", TV_ARG_TEXT, &options.features[TV_IMAGE], "FILE", 0},
        {"--image-item", TV_ARG_INT, &options.items[TV_IMAGE], "N", 0},
        {"--audio-features", TV_ARG_TEXT, &options.features[TV_AUDIO], "FILE", 0},
        {"--audio-item", TV_ARG_INT, &options.items[TV_AUDIO], "N", 0},
    };
    const tv_arg_table table = {"generate", args, sizeof args / sizeof *args, NULL};
    tv_loaded loaded = {0};
    TV_TRY(tv_args_parse(&table, argc, argv));
    TV_TRY(check(&options));
    tv_status st = tv_command_load(dir, comm, 1, &loaded);
    if (st == TV_OK)
        st = generate(&loaded, &options);
    tv_command_unload(&loaded);
    return st;
}
