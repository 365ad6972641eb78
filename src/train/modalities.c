#include "train/modalities.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/modality.h"
#include "train/sampler.h"

static tv_status open_one(tv_modalities *m, const tv_modalities_args *args, tv_modality modality)
{
    tv_modality_batch *b = &m->of[modality];
    char width_key[40], frames_key[40];
    const char *name = tv_modality_name(modality), *path = args->paths[modality];
    b->width = tv_modality_width(args->config, modality);
    b->frames = tv_modality_frames(args->config, modality);
    if (!path || !path[0])
        return TV_OK;
    if (b->width == 0)
        return TV_FAIL(TV_USAGE, "%s: the model has no part '%s' that could take features; leave them out", path, name);
    snprintf(width_key, sizeof width_key, "modality.%s_width", name);
    snprintf(frames_key, sizeof frames_key, "modality.%s_frames", name);
    tv_features_want want = {.frames = b->frames,
                             .width = b->width,
                             .text_bytes = args->text_bytes,
                             .width_key = width_key,
                             .frames_key = frames_key};
    TV_TRY(tv_features_open(path, &want, &b->file));
    size_t rows = (size_t)(args->config->train.unit_windows * b->frames);
    size_t bytes = rows * (size_t)b->width * sizeof(float);
    void *memory;
    b->host_rows = malloc(bytes);
    b->host_at = malloc(rows * sizeof *b->host_at);
    if (!b->host_rows || !b->host_at)
        return TV_FAIL(TV_MEMORY, "no memory for %zu features of the part %s", rows, name);
    TV_TRY(args->backend->alloc(bytes, &memory));
    b->rows = memory;
    TV_TRY(args->backend->alloc(rows * sizeof *b->at, &memory));
    b->at = memory;
    return TV_OK;
}

tv_status tv_modalities_open(tv_modalities *m, const tv_modalities_args *args)
{
    *m = (tv_modalities){.backend = args->backend, .context = args->config->model.context};
    for (int i = 0; i < TV_MODALITIES; i++)
        TV_TRY(open_one(m, args, (tv_modality)i));
    return TV_OK;
}

void tv_modalities_close(tv_modalities *m)
{
    for (int i = 0; i < TV_MODALITIES; i++) {
        tv_modality_batch *b = &m->of[i];
        tv_features_close(b->file);
        free(b->host_rows);
        free(b->host_at);
        if (m->backend) {
            m->backend->free(b->rows);
            m->backend->free(b->at);
        }
    }
    *m = (tv_modalities){0};
}

int tv_modalities_any(const tv_modalities *m)
{
    for (int i = 0; i < TV_MODALITIES; i++)
        if (m->of[i].file)
            return 1;
    return 0;
}

tv_hash128 tv_modalities_identity(const tv_modalities *m, tv_hash128 text)
{
    tv_hash128 all[1 + TV_MODALITIES] = {text};
    if (!tv_modalities_any(m))
        return text;
    for (int i = 0; i < TV_MODALITIES; i++)
        if (m->of[i].file)
            all[1 + i] = tv_features_identity(m->of[i].file);
    return tv_hash_bytes(all, sizeof all);
}

void tv_modalities_begin(tv_modalities *m)
{
    m->predicted = 0;
    for (int i = 0; i < TV_MODALITIES; i++)
        m->of[i].count = 0;
}

// The first position of an item in [from, from + context), and what each modality has there (-1: nothing). 0 when there is none.
static int find_items(const tv_modalities *m, int64_t from, int64_t *position, int64_t items[TV_MODALITIES])
{
    int64_t at[TV_MODALITIES], best = from + m->context;
    for (int i = 0; i < TV_MODALITIES; i++) {
        at[i] = best;
        if (!m->of[i].file || !tv_features_next(m->of[i].file, from, &at[i], &items[i]))
            at[i] = INT64_MAX;
    }
    for (int i = 0; i < TV_MODALITIES; i++)
        best = at[i] < best ? at[i] : best;
    for (int i = 0; i < TV_MODALITIES; i++)
        items[i] = at[i] == best ? items[i] : -1;
    *position = best;
    return best < from + m->context;
}

// Mark and feature positions of an item at ids[0] on, the batch's token `token`.
static tv_status put_item(tv_modality_batch *b, int64_t item, int64_t token, int32_t mark, int32_t *ids)
{
    TV_TRY(tv_features_read(b->file, item, b->host_rows + b->count * b->width));
    ids[0] = mark;
    for (int64_t f = 0; f < b->frames; f++) {
        ids[1 + f] = TV_ID_PAD;
        b->host_at[b->count++] = (int32_t)(token + 1 + f);
    }
    return TV_OK;
}

// The items that stand before a text, images first, at ids[0] on, the batch's token `token`; *used is set to their tokens.
static tv_status put_items(tv_modalities *m, const int64_t items[TV_MODALITIES], int64_t token, int32_t *ids,
                           int64_t *used)
{
    *used = 0;
    for (int i = 0; i < TV_MODALITIES; i++) {
        if (items[i] < 0)
            continue;
        int32_t mark = i == TV_IMAGE ? TV_ID_IMAGE : TV_ID_AUDIO;
        TV_TRY(put_item(&m->of[i], items[i], token + *used, mark, ids + *used));
        *used += 1 + m->of[i].frames;
    }
    return TV_OK;
}

tv_status tv_modalities_head(tv_modalities *m, const int64_t items[TV_MODALITIES], int32_t *ids, int64_t *used)
{
    tv_modalities_begin(m);
    return put_items(m, items, 0, ids, used);
}

tv_status tv_modalities_window(tv_modalities *m, const tv_corpus_span *span, const tv_window_place *place)
{
    int64_t context = m->context, token = place->window * context, items[TV_MODALITIES], position, used;
    int32_t *ids = place->ids + token, *targets = place->targets + token;
    if (!find_items(m, span->position + place->origin, &position, items)) {
        tv_window_tokens(span->bytes, context, ids, targets);
        m->predicted += context;
        return TV_OK;
    }
    TV_TRY(put_items(m, items, token, ids, &used));
    int64_t skipped = position - span->position - place->origin, left = span->left - skipped, room = context - used;
    int64_t text = left - 1 < room ? left - 1 : room;
    for (int64_t t = 0; t < used; t++)
        targets[t] = -1;
    targets[used - 1] = span->bytes[skipped];
    tv_window_tokens(span->bytes + skipped, text, ids + used, targets + used);
    for (int64_t t = used + text; t < context; t++) {
        ids[t] = TV_ID_PAD;
        targets[t] = -1;
    }
    m->predicted += 1 + text;
    return TV_OK;
}

tv_status tv_modalities_upload(tv_modalities *m)
{
    for (int i = 0; i < TV_MODALITIES; i++) {
        tv_modality_batch *b = &m->of[i];
        size_t count = (size_t)b->count;
        if (count == 0)
            continue;
        TV_TRY(
            m->backend->copy(b->rows, b->host_rows, count * (size_t)b->width * sizeof(float), TV_COPY_TO_DEVICE, NULL));
        TV_TRY(m->backend->copy(b->at, b->host_at, count * sizeof *b->at, TV_COPY_TO_DEVICE, NULL));
    }
    return TV_OK;
}

void tv_modalities_describe(const tv_modalities *m, tv_unit *unit)
{
    for (int i = 0; i < TV_MODALITIES; i++) {
        const tv_modality_batch *b = &m->of[i];
        unit->features[i] = (tv_unit_features){.count = b->count, .rows = b->rows, .at = b->at};
    }
}
