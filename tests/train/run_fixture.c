#include "run_fixture.h"

#include <stdlib.h>
#include <string.h>

const char *run_backend_name(void)
{
    const char *name = getenv("TV_TEST_BACKEND");
    return name != NULL ? name : "auto";
}

void run_open(run *r, const char *file, const char *const *sets, const char *backend)
{
    memset(r, 0, sizeof *r);
    TRY(tv_config_init(&r->config));
    TRY(tv_config_read_file(&r->config, file));
    for (; *sets; sets++)
        TRY(tv_config_set(&r->config, *sets));
    TRY(tv_config_check(&r->config));
    TRY(tv_comm_open_self(&r->comm));
    TRY(tv_backend_find(backend, &r->backend));
    TRY(r->backend->open(0, 1, 1));
    TRY(tv_trainer_open(&r->trainer, &r->config, r->comm, r->backend));
}

void run_close(run *r)
{
    tv_trainer_close(&r->trainer);
    r->backend->close();
    tv_comm_close(r->comm);
    tv_config_free(&r->config);
}

double run_step(run *r)
{
    tv_step_report report;
    TRY(tv_trainer_step(&r->trainer, 0, &report));
    return report.loss;
}

const tv_part *run_part(const run *r, const char *name)
{
    const tv_model *model = &r->trainer.model;
    for (int64_t i = 0; i < model->part_count; i++)
        if (strcmp(model->parts[i]->name, name) == 0)
            return model->parts[i];
    fail_msg("no part %s", name);
    return NULL;
}

double run_figure(const run *r, const char *part, const char *name)
{
    const tv_part *found = run_part(r, part);
    tv_figures figures = {.count = 0};
    found->ops->tell(found, &figures);
    for (int f = 0; f < figures.count; f++)
        if (strcmp(figures.items[f].name, name) == 0)
            return figures.items[f].value;
    fail_msg("%s tells no %s", part, name);
    return 0;
}

tv_histogram run_histogram(const run *r, const char *part, const char *name)
{
    const tv_part *found = run_part(r, part);
    tv_figures figures = {.count = 0};
    found->ops->tell(found, &figures);
    for (int h = 0; h < figures.histogram_count; h++)
        if (strcmp(figures.histograms[h].name, name) == 0)
            return figures.histograms[h];
    return (tv_histogram){0};
}

const tv_param *run_tensor(const run *r, const char *name)
{
    const tv_params *params = &r->trainer.model.params;
    for (int64_t i = 0; i < params->count; i++)
        if (strcmp(params->items[i].spec.name, name) == 0)
            return &params->items[i];
    fail_msg("no tensor %s", name);
    return NULL;
}

const tv_side *run_side(const run *r, const char *part, const char *leaf)
{
    const tv_params *params = &r->trainer.model.params;
    for (int64_t i = 0; i < params->side_count; i++)
        if (strcmp(params->sides[i].spec.name, part) == 0 &&
            (leaf == NULL || strcmp(params->sides[i].spec.part, leaf) == 0))
            return &params->sides[i];
    return NULL;
}

void *run_copy(const run *r, const void *from, int64_t bytes)
{
    void *to = malloc((size_t)bytes);
    assert_non_null(to);
    TRY(r->backend->copy(to, from, (size_t)bytes, TV_COPY_TO_HOST, NULL));
    return to;
}

static int16_t *take_use(const run *r, const tv_side *side, int64_t rows)
{
    assert_non_null(side);
    if (side->spec.dtype == TV_I16)
        return run_copy(r, side->data, rows * 2);
    assert_int_equal(side->spec.dtype, TV_I8);
    int8_t *narrow = run_copy(r, side->data, rows);
    int16_t *use = malloc((size_t)rows * sizeof *use);
    assert_non_null(use);
    for (int64_t row = 0; row < rows; row++)
        use[row] = narrow[row];
    free(narrow);
    return use;
}

run_picture run_take_picture(const run *r, const char *table, const char *part, const char *leaf)
{
    const tv_param *p = run_tensor(r, table);
    int64_t rows = p->spec.rows, cols = p->spec.cols;
    return (run_picture){.rows = rows,
                         .cols = cols,
                         .T = run_copy(r, p->T, rows * tv_row_bytes(cols)),
                         .E = run_copy(r, p->E, rows),
                         .T_accum = run_copy(r, p->T_accum, rows * cols),
                         .E_accum = run_copy(r, p->E_accum, rows),
                         .use = take_use(r, run_side(r, part, leaf), rows)};
}

void run_free_picture(run_picture *p) { free(p->T), free(p->E), free(p->T_accum), free(p->E_accum), free(p->use); }

int run_row_moved(const run_picture *a, const run_picture *b, int64_t row)
{
    int64_t bytes = tv_row_bytes(a->cols);
    return memcmp(a->T + row * bytes, b->T + row * bytes, (size_t)bytes) != 0 || a->E[row] != b->E[row] ||
           a->E_accum[row] != b->E_accum[row] ||
           memcmp(a->T_accum + row * a->cols, b->T_accum + row * a->cols, (size_t)a->cols) != 0;
}
