// Rules between keys. Each message shows the arithmetic and names a cure.
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/config_schema.h"

enum { UNIT_TOKENS_MAX = 131072, VOTE_SUM_MAX = 32767, DENSE_ROWS_MAX = 65536 };

// `what` is the length's arithmetic, `key` what to make smaller.
static tv_status check_reduced_length(const tv_config_model *m, int64_t length, const char *what, const char *key)
{
    int64_t most = tv_reduced_length_max((int)m->scale_mantissa_bits);
    if (length <= most)
        return TV_OK;
    return TV_FAIL(TV_CONFIG,
                   "%s = %" PRId64 " is a sum too long for int32 with model.scale_mantissa_bits %" PRId64
                   ", at most %" PRId64 "; take a smaller %s or fewer mantissa bits",
                   what, length, m->scale_mantissa_bits, most, key);
}

static tv_status check_model(const tv_config_model *m)
{
    if (m->width % m->heads != 0)
        return TV_FAIL(TV_CONFIG,
                       "model.width %" PRId64 " is not divisible by model.heads %" PRId64 "; take a width of %" PRId64
                       " or other heads",
                       m->width, m->heads, tv_ceil_div(m->width, 2 * m->heads) * 2 * m->heads);
    if (m->width / m->heads % 2 != 0)
        return TV_FAIL(TV_CONFIG,
                       "model.width %" PRId64 " / model.heads %" PRId64 " = %" PRId64
                       ", but rotary positions turn pairs of channels; take heads of an even width",
                       m->width, m->heads, m->width / m->heads);
    if (m->latent_kv > m->width)
        return TV_FAIL(TV_CONFIG,
                       "model.latent_kv %" PRId64 " is more than model.width %" PRId64
                       ", so it would save nothing; take 0 or less than the width",
                       m->latent_kv, m->width);
    TV_TRY(check_reduced_length(m, 3 * m->width, "3 x model.width", "model.width"));
    return check_reduced_length(m, 2 * m->ffn, "2 x model.ffn", "model.ffn");
}

static tv_status check_moe(const tv_config *c)
{
    const tv_config_moe *m = &c->moe;
    int64_t width = tv_config_expert_width(c), ranks = c->parallel.expert_ranks;
    if (m->experts == 0)
        return TV_OK;
    if (m->top_k > m->experts)
        return TV_FAIL(TV_CONFIG,
                       "moe.top_k %" PRId64 " is more than moe.experts %" PRId64
                       "; a token goes to an expert once, so take a top_k of at most %" PRId64,
                       m->top_k, m->experts, m->experts);
    if (ranks > 0 && m->experts % ranks != 0)
        return TV_FAIL(TV_CONFIG,
                       "moe.experts %" PRId64 " = %" PRId64 " x parallel.expert_ranks %" PRId64 " + %" PRId64
                       ", but every rank holds equally many; take a divisor of the experts, or 0",
                       m->experts, m->experts / ranks, ranks, m->experts % ranks);
    TV_TRY(check_reduced_length(&c->model, 2 * width, m->width ? "2 x moe.width" : "2 x model.ffn",
                                m->width ? "moe.width" : "model.ffn"));
    return check_reduced_length(&c->model, 2 * m->shared, "2 x moe.shared", "moe.shared");
}

static tv_status check_table(int64_t rows, const char *key)
{
    if (rows != 1)
        return TV_OK;
    return TV_FAIL(TV_CONFIG, "%s is 1, but a choice needs 2 rows; take at least 2, or 0 for no table", key);
}

static tv_status check_codebook(const tv_config *c)
{
    TV_TRY(check_table(c->codebook.rows, "codebook.rows"));
    TV_TRY(check_table(c->composite.rows, "composite.rows"));
    if (c->composite.rows > 0 && c->codebook.rows == 0)
        return TV_FAIL(TV_CONFIG,
                       "composite.rows %" PRId64
                       " needs the motifs of a codebook, but codebook.rows is 0; take both or "
                       "neither",
                       c->composite.rows);
    return TV_OK;
}

static tv_status check_group_count(int64_t count, const char *key)
{
    if (count <= TV_LOSS_GROUPS_MAX)
        return TV_OK;
    return TV_FAIL(TV_CONFIG, "%s has %" PRId64 " groups; take at most %d: kinds of parts instead of their names", key,
                   count, TV_LOSS_GROUPS_MAX);
}

static tv_status check_memgram(const tv_config *c)
{
    const tv_config_memgram *m = &c->memgram;
    TV_TRY(check_table(m->rows, "memgram.rows"));
    for (int64_t i = 1; m->rows > 0 && i < m->order_count; i++)
        if (m->orders[i] <= m->orders[i - 1])
            return TV_FAIL(TV_CONFIG,
                           "memgram.orders has %" PRId64 " behind %" PRId64
                           ", but they ascend; sort them, and name each once",
                           m->orders[i], m->orders[i - 1]);
    return TV_OK;
}

static tv_status check_features(const char *kind, int64_t width, const char *file)
{
    int named = file && file[0];
    if (width > 0 && !named)
        return TV_FAIL(TV_CONFIG,
                       "modality.%s_width is %" PRId64
                       ", but data.%s_features names no file; set it, or take a width of 0",
                       kind, width, kind);
    if (width == 0 && named)
        return TV_FAIL(TV_CONFIG,
                       "data.%s_features names a file, but modality.%s_width is 0, which leaves it out; give the width "
                       "F of its features",
                       kind, kind);
    return TV_OK;
}

static tv_status check_modality(const tv_config *c)
{
    const tv_config_modality *m = &c->modality;
    int64_t before = (m->image_width > 0 ? 1 + m->image_frames : 0) + (m->audio_width > 0 ? 1 + m->audio_frames : 0);
    TV_TRY(check_features("image", m->image_width, c->data.image_features));
    TV_TRY(check_features("audio", m->audio_width, c->data.audio_features));
    TV_TRY(check_reduced_length(&c->model, m->image_width, "modality.image_width", "width"));
    TV_TRY(check_reduced_length(&c->model, m->audio_width, "modality.audio_width", "width"));
    if (before >= c->model.context)
        return TV_FAIL(TV_CONFIG,
                       "features and their marks take %" PRId64 " of model.context %" PRId64
                       " and leave no text; take fewer modality.image_frames or modality.audio_frames, or a longer "
                       "context",
                       before, c->model.context);
    return TV_OK;
}

static tv_status check_graph(const tv_config *c)
{
    const tv_config_graph *g = &c->graph;
    if (g->hops == 0)
        return TV_OK;
    if (c->codebook.rows == 0)
        return TV_FAIL(TV_CONFIG,
                       "graph.hops %" PRId64
                       " needs the motifs of a codebook, but codebook.rows is 0; take both or neither",
                       g->hops);
    if (g->width != c->codebook.width)
        return TV_FAIL(TV_CONFIG,
                       "graph.width %" PRId64 " is not codebook.width %" PRId64
                       ", but its nodes are the codebook's rows; take the same",
                       g->width, c->codebook.width);
    if (g->max_edges < g->edges_per_node)
        return TV_FAIL(TV_CONFIG,
                       "graph.max_edges %" PRId64 " is less than graph.edges_per_node %" PRId64
                       "; take at least as many",
                       g->max_edges, g->edges_per_node);
    if (g->dense && c->codebook.rows > DENSE_ROWS_MAX)
        return TV_FAIL(TV_CONFIG,
                       "graph.dense keeps an index of codebook.rows %" PRId64 ", more than %d; set graph.dense: false",
                       c->codebook.rows, DENSE_ROWS_MAX);
    return TV_OK;
}

static tv_status check_focus(const tv_config *c)
{
    int64_t context = c->model.context, segment = c->focus.segment;
    if (c->focus.width == 0)
        return TV_OK;
    TV_TRY(check_table(c->focus.codebook_rows, "focus.codebook_rows"));
    if (context % segment != 0) {
        int64_t whole = context < segment ? segment : context / segment * segment;
        return TV_FAIL(TV_CONFIG,
                       "model.context = %" PRId64 " is no multiple of focus.segment = %" PRId64
                       "; take a context of %" PRId64 " or another segment",
                       context, segment, whole + segment);
    }
    if (context < 2 * segment)
        return TV_FAIL(TV_CONFIG,
                       "model.context = %" PRId64 " is one segment of focus.segment = %" PRId64
                       ", whose state nothing in the window would see; take a segment of at most %" PRId64,
                       context, segment, context / 2);
    return TV_OK;
}

tv_status tv_config_expert_ranks(const tv_config *config, int ranks, int *expert_ranks)
{
    int64_t a = config->moe.experts, b = ranks, given = config->parallel.expert_ranks;
    *expert_ranks = 1;
    if (a == 0)
        return TV_OK;
    if (given > 0) {
        if (ranks % given != 0)
            return TV_FAIL(TV_CONFIG,
                           "parallel.expert_ranks %" PRId64
                           " does not divide the %d ranks; start a multiple of it, or take a divisor, or 0",
                           given, ranks);
        *expert_ranks = (int)given;
        return TV_OK;
    }
    while (b != 0) { // the largest divisor of both
        int64_t rest = a % b;
        a = b;
        b = rest;
    }
    *expert_ranks = (int)a;
    return TV_OK;
}

static tv_status check_batch(const tv_config *c)
{
    int64_t context = c->model.context, tokens = c->train.unit_windows * context, sum = c->train.units * c->vote.levels;
    if (tokens > UNIT_TOKENS_MAX)
        return TV_FAIL(TV_CONFIG,
                       "train.unit_windows %" PRId64 " x model.context %" PRId64 " = %" PRId64
                       " tokens a unit, more than %d; take train.unit_windows of at most %" PRId64
                       " and more train.units",
                       c->train.unit_windows, context, tokens, UNIT_TOKENS_MAX, UNIT_TOKENS_MAX / context);
    if (sum > VOTE_SUM_MAX)
        return TV_FAIL(TV_CONFIG,
                       "train.units %" PRId64 " x vote.levels %" PRId64 " = %" PRId64
                       ", but a vote sum holds at most %d; take train.units of at most %" PRId64 " or fewer levels",
                       c->train.units, c->vote.levels, sum, VOTE_SUM_MAX, VOTE_SUM_MAX / c->vote.levels);
    if (c->vote.quorum > sum)
        return TV_FAIL(TV_CONFIG,
                       "vote.quorum %" PRId64 " is more than train.units %" PRId64 " x vote.levels %" PRId64
                       " = %" PRId64 ", so no vote would ever pass; take a quorum of at most that",
                       c->vote.quorum, c->train.units, c->vote.levels, sum);
    if (c->train.stop_at > c->train.steps)
        return TV_FAIL(TV_CONFIG,
                       "train.stop_at %" PRId64 " lies behind train.steps %" PRId64 "; take at most that, or 0",
                       c->train.stop_at, c->train.steps);
    return TV_OK;
}

static tv_status check_update(const tv_config_update *u)
{
    if (u->flip_cap > 0 && u->rule == TV_UPDATE_BUDGET)
        return TV_FAIL(
            TV_CONFIG,
            "update.flip_cap does not go with update.rule budget, which caps by rho; set update.flip_cap: 0");
    if (u->rho_last > u->rho_first)
        return TV_FAIL(TV_CONFIG, "update.rho_last %g is more than update.rho_first %g, but rho falls; exchange them",
                       u->rho_last, u->rho_first);
    if (u->rule == TV_UPDATE_BUDGET && u->rho_last <= 0)
        return TV_FAIL(TV_CONFIG, "update.rho_last is 0, but rho falls as a geometric series, which never gets there; "
                                  "take a small positive number");
    return TV_OK;
}

static tv_status check_data(const tv_config *c)
{
    const tv_config_data *d = &c->data;
    if (d->valid && d->valid[0])
        return TV_OK;
    if (d->valid_bytes == 0 && c->train.eval_every > 0)
        return TV_FAIL(
            TV_CONFIG,
            "train.eval_every is %" PRId64
            ", but there is no text to validate on; set data.valid, data.valid_bytes, or train.eval_every: 0",
            c->train.eval_every);
    if (d->valid_bytes > 0 && d->valid_bytes < c->model.context + 1)
        return TV_FAIL(TV_CONFIG,
                       "data.valid_bytes %" PRId64 " is less than one window of model.context + 1 = %" PRId64
                       " bytes; take more, or 0 for none",
                       d->valid_bytes, c->model.context + 1);
    return TV_OK;
}

tv_status tv_config_writers(const tv_config *config, int64_t *writers)
{
    const char *text = config->checkpoint.writers;
    char *end = NULL;
    *writers = 0;
    if (strcmp(text, "rank") == 0)
        return TV_OK;
    *writers = strcmp(text, "node") == 0 ? -1 : strtoll(text, &end, 10);
    if (*writers == -1 && !end)
        return TV_OK;
    if (!end || *end != '\0' || *text < '0' || *text > '9' || *writers < 1 || *writers > 1 << 20)
        return TV_FAIL(TV_CONFIG, "checkpoint.writers '%.40s' is none of rank, node and a number from 1", text);
    return TV_OK;
}

tv_status tv_config_check(const tv_config *config)
{
    TV_TRY(check_model(&config->model));
    TV_TRY(check_moe(config));
    TV_TRY(check_codebook(config));
    TV_TRY(check_memgram(config));
    TV_TRY(check_modality(config));
    TV_TRY(check_group_count(config->loss.cross_entropy_group_count, "loss.cross_entropy_groups"));
    TV_TRY(check_group_count(config->loss.commitment_group_count, "loss.commitment_groups"));
    TV_TRY(check_graph(config));
    TV_TRY(check_focus(config));
    TV_TRY(check_batch(config));
    TV_TRY(check_update(&config->update));
    int64_t writers;
    TV_TRY(tv_config_writers(config, &writers));
    return check_data(config);
}
