#include "base/config_schema.h"

#define NAMED(section_, key_) .section = #section_, .key = #key_, .name = #section_ "." #key_
#define PLACED(section_, key_, type_) NAMED(section_, key_), .type = type_, .offset = offsetof(tv_config, section_.key_)

// Rows by type: section, key, default, what is allowed, help. The range of a text is that of its length.
#define INT(s, k, initial_, min_, max_, help_)                                                                         \
    PLACED(s, k, TV_CONFIG_INT), .initial = initial_, .min = min_, .max = max_, .help = help_
#define FLOAT(s, k, initial_, min_, max_, help_)                                                                       \
    PLACED(s, k, TV_CONFIG_FLOAT), .initial = initial_, .min = min_, .max = max_, .help = help_
#define BOOL(s, k, initial_, help_) PLACED(s, k, TV_CONFIG_BOOL), .initial = initial_, .help = help_
#define ENUM(s, k, initial_, choices_, help_)                                                                          \
    PLACED(s, k, TV_CONFIG_ENUM), .initial = initial_, .choices = choices_, .help = help_
#define WORD(s, k, initial_, choices_, help_)                                                                          \
    PLACED(s, k, TV_CONFIG_WORD), .initial = initial_, .choices = choices_, .help = help_
#define TEXT(s, k, initial_, min_, help_)                                                                              \
    PLACED(s, k, TV_CONFIG_TEXT), .initial = initial_, .min = min_, .max = TV_CONFIG_TEXT_MAX, .help = help_
#define LIST(s, k, count_, initial_, help_)                                                                            \
    PLACED(s, k, TV_CONFIG_LIST), .count_offset = offsetof(tv_config, s.count_), .initial = initial_, .min = 1,        \
                                  .max = TV_CONFIG_TEXT_MAX, .help = help_
#define GROUPS(s, k, count_, help_)                                                                                    \
    PLACED(s, k, TV_CONFIG_LIST), .count_offset = offsetof(tv_config, s.count_), .initial = "all", .min = 1,           \
                                  .max = TV_LOSS_GROUP_BYTES, .help = help_
#define INTS(s, k, count_, initial_, min_, max_, help_)                                                                \
    PLACED(s, k, TV_CONFIG_INTS), .count_offset = offsetof(tv_config, s.count_), .initial = initial_, .min = min_,     \
                                  .max = max_, .help = help_
#define BITS .bits = 1 // the key defines the run's bits

// In the order of the enums they name.
static const char *const scale_types[] = {"T4", "T6", "T8", "T16", "T32", "T64", NULL};
static const char *const combines[] = {"majority", "mean", NULL};
static const char *const exchanges[] = {"allreduce", "sharded", NULL};
static const char *const rules[] = {"restart", "budget", "classic", NULL};
static const char *const schedules[] = {"linear", "cosine", "constant", NULL};
static const char *const backends[] = {"auto", "ref", "cpu", "cuda", NULL};
static const char *const orders[] = {"random", "stream", NULL};
static const char *const when_busy[] = {"wait", "skip", NULL};
static const char *const on_disk_full[] = {"skip", "pause", "stop", NULL};
static const char *const levels[] = {"1", "3", "7", "15", NULL};

const tv_config_section tv_config_sections[] = {
    {"model", "Sizes and options of the model."},
    {"moe", "Mixture of experts in place of each block's ffn."},
    {"codebook", "Ternary table of motifs behind the sequencer."},
    {"composite", "Second table behind the blocks, for motifs in their context."},
    {"memgram", "Ternary tables that the last bytes, and the last motifs, are looked up in."},
    {"modality", "Features of images and sounds in front of the text."},
    {"graph", "Edges between motifs that follow each other, and messages along them."},
    {"focus", "Two ternary LSTM cells over segments of a window."},
    {"loss",
     "Losses, each with the groups that it may move: kinds of parts, names of parts or tensors, all, or part: the "
     "part in which it begins."},
    {"parallel", "Which ranks hold what."},
    {"data", "The text that is learnt, as raw bytes."},
    {"train", "How much of it makes a step, and how many steps there are."},
    {"vote", "How a unit's tokens become votes, and how votes travel."},
    {"update", "How votes move trits and exponents."},
    {"checkpoint", "When the state is saved."},
    {"guard", "Checks between ranks."},
    {"comm", "How long a rank may hang before the run ends with exit code 70."},
    {"run", "Where and on what the run happens."},
};
_Static_assert(sizeof tv_config_sections / sizeof *tv_config_sections <= TV_CONFIG_SECTIONS_MAX, "raise the limit");
const int64_t tv_config_section_count = sizeof tv_config_sections / sizeof *tv_config_sections;

const tv_config_field tv_config_fields[] = {
    {INT(model, width, "128", 2, 65536, "width D of the residual stream"), BITS},
    {INT(model, blocks, "4", 0, 1024, "blocks of attention and ffn"), BITS},
    {INT(model, heads, "2", 1, 32768, "attention heads; width / heads must be even"), BITS},
    {INT(model, context, "128", 2, 65536, "bytes of a window"), BITS},
    {INT(model, ffn, "384", 1, 131072, "inner width of the ffn"), BITS},
    {INT(model, latent_kv, "0", 0, 65536, "width of the latent that keys and values come from; 0: plain attention"),
     BITS},
    {BOOL(model, sequencer, "true", "trigram sequencer after the embedding"), BITS},
    {ENUM(model, scale_type, "T32", scale_types, "weights that share an exponent: T32 is 32 of them"), BITS},
    {INT(model, scale_mantissa_bits, "0", 0, TV_MANTISSA_BITS_MAX, "mantissa bits m of the scales"), BITS},
    {INT(model, head_exponent, "0", -32, 32, "logits are scaled by 2^head_exponent"), BITS},
    {FLOAT(model, rope_base, "10000", 1, 1e9, "base of the rotary positions"), BITS},

    {INT(moe, experts, "0", 0, 4096, "experts of a block; 0: the dense ffn, and nothing below counts"), BITS},
    {INT(moe, top_k, "2", 1, 64, "experts that a token goes to"), BITS},
    {INT(moe, width, "0", 0, 131072, "inner width of an expert; 0: model.ffn"), BITS},
    {INT(moe, shared, "0", 0, 131072, "inner width of an expert that every token passes; 0: none"), BITS},
    {INT(moe, wire_digits, "3", 1, 5, "ternary digits of a value that goes to an expert or comes back"), BITS},
    {BOOL(moe, balance, "true", "routing biases move against uneven load"), BITS},
    {INT(moe, dense_dispatch_max_tokens, "128", 0, 131072,
         "up to so many tokens every expert runs on all of them; the bits are the same")},

    {INT(codebook, rows, "0", 0, 1e9, "rows of the table; 0: none, and nothing below counts, nor composite and loss"),
     BITS},
    {INT(codebook, width, "64", 1, 64, "trits of a row"), BITS},
    {INT(codebook, bucket_rows, "1024", 1, 1e9,
         "rows of a bucket, about: there are floor(log2(rows / this)) bits of them"),
     BITS},
    {INT(codebook, exact_rows, "65536", 0, 1e9, "a table of at most so many rows is searched whole"), BITS},
    {INT(codebook, probes, "8", 1, 64, "buckets that a query looks into"), BITS},
    {FLOAT(codebook, beta, "0", 0, 1e6, "pull of a row to the queries that found it"), BITS},
    {INT(codebook, usage_halving, "200", 1, 1e9, "steps after which counts of use are halved"), BITS},
    {INT(codebook, restart_every, "4", 0, 1e9,
         "steps between restarts: one row without use in each bucket becomes a far query; 0: none"),
     BITS},

    {INT(composite, rows, "0", 0, 1e9, "rows of the table; 0: none; the rest is codebook's"), BITS},

    {INT(memgram, rows, "0", 0, 1e9, "rows of each table; 0: none, and nothing below counts"), BITS},
    {INTS(memgram, orders, order_count, "3, 4, 5, 6, 8", 2, 8, "lengths n of the n-grams, ascending"), BITS},
    {BOOL(memgram, strength, "false", "rows count more the more they are used"), BITS},
    {INT(memgram, decay_every, "1000", 1, 1e9, "steps after which the strength of every row is halved"), BITS},

    {INT(modality, image_width, "0", 0, 65536, "values F of an image's feature; 0: no images"), BITS},
    {INT(modality, image_frames, "1", 1, 65536, "features of an image"), BITS},
    {INT(modality, audio_width, "0", 0, 65536, "values F of a sound's feature; 0: no sounds"), BITS},
    {INT(modality, audio_frames, "1", 1, 65536, "features of a sound"), BITS},

    {INT(graph, hops, "0", 0, 4, "hops h of messages; 0: no graph, and nothing below counts"), BITS},
    {INT(graph, width, "64", 1, 64, "width of a node: codebook.width"), BITS},
    {INT(graph, edges_per_node, "8", 1, 32, "edges into one motif, at most"), BITS},
    {INT(graph, max_edges, "4194304", 1, 1e9,
         "edges in all, at most, shared out evenly over up to 256 blocks of motifs"),
     BITS},
    {INT(graph, lora_rank, "8", 0, 64, "rank of a hop's low-rank term; 0: none"), BITS},
    {INT(graph, decay_every, "1000", 1, 1e9, "steps after which the score of every edge is halved"), BITS},
    {BOOL(graph, dense, "false", "an index by motif in place of a search; for at most 65,536 rows")},

    {INT(focus, width, "0", 0, 16384, "width of each cell; 0: none, and nothing below counts"), BITS},
    {INT(focus, segment, "32", 1, 65536, "bytes P of a segment; model.context is a multiple of it"), BITS},
    {INT(focus, codebook_rows, "0", 0, 1e9,
         "rows of a table that names the slow cell's state; 0: none; the rest is codebook's"),
     BITS},
    {INT(focus, bptt, "64", 1, 65536, "segments after which the gradient of the states is cut"), BITS},

    {FLOAT(loss, cross_entropy_weight, "1", 0, 1e6, "weight of the next byte's cross-entropy"), BITS},
    {GROUPS(loss, cross_entropy_groups, cross_entropy_group_count,
            "what it moves; a further set of losses is a further backward"),
     BITS},
    {FLOAT(loss, commitment_weight, "0.002", 0, 1e6, "weight of the distance from queries to their rows"), BITS},
    {GROUPS(loss, commitment_groups, commitment_group_count, "what it moves"), BITS},

    {INT(parallel, expert_ranks, "0", 0, 4096,
         "ranks over which the experts are split; 0: the most that divide ranks and experts")},
    {INT(parallel, table_ranks, "0", 0, 4096,
         "ranks over which tables are split, the first ones; 0: all, or as many as there are buckets")},

    {LIST(data, train, train_count, "bible.txt", "files to learn, relative to the working directory")},
    {TEXT(data, valid, "", 0, "file to validate on; \"\": the last valid_bytes of train")},
    {INT(data, valid_bytes, "200000", 0, 1e12, "bytes held out at the end of train; unused when valid names a file"),
     BITS},
    {TEXT(data, image_features, "", 0, "HDF5 file of the images' features, tied to bytes of train and valid")},
    {TEXT(data, audio_features, "", 0, "the same of sounds")},
    {ENUM(data, order, "random", orders,
          "windows of a unit: drawn at random, or each goes on where it ended in the step before"),
     BITS},

    {INT(train, steps, "400", 1, 1e9, "steps of the run; the schedule spans them"), BITS},
    {INT(train, units, "2", 1, 32767, "units U of a step; the number of ranks must divide it"), BITS},
    {INT(train, unit_windows, "32", 1, 65536, "windows of a unit, the tokens behind one vote"), BITS},
    {INT(train, seed, "1", 0, 4294967295, "seed of every random number"), BITS},
    {INT(train, eval_every, "100", 0, 1e9, "steps between validations; 0: none")},
    {INT(train, eval_windows, "64", 1, 1e9, "windows of a validation, at most")},
    {INT(train, stop_at, "0", 0, 1e9, "save and end after this step; 0: after the last")},

    {FLOAT(vote, dead_zone, "0.5", 0, 100, "tau: sums below tau standard deviations abstain; unused above 1 level"),
     BITS},
    {INT(vote, levels, "1", 1, 15, "largest vote of a unit; more than 1 helps small units"), .choices = levels, BITS},
    {ENUM(vote, combine, "majority", combines, "how the votes of the units join"), BITS},
    {INT(vote, quorum, "1", 1, 32767, "least absolute vote sum that moves a counter"), BITS},
    {ENUM(vote, exchange, "allreduce", exchanges, "whether every rank holds all counters, or its share")},
    {INT(vote, bucket_bytes, "16777216", 0, 1e12,
         "bytes of votes that travel together while earlier layers compute; 0: all at the end")},

    {ENUM(update, rule, "restart", rules, "what moves a trit"), BITS},
    {INT(update, threshold, "64", 2, 127, "counter value H at which a trit moves"), BITS},
    {FLOAT(update, step, "8", 0, 126, "peak step of a counter"), BITS},
    {ENUM(update, schedule, "linear", schedules, "how the step falls after the warm-up"), BITS},
    {INT(update, warmup, "50", 0, 1e9, "steps over which the step rises to its peak"), BITS},
    {FLOAT(update, final, "0.02", 0, 1, "fraction of the peak at the last step"), BITS},
    {FLOAT(update, exponent_step, "0.02", 0, 126, "peak step of an exponent's counter"), BITS},
    {INT(update, exponent_threshold, "8", 1, 127, "counter value at which an exponent moves"), BITS},
    {INT(update, threshold_warmup, "0", 0, 1e9, "steps over which the threshold falls from min(2 H, 127) to H"), BITS},
    {FLOAT(update, flip_cap, "0", 0, 1, "largest fraction of a tensor that moves in a step; 0: no cap"), BITS},
    {FLOAT(update, rho_first, "0.01", 0, 1, "rule budget: fraction of trits that may move, first step"), BITS},
    {FLOAT(update, rho_last, "0.0005", 0, 1, "rule budget: the same, last step"), BITS},
    {INT(update, theta_min, "1", 1, 127, "rule budget: least counter value that moves a trit"), BITS},

    {INT(checkpoint, every, "100", 0, 1e9, "steps between saves; 0: only at the end")},
    {INT(checkpoint, keep, "3", 1, 1e6, "newest checkpoints that stay on disk")},
    {BOOL(checkpoint, async, "true", "a thread writes a copy of the state while training goes on; takes its memory")},
    {ENUM(checkpoint, when_busy, "wait", when_busy,
          "a save that is due while another is written: waits, or is left out")},
    {ENUM(checkpoint, on_disk_full, "skip", on_disk_full,
          "no room: train on without the save, wait for room, or end the run (exit code 74)")},
    {TEXT(checkpoint, writers, "rank", 1, "who writes: each rank, one rank of each node, or so many ranks")},

    {INT(guard, hash_every, "100", 0, 1e9, "steps between comparisons of the replicas' hashes; 0: only at saves")},

    {INT(comm, timeout, "600", 1, 1e6,
         "seconds that a collective may last, and about those that a rank may show no progress; more than a save "
         "takes")},
    {INT(comm, start_timeout, "1800", 1, 1e6, "the same until the first step is done")},

    {TEXT(run, dir, "runs/quickstart", 1, "folder of the run: log, metrics, checkpoints")},
    {WORD(run, backend, "auto", backends, "who computes; auto: the fastest that can run here")},
    {INT(run, threads, "0", 0, 4096, "threads of a rank; 0: all that the process may use")},
    {INT(run, log_every, "1", 1, 1e9, "steps between log lines")},
    {BOOL(run, log_parts, "false",
          "figures of each part with every log line; measures the parts' phases, which costs time")},
    {FLOAT(run, lag_every, "60", 0, 1e9, "seconds between comparisons of the ranks' own times; 0: never")},
};
_Static_assert(sizeof tv_config_fields / sizeof *tv_config_fields <= TV_CONFIG_FIELDS_MAX, "raise the limit");
const int64_t tv_config_field_count = sizeof tv_config_fields / sizeof *tv_config_fields;
