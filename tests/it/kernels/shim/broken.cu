// Kernels that the shim must refuse: barriers and warp functions that not all threads reach, and a race.
extern "C" __global__ void half_a_barrier(float* out) {
    if (threadIdx.x < 32) __syncthreads();
    out[threadIdx.x] = 1.0f;
}

extern "C" __global__ void half_a_warp(float* out) {
    if (threadIdx.x % 32 < 16) out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1.0f, 1);
}

extern "C" __global__ void torn_warp(float* out) {
    if (threadIdx.x % 32 < 16) {
        out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1.0f, 1);
    } else {
        out[threadIdx.x] = __ballot_sync(0xffffffffu, 1);
    }
}

extern "C" __global__ void no_barrier(float* out) {
    DYNAMIC_SHARED(float, shared);
    shared[threadIdx.x] = threadIdx.x;
    out[threadIdx.x] = shared[(threadIdx.x + 1) % blockDim.x];
}

extern "C" __global__ void with_barrier(float* out) {
    DYNAMIC_SHARED(float, shared);
    shared[threadIdx.x] = threadIdx.x;
    __syncthreads();
    out[threadIdx.x] = shared[(threadIdx.x + 1) % blockDim.x] + __shfl_sync(0xffffffffu, float(threadIdx.x), 3);
}
