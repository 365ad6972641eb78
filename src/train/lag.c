#include "train/lag.h"

#include <stdlib.h>

#include "base/clock.h"

const char *const tv_lag_phase_names[TV_LAG_PHASES] = {"data", "forward", "backward", "ballot"};

tv_status tv_lag_open(tv_lag *lag, double every, int ranks)
{
    *lag = (tv_lag){.every = every, .due = tv_clock_seconds() + every};
    lag->records = calloc((size_t)ranks, sizeof *lag->records);
    return lag->records ? TV_OK : TV_FAIL(TV_MEMORY, "no memory for the times of %d ranks", ranks);
}

void tv_lag_close(tv_lag *lag)
{
    free(lag->records);
    *lag = (tv_lag){0};
}

uint64_t tv_lag_flags(const tv_lag *lag, const tv_comm *comm)
{
    int due = lag->every > 0 && lag->steps > 0 && tv_clock_seconds() >= lag->due;
    return due && tv_comm_rank(comm) == 0 ? TV_FLAG_TIMES : 0;
}

void tv_lag_add(tv_lag *lag, const tv_step_times *times)
{
    if (!lag->warm) {
        lag->warm = 1;
        return;
    }
    lag->sum.data += times->data;
    lag->sum.forward += times->forward;
    lag->sum.backward += times->backward;
    lag->sum.ballot += times->ballot;
    lag->steps++;
}

tv_status tv_lag_gather(tv_lag *lag, tv_comm *comm, const tv_gpu_state *gpu, tv_lag_report *report)
{
    int64_t steps = lag->steps;
    double each = steps > 0 ? 1.0 / (double)steps : 0;
    *report = (tv_lag_report){0};
    lag->records[tv_comm_rank(comm)] = (tv_lag_record){
        .seconds = {each * lag->sum.data, each * lag->sum.forward, each * lag->sum.backward, each * lag->sum.ballot},
        .gpu = *gpu};
    lag->sum = (tv_step_times){0};
    lag->steps = 0;
    lag->due = tv_clock_seconds() + lag->every;
    TV_TRY(tv_comm_all_gather_bytes(comm, lag->records, sizeof *lag->records, TV_WIRE_METRICS));
    TV_TRY(tv_lag_judge(lag->records, tv_comm_size(comm), report));
    report->steps = steps;
    return TV_OK;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median_of(double *values, int count)
{
    qsort(values, (size_t)count, sizeof *values, ascending);
    return values[(count - 1) / 2];
}

static double sum_of(const tv_lag_record *record)
{
    double sum = 0;
    for (int p = 0; p < TV_LAG_PHASES; p++)
        sum += record->seconds[p];
    return sum;
}

static tv_lag_phase worst_phase(const tv_lag_report *report)
{
    int worst = 0;
    for (int p = 1; p < TV_LAG_PHASES; p++)
        if (report->slowest[p] - report->median[p] > report->slowest[worst] - report->median[worst])
            worst = p;
    return (tv_lag_phase)worst;
}

static void judge_times(const tv_lag_record *records, int ranks, double *values, tv_lag_report *report)
{
    report->rank = 0;
    for (int r = 1; r < ranks; r++)
        if (sum_of(&records[r]) > sum_of(&records[report->rank]))
            report->rank = r;
    for (int p = 0; p < TV_LAG_PHASES; p++) {
        for (int r = 0; r < ranks; r++)
            values[r] = records[r].seconds[p];
        report->slowest[p] = records[report->rank].seconds[p];
        report->median[p] = median_of(values, ranks);
    }
    for (int r = 0; r < ranks; r++)
        values[r] = sum_of(&records[r]);
    double middle = median_of(values, ranks);
    report->ratio = middle > 0 ? sum_of(&records[report->rank]) / middle : 1;
    report->phase = worst_phase(report);
}

static void judge_gpus(const tv_lag_record *records, int ranks, tv_lag_report *report)
{
    report->hottest = report->most_errors = report->throttled = -1;
    for (int r = 0; r < ranks; r++) {
        const tv_gpu_state *gpu = &records[r].gpu;
        if (!gpu->present)
            continue;
        report->gpus++;
        report->power += gpu->power > 0 ? gpu->power : 0;
        if (report->hottest < 0 || gpu->temperature > report->hottest_gpu.temperature) {
            report->hottest = r;
            report->hottest_gpu = *gpu;
        }
        if (gpu->ecc_uncorrected > 0 &&
            (report->most_errors < 0 || gpu->ecc_uncorrected > report->most_errors_gpu.ecc_uncorrected)) {
            report->most_errors = r;
            report->most_errors_gpu = *gpu;
        }
        if (tv_gpu_trouble(gpu) && report->throttled_ranks++ == 0) {
            report->throttled = r;
            report->slowed_gpu = *gpu;
        }
    }
}

tv_status tv_lag_judge(const tv_lag_record *records, int ranks, tv_lag_report *report)
{
    double *values = malloc((size_t)ranks * sizeof *values);
    *report = (tv_lag_report){0};
    if (values == NULL)
        return TV_FAIL(TV_MEMORY, "no memory for the times of %d ranks", ranks);
    judge_times(records, ranks, values, report);
    judge_gpus(records, ranks, report);
    free(values);
    return TV_OK;
}
