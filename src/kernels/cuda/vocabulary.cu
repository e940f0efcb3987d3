// The output layer sharded over ranks (Yeung et al. 2024, arXiv:2411.05288, algorithms 1 and 2), and whole where there is one rank.
//
// Logits lie `[tokens, rows]`, a token's in one row. A rank's statistics of a token are the largest logit m, the sum s of e^(logit - m), and
// the target's logit z, negative infinity where another rank owns the target: `[3, tokens]`. A shard without rows has m = z = -inf and s = 0.
#include "common.cuh"

// The place of a token's target in the shard, or -1.
__device__ inline long long owned_target(const u32* targets, int token, int first, int rows) {
    const long long row = static_cast<long long>(targets[token]) - first;
    return row >= 0 && row < rows ? row : -1;
}

// e^(x - shift), and 0 for a row that has no elements yet.
__device__ inline float shifted(float x, float shift) { return x == negative_infinity() ? 0.0f : expf(x - shift); }

// Pass S: the statistics in one read of the logits, a block a token. The running sum is brought to a new maximum as it comes.
extern "C" __global__ void vocab_statistics(float* stats, const stored* logits, const u32* targets, int first, int rows,
                                            int tokens) {
    const int token = blockIdx.x;
    logits += static_cast<long long>(token) * rows;
    float most = negative_infinity(), sum = 0.0f, values[LANES];
    for (int at = threadIdx.x * LANES; at < rows; at += blockDim.x * LANES) {
        read(values, logits + at, rows - at, negative_infinity());
        float larger = most;
        for (int i = 0; i < LANES; ++i) larger = Larger()(larger, values[i]);
        sum *= shifted(most, larger);
        for (int i = 0; i < LANES; ++i) sum += shifted(values[i], larger);
        most = larger;
    }
    const float largest = over_block(most, Larger());
    const float total = over_block(sum * shifted(most, largest), Add());
    if (threadIdx.x == 0) {
        const long long target = owned_target(targets, token, first, rows);
        stats[token] = largest;
        stats[tokens + token] = total;
        stats[2 * tokens + token] = target < 0 ? negative_infinity() : widen(logits[target]);
    }
}

// Algorithm 2's S: the exponentials of the logits less their token's maximum, in place.
extern "C" __global__ void vocab_exponentials(stored* logits, const float* stats, int rows) {
    const float most = stats[blockIdx.x];
    logits += static_cast<long long>(blockIdx.x) * rows;
    float values[LANES];
    for (int at = threadIdx.x * LANES; at < rows; at += blockDim.x * LANES) {
        read(values, logits + at, rows - at);
        for (int i = 0; i < LANES; ++i) values[i] = expf(values[i] - most);
        write(logits + at, values, rows - at);
    }
}

// Algorithm 2's S: turns the exponentials' product with the table into the shard's softmax times its rows, `[tokens, width]`, a block a token.
extern "C" __global__ void vocab_normalise(stored* dx, const float* stats, int tokens, int width) {
    const float sum = stats[tokens + blockIdx.x], factor = sum > 0.0f ? 1.0f / sum : 0.0f;
    dx += static_cast<long long>(blockIdx.x) * width;
    float values[LANES];
    for (int at = threadIdx.x * LANES; at < width; at += blockDim.x * LANES) {
        read(values, dx + at, width - at);
        for (int i = 0; i < LANES; ++i) values[i] *= factor;
        write(dx + at, values, width - at);
    }
}

// Combines the statistics of all ranks, `[ranks, 3, tokens]`, in rank order, a thread a token. `combined` is `[2, tokens]`: e^(m_r - m) / s, which
// turns rank r's exponentials into probabilities, and the token's loss.
extern "C" __global__ void vocab_combine(float* combined, const float* stats, int rank, int ranks, int tokens) {
    const int token = blockIdx.x * blockDim.x + threadIdx.x;
    if (token >= tokens) return;
    float most = negative_infinity(), logit = negative_infinity(), total = 0.0f;
    for (int other = 0; other < ranks; ++other) {
        const float* shard = stats + static_cast<long long>(other) * 3 * tokens + token;
        most = Larger()(most, shard[0]);
        logit = Larger()(logit, shard[2 * tokens]);
    }
    for (int other = 0; other < ranks; ++other) {
        const float* shard = stats + static_cast<long long>(other) * 3 * tokens + token;
        total = fmaf(shard[tokens], shifted(shard[0], most), total);
    }
    const float own = stats[static_cast<long long>(rank) * 3 * tokens + token];
    combined[token] = shifted(own, most) / total;
    combined[tokens + token] = logf(total) + (most - logit);
}

// Pass T: (softmax - target) * share in place of what S left, a block a token: logits, or with `exponentials` those. `stats` are the rank's own.
extern "C" __global__ void vocab_gradient(stored* held, const float* combined, const float* stats, const u32* targets,
                                          float share, int first, int rows, int exponentials) {
    const int token = blockIdx.x;
    const float factor = combined[token] * share, most = stats[token];
    const long long target = owned_target(targets, token, first, rows);
    held += static_cast<long long>(token) * rows;
    float values[LANES];
    for (int at = threadIdx.x * LANES; at < rows; at += blockDim.x * LANES) {
        read(values, held + at, rows - at);
        for (int i = 0; i < LANES; ++i) {
            const float exponential = exponentials ? values[i] : expf(values[i] - most);
            values[i] = exponential * factor - (at + i == target ? share : 0.0f);
        }
        write(held + at, values, rows - at);
    }
}

// Algorithm 2, between the gather and the sum: the shard's gradient by the output layer's input, `[tokens, width]`, a block a token.
extern "C" __global__ void vocab_rescale(stored* dx, const stored* unscaled, const float* combined, const float* stats,
                                         const stored* table, const u32* targets, float share, int first, int rows,
                                         int tokens, int width) {
    const int token = blockIdx.x;
    const float factor = combined[token] * stats[tokens + token] * share;
    const long long target = owned_target(targets, token, first, rows), start = static_cast<long long>(token) * width;
    for (int at = threadIdx.x * LANES; at < width; at += blockDim.x * LANES) {
        float values[LANES], weights[LANES];
        read(values, unscaled + start + at, width - at);
        for (int i = 0; i < LANES; ++i) values[i] *= factor;
        if (target >= 0) {
            read(weights, table + target * width + at, width - at);
            for (int i = 0; i < LANES; ++i) values[i] = fmaf(-share, weights[i], values[i]);
        }
        write(dx + start + at, values, width - at);
    }
}

// The mean of the tokens' losses, in one block: each thread's in order, then warp by warp.
extern "C" __global__ void vocab_loss(float* mean, const float* losses, int tokens) {
    float sum = 0.0f;
    for (int token = threadIdx.x; token < tokens; token += blockDim.x) sum += losses[token];
    sum = over_block(sum, Add());
    if (threadIdx.x == 0) mean[0] = sum / tokens;
}
