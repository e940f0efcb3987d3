// A stand-in for cuBLASLt: it writes down its calls, and fuses nothing under a result in bf16.
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, INVALID_VALUE = 7, BF16 = 14 };

typedef struct {
    uint64_t algorithm[8];
    size_t workspace;
    int state;
    float waves;
    int reserved[4];
} heuristic;

typedef struct {
    int turns[2], epilogue, kept_type;
    uint64_t bias, kept;
    int64_t kept_leading;
} description;

typedef struct {
    int type;
    uint64_t rows, columns;
    int64_t leading;
} layout;

static int descriptions, layouts, preferences;

#define SAY(...)                                       \
    do {                                               \
        FILE* file = fopen(getenv("STAND_IN"), "a");   \
        if (!file) abort();                            \
        fprintf(file, __VA_ARGS__);                    \
        fclose(file);                                  \
    } while (0)

int cublasLtCreate(void** handle) { return *handle = malloc(1), SUCCESS; }

int cublasLtDestroy(void* handle) {
    SAY("cublasLt: %d descriptions, %d layouts, %d preferences\n", descriptions, layouts, preferences);
    return free(handle), SUCCESS;
}

int cublasLtMatmulDescCreate(description** to, int compute, int scale) {
    // Sums in f32, which is not TF32; factors in f32.
    if (compute != 68 || scale != 0) return INVALID_VALUE;
    ++descriptions;
    *to = calloc(1, sizeof **to);
    return SUCCESS;
}

int cublasLtMatmulDescDestroy(description* which) { return --descriptions, free(which), SUCCESS; }

int cublasLtMatmulDescSetAttribute(description* of, int attribute, const void* from, size_t bytes) {
    if (bytes != (attribute == 8 || attribute == 11 || attribute == 12 ? 8 : 4)) return INVALID_VALUE;
    switch (attribute) {
        case 3: memcpy(&of->turns[0], from, bytes); return SUCCESS;
        case 4: memcpy(&of->turns[1], from, bytes); return SUCCESS;
        case 7: memcpy(&of->epilogue, from, bytes); return SUCCESS;
        case 8: memcpy(&of->bias, from, bytes); return SUCCESS;
        case 11: memcpy(&of->kept, from, bytes); return SUCCESS;
        case 12: memcpy(&of->kept_leading, from, bytes); return SUCCESS;
        case 22: memcpy(&of->kept_type, from, bytes); return SUCCESS;
        // The bias's type: f32 or bf16.
        case 26: return *(const int*)from == 0 || *(const int*)from == BF16 ? SUCCESS : INVALID_VALUE;
        default: return INVALID_VALUE;
    }
}

int cublasLtMatrixLayoutCreate(layout** to, int type, uint64_t rows, uint64_t columns, int64_t leading) {
    ++layouts;
    *to = malloc(sizeof **to);
    **to = (layout){type, rows, columns, leading};
    return SUCCESS;
}

int cublasLtMatrixLayoutDestroy(layout* which) { return --layouts, free(which), SUCCESS; }

int cublasLtMatmulPreferenceCreate(void** to) { return ++preferences, *to = malloc(1), SUCCESS; }
int cublasLtMatmulPreferenceDestroy(void* which) { return --preferences, free(which), SUCCESS; }

int cublasLtMatmulPreferenceSetAttribute(void* of, int attribute, const void* from, size_t bytes) {
    if (!of || bytes != (attribute == 1 ? 8 : 4)) return INVALID_VALUE;
    // Parts of sums come together in f32 only.
    return attribute == 3 && *(const uint32_t*)from != 2 ? INVALID_VALUE : SUCCESS;
}

int cublasLtMatmulAlgoGetHeuristic(void* handle, description* of, layout* a, layout* b, layout* c, layout* d, void* preference, int asked,
                                   heuristic* to, int* count) {
    if (!handle || !a || !b || c != d || !preference || asked != 1) return INVALID_VALUE;
    *count = of->epilogue && d->type == BF16 ? 0 : 1;
    memset(to, 0, sizeof *to);
    to->workspace = 1 << 20;
    return SUCCESS;
}

int cublasLtMatmul(void* handle, description* of, const float* alpha, const void* a, layout* a_lies, const void* b, layout* b_lies,
                   const float* beta, const void* c, layout* c_lies, void* d, layout* d_lies, const heuristic* algorithm, void* workspace,
                   size_t bytes, void* stream) {
    // What is kept before an activation lies as the result does; GELU is 32 with 128 for what is kept and 4 for a bias, its slope 192.
    const int activates = of->epilogue == 164 || of->epilogue == 192;
    if (activates && (!of->kept || of->kept == (uint64_t)d || of->kept_leading != d_lies->leading || of->kept_type != d_lies->type)) return INVALID_VALUE;
    if (!handle || !a || !b || c != d || c_lies != d_lies || !algorithm || !workspace || bytes < 1 << 20 || !stream) return INVALID_VALUE;
    SAY("matmul %d %llux%llu/%lld%s %llux%llu/%lld%s %d %llux%llu/%lld %g %g%s\n", a_lies->type, (unsigned long long)a_lies->rows,
        (unsigned long long)a_lies->columns, (long long)a_lies->leading, of->turns[0] ? "'" : "", (unsigned long long)b_lies->rows,
        (unsigned long long)b_lies->columns, (long long)b_lies->leading, of->turns[1] ? "'" : "", d_lies->type,
        (unsigned long long)d_lies->rows, (unsigned long long)d_lies->columns, (long long)d_lies->leading, *alpha, *beta,
        of->epilogue == 4 ? " bias" : of->epilogue == 164 ? " bias gelu" : of->epilogue == 192 ? " slope" : "");
    return SUCCESS;
}
