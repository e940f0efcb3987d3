// What touches every element once: GELU and its slope, biases, Adam.
#include "common.cuh"

// GELU in its tanh form (Hendrycks & Gimpel 2016, arXiv:1606.08415), written with the logistic function:
// 0.5 x (1 + tanh u) = x σ(2u), u = √(2/π) (x + 0.044715 x³).
constexpr float TWICE_ROOT = 1.595769f;
constexpr float CUBIC = 0.044715f;

__device__ inline float logistic(float x) { return 1.0f / (1.0f + expf(-x)); }

// The first of a thread's LANES elements.
__device__ inline long long own_place() {
    return (static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x) * LANES;
}

// y = gelu(x), `[count]`.
extern "C" __global__ void gelu_forward(stored* y, const stored* x, long long count) {
    const long long at = own_place();
    if (at >= count) return;
    float values[LANES];
    read(values, x + at, count - at);
    for (int i = 0; i < LANES; ++i) {
        const float value = values[i];
        values[i] = value * logistic(TWICE_ROOT * value * fmaf(CUBIC * value, value, 1.0f));
    }
    write(y + at, values, count - at);
}

// dy *= gelu'(x), `[count]`.
extern "C" __global__ void gelu_backward(stored* dy, const stored* x, long long count) {
    const long long at = own_place();
    if (at >= count) return;
    float values[LANES], gradients[LANES];
    read(values, x + at, count - at);
    read(gradients, dy + at, count - at);
    for (int i = 0; i < LANES; ++i) {
        const float value = values[i], square = value * value;
        const float gate = logistic(TWICE_ROOT * value * fmaf(CUBIC, square, 1.0f));
        const float slope = TWICE_ROOT * fmaf(3.0f * CUBIC, square, 1.0f);
        gradients[i] *= fmaf(value * slope * (1.0f - gate), gate, gate);
    }
    write(dy + at, gradients, count - at);
}

// y += bias, `[rows, width]`: a block a row. Where the product before it adds the bias itself, this is not launched.
extern "C" __global__ void bias_add(stored* y, const stored* bias, int width) {
    y += static_cast<long long>(blockIdx.x) * width;
    for (int at = threadIdx.x * LANES; at < width; at += blockDim.x * LANES) {
        float values[LANES], shifts[LANES];
        read(values, y + at, width - at);
        read(shifts, bias + at, width - at);
        for (int i = 0; i < LANES; ++i) values[i] += shifts[i];
        write(y + at, values, width - at);
    }
}

// One step of Adam (Kingma & Ba 2015, arXiv:1412.6980) with decoupled weight decay, `[count]`; zeroes the gradient. `rate` is the learning
// rate over the first moment's bias, `root` one over the root of the second's, `keep` what weight decay leaves. `copy`, where there is
// one, gets the values as the passes read them.
extern "C" __global__ void adam(float* value, float* gradient, float* first, float* second, stored* copy, float beta1,
                                float beta2, float rate, float root, float eps, float keep, long long count) {
    const long long at = own_place(), left = count - at;
    if (at >= count) return;
    float values[LANES], gradients[LANES], firsts[LANES], seconds[LANES];
    const float zeros[LANES] = {};
    read(values, value + at, left);
    read(gradients, gradient + at, left);
    read(firsts, first + at, left);
    read(seconds, second + at, left);
    for (int i = 0; i < LANES; ++i) {
        const float g = gradients[i];
        firsts[i] = fmaf(beta1, firsts[i], (1.0f - beta1) * g);
        seconds[i] = fmaf(beta2, seconds[i], (1.0f - beta2) * g * g);
        values[i] = fmaf(keep, values[i], -(rate * firsts[i] / fmaf(sqrtf(seconds[i]), root, eps)));
    }
    write(value + at, values, left);
    write(gradient + at, zeros, left);
    write(first + at, firsts, left);
    write(second + at, seconds, left);
    if (copy) write(copy + at, values, left);
}
