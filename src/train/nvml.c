#include "train/nvml.h"

#include <dlfcn.h>
#include <stdlib.h>

// The few declarations of nvml.h that are needed; its binary interface is stable.
typedef struct nvmlDevice_st *nvml_device;
enum { NVML_OK = 0, NVML_TEMPERATURE_OF_GPU = 0, NVML_ERROR_UNCORRECTED = 1, NVML_COUNTER_VOLATILE = 0 };
#define UUID_TEXT 48

struct tv_nvml {
    void *library;
    nvml_device device;
    int (*init)(void);
    int (*shutdown)(void);
    int (*by_uuid)(const char *uuid, nvml_device *device);
    int (*by_index)(unsigned index, nvml_device *device);
    int (*temperature)(nvml_device device, int sensor, unsigned *degrees);
    int (*power)(nvml_device device, unsigned *milliwatts);
    int (*ecc)(nvml_device device, int kind, int counter, unsigned long long *count);
    int (*throttle)(nvml_device device, unsigned long long *reasons);
    int started;
};

static const struct {
    uint64_t bit;
    const char *name, *trouble;
} reasons[] = {
    {TV_THROTTLE_HEAT_HARDWARE, "heat_hardware", "heat"},         {TV_THROTTLE_HEAT_SOFTWARE, "heat_software", "heat"},
    {TV_THROTTLE_POWER_BRAKE, "power_brake", "the power supply"}, {TV_THROTTLE_HARDWARE, "hardware", "its hardware"},
    {TV_THROTTLE_POWER_CAP, "power_cap", "its power limit"},      {TV_THROTTLE_IDLE, "idle", NULL},
};
#define REASONS ((int)(sizeof reasons / sizeof *reasons))

// A function pointer cannot be cast from dlsym's void * in ISO C; POSIX has it copied.
static int find(void *library, const char *name, void *function)
{
    void *symbol = dlsym(library, name);
    *(void **)function = symbol;
    return symbol != NULL;
}

static int find_all(tv_nvml *nvml)
{
    void *library = nvml->library;
    find(library, "nvmlDeviceGetTemperature", &nvml->temperature);
    find(library, "nvmlDeviceGetPowerUsage", &nvml->power);
    find(library, "nvmlDeviceGetTotalEccErrors", &nvml->ecc);
    find(library, "nvmlDeviceGetCurrentClocksThrottleReasons", &nvml->throttle);
    return find(library, "nvmlInit_v2", &nvml->init) && find(library, "nvmlShutdown", &nvml->shutdown) &&
           find(library, "nvmlDeviceGetHandleByUUID", &nvml->by_uuid) &&
           find(library, "nvmlDeviceGetHandleByIndex_v2", &nvml->by_index);
}

static void format_uuid(const unsigned char *uuid, char *text)
{
    int used = snprintf(text, UUID_TEXT, "GPU-");
    for (int i = 0; i < 16; i++)
        used += snprintf(text + used, (size_t)(UUID_TEXT - used), "%s%02x",
                         i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid[i]);
}

static int find_device(tv_nvml *nvml, const unsigned char *uuid, int index)
{
    char text[UUID_TEXT];
    if (uuid == NULL)
        return nvml->by_index((unsigned)index, &nvml->device) == NVML_OK;
    format_uuid(uuid, text);
    return nvml->by_uuid(text, &nvml->device) == NVML_OK;
}

tv_nvml *tv_nvml_open(const unsigned char *uuid, int index)
{
    const char *other = getenv("TV_NVML");
    if (uuid == NULL && other == NULL)
        return NULL;
    tv_nvml *nvml = calloc(1, sizeof *nvml);
    if (nvml == NULL)
        return NULL;
    nvml->library = dlopen(other ? other : "libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    nvml->started = nvml->library && find_all(nvml) && nvml->init() == NVML_OK;
    if (nvml->started && find_device(nvml, uuid, index))
        return nvml;
    tv_nvml_close(nvml);
    return NULL;
}

void tv_nvml_close(tv_nvml *nvml)
{
    if (nvml == NULL)
        return;
    if (nvml->started)
        nvml->shutdown();
    if (nvml->library)
        dlclose(nvml->library);
    free(nvml);
}

tv_gpu_state tv_nvml_read(const tv_nvml *nvml)
{
    unsigned degrees, milliwatts;
    unsigned long long errors, held;
    tv_gpu_state gpu = {0};
    if (nvml == NULL)
        return gpu;
    gpu = (tv_gpu_state){.present = 1, .temperature = -1, .power = -1, .ecc_uncorrected = -1};
    if (nvml->temperature && nvml->temperature(nvml->device, NVML_TEMPERATURE_OF_GPU, &degrees) == NVML_OK)
        gpu.temperature = degrees;
    if (nvml->power && nvml->power(nvml->device, &milliwatts) == NVML_OK)
        gpu.power = milliwatts / 1e3;
    if (nvml->ecc && nvml->ecc(nvml->device, NVML_ERROR_UNCORRECTED, NVML_COUNTER_VOLATILE, &errors) == NVML_OK)
        gpu.ecc_uncorrected = (int64_t)errors;
    if (nvml->throttle && nvml->throttle(nvml->device, &held) == NVML_OK)
        gpu.throttle = held;
    return gpu;
}

void tv_gpu_write(FILE *out, const tv_gpu_state *gpu)
{
    int written = 0;
    fprintf(out, "\"gpu\":{");
    if (gpu->temperature >= 0)
        fprintf(out, "\"temperature_c\":%.9g,", gpu->temperature);
    if (gpu->power >= 0)
        fprintf(out, "\"power_w\":%.9g,", gpu->power);
    if (gpu->ecc_uncorrected >= 0)
        fprintf(out, "\"ecc_uncorrected\":%lld,", (long long)gpu->ecc_uncorrected);
    fprintf(out, "\"throttle\":[");
    for (int i = 0; i < REASONS; i++)
        if (gpu->throttle & reasons[i].bit)
            fprintf(out, "%s\"%s\"", written++ ? "," : "", reasons[i].name);
    fprintf(out, "]}");
}

const char *tv_gpu_trouble(const tv_gpu_state *gpu)
{
    for (int i = 0; i < REASONS; i++)
        if (gpu->throttle & reasons[i].bit)
            return reasons[i].trouble;
    return NULL;
}
