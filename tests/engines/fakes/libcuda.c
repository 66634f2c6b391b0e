/* A driver that answers what the environment says: FAKE_GPUS (how many, 1), FAKE_CAPABILITY (87), FAKE_MULTIPROCESSORS (16), FAKE_INTEGRATED (0), FAKE_CUDA (12060), FAKE_INIT (status, 0),
   FAKE_FREE (bytes, 6000000000). For tests of what comes before any CUDA library is touched. */
#include <stdlib.h>
#include <string.h>

static long setting(const char *name, long otherwise) {
    const char *text = getenv(name);
    return text ? atol(text) : otherwise;
}

int cuInit(unsigned flags) { return (int)setting("FAKE_INIT", 0); }
int cuDeviceGetCount(int *count) { *count = (int)setting("FAKE_GPUS", 1); return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "Fake Orin", size); return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    long capability = setting("FAKE_CAPABILITY", 87);
    *value = attribute == 75 ? (int)(capability / 10) : attribute == 76 ? (int)(capability % 10) : attribute == 18 ? (int)setting("FAKE_INTEGRATED", 0)
             : attribute == 16 ? (int)setting("FAKE_MULTIPROCESSORS", 16) : -1;
    return 0;
}
int cuDriverGetVersion(int *version) { *version = (int)setting("FAKE_CUDA", 12060); return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = 8000000000; return 0; }
int cuGetErrorName(int error, const char **name) { *name = error == 100 ? "CUDA_ERROR_NO_DEVICE" : "CUDA_ERROR_UNKNOWN"; return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = (void *)1; return 0; }
int cuCtxSetCurrent(void *context) { return context == (void *)1 ? 0 : 201; }
int cuMemGetInfo_v2(size_t *free, size_t *total) { *free = setting("FAKE_FREE", 6000000000); *total = 8000000000; return 0; }
