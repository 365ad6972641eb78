// What a run says of itself: one line a step on rank 0, and full precision in metrics.jsonl.
#ifndef TV_TRAIN_METRICS_H
#define TV_TRAIN_METRICS_H

#include <stdint.h>
#include <stdio.h>

#include "base/status.h"
#include "train/eval.h"
#include "train/lag.h"
#include "train/trainer.h"

typedef struct tv_metrics {
    int broken;  // a write failed; said once
    FILE *jsonl; // NULL on ranks other than 0
    int rank, ranks;
    int64_t log_every;             // steps between log lines
    int64_t first_step, last_step; // of this process
    double started;                // seconds
    tv_step_times first, sum;      // the first step's times apart from the others'
    int64_t summed;                // steps in `sum`
    tv_lag lag;
    tv_nvml *nvml;       // NULL: no GPU is watched
    double gpu_read_at;  // seconds
    int64_t ecc_told;    // errors already told of
    double longest_save; // seconds
} tv_metrics;

// Local. Rank 0 appends to dir/metrics.jsonl, first that a process starts at the trainer's step; other ranks write nothing.
tv_status tv_metrics_open(tv_metrics *metrics, const char *dir, const tv_trainer *trainer);
void tv_metrics_close(tv_metrics *metrics);

// Local. A finished step; an evaluation; a checkpoint that is on disk, with the seconds since it began and those that training stood still. wire_*: bytes this rank handed to collectives since the start.
void tv_metrics_step(tv_metrics *metrics, const tv_trainer *trainer, const tv_step_report *report);
void tv_metrics_eval(tv_metrics *metrics, int64_t step, const tv_eval_report *report);
void tv_metrics_save(tv_metrics *metrics, int64_t step, double seconds, double blocked, const char *digest);
// Local. The request to compare the ranks' times, for tv_trainer_step.
uint64_t tv_metrics_flags(const tv_metrics *metrics, const tv_trainer *trainer);
// Collective, after a step whose flags have TV_FLAG_TIMES. Says which rank is slowest at what when it lags, and what GPUs suffer from.
tv_status tv_metrics_ranks(tv_metrics *metrics, const tv_trainer *trainer);
// Local. Summary of times: the first step, and the mean of the others by phase.
void tv_metrics_summary(const tv_metrics *metrics);

#endif
