// Passes over one row of logits, written so that the compiler makes vector code of them on every machine.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

namespace lockstep::model {

inline constexpr std::size_t kRowLanes = 16;

/// The largest number of `row`; -infinity where there is none. NaN is never larger.
inline float largest_of(std::span<const float> row) {
  float lanes[kRowLanes];
  for (float& lane : lanes) {
    lane = -std::numeric_limits<float>::infinity();
  }
  std::size_t i = 0;
  for (; i + kRowLanes <= row.size(); i += kRowLanes) {
    for (std::size_t lane = 0; lane < kRowLanes; ++lane) {
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

/// e^x for x <= 0, within 2e-7 of it relatively; 0 below e^-87, and for -infinity and NaN.
inline float exp_of_negative(float x) {
  constexpr float kLowest = -87.0F;  // e^-87 is still a normal float
  constexpr float kLog2OfE = 1.44269504088896341F;
  constexpr float kLn2High = 0.693145751953125F;  // 16 significant bits: times the power it is exact
  constexpr float kLn2Low = 1.42860682030941723e-6F;
  const float bounded = x > kLowest ? x : kLowest;
  const auto power = static_cast<std::int32_t>(bounded * kLog2OfE - 0.5F);
  const float power_value = static_cast<float>(power);
  const float r = (bounded - power_value * kLn2High) - power_value * kLn2Low;  // |r| <= ln(2) / 2: the series' next term is 5e-9
  const float series = 1.0F + r * (1.0F + r * (1.0F / 2 + r * (1.0F / 6 + r * (1.0F / 24 + r * (1.0F / 120 + r * (1.0F / 720 + r * (1.0F / 5040)))))));
  const auto scale = std::bit_cast<float>((power + 127) << 23);
  return x > kLowest ? series * scale : 0.0F;
}

/// weights[i] = e^((logits[i] - logit_max) * scale).
inline void exponentials(std::span<const float> logits, float logit_max, float scale, float* weights) {
  const float* row = logits.data();
  for (std::size_t i = 0; i < logits.size(); ++i) {
    weights[i] = exp_of_negative((row[i] - logit_max) * scale);
  }
}

/// In double, in a fixed order.
inline double sum_of(std::span<const float> weights) {
  constexpr std::size_t kLanes = 4;
  double lanes[kLanes] = {};
  std::size_t i = 0;
  for (; i + kLanes <= weights.size(); i += kLanes) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      lanes[lane] += static_cast<double>(weights[i + lane]);
    }
  }
  for (; i < weights.size(); ++i) {
    lanes[0] += static_cast<double>(weights[i]);
  }
  return (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
}

}  // namespace lockstep::model
