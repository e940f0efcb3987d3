// The input layer: lookups of tokens and positions, and their gradients. Sums are taken in the order of tokens, without atomics.
#include "common.cuh"

// The row of each token where it is among rows `first..first + owned` of the table, else 0: `[tokens, width]`, a block a token. With
// `positions` (may be null), a token's place in its sequence of `sequence` tokens adds a row of those.
extern "C" __global__ void embedding_forward(stored* x, const stored* table, const stored* positions, const u32* tokens,
                                             int first, int owned, int sequence, int width) {
    const int token = blockIdx.x;
    const long long row = static_cast<long long>(tokens[token]) - first;
    const bool here = row >= 0 && row < owned;
    x += static_cast<long long>(token) * width;
    for (int at = threadIdx.x * LANES; at < width; at += blockDim.x * LANES) {
        float values[LANES] = {}, places[LANES];
        if (here) read(values, table + row * width + at, width - at);
        if (positions) {
            read(places, positions + static_cast<long long>(token % sequence) * width + at, width - at);
            for (int i = 0; i < LANES; ++i) values[i] += places[i];
        }
        write(x + at, values, width - at);
    }
}

// x += the positions' rows, `[tokens, width]`, where the lookups come from elsewhere.
extern "C" __global__ void positions_add(stored* x, const stored* positions, int sequence, int width) {
    const int token = blockIdx.x;
    x += static_cast<long long>(token) * width;
    positions += static_cast<long long>(token % sequence) * width;
    for (int at = threadIdx.x * LANES; at < width; at += blockDim.x * LANES) {
        float values[LANES], places[LANES];
        read(values, x + at, width - at);
        read(places, positions + at, width - at);
        for (int i = 0; i < LANES; ++i) values[i] += places[i];
        write(x + at, values, width - at);
    }
}

// Adds the gradients of all tokens of one id to its row, where the row is owned. A block a token and a strip of columns: that of the
// first token of an id does the work for all, in their order, the others end at once. So no two blocks write one row, and bits repeat.
extern "C" __global__ void embedding_backward(float* gradient, const stored* dx, const u32* tokens, int first, int owned,
                                              int count, int width) {
    __shared__ int earlier;
    __shared__ u32 votes[32];
    const int token = blockIdx.x;
    const u32 id = tokens[token];
    const long long row = static_cast<long long>(id) - first;
    if (row < 0 || row >= owned) return;
    if (threadIdx.x == 0) earlier = 0;
    __syncthreads();
    for (int other = threadIdx.x; other < token; other += blockDim.x) {
        if (tokens[other] == id) earlier = 1;
    }
    __syncthreads();
    if (earlier) return;
    const int at = (blockIdx.y * blockDim.x + threadIdx.x) * LANES;
    float sums[LANES] = {}, values[LANES];
    gradient += row * width;
    if (at < width) read(sums, gradient + at, width - at);
    for (int start = token; start < count; start += blockDim.x) {
        const int other = start + threadIdx.x;
        const u32 vote = __ballot_sync(WHOLE_WARP, other < count && tokens[other] == id);
        if (threadIdx.x % 32 == 0) votes[threadIdx.x / 32] = vote;
        __syncthreads();
        for (u32 warp = 0; warp < blockDim.x / 32 && at < width; ++warp) {
            for (u32 left = votes[warp]; left != 0; left &= left - 1) {
                // The lowest set bit.
                const int same = start + warp * 32 + __popc((left & (0u - left)) - 1);
                read(values, dx + static_cast<long long>(same) * width + at, width - at);
                for (int i = 0; i < LANES; ++i) sums[i] += values[i];
            }
        }
        __syncthreads();
    }
    if (at < width) write(gradient + at, sums, width - at);
}

// Adds the gradients of the tokens at each place of a sequence to the positions' gradient, `[sequence, width]`, a block a place, sequence by sequence.
extern "C" __global__ void positions_backward(float* gradient, const stored* dx, int batch, int sequence, int width) {
    const int place = blockIdx.x;
    gradient += static_cast<long long>(place) * width;
    for (int at = threadIdx.x * LANES; at < width; at += blockDim.x * LANES) {
        float sums[LANES], values[LANES];
        read(sums, gradient + at, width - at);
        for (int index = 0; index < batch; ++index) {
            read(values, dx + (static_cast<long long>(index) * sequence + place) * width + at, width - at);
            for (int i = 0; i < LANES; ++i) sums[i] += values[i];
        }
        write(gradient + at, sums, width - at);
    }
}
