// Which tensors a checkpoint gives, and in which type each is exact.
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "export.h"

const char *tv_export_type_name(tv_export_type type)
{
    static const char *const names[] = {"F32", "F16", "TQ1_0", "I8", "I16", "I32"};
    return names[type];
}

static int is_part(const tv_state_array *array, const char *part) { return strcmp(array->part, part) == 0; }

// Weights, and side state that is no counter of votes; E comes with its T.
static int is_exported(const tv_state_array *a)
{
    return !is_part(a, "E") && !is_part(a, "T_accum") && !is_part(a, "E_accum");
}

static tv_status set_name(tv_export_tensor *tensor, const tv_state_array *a)
{
    int side = !is_part(a, "T");
    int length = snprintf(tensor->name, sizeof tensor->name, "%s%s%s", a->name, side ? "." : "", side ? a->part : "");
    if (length >= (int)sizeof tensor->name)
        return TV_FAIL(TV_CHECKPOINT, "the name %s %s is longer than the %d bytes that these formats keep", a->name,
                       a->part, TV_EXPORT_NAME_BYTES - 1);
    return TV_OK;
}

static tv_status find_exponents(const tv_export *plan, tv_export_tensor *tensor)
{
    int64_t count;
    const tv_state_array *t = tensor->values, *arrays = tv_checkpoint_arrays(plan->checkpoint, &count);
    for (int64_t i = 0; i < count; i++)
        if (is_part(&arrays[i], "E") && strcmp(arrays[i].name, t->name) == 0)
            tensor->exponents = &arrays[i];
    const tv_state_array *e = tensor->exponents;
    if (!e)
        return TV_FAIL(TV_CHECKPOINT, "%s has trits and no exponents", t->name);
    if (t->scale_group < 1 || e->rows != t->rows || e->cols != tv_row_groups(t->logical_cols, t->scale_group) ||
        e->b != t->b || e->m != t->m)
        return TV_FAIL(TV_CHECKPOINT, "%s: trits and exponents do not belong together", t->name);
    return TV_OK;
}

// *packs: all rows may be TQ1_0.
static tv_status look_at_exponents(const tv_export *plan, const tv_export_tensor *tensor, int *packs)
{
    const tv_state_array *e = tensor->exponents;
    int64_t piece = tv_export_piece_rows(e);
    int8_t *data = malloc((size_t)(piece * e->cols) + 1);
    *packs = 1;
    if (!data)
        return TV_FAIL(TV_MEMORY, "no memory for exponents of %s", tensor->name);
    tv_status st = TV_OK;
    for (int64_t first = 0; st == TV_OK && *packs && first < e->rows; first += piece) {
        int64_t rows = e->rows - first < piece ? e->rows - first : piece;
        st = tv_export_read(plan->checkpoint, e, first, rows, data);
        for (int64_t r = 0; st == TV_OK && *packs && r < rows; r++)
            *packs = tv_export_row_packs(e, tensor->cols, data + r * e->cols);
    }
    free(data);
    return st;
}

static tv_status choose_float(const tv_export *plan, const tv_export_format *format, tv_export_tensor *tensor)
{
    int b = tensor->values->b, m = tensor->values->m, packs = 0;
    TV_TRY(find_exponents(plan, tensor));
    tensor->type = tv_export_fits_f16(b, m) ? TV_EXPORT_F16 : TV_EXPORT_F32;
    if (tensor->type == TV_EXPORT_F32 && b + 7 > 127)
        return TV_FAIL(TV_CHECKPOINT, "%s: scales of 2^%d and more are beyond float32", tensor->name, b);
    if (tensor->type == TV_EXPORT_F16 && format->packs_trits && tensor->cols % 256 == 0)
        TV_TRY(look_at_exponents(plan, tensor, &packs));
    if (packs)
        tensor->type = TV_EXPORT_TQ1_0;
    return TV_OK;
}

static tv_status choose_integer(tv_export_tensor *tensor)
{
    switch (tensor->values->dtype) {
    case TV_I8: tensor->type = TV_EXPORT_I8; return TV_OK;
    case TV_I16: tensor->type = TV_EXPORT_I16; return TV_OK;
    case TV_I32: tensor->type = TV_EXPORT_I32; return TV_OK;
    default: break;
    }
    return TV_FAIL(TV_CHECKPOINT, "%s: side state of type %s cannot be exported", tensor->name,
                   tv_dtype_name(tensor->values->dtype));
}

static tv_status add_tensor(tv_export *plan, const tv_export_format *format, const tv_state_array *array)
{
    tv_export_tensor *tensor = &plan->tensors[plan->count++];
    *tensor = (tv_export_tensor){.values = array, .rows = array->rows, .cols = array->logical_cols};
    TV_TRY(set_name(tensor, array));
    TV_TRY(is_part(array, "T") ? choose_float(plan, format, tensor) : choose_integer(tensor));
    tensor->row_bytes = tv_export_row_bytes(tensor->type, tensor->cols);
    tensor->bytes = tensor->rows * tensor->row_bytes;
    return TV_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const tv_export_tensor *)a)->name, ((const tv_export_tensor *)b)->name);
}

// Larger items first, so that without padding every item stands at a multiple of its size.
static int by_item_size(const void *a, const void *b)
{
    static const int order[] = {[TV_EXPORT_F32] = 0, [TV_EXPORT_I32] = 0,   [TV_EXPORT_F16] = 1,
                                [TV_EXPORT_I16] = 1, [TV_EXPORT_TQ1_0] = 1, [TV_EXPORT_I8] = 2};
    int difference = order[((const tv_export_tensor *)a)->type] - order[((const tv_export_tensor *)b)->type];
    return difference ? difference : by_name(a, b);
}

static tv_status place_tensors(tv_export *plan, const tv_export_format *format)
{
    int64_t end = 0;
    qsort(plan->tensors, (size_t)plan->count, sizeof *plan->tensors, by_name);
    for (int64_t i = 1; i < plan->count; i++)
        if (by_name(&plan->tensors[i - 1], &plan->tensors[i]) == 0)
            return TV_FAIL(TV_CHECKPOINT, "two arrays would be called %s", plan->tensors[i].name);
    qsort(plan->tensors, (size_t)plan->count, sizeof *plan->tensors, by_item_size);
    for (int64_t i = 0; i < plan->count; i++) {
        plan->tensors[i].offset = tv_ceil_div(end, format->alignment) * format->alignment;
        end = plan->tensors[i].offset + plan->tensors[i].bytes;
    }
    return TV_OK;
}

tv_status tv_export_plan(tv_checkpoint *checkpoint, const tv_export_format *format, tv_export *plan)
{
    int64_t count;
    const tv_state_array *arrays = tv_checkpoint_arrays(checkpoint, &count);
    *plan = (tv_export){.checkpoint = checkpoint};
    plan->tensors = calloc((size_t)count + 1, sizeof *plan->tensors);
    if (!plan->tensors)
        return TV_FAIL(TV_MEMORY, "no memory for a list of %" PRId64 " tensors", count);
    tv_status st = TV_OK;
    for (int64_t i = 0; st == TV_OK && i < count; i++)
        if (is_exported(&arrays[i]))
            st = add_tensor(plan, format, &arrays[i]);
    if (st == TV_OK)
        st = place_tensors(plan, format);
    if (st != TV_OK)
        tv_export_free(plan);
    return st;
}

void tv_export_free(tv_export *plan)
{
    free(plan->tensors);
    plan->tensors = NULL;
    plan->count = 0;
}
