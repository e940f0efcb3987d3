// Stands in for a device, so that a C++17 compiler can compile the kernels for the host: blocks run one after the other, the threads of a
// block are fibers of one thread, which change over where they wait for each other.
//
// What it checks beyond the results: a barrier or a warp function that not all threads reach is an error, not a hang; dynamic shared memory
// starts as NaN in every block; fibers run in ascending or descending order, so that a missing barrier changes the result.
#pragma once

#include <math.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <ucontext.h>

#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __shared__ static thread_local
#define __align__(n) alignas(n)
#define __launch_bounds__(...)

namespace shim {

struct Index {
    unsigned x, y, z;
};

enum class State { Ready, AtBarrier, AtWarp, Done };
enum class Kind { None, Shuffle, Ballot, Multiply, Load };

constexpr size_t STACK = 128 * 1024;

struct Fiber {
    ucontext_t start;
    jmp_buf place;
    bool begun;
    State state;
    Index thread;
    unsigned linear;
    // Warp functions called so far, and what the last two were handed.
    uint64_t calls;
    Kind kinds[2];
    uint32_t values[2];
    // Of tensor cores: four words of a left factor and two of a right one; or where a row begins.
    uint32_t factors[2][6];
    const void* rows[2];
    // Copies to shared memory that were begun and not waited for.
    std::vector<std::pair<void*, const void*>> copies;
};

struct Block {
    Index grid, dimensions, index;
    std::vector<Fiber> fibers;
    std::unique_ptr<char[]> stacks;
    std::vector<float> dynamic;
    Fiber* current;
    jmp_buf scheduler;
    void (*kernel)(void**);
    void** arguments;
    const char* error;
};

inline thread_local Block* block = nullptr;

// Goes back to the scheduler; returns when this fiber is called up again.
__attribute__((noinline)) inline void leave(State state) {
    Block* own = block;
    own->current->state = state;
    if (_setjmp(own->current->place) == 0) _longjmp(own->scheduler, 1);
}

inline void fail(const char* message) {
    if (!block->error) block->error = message;
    for (;;) leave(State::Done);
}

enum class Warp { Waits, Here, Torn };

// Whether every lane of a fiber's warp has called as often, and the same.
inline Warp warp(const Fiber& own) {
    const unsigned first = own.linear / 32 * 32, place = (own.calls - 1) % 2;
    for (unsigned lane = first; lane < first + 32; ++lane) {
        const Fiber& other = block->fibers[lane];
        if (other.calls < own.calls) return Warp::Waits;
        if (other.kinds[place] != own.kinds[place]) return Warp::Torn;
    }
    return Warp::Here;
}

// Hands a value to the warp and waits for the others'. Two places take turns: whoever calls again has seen that all have called.
inline unsigned meet(unsigned mask, Kind kind, uint32_t value) {
    if (mask != 0xffffffffu) fail("a warp function is called for a part of a warp");
    Fiber& own = *block->current;
    const unsigned place = own.calls % 2;
    own.values[place] = value;
    own.kinds[place] = kind;
    ++own.calls;
    while (warp(own) == Warp::Waits) leave(State::AtWarp);
    if (warp(own) == Warp::Torn) fail("the lanes of a warp call different warp functions");
    return place;
}

inline uint32_t handed(unsigned place, unsigned lane) {
    return block->fibers[block->current->linear / 32 * 32 + lane].values[place];
}

inline const Fiber& neighbour(unsigned lane) { return block->fibers[block->current->linear / 32 * 32 + lane]; }

inline float upper(uint32_t pair, unsigned which) {
    const uint32_t word = which ? pair & 0xffff0000u : pair << 16;
    float value;
    memcpy(&value, &word, sizeof value);
    return value;
}

inline void enter() {
    block->kernel(block->arguments);
    for (;;) leave(State::Done);
}

__attribute__((noinline)) inline void resume(Fiber& fiber) {
    Block* own = block;
    own->current = &fiber;
    if (_setjmp(own->scheduler) == 0) {
        if (fiber.begun) _longjmp(fiber.place, 1);
        fiber.begun = true;
        setcontext(&fiber.start);
    }
}

inline void begin(Block& own) {
    const float nan = __builtin_nanf("");
    for (float& value : own.dynamic) value = nan;
    for (unsigned i = 0; i < own.fibers.size(); ++i) {
        Fiber& fiber = own.fibers[i];
        const Index& sides = own.dimensions;
        fiber.begun = false;
        fiber.state = State::Ready;
        fiber.linear = i;
        fiber.calls = 0;
        fiber.copies.clear();
        fiber.thread = {i % sides.x, i / sides.x % sides.y, i / sides.x / sides.y};
        getcontext(&fiber.start);
        fiber.start.uc_stack.ss_sp = own.stacks.get() + i * STACK;
        fiber.start.uc_stack.ss_size = STACK;
        fiber.start.uc_link = nullptr;
        makecontext(&fiber.start, enter, 0);
    }
}

inline unsigned count(const Block& own, State state) {
    unsigned found = 0;
    for (const Fiber& fiber : own.fibers) found += fiber.state == state;
    return found;
}

// Runs a block to its end, or to the first error.
inline void run(Block& own, bool descending) {
    begin(own);
    const unsigned all = own.fibers.size();
    while (!own.error && count(own, State::Done) < all) {
        uint64_t before = 0, after = 0;
        for (const Fiber& fiber : own.fibers) before += fiber.calls;
        const unsigned ready = count(own, State::Ready);
        for (unsigned i = 0; i < all && !own.error; ++i) {
            Fiber& fiber = own.fibers[descending ? all - 1 - i : i];
            if (fiber.state == State::Ready || fiber.state == State::AtWarp) resume(fiber);
        }
        if (own.error || count(own, State::Done) == all) return;
        for (const Fiber& fiber : own.fibers) after += fiber.calls;
        if (count(own, State::AtBarrier) == all) {
            for (Fiber& fiber : own.fibers) fiber.state = State::Ready;
        } else if (ready == 0 && before == after) {
            const bool warps = count(own, State::AtWarp) > 0;
            bool moved = false;
            // A warp whose last lane arrived in this round goes on in the next.
            for (Fiber& fiber : own.fibers) {
                moved = moved || (fiber.state == State::AtWarp && warp(fiber) != Warp::Waits);
            }
            if (!moved) own.error = warps ? "not all lanes of a warp reach a warp function" : "not all threads of a block reach a barrier";
        }
    }
}

template <class... Arguments, size_t... I>
void unpack(void (*kernel)(Arguments...), void** arguments, std::index_sequence<I...>) {
    kernel(*static_cast<Arguments*>(arguments[I])...);
}

// Calls a kernel with arguments as a launch hands them over: a pointer to each.
template <class... Arguments>
void call(void (*kernel)(Arguments...), void** arguments) {
    unpack(kernel, arguments, std::index_sequence_for<Arguments...>());
}

// Runs all blocks of a launch. Returns what went wrong, or null.
inline const char* launch(void (*kernel)(void**), const unsigned* grid, const unsigned* dimensions, unsigned shared,
                          void** arguments, bool descending) {
    const unsigned threads = dimensions[0] * dimensions[1] * dimensions[2];
    if (threads == 0 || threads > 1024 || threads % 32 != 0) return "a block has no whole number of warps";
    if (shared > 227 * 1024) return "more shared memory than a device has";
    Block own = {};
    own.grid = {grid[0], grid[1], grid[2]};
    own.dimensions = {dimensions[0], dimensions[1], dimensions[2]};
    own.fibers.resize(threads);
    own.stacks.reset(new char[threads * STACK]);
    own.dynamic.resize(shared / 4 + 4);
    own.kernel = kernel;
    own.arguments = arguments;
    block = &own;
    const unsigned long long blocks = 1ull * grid[0] * grid[1] * grid[2];
    for (unsigned long long turn = 0; turn < blocks && !own.error; ++turn) {
        const unsigned long long i = descending ? blocks - 1 - turn : turn;
        own.index = {unsigned(i % grid[0]), unsigned(i / grid[0] % grid[1]), unsigned(i / grid[0] / grid[1])};
        run(own, descending);
    }
    block = nullptr;
    return own.error;
}

template <class To, class From>
To bits(From value) {
    To result;
    memcpy(&result, &value, sizeof result);
    return result;
}

inline float* dynamic() {
    const uintptr_t start = reinterpret_cast<uintptr_t>(block->dynamic.data());
    return reinterpret_cast<float*>((start + 15) / 16 * 16);
}

}  // namespace shim

#define DYNAMIC_SHARED(type, name) type* name = reinterpret_cast<type*>(shim::dynamic())
#define threadIdx (shim::block->current->thread)
#define blockIdx (shim::block->index)
#define blockDim (shim::block->dimensions)
#define gridDim (shim::block->grid)

inline void __syncthreads() { shim::leave(shim::State::AtBarrier); }

inline float __shfl_xor_sync(unsigned mask, float value, int distance) {
    const unsigned place = shim::meet(mask, shim::Kind::Shuffle, shim::bits<uint32_t>(value));
    return shim::bits<float>(shim::handed(place, (shim::block->current->linear % 32) ^ unsigned(distance)));
}

inline float __shfl_sync(unsigned mask, float value, int lane) {
    const unsigned place = shim::meet(mask, shim::Kind::Shuffle, shim::bits<uint32_t>(value));
    return shim::bits<float>(shim::handed(place, unsigned(lane) % 32));
}

inline unsigned __ballot_sync(unsigned mask, int predicate) {
    const unsigned place = shim::meet(mask, shim::Kind::Ballot, predicate != 0);
    unsigned votes = 0;
    for (unsigned lane = 0; lane < 32; ++lane) votes |= shim::handed(place, lane) << lane;
    return votes;
}

inline int __popc(unsigned value) { return __builtin_popcount(value); }
inline unsigned __float_as_uint(float value) { return shim::bits<uint32_t>(value); }
inline float __uint_as_float(unsigned value) { return shim::bits<float>(uint32_t(value)); }
inline int min(int left, int right) { return left < right ? left : right; }
inline int max(int left, int right) { return left < right ? right : left; }

#define TENSOR_CORES

// The layouts are those of tensor.cuh; sums are taken in the order of the inner side.
inline void tensor_multiply(float (&sums)[4], const unsigned (&left)[4], unsigned first, unsigned second) {
    shim::Fiber& own = *shim::block->current;
    const unsigned next = own.calls % 2, lane = own.linear % 32;
    for (int i = 0; i < 4; ++i) own.factors[next][i] = left[i];
    own.factors[next][4] = first, own.factors[next][5] = second;
    const unsigned place = shim::meet(0xffffffffu, shim::Kind::Multiply, 0);
    for (unsigned i = 0; i < 4; ++i) {
        const unsigned row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        for (unsigned k = 0; k < 16; ++k) {
            const unsigned of_left = shim::neighbour(row % 8 * 4 + k % 8 / 2).factors[place][row / 8 + k / 8 * 2];
            const unsigned of_right = shim::neighbour(column * 4 + k % 8 / 2).factors[place][4 + k / 8];
            sums[i] += shim::upper(of_left, k % 2) * shim::upper(of_right, k % 2);
        }
    }
}

inline unsigned tensor_rows(const void* row) {
    if (reinterpret_cast<uintptr_t>(row) % 16) shim::fail("a row of a matrix is not aligned to 16 bytes");
    shim::Fiber& own = *shim::block->current;
    own.rows[own.calls % 2] = row;
    return shim::meet(0xffffffffu, shim::Kind::Load, 0);
}

inline void tensor_load(unsigned (&to)[4], const void* row) {
    const unsigned place = tensor_rows(row), lane = shim::block->current->linear % 32;
    for (unsigned matrix = 0; matrix < 4; ++matrix) {
        const char* from = static_cast<const char*>(shim::neighbour(matrix * 8 + lane / 4).rows[place]);
        memcpy(&to[matrix], from + lane % 4 * 4, 4);
    }
}

inline void tensor_load_turned(unsigned (&to)[4], const void* row) {
    const unsigned place = tensor_rows(row), lane = shim::block->current->linear % 32;
    for (unsigned matrix = 0; matrix < 4; ++matrix) {
        uint16_t pair[2];
        for (unsigned i = 0; i < 2; ++i) {
            const char* from = static_cast<const char*>(shim::neighbour(matrix * 8 + lane % 4 * 2 + i).rows[place]);
            memcpy(&pair[i], from + lane / 4 * 2, 2);
        }
        to[matrix] = pair[0] | uint32_t(pair[1]) << 16;
    }
}

inline unsigned tensor_pair(float first, float second) {
    const auto half = [](float value) {
        const uint32_t bits = shim::bits<uint32_t>(value);
        return ((bits & 0x7fffffffu) > 0x7f800000u ? bits | 0x400000u : bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    };
    return half(first) | half(second) << 16;
}

// Nothing is copied before it is waited for.
inline void copy_begin(void* to, const void* from) {
    if (reinterpret_cast<uintptr_t>(to) % 16 || reinterpret_cast<uintptr_t>(from) % 16) shim::fail("a copy is not aligned to 16 bytes");
    shim::block->current->copies.push_back({to, from});
}

inline void copies_wait() {
    auto& copies = shim::block->current->copies;
    for (const auto& copy : copies) memcpy(copy.first, copy.second, 16);
    copies.clear();
}
