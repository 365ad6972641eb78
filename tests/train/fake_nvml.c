// Stands for libnvidia-ml.so.1 in tests: two GPUs, the second one hot, slowed by heat and with memory errors. FAKE_NVML_BARE=1 takes the
// figures away, as a GPU does that does not offer them.
#include <stdlib.h>
#include <string.h>

enum { OK = 0, NOT_SUPPORTED = 3, NOT_FOUND = 6 };
static int gpus[2] = {0, 1};

int nvmlInit_v2(void);
int nvmlShutdown(void);
int nvmlDeviceGetHandleByUUID(const char *uuid, void **device);
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device);
int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *degrees);
int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatts);
int nvmlDeviceGetTotalEccErrors(void *device, int kind, int counter, unsigned long long *count);
int nvmlDeviceGetCurrentClocksThrottleReasons(void *device, unsigned long long *reasons);

static int is_bare(void) { return getenv("FAKE_NVML_BARE") != NULL; }

int nvmlInit_v2(void) { return OK; }
int nvmlShutdown(void) { return OK; }

int nvmlDeviceGetHandleByUUID(const char *uuid, void **device)
{
    *device = &gpus[1];
    return strcmp(uuid, "GPU-00112233-4455-6677-8899-aabbccddeeff") == 0 ? OK : NOT_FOUND;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device)
{
    *device = &gpus[index % 2];
    return index < 2 ? OK : NOT_FOUND;
}

int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *degrees)
{
    *degrees = *(int *)device ? 91 : 54;
    return sensor != 0 || is_bare() ? NOT_SUPPORTED : OK;
}

int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatts)
{
    *milliwatts = *(int *)device ? 612500 : 300000;
    return is_bare() ? NOT_SUPPORTED : OK;
}

int nvmlDeviceGetTotalEccErrors(void *device, int kind, int counter, unsigned long long *count)
{
    *count = *(int *)device ? 2 : 0;
    return kind != 1 || counter != 0 || is_bare() ? NOT_SUPPORTED : OK;
}

int nvmlDeviceGetCurrentClocksThrottleReasons(void *device, unsigned long long *reasons)
{
    *reasons = *(int *)device ? 0x40 : 0x1;
    return is_bare() ? NOT_SUPPORTED : OK;
}
