// The head of a safetensors file: u64 length of the JSON text, the text, spaces up to a multiple of 8 bytes.
//
//   {"__metadata__": {key: text, ...}, NAME: {"data_offsets": [begin, end], "dtype": "F16", "shape": [rows, cols]}, ...}
//
// Offsets count from the end of the text and leave no gap. Source: the format's section in README.md of safetensors.
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "export.h"

static json_t *metadata(const tv_checkpoint_info *info)
{
    char digest[TV_HASH_HEX], step[24], bytes_seen[24];
    tv_hash_format(info->digest, digest);
    snprintf(step, sizeof step, "%" PRId64, info->step);
    snprintf(bytes_seen, sizeof bytes_seen, "%" PRId64, info->bytes_seen);
    return json_pack("{s:s, s:s, s:s, s:s, s:s}", "program", info->program, "step", step, "bytes_seen", bytes_seen,
                     "digest", digest, "config", info->config_text);
}

static json_t *tensor_json(const tv_export_tensor *tensor)
{
    return json_pack("{s:s, s:[I, I], s:[I, I]}", "dtype", tv_export_type_name(tensor->type), "shape",
                     (json_int_t)tensor->rows, (json_int_t)tensor->cols, "data_offsets", (json_int_t)tensor->offset,
                     (json_int_t)(tensor->offset + tensor->bytes));
}

static tv_status write_head(const tv_export *plan, FILE *out)
{
    json_t *head = json_object();
    int failed = json_object_set_new(head, "__metadata__", metadata(tv_checkpoint_describe(plan->checkpoint)));
    for (int64_t i = 0; i < plan->count; i++)
        failed |= json_object_set_new(head, plan->tensors[i].name, tensor_json(&plan->tensors[i]));
    char *text = failed ? NULL : json_dumps(head, JSON_SORT_KEYS | JSON_COMPACT);
    json_decref(head);
    if (!text)
        return TV_FAIL(TV_MEMORY, "no memory for the file's head");
    uint64_t length = strlen(text), padded = (length + 7) / 8 * 8;
    fwrite(&padded, sizeof padded, 1, out);
    fprintf(out, "%s%*s", text, (int)(padded - length), "");
    free(text);
    return TV_OK;
}

const tv_export_format tv_export_safetensors = {"safetensors", 0, 1, write_head};
