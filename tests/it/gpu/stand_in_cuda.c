// A stand-in for the driver: memory is the host's, streams run at once, and what is called is written down. When the context is released
// it says what was not given back before.
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_FOUND = 500 };

typedef unsigned long long place;

static int memory, pinned, registered, streams, events, modules, graphs, executables;

static void say(const char* text) {
    FILE* file = fopen(getenv("STAND_IN"), "a");
    if (!file) abort();
    fprintf(file, "%s\n", text);
    fclose(file);
}

#define SAY(...)                                  \
    do {                                          \
        char line[1024];                          \
        snprintf(line, sizeof line, __VA_ARGS__); \
        say(line);                                \
    } while (0)

static int made(int* count, void** to) {
    ++*count;
    *to = malloc(16);
    return SUCCESS;
}

static int gone(int* count, void* which) {
    if (!which || *count == 0) abort();
    --*count;
    free(which);
    return SUCCESS;
}

int cuInit(unsigned flags) { return flags ? INVALID_VALUE : SUCCESS; }
int cuDriverGetVersion(int* version) { return *version = 13000, SUCCESS; }
int cuDeviceGetCount(int* count) { return *count = 1, SUCCESS; }
int cuDeviceGet(int* device, int ordinal) { return *device = ordinal, ordinal ? INVALID_VALUE : SUCCESS; }

int cuDeviceGetName(char* name, int size, int device) {
    snprintf(name, (size_t)size, "Stand-in %d", device);
    return SUCCESS;
}

int cuDeviceGetAttribute(int* value, int attribute, int device) {
    // Compute capability, and the shared memory of a block.
    *value = attribute == 75 ? 9 : attribute == 76 ? 0 : attribute == 97 ? 232448 : -1;
    return device || *value < 0 ? INVALID_VALUE : SUCCESS;
}

int cuDevicePrimaryCtxRetain(void** context, int device) { return *context = &memory, device; }

int cuDevicePrimaryCtxRelease_v2(int device) {
    SAY("release: %d memory, %d pinned, %d registered, %d streams, %d events, %d modules, %d graphs, %d executables", memory, pinned,
        registered, streams, events, modules, graphs, executables);
    return device;
}

int cuCtxSetCurrent(void* context) { return context == &memory ? SUCCESS : INVALID_VALUE; }
int cuCtxSynchronize(void) { return SUCCESS; }
int cuGetErrorString(int error, const char** text) { return *text = error == OUT_OF_MEMORY ? "out of memory" : "some error", SUCCESS; }

int cuMemAlloc_v2(place* to, size_t bytes) {
    if (bytes == 0) return INVALID_VALUE;
    if (bytes > (size_t)1 << 32) return OUT_OF_MEMORY;
    void* at = aligned_alloc(256, (bytes + 255) / 256 * 256);
    if (!at) return OUT_OF_MEMORY;
    memset(at, 0xff, bytes);
    ++memory;
    return *to = (place)at, SUCCESS;
}

int cuMemFree_v2(place at) { return gone(&memory, (void*)at); }
int cuMemGetInfo_v2(size_t* left, size_t* total) { return *left = (size_t)3 << 30, *total = (size_t)4 << 30, SUCCESS; }

int cuMemHostAlloc(void** to, size_t bytes, unsigned flags) {
    ++pinned;
    return *to = malloc(bytes), flags ? INVALID_VALUE : SUCCESS;
}

// The device has another place for it: one word further on, which it goes back by.
int cuMemHostRegister_v2(void* at, size_t bytes, unsigned flags) {
    ++registered;
    return at && bytes && flags == 3 ? SUCCESS : INVALID_VALUE;
}

int cuMemHostGetDevicePointer_v2(place* to, void* at, unsigned flags) { return *to = (place)at + 4, flags ? INVALID_VALUE : SUCCESS; }

int cuMemHostUnregister(void* at) {
    --registered;
    return at ? SUCCESS : INVALID_VALUE;
}

int cuStreamWriteValue32_v2(void* stream, place at, unsigned value, unsigned flags) {
    *(unsigned*)(at - 4) = value;
    return stream && !flags ? SUCCESS : INVALID_VALUE;
}

int cuDeviceGetUuid_v2(char* to, int device) {
    for (int i = 0; i < 16; ++i) to[i] = (char)(i + 1);
    return device;
}

int cuMemFreeHost(void* at) { return gone(&pinned, at); }
int cuMemsetD8_v2(place at, unsigned char value, size_t bytes) { return memset((void*)at, value, bytes), SUCCESS; }

int cuMemsetD8Async(place at, unsigned char value, size_t bytes, void* stream) {
    return stream ? cuMemsetD8_v2(at, value, bytes) : INVALID_VALUE;
}

static int copy(void* to, const void* from, size_t bytes, void* stream) {
    return memmove(to, from, bytes), stream ? SUCCESS : INVALID_VALUE;
}

int cuMemcpyDtoDAsync_v2(place to, place from, size_t bytes, void* stream) { return copy((void*)to, (void*)from, bytes, stream); }
int cuMemcpyHtoDAsync_v2(place to, const void* from, size_t bytes, void* stream) { return copy((void*)to, from, bytes, stream); }
int cuMemcpyDtoHAsync_v2(void* to, place from, size_t bytes, void* stream) { return copy(to, (void*)from, bytes, stream); }

// Without waiting for the default stream.
int cuStreamCreate(void** stream, unsigned flags) { return flags == 1 ? made(&streams, stream) : INVALID_VALUE; }
int cuCtxGetStreamPriorityRange(int* least, int* greatest) { return *least = 0, *greatest = -5, SUCCESS; }

int cuStreamCreateWithPriority(void** stream, unsigned flags, int priority) {
    SAY("urgent %d", priority);
    return flags == 1 ? made(&streams, stream) : INVALID_VALUE;
}

int cuStreamDestroy_v2(void* stream) { return gone(&streams, stream); }
int cuStreamSynchronize(void* stream) { return stream ? SUCCESS : INVALID_VALUE; }
int cuStreamQuery(void* stream) { return stream ? SUCCESS : INVALID_VALUE; }

int cuStreamWaitEvent(void* stream, void* event, unsigned flags) {
    SAY("wait");
    return stream && event && !flags ? SUCCESS : INVALID_VALUE;
}

int cuStreamBeginCapture_v2(void* stream, int mode) {
    SAY("begin %d", mode);
    return stream ? SUCCESS : INVALID_VALUE;
}

int cuStreamEndCapture(void* stream, void** graph) {
    SAY("end");
    return stream ? made(&graphs, graph) : INVALID_VALUE;
}

int cuGraphInstantiateWithFlags(void** executable, void* graph, unsigned long long flags) {
    return graph && !flags ? made(&executables, executable) : INVALID_VALUE;
}

int cuGraphDestroy(void* graph) { return gone(&graphs, graph); }
int cuGraphExecDestroy(void* executable) { return gone(&executables, executable); }
int cuGraphUpload(void* executable, void* stream) { return executable && stream ? SUCCESS : INVALID_VALUE; }

int cuGraphLaunch(void* executable, void* stream) {
    SAY("graph");
    return executable && stream ? SUCCESS : INVALID_VALUE;
}

int cuEventCreate(void** event, unsigned flags) {
    SAY("event %u", flags);
    return made(&events, event);
}

int cuEventDestroy_v2(void* event) { return gone(&events, event); }
int cuEventSynchronize(void* event) { return event ? SUCCESS : INVALID_VALUE; }
int cuEventRecord(void* event, void* stream) { return event && stream ? SUCCESS : INVALID_VALUE; }

int cuEventElapsedTime_v2(float* milliseconds, void* from, void* to) {
    *milliseconds = 1.5f;
    return from && to ? SUCCESS : INVALID_VALUE;
}

int cuModuleLoadData(void** module, const void* image) {
    return memcmp(image, "\177ELF", 4) ? INVALID_VALUE : made(&modules, module);
}

int cuModuleUnload(void* module) { return gone(&modules, module); }

// A function is its name.
int cuModuleGetFunction(void** function, void* module, const char* name) {
    *function = strdup(name);
    return module ? SUCCESS : INVALID_VALUE;
}

int cuFuncLoad(void* function) { return function ? SUCCESS : INVALID_VALUE; }

int cuFuncGetParamInfo(void* function, size_t index, size_t* offset, size_t* size) {
    const int adds = !strcmp(function, "bias_add"), bends = !strncmp(function, "gelu_", 5);
    const size_t sizes[] = {8, 8, adds ? 4 : 8};
    if (index >= (adds || bends ? 3 : 0)) return INVALID_VALUE;
    return *offset = 8 * index, *size = sizes[index], SUCCESS;
}

int cuFuncGetAttribute(int* value, int attribute, void* function) { return *value = 1024, attribute == 1 && function ? SUCCESS : INVALID_VALUE; }

int cuFuncSetAttribute(void* function, int attribute, int value) {
    SAY("set %s %d %d", (const char*)function, attribute, value);
    return SUCCESS;
}

int cuLaunchKernel(void* function, unsigned x, unsigned y, unsigned z, unsigned across, unsigned down, unsigned deep, unsigned shared,
                   void* stream, void** arguments, void** extra) {
    if (extra || !stream) return INVALID_VALUE;
    SAY("launch %s %u,%u,%u %u,%u,%u %u: %d", (const char*)function, x, y, z, across, down, deep, shared, *(int*)arguments[2]);
    return SUCCESS;
}

// NVRTC asks a driver that is there for tables of its own.
int cuGetExportTable(const void** table, const void* id) { return *table = NULL, id ? NOT_FOUND : INVALID_VALUE; }
