#include "train/schedule.h"

#include <math.h>

#include "base/fmath.h"
#include "base/fmath_tables.h"

#define CLASSIC_THRESHOLD 3
#define PI 3.14159265358979323846

double tv_schedule_fraction(const tv_config *config, int64_t step)
{
    const tv_config_update *update = &config->update;
    if (step < update->warmup)
        return (double)(step + 1) / (double)update->warmup;
    int64_t last = config->train.steps - 1 - update->warmup;
    double p = last > 0 ? (double)(step - update->warmup) / (double)last : 0.0;
    switch ((tv_schedule_kind)update->schedule) {
    case TV_SCHEDULE_LINEAR: return 1.0 - (1.0 - update->final) * p;
    case TV_SCHEDULE_COSINE: return update->final + (1.0 - update->final) * (1.0 + tv_cos_double(PI * p)) / 2.0;
    case TV_SCHEDULE_CONSTANT: break;
    }
    return 1.0;
}

static uint32_t fixed_point(double value) { return (uint32_t)llround(value * 65536.0); }

uint32_t tv_schedule_eta_q(const tv_config *config, int64_t step)
{
    return fixed_point(config->update.step * tv_schedule_fraction(config, step));
}

uint32_t tv_schedule_exponent_q(const tv_config *config, int64_t step)
{
    return fixed_point(config->update.exponent_step * tv_schedule_fraction(config, step));
}

int tv_schedule_threshold(const tv_config *config, int64_t step)
{
    if (config->update.rule == TV_UPDATE_CLASSIC)
        return CLASSIC_THRESHOLD;
    int64_t end = config->update.threshold, steps = config->update.threshold_warmup;
    int64_t start = 2 * end < 127 ? 2 * end : 127;
    if (step >= steps)
        return (int)end;
    return (int)(end + (start - end) * (steps - step) / steps);
}

float tv_schedule_rho(const tv_config *config, int64_t step)
{
    float first = (float)config->update.rho_first, last = (float)config->update.rho_last;
    float p = config->train.steps > 1 ? (float)((double)step / (double)(config->train.steps - 1)) : 0.0f;
    return first * tv_exp(p * tv_log(last / first));
}

int tv_schedule_classic_step(double loss) { return loss < 2.0 ? 1 : loss < 3.0 ? 2 : loss < 5.0 ? 3 : 4; }
