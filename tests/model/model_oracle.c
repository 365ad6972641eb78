#include "model_fixture.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/pack.h"
#include "model_oracle.h"

static double *new_doubles(int64_t count)
{
    double *values = calloc((size_t)count + 1, sizeof *values);
    assert_non_null(values);
    return values;
}

// A table has no decoded copy.
static void decode_table(const tv_param *param, double *weights)
{
    int64_t cols = param->spec.cols;
    for (int64_t row = 0; row < param->spec.rows; row++) {
        int8_t trits[TV_VQ_COLS_MAX];
        tv_unpack_row(tv_param_T(param, row), cols, trits);
        int value = tv_lattice_value(param->mantissa_bits, *tv_param_E(param, row) - param->base);
        for (int64_t c = 0; c < cols; c++) {
            weights[row * cols + c] = ldexp(trits[c] * value, param->base);
        }
    }
}

oracle oracle_new(const tv_config *config, const tv_params *params, int64_t tokens)
{
    oracle o = {.config = config, .params = params, .tokens = tokens};
    o.queries = new_doubles(1 + tokens * TV_VQ_COLS_MAX);
    o.weights = calloc((size_t)params->count, sizeof *o.weights);
    assert_non_null(o.weights);
    for (int64_t i = 0; i < params->count; i++) {
        const tv_param *param = &params->items[i];
        int64_t count = param->spec.rows * param->spec.cols;
        o.weights[i] = new_doubles(count);
        if (param->spec.placement == TV_PLACE_TABLE) {
            decode_table(param, o.weights[i]);
            continue;
        }
        for (int64_t j = 0; j < count; j++) {
            o.weights[i][j] = ldexp(param->w8[j], param->base);
        }
    }
    return o;
}

void oracle_free(oracle *o)
{
    for (int64_t i = 0; i < o->params->count; i++) {
        free(o->weights[i]);
    }
    free(o->weights);
    free(o->queries);
}

// The tensor whose name ends in ".leaf".
static int64_t find(const oracle *o, const char *leaf)
{
    for (int64_t i = 0; i < o->params->count; i++) {
        if (strcmp(strrchr(o->params->items[i].spec.name, '.') + 1, leaf) == 0) {
            return i;
        }
    }
    fail_msg("no tensor '%s'", leaf);
    return 0;
}

// y [M, N] = x W^T
static double *linear(const oracle *o, const char *leaf, const double *x)
{
    int64_t index = find(o, leaf), outputs = o->params->items[index].spec.rows,
            inputs = o->params->items[index].spec.cols;
    double *y = new_doubles(o->tokens * outputs);
    for (int64_t t = 0; t < o->tokens; t++) {
        for (int64_t n = 0; n < outputs; n++) {
            for (int64_t k = 0; k < inputs; k++) {
                y[t * outputs + n] += x[t * inputs + k] * o->weights[index][n * inputs + k];
            }
        }
    }
    return y;
}

static double *norm(const oracle *o, const char *leaf, const double *x, int64_t rows)
{
    int64_t index = find(o, leaf), cols = o->params->items[index].spec.cols;
    double *y = new_doubles(rows * cols);
    for (int64_t r = 0; r < rows; r++) {
        double sum = 0;
        for (int64_t c = 0; c < cols; c++) {
            sum += x[r * cols + c] * x[r * cols + c];
        }
        for (int64_t c = 0; c < cols; c++) {
            y[r * cols + c] = x[r * cols + c] / sqrt(sum / (double)cols + 1e-5) * o->weights[index][c];
        }
    }
    return y;
}

void oracle_embed(const oracle *o, const double *x, double *y)
{
    (void)x;
    int64_t width = o->config->model.width, index = find(o, "table");
    for (int64_t t = 0; t < o->tokens; t++) {
        memcpy(y + t * width, o->weights[index] + o->ids[t] * width, (size_t)width * sizeof *y);
    }
}

void oracle_sequencer(const oracle *o, const double *x, double *y)
{
    int64_t width = o->config->model.width, context = o->config->model.context;
    double *joined = new_doubles(o->tokens * 3 * width);
    for (int64_t t = 0; t < o->tokens; t++) {
        for (int64_t back = 0; back < 3; back++) {
            if (t % context >= back) {
                memcpy(joined + (t * 3 + 2 - back) * width, x + (t - back) * width, (size_t)width * sizeof *x);
            }
        }
    }
    double *out = linear(o, "out", joined);
    for (int64_t i = 0; i < o->tokens * width; i++) {
        y[i] = x[i] + out[i];
    }
    free(out);
    free(joined);
}

static void turn(const oracle *o, double *x)
{
    const tv_config_model *m = &o->config->model;
    int64_t d = m->width / m->heads, half = d / 2;
    for (int64_t row = 0; row < o->tokens * m->heads; row++) {
        double position = (double)(row / m->heads % m->context);
        for (int64_t c = 0; c < half; c++) {
            double angle = position * pow(m->rope_base, -(double)c / (double)half);
            double a = x[row * d + c], b = x[row * d + half + c];
            x[row * d + c] = a * cos(angle) - b * sin(angle);
            x[row * d + half + c] = a * sin(angle) + b * cos(angle);
        }
    }
}

// out[i] of one query i of one head: a softmax over the window's keys up to i.
static void attend(const oracle *o, const double *const qkv[3], int64_t i, int64_t h, double *out)
{
    const tv_config_model *m = &o->config->model;
    int64_t d = m->width / m->heads, first = i / m->context * m->context;
    double sum = 0;
    for (int64_t j = first; j <= i; j++) {
        double score = 0;
        for (int64_t c = 0; c < d; c++) {
            score += qkv[0][(i * m->heads + h) * d + c] * qkv[1][(j * m->heads + h) * d + c];
        }
        double e = exp(score / sqrt((double)d));
        sum += e;
        for (int64_t c = 0; c < d; c++) {
            out[c] += e * qkv[2][(j * m->heads + h) * d + c];
        }
    }
    for (int64_t c = 0; c < d; c++) {
        out[c] /= sum;
    }
}

void oracle_attention(const oracle *o, const double *x, double *y)
{
    const tv_config_model *m = &o->config->model;
    int64_t d = m->width / m->heads, rows = o->tokens * m->heads;
    double *normed = norm(o, "norm", x, o->tokens);
    double *latent = m->latent_kv > 0 ? linear(o, "down", normed) : NULL;
    double *flat_q = linear(o, "q", normed);
    double *flat_k = latent != NULL ? linear(o, "k_up", latent) : linear(o, "k", normed);
    double *v = latent != NULL ? linear(o, "v_up", latent) : linear(o, "v", normed);
    double *q = norm(o, "q_norm", flat_q, rows), *k = norm(o, "k_norm", flat_k, rows);
    turn(o, q);
    turn(o, k);
    const double *const qkv[3] = {q, k, v};
    double *mixed = new_doubles(o->tokens * m->width);
    for (int64_t row = 0; row < rows; row++) {
        attend(o, qkv, row / m->heads, row % m->heads, mixed + row * d);
    }
    double *out = linear(o, "out", mixed);
    for (int64_t i = 0; i < o->tokens * m->width; i++) {
        y[i] = x[i] + out[i];
    }
    double *all[] = {normed, latent, flat_q, flat_k, v, q, k, mixed, out};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        free(all[i]);
    }
}

void oracle_ffn(const oracle *o, const double *x, double *y)
{
    int64_t hidden = o->config->model.ffn, width = o->config->model.width;
    double *normed = norm(o, "norm", x, o->tokens), *gu = linear(o, "gate_up", normed),
           *h = new_doubles(o->tokens * hidden);
    for (int64_t t = 0; t < o->tokens; t++) {
        for (int64_t f = 0; f < hidden; f++) {
            double a = gu[t * 2 * hidden + f], u = gu[t * 2 * hidden + hidden + f];
            h[t * hidden + f] = a / (1 + exp(-a)) * u;
        }
    }
    double *out = linear(o, "down", h);
    for (int64_t i = 0; i < o->tokens * width; i++) {
        y[i] = x[i] + out[i];
    }
    free(out);
    free(h);
    free(gu);
    free(normed);
}

// The row nearest to z.
const double *oracle_nearest_row(const oracle *o, const double *z)
{
    int64_t index = find(o, "table"), cols = o->params->items[index].spec.cols, best = 0;
    double least = INFINITY;
    for (int64_t row = 0; row < o->params->items[index].spec.rows; row++) {
        double distance = 0;
        for (int64_t c = 0; c < cols; c++) {
            double e = o->weights[index][row * cols + c] - z[c];
            distance += e * e;
        }
        if (distance < least) {
            least = distance;
            best = row;
        }
    }
    return o->weights[index] + best * cols;
}

// Straight through: the rows are those of the first call's queries, and what moves is z.
void oracle_codebook(const oracle *o, const double *x, double *y)
{
    int64_t width = o->config->model.width, cols = o->config->codebook.width;
    double *normed = norm(o, "norm", x, o->tokens), *z = linear(o, "down", normed);
    if (o->queries[0] == 0) {
        o->queries[0] = 1;
        memcpy(o->queries + 1, z, (size_t)(o->tokens * cols) * sizeof *z);
    }
    for (int64_t t = 0; t < o->tokens; t++) {
        const double *first = o->queries + 1 + t * cols, *row = oracle_nearest_row(o, first);
        for (int64_t c = 0; c < cols; c++) {
            z[t * cols + c] += row[c] - first[c];
        }
    }
    double *out = linear(o, "up", z);
    for (int64_t i = 0; i < o->tokens * width; i++) {
        y[i] = x[i] + out[i];
    }
    free(out);
    free(z);
    free(normed);
}

// The row of the n-gram that ends at ids[0], by ops_memgram.h.
static int64_t gram_row(const int32_t *ids, int64_t n, int64_t rows)
{
    uint64_t h = (uint64_t)n * 0x9E3779B97F4A7C15u;
    for (int64_t i = n - 1; i >= 0; i--) {
        h = (h ^ (uint32_t)ids[-i]) * 0xFF51AFD7ED558CCDu;
        h ^= h >> 32;
    }
    return (int64_t)(h % (uint64_t)rows);
}

// y [cols] += gate row, of a row without strength.
static void add_row(const double *z, const double *row, int64_t cols, double *y)
{
    double zz = 0, ww = 0, dot = 0;
    for (int64_t c = 0; c < cols; c++) {
        zz += z[c] * z[c];
        ww += row[c] * row[c];
        dot += z[c] * row[c];
    }
    double size = sqrt(zz / (double)cols + 1e-5) * sqrt(ww / (double)cols);
    double gate = 0.5 / (1 + exp(-(size > 0 ? dot / size : 0) / 8));
    for (int64_t c = 0; c < cols; c++) {
        y[c] += gate * row[c];
    }
}

void oracle_memgram(const oracle *o, const double *x, double *y)
{
    const tv_config_memgram *m = &o->config->memgram;
    int64_t width = o->config->model.width, cols = 64, context = o->config->model.context;
    double *normed = norm(o, "norm", x, o->tokens), *z = linear(o, "down", normed);
    double *mixed = new_doubles(o->tokens * cols), *table = o->weights[find(o, "struct")];
    for (int64_t t = 0; t < o->tokens; t++) {
        for (int64_t j = 0; j < m->order_count && m->orders[j] <= t % context + 1; j++) {
            int64_t row = gram_row(o->ids + t, m->orders[j], m->rows);
            add_row(z + t * cols, table + row * cols, cols, mixed + t * cols);
        }
    }
    double *out = linear(o, "up", mixed);
    for (int64_t i = 0; i < o->tokens * width; i++) {
        y[i] = x[i] + out[i];
    }
    free(out);
    free(mixed);
    free(z);
    free(normed);
}

const double *oracle_weights(const oracle *o, const char *leaf) { return o->weights[find(o, leaf)]; }

double *oracle_linear(const oracle *o, const char *leaf, const double *x) { return linear(o, leaf, x); }

// h [F] of one expert for one token's norm(x).
static void expert_hidden(const oracle *o, int64_t expert, const double *normed, double *h)
{
    int64_t inner = tv_config_expert_width(o->config), width = o->config->model.width;
    const double *rows = o->weights[find(o, "experts")] + expert * 2 * inner * width;
    for (int64_t f = 0; f < inner; f++) {
        double a = 0, u = 0;
        for (int64_t k = 0; k < width; k++) {
            a += normed[k] * rows[f * width + k];
            u += normed[k] * rows[(inner + f) * width + k];
        }
        h[f] = a / (1 + exp(-a)) * u;
    }
}

// The gated sum of one token's experts: those with the largest logits, without bias.
static void mix_experts(const oracle *o, const double *logits, const double *normed, double *sum)
{
    int64_t experts = o->config->moe.experts, inner = tv_config_expert_width(o->config);
    double weights = 0, *h = new_doubles(inner);
    int *taken = calloc((size_t)experts, sizeof *taken);
    assert_non_null(taken);
    for (int64_t j = 0; j < o->config->moe.top_k; j++) {
        int64_t best = -1;
        for (int64_t e = 0; e < experts; e++) {
            if (!taken[e] && (best < 0 || logits[e] > logits[best])) {
                best = e;
            }
        }
        taken[best] = 1;
        weights += exp(logits[best]);
        expert_hidden(o, best, normed, h);
        for (int64_t f = 0; f < inner; f++) {
            sum[f] += exp(logits[best]) * h[f];
        }
    }
    for (int64_t f = 0; f < inner; f++) {
        sum[f] /= weights;
    }
    free(taken);
    free(h);
}

void oracle_moe(const oracle *o, const double *x, double *y)
{
    int64_t experts = o->config->moe.experts, inner = tv_config_expert_width(o->config), width = o->config->model.width;
    double *normed = norm(o, "norm", x, o->tokens), *z = linear(o, "query", normed), *logits = linear(o, "centroid", z),
           *sum = new_doubles(o->tokens * inner);
    for (int64_t i = 0; i < o->tokens * experts; i++) {
        logits[i] /= 8;
    }
    for (int64_t t = 0; t < o->tokens; t++) {
        mix_experts(o, logits + t * experts, normed + t * width, sum + t * inner);
    }
    double *out = linear(o, "down", sum);
    for (int64_t i = 0; i < o->tokens * width; i++) {
        y[i] = x[i] + out[i];
    }
    double *all[] = {normed, z, logits, sum, out};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        free(all[i]);
    }
}

double oracle_head_loss(const oracle *o, const double *x)
{
    double *normed = norm(o, "norm", x, o->tokens), *logits = linear(o, "out", normed), loss = 0;
    int64_t vocab = o->params->items[find(o, "out")].spec.rows;
    for (int64_t t = 0; t < o->tokens; t++) {
        double sum = 0;
        for (int64_t v = 0; v < vocab; v++) {
            logits[t * vocab + v] = ldexp(logits[t * vocab + v], (int)o->config->model.head_exponent);
            sum += exp(logits[t * vocab + v]);
        }
        loss += log(sum) - logits[t * vocab + o->targets[t]];
    }
    free(logits);
    free(normed);
    return loss;
}
