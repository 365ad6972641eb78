#include "model/part.h"

#include <stdio.h>
#include <string.h>

tv_status tv_part_declare(const tv_part *part, tv_params *params, const char *leaf, const tv_tensor_spec *spec,
                          int64_t *index)
{
    tv_tensor_spec full = *spec;
    int length = snprintf(full.name, sizeof full.name, "%s.%s", part->name, leaf);
    if (length < 0 || (size_t)length >= sizeof full.name) {
        return TV_FAIL(TV_INTERNAL, "tensor name '%s.%s' is too long", part->name, leaf);
    }
    snprintf(full.part, sizeof full.part, "%s", part->ops->kind);
    return tv_params_add(params, &full, index);
}

tv_status tv_part_declare_side(const tv_part *part, tv_params *params, const char *leaf, const tv_side_spec *spec,
                               int64_t *index)
{
    tv_side_spec full = *spec;
    snprintf(full.name, sizeof full.name, "%s", part->name);
    snprintf(full.part, sizeof full.part, "%s", leaf);
    return tv_params_add_side(params, &full, index);
}

tv_arena *tv_plan_keep(tv_plan *plan) { return plan->training ? &plan->saved : &plan->scratch; }

void tv_figures_add(tv_figures *figures, const char *name, double value)
{
    if (figures->count == TV_FIGURES_MAX)
        return;
    figures->items[figures->count].name = name;
    figures->items[figures->count++].value = value;
}

void tv_figures_add_histogram(tv_figures *figures, const char *name, const int64_t *counts, int bins)
{
    if (figures->histogram_count == TV_HISTOGRAMS_MAX || bins > TV_BINS_MAX)
        return;
    tv_histogram *h = &figures->histograms[figures->histogram_count++];
    h->name = name;
    h->bins = bins;
    memcpy(h->counts, counts, (size_t)bins * sizeof *counts);
}
