// Causal attention on tensor cores, for bf16 and heads of whole steps of 16: the kernels of attention.cu with their arguments and their results.
//
// A warp has 16 rows of a tile of ROWS queries (or keys), and their sums in registers. Scores and their gradients go from one product to the
// next as bf16, without leaving the warp (Dao 2023, arXiv:2307.08691, section 3.3); sums are f32. The next tile is on its way while one is
// computed with.
#pragma once
#include "tensor.cuh"

// Rows of a block's own tile.
constexpr int ROWS = 64;
constexpr int THREADS = 128;
// Rows are 16 bytes longer than a head, so that eight rows below each other lie in different banks.
constexpr int PITCH = HEAD + 8;
// Steps of 16 along a head.
constexpr int STEPS = HEAD / 16;
constexpr float LOG2_E = 1.44269504f;
constexpr float LN_2 = 0.693147181f;

// Where this thread's numbers lie in the 16 rows and 8 columns of a result.
struct Lane {
    int warp, row, column;
    // For `tensor_load`: the row and the column of an 8 x 8 matrix of a left factor, and of a right factor whose columns are rows in memory.
    int left_row, left_column, right_row, right_column;

    __device__ Lane() {
        const int lane = threadIdx.x % 32, matrix = lane / 8, line = lane % 8;
        warp = threadIdx.x / 32, row = lane / 4, column = lane % 4 * 2;
        left_row = matrix % 2 * 8 + line, left_column = matrix / 2 * 8;
        right_row = matrix / 2 * 8 + line, right_column = matrix % 2 * 8;
    }
};

// Brings rows `first..first + COUNT` of a strided matrix of `rows` rows to shared memory; what does not exist is 0.
template <int COUNT>
__device__ inline void fetch(bf16* tile, const bf16* from, long long stride, int first, int rows) {
    constexpr int packs = HEAD / LANES;
    const bool whole = aligned(from) && stride % LANES == 0;
    for (int index = threadIdx.x; index < COUNT * packs; index += THREADS) {
        const int row = index / packs, at = index % packs * LANES;
        bf16* to = tile + row * PITCH + at;
        const bf16* place = from + (first + row) * stride + at;
        if (first + row < rows && whole) {
            copy_begin(to, place);
        } else {
            for (int i = 0; i < LANES; ++i) to[i] = first + row < rows ? place[i] : bf16{0};
        }
    }
}

// out += left * rightᵀ over a head: 16 rows of this warp in `left`, COUNT rows of `right`.
template <int COUNT>
__device__ inline void multiply(float (&out)[COUNT / 8][4], const bf16* left, const bf16* right, const Lane& lane) {
#pragma unroll
    for (int step = 0; step < STEPS; ++step) {
        u32 of_left[4], of_right[4];
        tensor_load(of_left, left + (lane.warp * 16 + lane.left_row) * PITCH + step * 16 + lane.left_column);
#pragma unroll
        for (int pair = 0; pair < COUNT / 16; ++pair) {
            tensor_load(of_right, right + (pair * 16 + lane.right_row) * PITCH + step * 16 + lane.right_column);
            tensor_multiply(out[2 * pair], of_left, of_right[0], of_right[1]);
            tensor_multiply(out[2 * pair + 1], of_left, of_right[2], of_right[3]);
        }
    }
}

// out += weights * right: a warp's 16 rows of COUNT weights, as they came out of `multiply`, and COUNT rows of a head.
template <int COUNT>
__device__ inline void accumulate(float (&out)[2 * STEPS][4], const float (&weights)[COUNT / 8][4], const bf16* right, const Lane& lane) {
#pragma unroll
    for (int step = 0; step < COUNT / 16; ++step) {
        const float(&low)[4] = weights[2 * step], (&high)[4] = weights[2 * step + 1];
        const u32 of_weights[4] = {tensor_pair(low[0], low[1]), tensor_pair(low[2], low[3]), tensor_pair(high[0], high[1]),
                                   tensor_pair(high[2], high[3])};
#pragma unroll
        for (int pair = 0; pair < STEPS; ++pair) {
            u32 of_right[4];
            tensor_load_turned(of_right, right + (step * 16 + lane.left_row) * PITCH + pair * 16 + lane.left_column);
            tensor_multiply(out[2 * pair], of_weights, of_right[0], of_right[1]);
            tensor_multiply(out[2 * pair + 1], of_weights, of_right[2], of_right[3]);
        }
    }
}

// The tiles of COUNT rows of the earlier slices, then of the own one as far as a row sees, in turn.
template <int COUNT>
struct Tiles {
    const stored* qkv;
    const stored* const* earlier;
    int before, sequence, last, slice, start;

    // `end`: how many rows of the own slice are seen.
    __device__ Tiles(const stored* own, const stored* const* others, int slices, int rows, int end)
        : qkv(own), earlier(others), before(slices), sequence(rows), last(end), slice(0), start(0) {}

    __device__ bool own() const { return slice == before; }
    __device__ bool more() const { return slice < before || start < last; }
    __device__ const stored* base() const { return own() ? qkv : earlier[slice]; }

    __device__ void next() {
        start += COUNT;
        if (!own() && start >= sequence) ++slice, start = 0;
    }
};

extern "C" __global__ void __launch_bounds__(THREADS)
    attention_forward(stored* attended, float* logarithms, const stored* qkv, const stored* const* earlier, int before,
                      int heads, int sequence, float factor) {
    constexpr int KEYS = 64;
    DYNAMIC_SHARED(bf16, shared);
    const Head head(blockIdx.y, heads, sequence);
    const Lane lane;
    const long long stride = 3ll * head.hidden;
    // The longest rows first, so that the last blocks are short.
    const int first = (gridDim.x - 1 - blockIdx.x) * ROWS;
    // Two stages of keys and values; the second holds the queries first.
    constexpr int each = 2 * KEYS * PITCH;
    fetch<ROWS>(shared + each, qkv + head.qkv, stride, first, sequence);
    Tiles<KEYS> tiles(qkv, earlier, before, sequence, min(sequence, first + ROWS));
    const auto bring = [&](bf16* stage) {
        const stored* base = tiles.base() + head.qkv;
        fetch<KEYS>(stage, base + head.hidden, stride, tiles.start, sequence);
        fetch<KEYS>(stage + KEYS * PITCH, base + 2 * head.hidden, stride, tiles.start, sequence);
    };
    bring(shared);
    copies_wait();
    __syncthreads();
    u32 queries[STEPS][4];
#pragma unroll
    for (int step = 0; step < STEPS; ++step) {
        tensor_load(queries[step], shared + each + (lane.warp * 16 + lane.left_row) * PITCH + step * 16 + lane.left_column);
    }
    float sums[2] = {}, most[2] = {negative_infinity(), negative_infinity()}, out[2 * STEPS][4] = {};
    const int row = first + lane.warp * 16 + lane.row;
    const float scale = factor * LOG2_E;
    for (int stage = 0; tiles.more(); stage ^= 1) {
        copies_wait();
        __syncthreads();
        const bool own = tiles.own();
        const int start = tiles.start;
        const bf16 *keys = shared + stage * each, *values = keys + KEYS * PITCH;
        tiles.next();
        if (tiles.more()) bring(shared + (stage ^ 1) * each);
        float scores[KEYS / 8][4] = {};
#pragma unroll
        for (int step = 0; step < STEPS; ++step) {
#pragma unroll
            for (int pair = 0; pair < KEYS / 16; ++pair) {
                u32 of_keys[4];
                tensor_load(of_keys, keys + (pair * 16 + lane.right_row) * PITCH + step * 16 + lane.right_column);
                tensor_multiply(scores[2 * pair], queries[step], of_keys[0], of_keys[1]);
                tensor_multiply(scores[2 * pair + 1], queries[step], of_keys[2], of_keys[3]);
            }
        }
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const int query = row + 8 * i;
            // How many of the tile's keys this row sees.
            const int seen = own ? min(sequence, query + 1) - start : sequence - start;
            float larger = most[i];
#pragma unroll
            for (int n = 0; n < KEYS / 8; ++n) {
#pragma unroll
                for (int j = 0; j < 2; ++j) {
                    float& score = scores[n][2 * i + j];
                    score = n * 8 + lane.column + j < seen ? score * scale : negative_infinity();
                    larger = Larger()(larger, score);
                }
            }
            larger = over_lanes(larger, 4, Larger());
            // A row beyond the sequence's end sees keys, too; one that sees none of a tile has a number from an earlier tile.
            const float shrink = most[i] == negative_infinity() ? 0.0f : exp2f(most[i] - larger);
            float sum = 0.0f;
#pragma unroll
            for (int n = 0; n < KEYS / 8; ++n) {
#pragma unroll
                for (int j = 0; j < 2; ++j) {
                    float& score = scores[n][2 * i + j];
                    score = score == negative_infinity() ? 0.0f : exp2f(score - larger);
                    sum += score;
                }
            }
            sums[i] = fmaf(sums[i], shrink, over_lanes(sum, 4, Add()));
            most[i] = larger;
#pragma unroll
            for (int n = 0; n < 2 * STEPS; ++n) out[n][2 * i] *= shrink, out[n][2 * i + 1] *= shrink;
        }
        accumulate<KEYS>(out, scores, values, lane);
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        const int query = row + 8 * i;
        if (query >= sequence) continue;
        const float inverse = 1.0f / sums[i];
        bf16* to = attended + head.column + static_cast<long long>(query) * head.hidden + lane.column;
#pragma unroll
        for (int n = 0; n < 2 * STEPS; ++n) {
            *reinterpret_cast<u32*>(to + n * 8) = tensor_pair(out[n][2 * i] * inverse, out[n][2 * i + 1] * inverse);
        }
        if (lane.column == 0) logarithms[head.statistic + query] = most[i] * LN_2 + logf(sums[i]);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
    attention_queries(stored* d_qkv, const stored* qkv, const stored* const* earlier, const stored* gradient,
                      const float* logarithms, const float* products, int before, int heads, int sequence, float factor) {
    constexpr int KEYS = 32;
    DYNAMIC_SHARED(bf16, shared);
    bf16 *queries = shared, *outputs = queries + ROWS * PITCH;
    // Two stages of keys and values.
    bf16* const stages = outputs + ROWS * PITCH;
    constexpr int each = 2 * KEYS * PITCH;
    const Head head(blockIdx.y, heads, sequence);
    const Lane lane;
    const long long stride = 3ll * head.hidden;
    const int first = (gridDim.x - 1 - blockIdx.x) * ROWS;
    fetch<ROWS>(queries, qkv + head.qkv, stride, first, sequence);
    fetch<ROWS>(outputs, gradient + head.column, head.hidden, first, sequence);
    Tiles<KEYS> tiles(qkv, earlier, before, sequence, min(sequence, first + ROWS));
    const auto bring = [&](bf16* stage) {
        const stored* base = tiles.base() + head.qkv;
        fetch<KEYS>(stage, base + head.hidden, stride, tiles.start, sequence);
        fetch<KEYS>(stage + KEYS * PITCH, base + 2 * head.hidden, stride, tiles.start, sequence);
    };
    bring(stages);
    const int row = first + lane.warp * 16 + lane.row;
    float logarithm[2], product[2], out[2 * STEPS][4] = {};
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        const bool exists = row + 8 * i < sequence;
        logarithm[i] = exists ? logarithms[head.statistic + row + 8 * i] * LOG2_E : 0.0f;
        product[i] = exists ? products[head.statistic + row + 8 * i] : 0.0f;
    }
    for (int stage = 0; tiles.more(); stage ^= 1) {
        copies_wait();
        __syncthreads();
        const bool own = tiles.own();
        const int start = tiles.start;
        const bf16 *keys = stages + stage * each, *values = keys + KEYS * PITCH;
        tiles.next();
        if (tiles.more()) bring(stages + (stage ^ 1) * each);
        float scores[KEYS / 8][4] = {}, towards[KEYS / 8][4] = {};
        multiply<KEYS>(scores, queries, keys, lane);
        multiply<KEYS>(towards, outputs, values, lane);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const int query = row + 8 * i;
            const int seen = query >= sequence ? 0 : own ? query + 1 - start : sequence - start;
#pragma unroll
            for (int n = 0; n < KEYS / 8; ++n) {
#pragma unroll
                for (int j = 0; j < 2; ++j) {
                    const int at = 2 * i + j;
                    const bool sees = n * 8 + lane.column + j < seen;
                    const float weight = sees ? exp2f(scores[n][at] * factor * LOG2_E - logarithm[i]) : 0.0f;
                    scores[n][at] = sees ? weight * (towards[n][at] - product[i]) * factor : 0.0f;
                }
            }
        }
        accumulate<KEYS>(out, scores, keys, lane);
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        const int query = row + 8 * i;
        if (query >= sequence) continue;
        bf16* to = d_qkv + head.qkv + query * stride + lane.column;
#pragma unroll
        for (int n = 0; n < 2 * STEPS; ++n) {
            *reinterpret_cast<u32*>(to + n * 8) = tensor_pair(out[n][2 * i], out[n][2 * i + 1]);
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
    attention_keys(stored* d_qkv, float* owed, const stored* qkv, const stored* keys_of, const stored* gradient,
                   const float* logarithms, const float* products, int heads, int sequence, float factor) {
    constexpr int QUERIES = 32;
    DYNAMIC_SHARED(bf16, shared);
    bf16 *keys = shared, *values = keys + ROWS * PITCH;
    // Two stages of queries and gradients.
    bf16* const stages = values + ROWS * PITCH;
    constexpr int each = 2 * QUERIES * PITCH;
    const Head head(blockIdx.y, heads, sequence);
    const Lane lane;
    const long long stride = 3ll * head.hidden;
    const int first = blockIdx.x * ROWS;
    const bool own = keys_of == nullptr;
    const stored* base = (own ? qkv : keys_of) + head.qkv;
    fetch<ROWS>(keys, base + head.hidden, stride, first, sequence);
    fetch<ROWS>(values, base + 2 * head.hidden, stride, first, sequence);
    const auto bring = [&](bf16* stage, int start) {
        fetch<QUERIES>(stage, qkv + head.qkv, stride, start, sequence);
        fetch<QUERIES>(stage + QUERIES * PITCH, gradient + head.column, head.hidden, start, sequence);
    };
    int start = own ? first : 0;
    bring(stages, start);
    const int row = first + lane.warp * 16 + lane.row;
    float of_keys[2 * STEPS][4] = {}, of_values[2 * STEPS][4] = {};
    for (int stage = 0; start < sequence; start += QUERIES, stage ^= 1) {
        copies_wait();
        __syncthreads();
        const bf16 *queries = stages + stage * each, *outputs = queries + QUERIES * PITCH;
        if (start + QUERIES < sequence) bring(stages + (stage ^ 1) * each, start + QUERIES);
        // Both matrices turned: a row a key.
        float scores[QUERIES / 8][4] = {}, towards[QUERIES / 8][4] = {};
        multiply<QUERIES>(scores, keys, queries, lane);
        multiply<QUERIES>(towards, values, outputs, lane);
#pragma unroll
        for (int n = 0; n < QUERIES / 8; ++n) {
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                const int query = start + n * 8 + lane.column + j;
                const bool exists = query < sequence;
                const float logarithm = exists ? logarithms[head.statistic + query] * LOG2_E : 0.0f;
                const float product = exists ? products[head.statistic + query] : 0.0f;
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    const int key = row + 8 * i, at = 2 * i + j;
                    const bool seen = exists && key < sequence && (!own || key <= query);
                    const float weight = seen ? exp2f(scores[n][at] * factor * LOG2_E - logarithm) : 0.0f;
                    scores[n][at] = weight;
                    towards[n][at] = seen ? weight * (towards[n][at] - product) * factor : 0.0f;
                }
            }
        }
        accumulate<QUERIES>(of_values, scores, outputs, lane);
        accumulate<QUERIES>(of_keys, towards, queries, lane);
    }
    // Where the head's first token of a slice lies in `owed`.
    const long long debt = head.column + static_cast<long long>(head.statistic / sequence / heads) * sequence * head.hidden;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        const int key = row + 8 * i;
        if (key >= sequence) continue;
#pragma unroll
        for (int n = 0; n < 2 * STEPS; ++n) {
            const int column = n * 8 + lane.column;
            float* due = owed ? owed + debt + static_cast<long long>(key) * 2 * head.hidden + column : nullptr;
            float sums[2][2];
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                sums[0][j] = of_keys[n][2 * i + j] + (due ? due[j] : 0.0f);
                sums[1][j] = of_values[n][2 * i + j] + (due ? due[head.hidden + j] : 0.0f);
            }
            if (own) {
                bf16* to = d_qkv + head.qkv + key * stride + column;
                *reinterpret_cast<u32*>(to + head.hidden) = tensor_pair(sums[0][0], sums[0][1]);
                *reinterpret_cast<u32*>(to + 2 * head.hidden) = tensor_pair(sums[1][0], sums[1][1]);
            } else {
                due[0] = sums[0][0], due[1] = sums[0][1];
                due[head.hidden] = sums[1][0], due[head.hidden + 1] = sums[1][1];
            }
        }
    }
}
