// What NVIDIA's management library says of this rank's GPU. It is looked for at run time, and where it is absent nothing is said.
#ifndef TV_TRAIN_NVML_H
#define TV_TRAIN_NVML_H

#include <stdint.h>
#include <stdio.h>

// Reasons of a GPU's clocks being lower than they could be, bits of tv_gpu_state.throttle (NVML's own).
enum {
    TV_THROTTLE_IDLE = 0x1,
    TV_THROTTLE_POWER_CAP = 0x4,
    TV_THROTTLE_HARDWARE = 0x8,
    TV_THROTTLE_HEAT_SOFTWARE = 0x20,
    TV_THROTTLE_HEAT_HARDWARE = 0x40,
    TV_THROTTLE_POWER_BRAKE = 0x80
};

// A figure that the GPU does not offer is -1; throttle is 0 then. All zero but `present`: no GPU is watched.
typedef struct tv_gpu_state {
    int64_t present;
    double temperature;      // degrees Celsius
    double power;            // watts
    int64_t ecc_uncorrected; // memory errors since the driver was loaded
    uint64_t throttle;       // TV_THROTTLE_*
} tv_gpu_state;

typedef struct tv_nvml tv_nvml;

// Local. Opens libnvidia-ml.so.1, or the library that the environment's TV_NVML names, and finds the GPU with this UUID (16 bytes). NULL,
// without a word: no library, no such GPU, no memory. uuid NULL, for a rank that computes on the CPU: NULL too, but with TV_NVML set the
// GPU number `index`, so that everything behind can be tried without one.
tv_nvml *tv_nvml_open(const unsigned char *uuid, int index);
// Takes NULL.
void tv_nvml_close(tv_nvml *nvml);
// Takes NULL: an absent GPU.
tv_gpu_state tv_nvml_read(const tv_nvml *nvml);

// "gpu":{"temperature_c":..,"power_w":..,"ecc_uncorrected":..,"throttle":["heat_hardware",..]} with the figures that are offered.
void tv_gpu_write(FILE *out, const tv_gpu_state *gpu);
// The most telling reason in words, "heat"; NULL when nothing but idleness or a setting holds the clocks down.
const char *tv_gpu_trouble(const tv_gpu_state *gpu);

#endif
