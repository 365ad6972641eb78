// What a run wrote into its metrics.jsonl, in memory: the last word on each step, and the events between them.
#ifndef TV_IO_METRICS_READ_H
#define TV_IO_METRICS_READ_H

#include <stdint.h>

#include "base/hash.h"
#include "base/status.h"

#define TV_RUN_TABLES_MAX 4 // codebooks that are told apart
#define TV_RUN_FIGURES_MAX 64
#define TV_RUN_HISTOGRAMS_MAX 8
#define TV_RUN_BINS_MAX 16

// Figures of a step; NaN where the line has none.
typedef enum tv_run_column {
    TV_RUN_ELAPSED, // seconds of running up to the step's end, pauses between processes and steps done twice left out
    TV_RUN_LOSS,    // nats a byte
    TV_RUN_BPB,
    TV_RUN_FLIPS, // a million weights
    TV_RUN_ZEROS, // percent of the weights
    TV_RUN_RATE,  // bytes a second
    TV_RUN_DATA,  // from here milliseconds of rank 0
    TV_RUN_FORWARD,
    TV_RUN_BACKWARD,
    TV_RUN_EXCHANGE,
    TV_RUN_BALLOT,
    TV_RUN_TOKENS_MIN, // tokens of the expert with the fewest, of all parts
    TV_RUN_TOKENS_MEDIAN,
    TV_RUN_TOKENS_MAX,
    TV_RUN_EDGES,      // of the graph of motifs
    TV_RUN_EDGE_SCORE, // their mean score
    TV_RUN_TOPIC,      // percent, mean gates of the cells over segments; from here
    TV_RUN_RESET,
    TV_RUN_DAMPEN,
    TV_RUN_FORGET_FAST,
    TV_RUN_FORGET_SLOW,
    TV_RUN_ROWS_USED,                                      // percent of the rows, of each codebook
    TV_RUN_ENTROPY = TV_RUN_ROWS_USED + TV_RUN_TABLES_MAX, // bits, of each codebook
    TV_RUN_COLUMNS = TV_RUN_ENTROPY + TV_RUN_TABLES_MAX
} tv_run_column;

typedef struct tv_run_step {
    int64_t step;
    double values[TV_RUN_COLUMNS];
} tv_run_step;

// Dates are seconds since 1970, NaN when the line has none.
typedef struct tv_run_eval {
    int64_t step;
    double bpb;
} tv_run_eval;
typedef struct tv_run_save {
    int64_t step;
    double date, seconds;
    char digest[TV_HASH_HEX]; // "" when none or not of this form
} tv_run_save;
typedef struct tv_run_start {
    int64_t step; // the process goes on from here
    double date;
    int64_t ranks; // 0: not known
} tv_run_start;
typedef struct tv_run_ranks {
    int64_t step, slowest;
    double ratio, temperature; // of the hottest GPU
} tv_run_ranks;

// A figure that a part tells of itself; of the parts of all blocks, "block.0.moe", "block.1.moe" .., together: their mean.
typedef struct tv_run_told {
    int64_t step, parts;
    double sum; // of the parts
} tv_run_told;
typedef struct tv_run_figure {
    char part[48], name[32]; // "codebook", "moe"; "rows_touched": letters, digits, '_', '-' and '.' only
    tv_run_told *told;
    int64_t count;
} tv_run_figure;

// Of the last step that has it: numbers of things by doubling bins, [0], [1], [2, 3], [4, 7] and so on. Of the parts of all blocks together
// the last block's.
typedef struct tv_run_histogram {
    char part[48], name[32]; // as a figure's
    int64_t step;
    double counts[TV_RUN_BINS_MAX];
    int bins;
} tv_run_histogram;

typedef struct tv_run_metrics {
    tv_run_step *steps;
    tv_run_eval *evals;
    tv_run_save *saves;
    tv_run_start *starts;
    tv_run_ranks *ranks;
    tv_run_figure *figures; // in the order in which they first appear, TV_RUN_FIGURES_MAX at most
    int64_t figure_count;
    tv_run_histogram histograms[TV_RUN_HISTOGRAMS_MAX]; // in the order in which they first appear
    int histogram_count;
    int64_t step_count, eval_count, save_count, start_count, ranks_count;
    char tables[TV_RUN_TABLES_MAX][48]; // names of the parts with codebooks
    int table_count;
    int64_t last_step;     // where the last process meant to end, 0: not known
    int64_t bytes_seen;    // up to the last step
    int64_t rank_count;    // of the last step, 0: not known
    int64_t skipped_lines; // torn by a process that was killed
    int64_t first_skipped; // its line, 1-based
    int64_t repeated;      // steps that a later process did again; the later ones stand
    char program[32], backend[128];
} tv_run_metrics;

// Local. Lines that are no JSON object are skipped and counted; unknown events and keys are passed over. A step that is not above the one
// before it takes the place of all from it on. TV_IO: no such file, a known key of the wrong type, or no step in the file.
tv_status tv_run_metrics_read(const char *path, tv_run_metrics *out);
void tv_run_metrics_free(tv_run_metrics *metrics);

#endif
