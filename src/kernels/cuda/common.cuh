// What all kernels share: the stored type and its conversions, accesses of 16 bytes, reductions over warps and blocks.
//
// STORED_BF16 chooses how activations lie in memory: bf16 where it is 1, f32 where it is 0 (the mode for checks). All arithmetic is f32.
// The same sources are compiled by NVRTC for a device and, in the tests, by a C++17 compiler for the host, where
// tests/it/kernels/shim/shim.h stands in for the device.
#pragma once

#ifndef STORED_BF16
#error "STORED_BF16 must be 0 or 1"
#endif

#ifndef DYNAMIC_SHARED
// The shared memory whose size the launch says.
#define DYNAMIC_SHARED(type, name)                                  \
    extern __shared__ __align__(16) unsigned char dynamic_shared[]; \
    type* name = reinterpret_cast<type*>(dynamic_shared)
#endif

typedef unsigned int u32;

// The upper half of an f32. There is no cuda_bf16.h under NVRTC alone.
struct bf16 {
    unsigned short bits;
};

#if STORED_BF16
typedef bf16 stored;
#else
typedef float stored;
#endif

__device__ inline float widen(float value) { return value; }

__device__ inline float widen(bf16 value) { return __uint_as_float(static_cast<u32>(value.bits) << 16); }

__device__ inline void narrow(float value, float& to) { to = value; }

// Rounds to the nearest, ties to even. NaN stays NaN.
__device__ inline void narrow(float value, bf16& to) {
    const u32 bits = __float_as_uint(value);
    const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
    const u32 rounded = nan ? (bits | 0x400000u) : bits + 0x7fffu + ((bits >> 16) & 1u);
    to.bits = static_cast<unsigned short>(rounded >> 16);
}

// How many elements of the stored type one thread takes at once: 16 bytes of them.
constexpr int LANES = 16 / static_cast<int>(sizeof(stored));

// 16 bytes that are moved by one instruction.
template <class T>
struct alignas(16) Pack {
    T at[16 / sizeof(T)];
};

__device__ inline bool aligned(const void* pointer) {
    return (reinterpret_cast<unsigned long long>(pointer) & 15u) == 0;
}

// Reads LANES elements, of which `left` exist; the others become `fill`. By 16 bytes where alignment and length allow.
template <class T>
__device__ inline void read(float (&to)[LANES], const T* from, long long left, float fill = 0.0f) {
    constexpr int each = 16 / static_cast<int>(sizeof(T));
    if (left >= LANES && aligned(from)) {
        constexpr int size = each < LANES ? each : LANES;
#pragma unroll
        for (int pack = 0; pack < LANES / size; ++pack) {
            const Pack<T> packed = reinterpret_cast<const Pack<T>*>(from)[pack];
#pragma unroll
            for (int i = 0; i < size; ++i) to[pack * size + i] = widen(packed.at[i]);
        }
    } else {
#pragma unroll
        for (int i = 0; i < LANES; ++i) to[i] = i < left ? widen(from[i]) : fill;
    }
}

// Writes the first `left` of LANES elements, by 16 bytes where alignment and length allow.
template <class T>
__device__ inline void write(T* to, const float (&from)[LANES], long long left) {
    constexpr int each = 16 / static_cast<int>(sizeof(T));
    if (left >= LANES && aligned(to)) {
        constexpr int size = each < LANES ? each : LANES;
#pragma unroll
        for (int pack = 0; pack < LANES / size; ++pack) {
            Pack<T> packed;
#pragma unroll
            for (int i = 0; i < size; ++i) narrow(from[pack * size + i], packed.at[i]);
            reinterpret_cast<Pack<T>*>(to)[pack] = packed;
        }
    } else {
#pragma unroll
        for (int i = 0; i < LANES; ++i) {
            if (i < left) narrow(from[i], to[i]);
        }
    }
}

constexpr u32 WHOLE_WARP = 0xffffffffu;

__device__ inline float negative_infinity() { return __uint_as_float(0xff800000u); }

struct Add {
    __device__ float operator()(float left, float right) const { return left + right; }
    __device__ static float neutral() { return 0.0f; }
};

struct Larger {
    __device__ float operator()(float left, float right) const { return left < right ? right : left; }
    __device__ static float neutral() { return negative_infinity(); }
};

// Combines `width` neighbouring lanes of a warp, a power of two; every lane has the result. The order is that of a butterfly, so bits repeat.
template <class Op>
__device__ inline float over_lanes(float value, int width, Op op) {
    for (int distance = width / 2; distance > 0; distance /= 2) {
        value = op(value, __shfl_xor_sync(WHOLE_WARP, value, distance));
    }
    return value;
}

// Combines all threads of a one-dimensional block of whole warps; every thread has the result. Warps join in their order.
template <class Op>
__device__ inline float over_block(float value, Op op) {
    __shared__ float of_warp[32];
    value = over_lanes(value, 32, op);
    // The last use of the array may still be read.
    __syncthreads();
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
    __syncthreads();
    float total = Op::neutral();
    for (u32 warp = 0; warp < blockDim.x / 32; ++warp) total = op(total, of_warp[warp]);
    return total;
}
