// The configuration: one struct, one schema table (base/config_schema.h). The table reads the YAML file, takes --set
// key=value, prints the help and docs/config.md, and writes the resolved config back as YAML.
#ifndef TV_BASE_CONFIG_H
#define TV_BASE_CONFIG_H

#include <stdint.h>
#include <stdio.h>

#include "base/hash.h"
#include "base/status.h"
#include "base/tensor.h"

#define TV_CONFIG_PATHS_MAX 1024
#define TV_CONFIG_INTS_MAX 7 // of a list of whole numbers

typedef enum tv_schedule_kind { TV_SCHEDULE_LINEAR, TV_SCHEDULE_COSINE, TV_SCHEDULE_CONSTANT } tv_schedule_kind;
typedef enum tv_exchange { TV_EXCHANGE_ALLREDUCE, TV_EXCHANGE_SHARDED } tv_exchange;
// Values of update.rule and vote.combine, in the order of tv_rule and tv_combine (kernels/kernels.h).
typedef enum tv_update_rule { TV_UPDATE_RESTART, TV_UPDATE_BUDGET, TV_UPDATE_CLASSIC } tv_update_rule;
typedef enum tv_vote_combine { TV_VOTE_MAJORITY, TV_VOTE_MEAN } tv_vote_combine;

typedef struct tv_config_model {
    int64_t width, blocks, heads, context, ffn;
    int64_t latent_kv;           // 0: plain attention; r: keys and values come from a latent of width r
    int64_t sequencer;           // bool: trigram sequencer
    int64_t scale_type;          // tv_scale_type
    int64_t scale_mantissa_bits; // m = 0..3
    int64_t head_exponent;       // logits are scaled by 2^head_exponent
    double rope_base;            // 10000
} tv_config_model;

// Mixture of experts in place of the ffn.
typedef struct tv_config_moe {
    int64_t experts;     // n_e; 0: the dense ffn
    int64_t top_k;       // experts of a token
    int64_t width;       // inner width F of an expert; 0: model.ffn (tv_config_expert_width)
    int64_t shared;      // inner width of the expert that all tokens pass; 0: none
    int64_t wire_digits; // ternary digits of a value that travels
    int64_t balance;     // bool: routing biases move
    int64_t dense_dispatch_max_tokens;
} tv_config_moe;

// The codebook of motifs; the composite head's has its own rows and shares the rest.
typedef struct tv_config_codebook {
    int64_t rows;        // 0: none
    int64_t width;       // d
    int64_t bucket_rows; // of a bucket, about
    int64_t exact_rows;  // tables up to this are one bucket
    int64_t probes;      // buckets that a query looks into
    double beta;         // pull of a row to its queries
    int64_t usage_halving, restart_every;
} tv_config_codebook;

typedef struct tv_config_composite {
    int64_t rows; // 0: none
} tv_config_composite;

// The graph of motifs.
typedef struct tv_config_graph {
    int64_t hops; // 0: none
    int64_t width, edges_per_node, max_edges, lora_rank;
    int64_t decay_every; // steps
    int dense;
} tv_config_graph;

// Tables of n-grams.
typedef struct tv_config_memgram {
    int64_t rows;                       // of each table; 0: none
    int64_t orders[TV_CONFIG_INTS_MAX]; // n of each n-gram, ascending
    int64_t order_count;
    int64_t strength;    // 0 or 1: rows count the more the more they are used
    int64_t decay_every; // steps
} tv_config_memgram;

// Features of images and sounds, by modality (tv_modality in model/part.h).
#define TV_CONFIG_MODALITIES 2
typedef struct tv_config_modality {
    int64_t image_width, audio_width;   // values F of a feature; 0: none
    int64_t image_frames, audio_frames; // features of an item
} tv_config_modality;

// The conversation's cells.
typedef struct tv_config_focus {
    int64_t width;         // n of each cell; 0: none
    int64_t segment;       // P, tokens
    int64_t bptt;          // segments
    int64_t codebook_rows; // 0: none; the rest is codebook's
} tv_config_focus;

#define TV_LOSS_GROUPS_MAX 15
#define TV_LOSS_GROUP_BYTES 63 // of a name

// A weight and the groups of tensors that it may move (model/losses.h), each.
typedef struct tv_config_loss {
    double cross_entropy_weight;
    char **cross_entropy_groups;
    int64_t cross_entropy_group_count;
    double commitment_weight;
    char **commitment_groups;
    int64_t commitment_group_count;
} tv_config_loss;

typedef struct tv_config_parallel {
    int64_t expert_ranks; // P; 0: auto (tv_config_expert_ranks)
    int64_t table_ranks;  // 0: all ranks, or as many as a table has buckets
} tv_config_parallel;

typedef enum tv_order { TV_ORDER_RANDOM, TV_ORDER_STREAM } tv_order;

typedef struct tv_config_data {
    char **train; // paths, relative to the working directory
    int64_t train_count;
    char *valid; // "" = the last valid_bytes of train
    int64_t valid_bytes;
    char *image_features, *audio_features; // files; "": none
    int64_t order;                         // tv_order
} tv_config_data;

typedef struct tv_config_train {
    int64_t steps, units, unit_windows, seed, eval_every, eval_windows, stop_at;
} tv_config_train;

typedef struct tv_config_vote {
    double dead_zone;
    int64_t levels, combine, quorum, exchange; // exchange: tv_exchange
    int64_t bucket_bytes;                      // 0: all votes travel at the end
} tv_config_vote;

typedef struct tv_config_update {
    int64_t rule, threshold;
    double step;
    int64_t schedule, warmup;
    double final; // fraction of the peak at the end
    double exponent_step;
    int64_t exponent_threshold; // H_E
    int64_t threshold_warmup;   // steps over which H falls from min(2H, 127) to H
    double flip_cap;            // 0 = off; fraction of a tensor's weights
    double rho_first, rho_last; // budget
    int64_t theta_min;
} tv_config_update;

// Values of checkpoint.when_busy and checkpoint.on_disk_full.
typedef enum tv_when_busy { TV_BUSY_WAIT, TV_BUSY_SKIP } tv_when_busy;
typedef enum tv_on_disk_full { TV_FULL_SKIP, TV_FULL_PAUSE, TV_FULL_STOP } tv_on_disk_full;

typedef struct tv_config_checkpoint {
    int64_t every, keep;
    int64_t async;        // bool: a thread writes while training goes on
    int64_t when_busy;    // tv_when_busy
    int64_t on_disk_full; // tv_on_disk_full
    char *writers;        // rank, node or a number (tv_config_writers)
} tv_config_checkpoint;

typedef struct tv_config_guard {
    int64_t hash_every; // compare the replicated tensors' hashes every so many steps, 0 = only at saves
} tv_config_guard;

typedef struct tv_config_comm {
    int64_t timeout, start_timeout; // seconds
} tv_config_comm;

typedef struct tv_config_run {
    char *dir;
    char *backend;   // auto, ref, cpu, cuda
    int64_t threads; // 0 = all this process may use
    int64_t log_every;
    int64_t log_parts; // bool: figures of the parts in the log
    double lag_every;  // seconds between comparisons of the ranks' times, 0 = never
} tv_config_run;

typedef struct tv_config {
    tv_config_model model;
    tv_config_moe moe;
    tv_config_codebook codebook;
    tv_config_composite composite;
    tv_config_memgram memgram;
    tv_config_modality modality;
    tv_config_graph graph;
    tv_config_focus focus;
    tv_config_loss loss;
    tv_config_parallel parallel;
    tv_config_data data;
    tv_config_train train;
    tv_config_vote vote;
    tv_config_update update;
    tv_config_checkpoint checkpoint;
    tv_config_guard guard;
    tv_config_comm comm;
    tv_config_run run;
} tv_config;

// Defaults of the schema table. TV_MEMORY only.
tv_status tv_config_init(tv_config *config);
void tv_config_free(tv_config *config);
// Read a YAML file over the present values. Errors (TV_CONFIG): "FILE:LINE: key 'x.y': ..."; an unknown key names the
// nearest known one. After an error the config holds what stood before it, and can still be used and freed.
tv_status tv_config_read_file(tv_config *config, const char *path);
// The same from memory; `name` stands for the file in messages.
tv_status tv_config_read_text(tv_config *config, const char *name, const char *text, size_t bytes);
// One "section.key=value" (value in YAML's own syntax; lists as [a, b]). Errors name the option and the nearest key.
tv_status tv_config_set(tv_config *config, const char *assignment);
// Rules between keys: width divisible by heads, head width even, unit tokens <= 131072, U q <= 32767, quorum <= U q,
// reduced lengths, top_k <= experts, expert_ranks divides experts, tables of at least 2 rows, ascending memgram.orders, features that leave room for text and have a file, a graph as wide as its codebook, a context of whole segments and at least two, with focus, no flip_cap with budget, rho falling, stop_at <= steps, a text to validate on when it is asked for.
// Messages show the arithmetic.
tv_status tv_config_check(const tv_config *config);
// Inner width of an expert: moe.width, or model.ffn when that is 0.
static inline int64_t tv_config_expert_width(const tv_config *config)
{
    return config->moe.width ? config->moe.width : config->model.ffn;
}
// Over how many of `ranks` ranks the experts are split: parallel.expert_ranks, or with auto the largest divisor of both
// `ranks` and moe.experts; 1 without experts. TV_CONFIG: the number given does not divide the ranks.
tv_status tv_config_expert_ranks(const tv_config *config, int ranks, int *expert_ranks);
// checkpoint.writers as io/checkpoint.h counts them: 0 rank, -1 node, else the number. TV_CONFIG: it is none of them.
tv_status tv_config_writers(const tv_config *config, int64_t *writers);
// Resolved YAML, malloc'd, in schema order; reading it back gives the same config, to the last bit of a float.
tv_status tv_config_text(const tv_config *config, char **text);
// XXH3-128 over "section.key=value\n" of the keys that define the run's bits, in schema order: model, moe (only with
// experts, and without dense_dispatch_max_tokens), codebook, composite and loss.commitment_* (only with a codebook, the conversation's too), loss.cross_entropy_* (only where they are not the default), memgram (only with rows), graph (only with hops), focus (only with a width), data.order (only stream), modality (only with a width), data.valid_bytes (0 when data.valid names a file, since nothing is held
// out then), train (without stop_at, eval_*), vote (without exchange and bucket_bytes), update.
// Paths, run, checkpoint, guard, comm, parallel may change on resume. TV_MEMORY only.
tv_status tv_config_hash(const tv_config *config, tv_hash128 *hash);
// Give a key that holds a text (section "run", key "dir") this value, with the schema's checks.
tv_status tv_config_assign(tv_config *config, const char *section, const char *key, const char *text);
// The keys of tv_config_hash in which `config` differs from the resolved YAML `text`, as "a.b: 1 here, 2 there; ..."
// (cut to `bytes`); "" when none does. Errors: `text` is not a config.
tv_status tv_config_difference(const tv_config *config, const char *text, char *out, size_t bytes);
// For --help (key, type, default, range, one line of help) and docs/config.md (a Markdown table a section).
void tv_config_print_help(FILE *out);
void tv_config_print_markdown(FILE *out);

#endif
