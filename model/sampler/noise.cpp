#include "model/sampler/noise.hpp"

namespace lockstep::model {

namespace {

/// SplitMix64's finalizer: a bijection that spreads every input bit.      Source  Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
std::uint64_t mix(std::uint64_t value) {
  value = (value ^ (value >> 30U)) * 0xbf58476d1ce4e5b9ULL;
  value = (value ^ (value >> 27U)) * 0x94d049bb133111ebULL;
  return value ^ (value >> 31U);
}

}  // namespace

double uniform_noise(std::uint64_t seed, std::int64_t position) {
  constexpr std::uint64_t kGoldenGamma = 0x9e3779b97f4a7c15ULL;
  const std::uint64_t word = mix(mix(seed + kGoldenGamma) + static_cast<std::uint64_t>(position + 1) * kGoldenGamma);
  return static_cast<double>(word >> 11U) * 0x1.0p-53;
}

}  // namespace lockstep::model
