// Which rank is slowest, and at what: each rank's seconds of its own work, summed over a while and gathered. What a rank waits for others in
// an exchange is left out, since all wait alike for the slowest one; but with experts or codebooks shared over ranks, forward and
// backward meet other ranks inside, and a slow one is hidden in everybody's.
#ifndef TV_TRAIN_LAG_H
#define TV_TRAIN_LAG_H

#include <stdint.h>

#include "base/status.h"
#include "comm/comm.h"
#include "train/nvml.h"
#include "train/trainer.h"

typedef enum tv_lag_phase { TV_LAG_DATA, TV_LAG_FORWARD, TV_LAG_BACKWARD, TV_LAG_BALLOT, TV_LAG_PHASES } tv_lag_phase;
extern const char *const tv_lag_phase_names[TV_LAG_PHASES];

// A rank that takes this many times the median is told of.
#define TV_LAG_TOLD 1.1

// What a rank gives.
typedef struct tv_lag_record {
    double seconds[TV_LAG_PHASES]; // a step
    tv_gpu_state gpu;
} tv_lag_record;

// The median of R ranks is the value of place (R - 1) / 2 in ascending order, from 0: of two ranks it is the quicker one's.
typedef struct tv_lag_report {
    int64_t steps;                                         // that the seconds are means of
    double median[TV_LAG_PHASES], slowest[TV_LAG_PHASES];  // seconds a step, each phase's median; the slowest rank's
    int rank;                                              // with the largest sum of phases, the lowest such
    double ratio;                                          // its sum of phases over the median of the ranks' sums
    tv_lag_phase phase;                                    // of the slowest rank, farthest above its median in seconds
    int gpus;                                              // ranks that watch a GPU
    int hottest, most_errors, throttled, throttled_ranks;  // ranks; throttled: the lowest one in trouble; -1: none
    double power;                                          // watts of all GPUs
    tv_gpu_state hottest_gpu, most_errors_gpu, slowed_gpu; // of these ranks
} tv_lag_report;

typedef struct tv_lag {
    double every, due; // seconds; 0: never
    int64_t steps;     // in `sum`
    tv_step_times sum;
    int warm;               // the first step, which is slow everywhere, is behind
    tv_lag_record *records; // [ranks]
} tv_lag;

// Local.
tv_status tv_lag_open(tv_lag *lag, double every, int ranks);
void tv_lag_close(tv_lag *lag);
// Local. TV_FLAG_TIMES on rank 0 when its clock says that a record is due; the step's guard tells all ranks.
uint64_t tv_lag_flags(const tv_lag *lag, const tv_comm *comm);
// Local. Times of a finished step.
void tv_lag_add(tv_lag *lag, const tv_step_times *times);
// Collective, after a step whose flags had TV_FLAG_TIMES on all ranks. report->steps is 0 when no step was added.
tv_status tv_lag_gather(tv_lag *lag, tv_comm *comm, const tv_gpu_state *gpu, tv_lag_report *report);
// Local. The judgement alone. TV_MEMORY only.
tv_status tv_lag_judge(const tv_lag_record *records, int ranks, tv_lag_report *report);

#endif
