// What changes from step to step: step size, threshold, flip budget. Functions of config, step and loss alone.
#ifndef TV_TRAIN_SCHEDULE_H
#define TV_TRAIN_SCHEDULE_H

#include <stdint.h>

#include "base/config.h"

// Fraction of the peak at step s = 0 .. steps - 1: warm-up (s + 1) / warmup while s < warmup; then, with p = (s - warmup) / (steps - 1 - warmup),
//   linear 1 - (1 - final) p;   cosine final + (1 - final) (1 + cos(pi p)) / 2;   constant 1.
double tv_schedule_fraction(const tv_config *config, int64_t step);
// eta_q = round(65536 eta), eta = update.step * fraction.
uint32_t tv_schedule_eta_q(const tv_config *config, int64_t step);
// eE_q = round(65536 eta_E), eta_E = update.exponent_step * fraction.
uint32_t tv_schedule_exponent_q(const tv_config *config, int64_t step);
// H of the step: min(2H, 127) falling linearly to H over update.threshold_warmup steps; 3 for rule classic.
int tv_schedule_threshold(const tv_config *config, int64_t step);
// rho = rho_first (rho_last / rho_first)^(s / (steps - 1)), by the shared exp and log.
float tv_schedule_rho(const tv_config *config, int64_t step);
// Integer step of rule classic from the step's mean loss in nats: < 2: 1, < 3: 2, < 5: 3, else 4.
int tv_schedule_classic_step(double loss);

#endif
