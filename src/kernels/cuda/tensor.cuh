// What a warp's tensor cores do, and copies to shared memory that go on by themselves: sm_80 and newer. In the tests the shim stands in.
//
// A thread is lane 4 * g + t of its warp. Of a 16 x 16 left factor it holds four pairs of neighbours in a row: rows g and g + 8 of columns 2t, then
// the same of columns 8 + 2t. Of a 16 x 8 right factor two pairs of neighbours in a column: column g, rows 2t and 8 + 2t. Of a 16 x 8 result, f32:
// row g, columns 2t and 2t + 1, then row g + 8. (PTX ISA, mma.m16n8k16 and ldmatrix.)
#pragma once
#include "common.cuh"

#ifndef TENSOR_CORES

// sums += left * right.
__device__ inline void tensor_multiply(float (&sums)[4], const u32 (&left)[4], u32 first, u32 second) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
                 : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(first), "r"(second));
}

// Four 8 x 8 matrices in shared memory; lane i says where row i % 8 of matrix i / 8 begins. A thread gets row g, columns 2t and 2t + 1 of each.
__device__ inline void tensor_load(u32 (&to)[4], const void* row) {
    const u32 at = static_cast<u32>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(at)
                 : "memory");
}

// The same with each matrix turned: column g, rows 2t and 2t + 1.
__device__ inline void tensor_load_turned(u32 (&to)[4], const void* row) {
    const u32 at = static_cast<u32>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(at)
                 : "memory");
}

// Two numbers as bf16, the first in the lower half.
__device__ inline u32 tensor_pair(float first, float second) {
    u32 pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
    return pair;
}

// 16 bytes from memory to shared memory, both aligned; they are there after `copies_wait`.
__device__ inline void copy_begin(void* to, const void* from) {
    const u32 at = static_cast<u32>(__cvta_generic_to_shared(to));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(at), "l"(from) : "memory");
}

// Waits for all copies that this thread has begun.
__device__ inline void copies_wait() { asm volatile("cp.async.wait_all;" ::: "memory"); }

#endif
