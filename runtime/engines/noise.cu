// Noise on the GPU: the same numbers as standard_normal of runtime/noise.py, times sigma.
//
// For the sample of a seed and a draw, Philox4x64-10 with the key (seed, draw) and the counters 1, 2, 3, …
// gives the sequence w[0], w[1], … of 64-bit words, four per counter. These are the words of
// numpy.random.Philox(key=[seed, draw]).random_raw(). With h = ⌈count / 2⌉, for j = 0 … h - 1:
//
//     U(w) = (⌊w / 2¹¹⌋ + ½) / 2⁵³                             uniform in (0, 1), float64
//     z[j]     = √(-2 ln U(w[j])) · cos(2π U(w[h + j]))         float64, rounded to float32
//     z[h + j] = √(-2 ln U(w[j])) · sin(2π U(w[h + j]))         left out for j = h - 1 if count is odd
//
// The words equal numpy's bit for bit. The logarithm, sine and cosine may differ by one rounding of float64,
// which changes a rounding to float32 about once in 10⁸ values.
//
// noise.ptx is this file, compiled by tests/compile_noise.py. The package ships both, and needs no
// compiler. tests/engines/test_noise_kernel.py executes both on the processor.

typedef unsigned int u32;
typedef unsigned long long u64;

struct Words {
    u64 word[4];
};

// The words of one counter (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
__device__ __forceinline__ Words philox(u64 counter, u64 seed, u64 draw) {
    Words w = {{counter, 0, 0, 0}};
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        u64 high0 = __umul64hi(0xD2E7470EE14C6C93ull, w.word[0]), low0 = 0xD2E7470EE14C6C93ull * w.word[0];
        u64 high1 = __umul64hi(0xCA5A826395121157ull, w.word[2]), low1 = 0xCA5A826395121157ull * w.word[2];
        w = {{high1 ^ w.word[1] ^ seed, low1, high0 ^ w.word[3] ^ draw, low0}};
        seed += 0x9E3779B97F4A7C15ull;
        draw += 0xBB67AE8584CAA73Bull;
    }
    return w;
}

// Drop the first word, and put another one at the end.
__device__ __forceinline__ void shift(Words &w, u64 last) {
    w = {{w.word[1], w.word[2], w.word[3], last}};
}

__device__ __forceinline__ double uniform(u64 word) {
    return ((double)(word >> 11) + 0.5) * 0x1p-53;
}

// out: [rows, count]. seeds: [rows]. A row is a y block. A thread computes four j, so the blocks of a row
// need ⌈h / 4⌉ threads or more. count < 2³² - 4.
extern "C" __global__ void normal(float *out, const u64 *seeds, u64 draw, u32 count, float sigma) {
    const u32 half = count / 2 + count % 2;
    const u32 thread = blockIdx.x * blockDim.x + threadIdx.x;
    const u32 first = 4 * thread;
    if (first >= half) return;
    const u64 seed = seeds[blockIdx.y];
    float *row = out + (u64)blockIdx.y * count;

    Words radii = philox((u64)thread + 1, seed, draw);  // w[first], …, w[first + 3]
    // w[half + first] is word half % 4 of its counter, so these words are of two counters.
    const u64 counter = (u64)(half / 4) + thread + 1;
    Words angles = philox(counter, seed, draw);
    if (half % 4) {
        Words next = philox(counter + 1, seed, draw);
        for (u32 lane = 0; lane < half % 4; ++lane) {
            shift(angles, next.word[0]);
            shift(next, 0);
        }
    }

#pragma unroll 1
    for (u32 j = first; j < half && j < first + 4; ++j) {
        const double radius = sqrt(-2.0 * log(uniform(radii.word[0])));
        double sine, cosine;
        sincospi(2.0 * uniform(angles.word[0]), &sine, &cosine);
        row[j] = sigma * (float)(radius * cosine);
        if (half + j < count) row[half + j] = sigma * (float)(radius * sine);
        shift(radii, 0);
        shift(angles, 0);
    }
}
