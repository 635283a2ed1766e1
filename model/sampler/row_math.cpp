// The bodies below are compiled once for each width: they are written so that the compiler makes vector code of them. -ffp-contract=off (sources.cmake) keeps
// their bits the same.
#include "model/sampler/row_math.hpp"

#include <array>
#include <bit>
#include <cstdint>
#include <limits>

namespace lockstep::model {
namespace {

[[gnu::always_inline]] inline float largest_body(std::span<const float> row) {
  constexpr std::size_t kLanes = 64;
  std::array<float, kLanes> lanes;
  lanes.fill(-std::numeric_limits<float>::infinity());
  std::size_t i = 0;
  for (; i + kLanes <= row.size(); i += kLanes) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      lanes[lane] = row[i + lane] > lanes[lane] ? row[i + lane] : lanes[lane];
    }
  }
  for (; i < row.size(); ++i) {
    lanes[0] = row[i] > lanes[0] ? row[i] : lanes[0];
  }
  float largest = lanes[0];
  for (const float lane : lanes) {
    largest = lane > largest ? lane : largest;
  }
  return largest;
}

[[gnu::always_inline]] inline float exp_of_negative(float x) {
  constexpr float kLowest = -87.0F;  // e^-87 is still a normal float
  constexpr float kLog2OfE = 1.44269504088896341F;
  constexpr float kLn2High = 0.693145751953125F;  // 16 significant bits: times the power it is exact
  constexpr float kLn2Low = 1.42860682030941723e-6F;
  // Masks and no branches, which would keep the loop from being vector code.
  const auto counts = -static_cast<std::int32_t>(x > kLowest);
  const auto bounded = std::bit_cast<float>((std::bit_cast<std::int32_t>(x) & counts) | (std::bit_cast<std::int32_t>(kLowest) & ~counts));
  const auto power = static_cast<std::int32_t>(bounded * kLog2OfE - 0.5F);
  const auto power_value = static_cast<float>(power);
  const float r = (bounded - power_value * kLn2High) - power_value * kLn2Low;  // |r| <= ln(2) / 2: the series' next term is 5e-9
  const float series = 1.0F + r * (1.0F + r * (1.0F / 2 + r * (1.0F / 6 + r * (1.0F / 24 + r * (1.0F / 120 + r * (1.0F / 720 + r * (1.0F / 5040)))))));
  const auto scale = std::bit_cast<float>((power + 127) << 23);
  return std::bit_cast<float>(std::bit_cast<std::int32_t>(series * scale) & counts);
}

[[gnu::always_inline]] inline void exponentials_body(std::span<const float> logits, const WeightScale& scale, float* weights) {
  const float* row = logits.data();
  const std::size_t count = logits.size();
  const auto [logit_max, inverse_temperature, rounding_addend] = scale;  // copies: `weights` might be part of it, for all that the compiler knows
  for (std::size_t i = 0; i < count; ++i) {
    weights[i] = (exp_of_negative((row[i] - logit_max) * inverse_temperature) + rounding_addend) - rounding_addend;
  }
}

[[gnu::always_inline]] inline double sum_body(std::span<const float> weights) {
  constexpr std::size_t kLanes = 16;
  std::array<double, kLanes> lanes{};
  std::size_t i = 0;
  for (; i + kLanes <= weights.size(); i += kLanes) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      lanes[lane] += static_cast<double>(weights[i + lane]);
    }
  }
  for (; i < weights.size(); ++i) {
    lanes[0] += static_cast<double>(weights[i]);
  }
  double sum = 0.0;
  for (const double lane : lanes) {
    sum += lane;
  }
  return sum;
}

float largest_baseline(std::span<const float> row) {
  return largest_body(row);
}
void exponentials_baseline(std::span<const float> logits, const WeightScale& scale, float* weights) {
  exponentials_body(logits, scale, weights);
}
double sum_baseline(std::span<const float> weights) {
  return sum_body(weights);
}

[[gnu::target("avx2")]] float largest_avx2(std::span<const float> row) {
  return largest_body(row);
}
[[gnu::target("avx2")]] void exponentials_avx2(std::span<const float> logits, const WeightScale& scale, float* weights) {
  exponentials_body(logits, scale, weights);
}
[[gnu::target("avx2")]] double sum_avx2(std::span<const float> weights) {
  return sum_body(weights);
}

constexpr std::array kImplementations{
    RowMath{.name = "avx2", .largest = largest_avx2, .exponentials = exponentials_avx2, .sum = sum_avx2},
    RowMath{.name = "baseline", .largest = largest_baseline, .exponentials = exponentials_baseline, .sum = sum_baseline},
};

}  // namespace

std::span<const RowMath> row_math_implementations() {
  static const std::size_t first = __builtin_cpu_supports("avx2") ? 0 : 1;
  return std::span(kImplementations).subspan(first);
}

}  // namespace lockstep::model
