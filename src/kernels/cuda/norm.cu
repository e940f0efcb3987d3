// Layer norm (Ba et al. 2016, arXiv:1607.06450) and its gradients; sums of columns, which the biases' gradients are, too.
#include "common.cuh"

// Added to the variance.
constexpr float EPS = 1e-5f;

// y = (x - mean) / deviation * weight + bias, a block a row. Keeps means and inverse deviations, `[2, rows]`.
//
// The row is read three times, but from memory once: it lies in the nearest cache from then on.
extern "C" __global__ void layer_norm_forward(stored* y, float* stats, const stored* x, const float* weight,
                                              const float* bias, int rows, int width) {
    const int row = blockIdx.x;
    x += static_cast<long long>(row) * width;
    y += static_cast<long long>(row) * width;
    const int first = threadIdx.x * LANES, step = blockDim.x * LANES;
    float values[LANES];
    float sum = 0.0f;
    for (int at = first; at < width; at += step) {
        read(values, x + at, width - at);
        for (int i = 0; i < LANES; ++i) sum += values[i];
    }
    const float mean = over_block(sum, Add()) / width;
    float squares = 0.0f;
    for (int at = first; at < width; at += step) {
        read(values, x + at, width - at, mean);
        for (int i = 0; i < LANES; ++i) squares = fmaf(values[i] - mean, values[i] - mean, squares);
    }
    const float inverse = 1.0f / sqrtf(over_block(squares, Add()) / width + EPS);
    for (int at = first; at < width; at += step) {
        float scales[LANES], shifts[LANES];
        read(values, x + at, width - at);
        read(scales, weight + at, width - at);
        read(shifts, bias + at, width - at);
        for (int i = 0; i < LANES; ++i) values[i] = fmaf((values[i] - mean) * inverse, scales[i], shifts[i]);
        write(y + at, values, width - at);
    }
    if (threadIdx.x == 0) {
        stats[row] = mean;
        stats[rows + row] = inverse;
    }
}

// Adds the gradient by x to dx, a block a row.
extern "C" __global__ void layer_norm_backward(stored* dx, const stored* dy, const stored* x, const float* stats,
                                               const float* weight, int rows, int width) {
    const int row = blockIdx.x;
    const long long start = static_cast<long long>(row) * width;
    const float mean = stats[row], inverse = stats[rows + row];
    const int first = threadIdx.x * LANES, step = blockDim.x * LANES;
    float of_x[LANES], of_y[LANES], scales[LANES], sums[LANES];
    float constant = 0.0f, along = 0.0f;
    for (int at = first; at < width; at += step) {
        read(of_x, x + start + at, width - at);
        read(of_y, dy + start + at, width - at);
        read(scales, weight + at, width - at);
        for (int i = 0; i < LANES; ++i) {
            const float gradient = of_y[i] * scales[i];
            constant += gradient;
            along = fmaf(gradient, (of_x[i] - mean) * inverse, along);
        }
    }
    // Projections of the gradient on the constant row and on the normalised row, which the norm removes.
    constant = over_block(constant, Add()) / width;
    along = over_block(along, Add()) / width;
    for (int at = first; at < width; at += step) {
        read(of_x, x + start + at, width - at);
        read(of_y, dy + start + at, width - at);
        read(scales, weight + at, width - at);
        read(sums, dx + start + at, width - at);
        for (int i = 0; i < LANES; ++i) {
            const float normal = (of_x[i] - mean) * inverse;
            sums[i] += inverse * (of_y[i] * scales[i] - constant - normal * along);
        }
        write(dx + start + at, sums, width - at);
    }
}

constexpr int COLUMN_THREADS = 32;
constexpr int ROW_THREADS = 8;

// The sum of a chunk of rows of dy, and with NORM that of dy * normalised x before it: `partial` is `[chunks, width]`, or
// `[2, chunks, width]`. A block of 32 x 8 threads takes 32 * LANES columns of one chunk. Rows are added in a fixed order.
template <bool NORM>
__device__ inline void sum_columns(float* partial, const stored* dy, const stored* x, const float* stats, int rows, int width,
                                   int chunk) {
    __shared__ float shared[NORM ? 2 : 1][ROW_THREADS][COLUMN_THREADS * LANES];
    const int column = (blockIdx.x * COLUMN_THREADS + threadIdx.x) * LANES;
    const int begin = blockIdx.y * chunk, end = min(rows, begin + chunk);
    float plain[LANES] = {}, scaled[LANES] = {}, of_y[LANES], of_x[LANES];
    for (int row = begin + threadIdx.y; row < end && column < width; row += ROW_THREADS) {
        const long long place = static_cast<long long>(row) * width + column;
        read(of_y, dy + place, width - column);
        if (NORM) read(of_x, x + place, width - column);
        for (int i = 0; i < LANES; ++i) {
            plain[i] += of_y[i];
            if (NORM) scaled[i] = fmaf(of_y[i], (of_x[i] - stats[row]) * stats[rows + row], scaled[i]);
        }
    }
    for (int i = 0; i < LANES; ++i) {
        shared[0][threadIdx.y][threadIdx.x * LANES + i] = NORM ? scaled[i] : plain[i];
        if (NORM) shared[NORM ? 1 : 0][threadIdx.y][threadIdx.x * LANES + i] = plain[i];
    }
    __syncthreads();
    const int threads = COLUMN_THREADS * ROW_THREADS, own = threadIdx.y * COLUMN_THREADS + threadIdx.x;
    for (int at = own; at < COLUMN_THREADS * LANES; at += threads) {
        const int place = blockIdx.x * COLUMN_THREADS * LANES + at;
        for (int which = 0; which < (NORM ? 2 : 1) && place < width; ++which) {
            float sum = 0.0f;
            for (int row = 0; row < ROW_THREADS; ++row) sum += shared[which][row][at];
            partial[(static_cast<long long>(which) * gridDim.y + blockIdx.y) * width + place] = sum;
        }
    }
}

// The shares of chunks of rows in the gradients of a norm's weight, then of its bias: `[2, chunks, width]`.
extern "C" __global__ void layer_norm_partial(float* partial, const stored* dy, const stored* x, const float* stats,
                                              int rows, int width, int chunk) {
    sum_columns<true>(partial, dy, x, stats, rows, width, chunk);
}

// The shares of chunks of rows in the gradient of a bias: `[chunks, width]`.
extern "C" __global__ void bias_partial(float* partial, const stored* dy, int rows, int width, int chunk) {
    sum_columns<false>(partial, dy, nullptr, nullptr, rows, width, chunk);
}

// Adds the chunks' shares to a gradient, first to last.
extern "C" __global__ void column_collect(float* gradient, const float* partial, int chunks, int width) {
    const int column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= width) return;
    float sum = 0.0f;
    for (int chunk = 0; chunk < chunks; ++chunk) sum += partial[static_cast<long long>(chunk) * width + column];
    gradient[column] += sum;
}
