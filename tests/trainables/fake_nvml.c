/* NVIDIA's management library as pynvml calls it, with two GPUs and a MIG device of the second.
 *
 * The n-th sample (n from 0; one ends when the clocks' reasons are asked for) has n % 4 in its values.
 * NVML_FAKE names what goes wrong: no-driver, no-power, old.
 */
#include <stdlib.h>
#include <string.h>

enum { OK = 0, NOT_SUPPORTED = 3, NOT_FOUND = 6, DRIVER_NOT_LOADED = 9 };

typedef const char *device;
typedef struct { unsigned long long total, free, used; } memory;
typedef struct { unsigned gpu, memory; } utilization;

static device DEVICES[] = {"GPU-aaaa-1", "GPU-bbbb-2", "MIG-cccc-3"};
static int opened = 0, samples = 0;

static int fake(const char *what) {
    const char *wrong = getenv("NVML_FAKE");
    return wrong && strstr(wrong, what) != NULL;
}
static int is_mig(device d) { return d == DEVICES[2]; }
static int r(void) { return samples % 4; }

int fake_samples(void) { return samples; }
int fake_opened(void) { return opened; }

int nvmlInitWithFlags(unsigned flags) {
    if (fake("no-driver")) return DRIVER_NOT_LOADED;
    opened++;
    return OK;
}
int nvmlShutdown(void) { opened--; return OK; }
const char *nvmlErrorString(int code) { return "fake"; }

int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return OK; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, device *d) { *d = DEVICES[index]; return OK; }
int nvmlDeviceGetHandleByUUID(const char *uuid, device *d) {
    for (int i = 0; i < 3; i++)
        if (!strcmp(uuid, DEVICES[i])) { *d = DEVICES[i]; return OK; }
    return NOT_FOUND;
}
int nvmlDeviceGetUUID(device d, char *uuid, unsigned size) { strncpy(uuid, d, size); return OK; }
int nvmlDeviceGetMigMode(device d, unsigned *current, unsigned *pending) {
    if (is_mig(d)) return NOT_SUPPORTED;
    *current = *pending = fake("parted");
    return OK;
}

/* the first GPU's figures are all 1, so that nothing of it passes for the second's */
int nvmlDeviceGetUtilizationRates(device d, utilization *u) {
    if (is_mig(d)) return NOT_SUPPORTED;
    u->gpu = d == DEVICES[0] ? 1 : 20 + 10 * r();
    return OK;
}
int nvmlDeviceGetPowerUsage(device d, unsigned *milliwatts) {
    if (is_mig(d) || fake("no-power")) return NOT_SUPPORTED;
    *milliwatts = d == DEVICES[0] ? 1000 : 200500 + 1000 * r();
    return OK;
}
int nvmlDeviceGetTemperature(device d, int sensor, unsigned *celsius) {
    if (is_mig(d)) return NOT_SUPPORTED;
    *celsius = d == DEVICES[0] ? 1 : 60 + r();
    return OK;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(device d, unsigned long long *reasons) {
    /* idle, and clocks set by hand; too hot; too hot, and a cap on power; nothing */
    static const unsigned long long REASONS[] = {0x1 | 0x2, 0x20, 0x4 | 0x40, 0x0};
    *reasons = REASONS[r()];
    samples++;
    return is_mig(d) ? NOT_SUPPORTED : OK;
}
#ifndef OLD
int nvmlDeviceGetCurrentClocksEventReasons(device d, unsigned long long *reasons) {
    return nvmlDeviceGetCurrentClocksThrottleReasons(d, reasons);
}
#endif
int nvmlDeviceGetMemoryInfo(device d, memory *m) {
    m->total = 80000000000ull;
    m->used = d == DEVICES[0] ? 800000000ull : (8ull + 8 * r()) * 1000000000ull;
    m->free = m->total - m->used;
    return OK;
}
