// runtime/engines/noise.cu as C++ for the processor, for test_noise_kernel.py.
#include <cmath>

#define __device__
#define __global__
#define __forceinline__ inline

struct Index {
    unsigned x, y;
};
static Index blockIdx, blockDim, threadIdx;

static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned __int128)a * b >> 64;
}

static inline void sincospi(double x, double *sine, double *cosine) {
    const long double angle = 3.14159265358979323846264338327950288L * x;
    *sine = std::sin(angle);
    *cosine = std::cos(angle);
}

#include "noise.cu"

// Execute the kernel, one thread after the other.
extern "C" void launch(
    u32 blocks, u32 rows, u32 threads, float *out, const u64 *seeds, u64 draw, u32 count, float sigma) {
    blockDim.x = threads;
    for (blockIdx.y = 0; blockIdx.y < rows; ++blockIdx.y)
        for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x)
            for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x)
                normal(out, seeds, draw, count, sigma);
}

// The four words of a counter.
extern "C" void words(u64 *out, u64 counter, u64 seed, u64 draw) {
    const Words w = philox(counter, seed, draw);
    for (int i = 0; i < 4; ++i) out[i] = w.word[i];
}
