// The Gaussian noise of bcm-edge: the same seeds give the same images as in Python, up to rounding.
#include <cmath>
#include <cstdint>
#include <vector>

constexpr uint64_t START = 0, INVERSION = uint64_t{1} << 32;  // draws of a seed; 1, 2, … are injections

// `count` or more numbers in (0, 1) from Philox4x64-10 with the key (seed, draw).
inline std::vector<double> uniform(uint64_t seed, uint64_t draw, size_t count) {
  using Wide = unsigned __int128;  // of GCC and Clang
  std::vector<double> numbers;
  for (uint64_t block = 1; numbers.size() < count; block++) {
    uint64_t a = block, b = 0, c = 0, d = 0, k = seed, l = draw;
    for (int round = 0; round < 10; round++, k += 0x9E3779B97F4A7C15, l += 0xBB67AE8584CAA73B) {
      const Wide p = Wide{0xD2E7470EE14C6C93} * a, q = Wide{0xCA5A826395121157} * c;
      a = uint64_t(q >> 64) ^ b ^ k, b = uint64_t(q), c = uint64_t(p >> 64) ^ d ^ l, d = uint64_t(p);
    }
    for (uint64_t word : {a, b, c, d}) numbers.push_back((double(word >> 11) + 0.5) / 0x1p53);
  }
  return numbers;
}

using Seeds = std::vector<int64_t>;  // the bits of unsigned 64-bit integers

// scale * z with z ~ N(0, 1): `size` values for each seed.
inline std::vector<float> gaussian(const Seeds& seeds, uint64_t draw, size_t size, float scale) {
  std::vector<float> values;
  for (int64_t seed : seeds) {
    const size_t half = (size + 1) / 2;
    const auto random = uniform(uint64_t(seed), draw, 2 * half);
    for (size_t i = 0; i < size; i++) {
      const double radius = std::sqrt(-2 * std::log(random[i % half]));
      const double angle = 2 * M_PI * random[half + i % half];
      values.push_back(scale * float(radius * (i < half ? std::cos(angle) : std::sin(angle))));
    }
  }
  return values;
}
