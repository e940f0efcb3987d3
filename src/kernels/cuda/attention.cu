// Causal multi-head attention between the projections, tile by tile with a running softmax (Dao et al. 2022, arXiv:2205.14135; Milakov &
// Gimelshein 2018, arXiv:1805.02867): the matrix of scores is never in memory. Forward keeps the logarithm of each row's sum; backward
// computes the scores again (Dao 2023, arXiv:2307.08691), once by rows for the queries and once by columns for keys and values, so that
// every number is summed by one thread in one order.
//
// HEAD is the width of a head. Queries, keys and values lie `[tokens, 3 * hidden]`; heads are columns of them. Where sequences are sliced,
// `before` earlier slices of `sequence` tokens lie at the pointers in `earlier`, and all their tokens are seen (Sun et al. 2024, arXiv:2406.03488).
// Here every product is f32; bf16 and heads that tensor cores take are in attention_tensor.cuh.
#include "common.cuh"

#ifndef HEAD
#error "HEAD must be the width of a head"
#endif

// Where one head of one sequence lies.
struct Head {
    long long qkv, column;
    int statistic, hidden;

    __device__ Head(int index, int heads, int sequence) {
        hidden = heads * HEAD;
        const long long row = static_cast<long long>(index / heads) * sequence;
        qkv = row * 3 * hidden + index % heads * HEAD;
        column = row * hidden + index % heads * HEAD;
        statistic = index * sequence;
    }
};

// The scalar products of each row of `attended` with its gradient, `[batch * heads, sequence]`: what a softmax takes away from its gradient. A thread a row.
extern "C" __global__ void attention_products(float* products, const stored* attended, const stored* gradient, int heads,
                                              int sequence, int count) {
    const int index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= count) return;
    const Head head(index / sequence, heads, sequence);
    const long long place = head.column + static_cast<long long>(index % sequence) * head.hidden;
    float sum = 0.0f, left[LANES], right[LANES];
    for (int at = 0; at < HEAD; at += LANES) {
        read(left, attended + place + at, HEAD - at);
        read(right, gradient + place + at, HEAD - at);
        for (int i = 0; i < LANES; ++i) sum = fmaf(left[i], right[i], sum);
    }
    products[index] = sum;
}

#if STORED_BF16 && HEAD % 16 == 0 && HEAD <= 128
#include "attention_tensor.cuh"
#else

// Rows of a tile of queries or keys.
constexpr int TILE = 32;
// A thread takes ROWS rows x COLUMNS columns of a TILE x TILE matrix: rows down + i * 16, columns across + j * 8.
constexpr int ACROSS = 8;
constexpr int DOWN = 16;
constexpr int ROWS = TILE / DOWN;
constexpr int COLUMNS = TILE / ACROSS;
// Columns of a head that a thread takes: across + c * 8.
constexpr int WIDTHS = (HEAD + ACROSS - 1) / ACROSS;
// Odd, so that rows begin in different banks; wide enough for the last of a thread's columns.
constexpr int PITCH = WIDTHS * ACROSS + 1;
constexpr int SCORES = TILE + 1;
constexpr int THREADS = ACROSS * DOWN;

// Copies rows `first..first + TILE` of a strided matrix of `rows` rows to shared memory; what does not exist is 0.
template <class T>
__device__ inline void load(float* tile, const T* from, long long stride, int first, int rows) {
    constexpr int packs = (PITCH - 1 + LANES - 1) / LANES;
    for (int index = threadIdx.x; index < TILE * packs; index += THREADS) {
        const int row = index / packs, at = index % packs * LANES;
        float values[LANES] = {};
        if (first + row < rows) read(values, from + (first + row) * stride + at, HEAD - at);
#pragma unroll
        for (int i = 0; i < LANES; ++i) {
            if (at + i < PITCH - 1) tile[row * PITCH + at + i] = values[i];
        }
    }
}

// A thread's share of left * rightᵀ.
__device__ inline void multiply(float (&out)[ROWS][COLUMNS], const float* left, const float* right, int down, int across) {
#pragma unroll
    for (int i = 0; i < ROWS; ++i) {
#pragma unroll
        for (int j = 0; j < COLUMNS; ++j) out[i][j] = 0.0f;
    }
    for (int at = 0; at < HEAD; ++at) {
        float of_left[ROWS], of_right[COLUMNS];
#pragma unroll
        for (int i = 0; i < ROWS; ++i) of_left[i] = left[(down + i * DOWN) * PITCH + at];
#pragma unroll
        for (int j = 0; j < COLUMNS; ++j) of_right[j] = right[(across + j * ACROSS) * PITCH + at];
#pragma unroll
        for (int i = 0; i < ROWS; ++i) {
#pragma unroll
            for (int j = 0; j < COLUMNS; ++j) out[i][j] = fmaf(of_left[i], of_right[j], out[i][j]);
        }
    }
}

// Adds a thread's share of weights * right.
__device__ inline void accumulate(float (&out)[ROWS][WIDTHS], const float* weights, const float* right, int down, int across) {
    for (int at = 0; at < TILE; ++at) {
        float of_weights[ROWS];
#pragma unroll
        for (int i = 0; i < ROWS; ++i) of_weights[i] = weights[(down + i * DOWN) * SCORES + at];
#pragma unroll
        for (int c = 0; c < WIDTHS; ++c) {
            const float value = right[at * PITCH + across + c * ACROSS];
#pragma unroll
            for (int i = 0; i < ROWS; ++i) out[i][c] = fmaf(of_weights[i], value, out[i][c]);
        }
    }
}

// attended = softmax(Q Kᵀ / √head, causal) V, `[tokens, hidden]`, and the logarithms of the rows' sums, `[batch * heads, sequence]`. A block a
// tile of queries (x) of a head of a sequence (y).
extern "C" __global__ void __launch_bounds__(THREADS)
    attention_forward(stored* attended, float* logarithms, const stored* qkv, const stored* const* earlier, int before,
                      int heads, int sequence, float factor) {
    DYNAMIC_SHARED(float, shared);
    float *queries = shared, *keys = queries + TILE * PITCH, *weights = keys + TILE * PITCH;
    const Head head(blockIdx.y, heads, sequence);
    const long long stride = 3ll * head.hidden;
    const int first = blockIdx.x * TILE, across = threadIdx.x % ACROSS, down = threadIdx.x / ACROSS;
    load(queries, qkv + head.qkv, stride, first, sequence);
    float sums[ROWS], most[ROWS], out[ROWS][WIDTHS] = {};
#pragma unroll
    for (int i = 0; i < ROWS; ++i) sums[i] = 0.0f, most[i] = negative_infinity();
    for (int slice = 0; slice <= before; ++slice) {
        const bool own = slice == before;
        const stored* base = (own ? qkv : earlier[slice]) + head.qkv;
        const int end = own ? min(sequence, first + TILE) : sequence;
        for (int start = 0; start < end; start += TILE) {
            __syncthreads();
            load(keys, base + head.hidden, stride, start, sequence);
            __syncthreads();
            float scores[ROWS][COLUMNS];
            multiply(scores, queries, keys, down, across);
#pragma unroll
            for (int i = 0; i < ROWS; ++i) {
                const int query = first + down + i * DOWN;
                float larger = most[i];
#pragma unroll
                for (int j = 0; j < COLUMNS; ++j) {
                    const int key = start + across + j * ACROSS;
                    const bool seen = key < sequence && (!own || key <= query);
                    scores[i][j] = seen ? scores[i][j] * factor : negative_infinity();
                    larger = Larger()(larger, scores[i][j]);
                }
                larger = over_lanes(larger, ACROSS, Larger());
                // The first tile has a key for every query, so the maximum is a number from then on.
                const float shrink = most[i] == negative_infinity() ? 0.0f : expf(most[i] - larger);
                float sum = 0.0f;
#pragma unroll
                for (int j = 0; j < COLUMNS; ++j) {
                    const float weight = scores[i][j] == negative_infinity() ? 0.0f : expf(scores[i][j] - larger);
                    weights[(down + i * DOWN) * SCORES + across + j * ACROSS] = weight;
                    sum += weight;
                }
                sums[i] = fmaf(sums[i], shrink, over_lanes(sum, ACROSS, Add()));
                most[i] = larger;
#pragma unroll
                for (int c = 0; c < WIDTHS; ++c) out[i][c] *= shrink;
            }
            __syncthreads();
            load(keys, base + 2 * head.hidden, stride, start, sequence);
            __syncthreads();
            accumulate(out, weights, keys, down, across);
        }
    }
#pragma unroll
    for (int i = 0; i < ROWS; ++i) {
        const int query = first + down + i * DOWN;
        if (query >= sequence) continue;
        const float inverse = 1.0f / sums[i];
#pragma unroll
        for (int c = 0; c < WIDTHS; ++c) {
            const int column = across + c * ACROSS;
            if (column < HEAD) narrow(out[i][c] * inverse, attended[head.column + static_cast<long long>(query) * head.hidden + column]);
        }
        if (across == 0) logarithms[head.statistic + query] = most[i] + logf(sums[i]);
    }
}

// The gradient of the queries, into their columns of `d_qkv`. A block a tile of queries (x) of a head of a sequence (y).
extern "C" __global__ void __launch_bounds__(THREADS)
    attention_queries(stored* d_qkv, const stored* qkv, const stored* const* earlier, const stored* gradient,
                      const float* logarithms, const float* products, int before, int heads, int sequence, float factor) {
    DYNAMIC_SHARED(float, shared);
    float *queries = shared, *outputs = queries + TILE * PITCH, *keys = outputs + TILE * PITCH;
    float *values = keys + TILE * PITCH, *slopes = values + TILE * PITCH;
    const Head head(blockIdx.y, heads, sequence);
    const long long stride = 3ll * head.hidden;
    const int first = blockIdx.x * TILE, across = threadIdx.x % ACROSS, down = threadIdx.x / ACROSS;
    load(queries, qkv + head.qkv, stride, first, sequence);
    load(outputs, gradient + head.column, head.hidden, first, sequence);
    float out[ROWS][WIDTHS] = {};
    for (int slice = 0; slice <= before; ++slice) {
        const bool own = slice == before;
        const stored* base = (own ? qkv : earlier[slice]) + head.qkv;
        const int end = own ? min(sequence, first + TILE) : sequence;
        for (int start = 0; start < end; start += TILE) {
            __syncthreads();
            load(keys, base + head.hidden, stride, start, sequence);
            load(values, base + 2 * head.hidden, stride, start, sequence);
            __syncthreads();
            float scores[ROWS][COLUMNS], weights[ROWS][COLUMNS];
            multiply(scores, queries, keys, down, across);
            multiply(weights, outputs, values, down, across);
#pragma unroll
            for (int i = 0; i < ROWS; ++i) {
                const int query = first + down + i * DOWN;
                const bool exists = query < sequence;
                const float logarithm = exists ? logarithms[head.statistic + query] : 0.0f;
                const float product = exists ? products[head.statistic + query] : 0.0f;
#pragma unroll
                for (int j = 0; j < COLUMNS; ++j) {
                    const int key = start + across + j * ACROSS;
                    const bool seen = exists && key < sequence && (!own || key <= query);
                    const float weight = seen ? expf(scores[i][j] * factor - logarithm) : 0.0f;
                    const float slope = seen ? weight * (weights[i][j] - product) * factor : 0.0f;
                    slopes[(down + i * DOWN) * SCORES + across + j * ACROSS] = slope;
                }
            }
            __syncthreads();
            accumulate(out, slopes, keys, down, across);
        }
    }
#pragma unroll
    for (int i = 0; i < ROWS; ++i) {
        const int query = first + down + i * DOWN;
        if (query >= sequence) continue;
#pragma unroll
        for (int c = 0; c < WIDTHS; ++c) {
            const int column = across + c * ACROSS;
            if (column < HEAD) narrow(out[i][c], d_qkv[head.qkv + query * stride + column]);
        }
    }
}

// The gradients of keys and values of one slice. A block a tile of keys (x) of a head of a sequence (y). The slice's own (`keys_of` null): into
// their columns of `d_qkv`, with what later slices owe them (`owed`, f32 `[tokens, 2 * hidden]`, may be null) added. An earlier
// slice's: added to what it is owed.
extern "C" __global__ void __launch_bounds__(THREADS)
    attention_keys(stored* d_qkv, float* owed, const stored* qkv, const stored* keys_of, const stored* gradient,
                   const float* logarithms, const float* products, int heads, int sequence, float factor) {
    DYNAMIC_SHARED(float, shared);
    float *keys = shared, *values = keys + TILE * PITCH, *queries = values + TILE * PITCH;
    float *outputs = queries + TILE * PITCH, *weights = outputs + TILE * PITCH, *slopes = weights + TILE * SCORES;
    const Head head(blockIdx.y, heads, sequence);
    const long long stride = 3ll * head.hidden;
    const int first = blockIdx.x * TILE, across = threadIdx.x % ACROSS, down = threadIdx.x / ACROSS;
    const bool own = keys_of == nullptr;
    const stored* base = (own ? qkv : keys_of) + head.qkv;
    load(keys, base + head.hidden, stride, first, sequence);
    load(values, base + 2 * head.hidden, stride, first, sequence);
    float of_keys[ROWS][WIDTHS] = {}, of_values[ROWS][WIDTHS] = {};
    for (int start = own ? first : 0; start < sequence; start += TILE) {
        __syncthreads();
        load(queries, qkv + head.qkv, stride, start, sequence);
        load(outputs, gradient + head.column, head.hidden, start, sequence);
        __syncthreads();
        // Both matrices turned: a row a key.
        float scores[ROWS][COLUMNS], towards[ROWS][COLUMNS];
        multiply(scores, keys, queries, down, across);
        multiply(towards, values, outputs, down, across);
#pragma unroll
        for (int j = 0; j < COLUMNS; ++j) {
            const int query = start + across + j * ACROSS;
            const bool exists = query < sequence;
            const float logarithm = exists ? logarithms[head.statistic + query] : 0.0f;
            const float product = exists ? products[head.statistic + query] : 0.0f;
#pragma unroll
            for (int i = 0; i < ROWS; ++i) {
                const int key = first + down + i * DOWN, place = (down + i * DOWN) * SCORES + across + j * ACROSS;
                const bool seen = exists && key < sequence && (!own || key <= query);
                const float weight = seen ? expf(scores[i][j] * factor - logarithm) : 0.0f;
                weights[place] = weight;
                slopes[place] = seen ? weight * (towards[i][j] - product) * factor : 0.0f;
            }
        }
        __syncthreads();
        accumulate(of_values, weights, outputs, down, across);
        accumulate(of_keys, slopes, queries, down, across);
    }
    // Where the head's first token of a slice lies in `owed`.
    const long long debt = head.column + static_cast<long long>(head.statistic / sequence / heads) * sequence * head.hidden;
#pragma unroll
    for (int i = 0; i < ROWS; ++i) {
        const int key = first + down + i * DOWN;
        if (key >= sequence) continue;
#pragma unroll
        for (int c = 0; c < WIDTHS; ++c) {
            const int column = across + c * ACROSS;
            if (column >= HEAD) continue;
            float* due = owed ? owed + debt + static_cast<long long>(key) * 2 * head.hidden + column : nullptr;
            if (own) {
                stored* to = d_qkv + head.qkv + key * stride + column;
                narrow(of_keys[i][c] + (due ? due[0] : 0.0f), to[head.hidden]);
                narrow(of_values[i][c] + (due ? due[head.hidden] : 0.0f), to[2 * head.hidden]);
            } else {
                due[0] += of_keys[i][c];
                due[head.hidden] += of_values[i][c];
            }
        }
    }
}

#endif
