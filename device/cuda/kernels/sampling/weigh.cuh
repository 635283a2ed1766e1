// What a token of a row weighs, in whole numbers, so that sums do not depend on who adds what first.
#pragma once

#include "device/cuda/kernels/device_code.cuh"
#include "lockstep/device/token_sampler.hpp"

namespace lockstep::device::cuda {

/// A weight as a number of multiples of 2^-weight_fraction_bits(vocabulary): all of a row's together have 53 bits at most.
using Units = unsigned long long;

/// The most warps that a block can have.
constexpr int kWarpsMax = 32;

/// One row as its tokens are weighed now: cut after cut, fewer of them are left.
struct WeighedRow {
  const float* logits;
  int count;
  float largest;  ///< of the logits
  float inverse_temperature;
  float rounding_addend;
  float units;             ///< of a weight of 1
  bool is_by_logit;        ///< the order is the logits', else the weights'; of equals the lower id comes first
  bool counts;             ///< each number weighs 1, whatever it is
  float least;             ///< lighter tokens weigh nothing
  std::uint32_t last_key;  ///< tokens after this one, in the order, weigh nothing
  int last_id;
};

struct Weighed {
  std::uint32_t key;  ///< larger ones come first
  Units units;
};

struct Place {
  std::uint32_t key;
  int id;
};

/// How much all tokens up to the wanted one weigh at least.
struct Goal {
  enum Kind { kUnits, kShare, kMoreThanShare };
  Kind kind;
  Units units;  ///< kUnits
  double part;  ///< the others': of what all weigh, less than 1
};

/// The same bits as the host's: model/sampler/row_math.cpp.
__device__ inline float exp_of_negative(float x) {
  if (!(x > -87.0F)) {  // a NaN, too
    return 0.0F;
  }
  const int power = static_cast<int>(x * 1.44269504088896341F - 0.5F);
  const float power_value = static_cast<float>(power);
  const float r = (x - power_value * 0.693145751953125F) - power_value * 1.42860682030941723e-6F;
  const float series = 1.0F + r * (1.0F + r * (1.0F / 2 + r * (1.0F / 6 + r * (1.0F / 24 + r * (1.0F / 120 + r * (1.0F / 720 + r * (1.0F / 5040)))))));
  return series * __uint_as_float(static_cast<std::uint32_t>(power + 127) << 23U);
}

/// Ascending with the logit; the two zeros are one, and a NaN comes last.
__device__ inline std::uint32_t key_of_logit(float logit) {
  if (logit != logit) {
    return 0;
  }
  const std::uint32_t word = __float_as_uint(logit + 0.0F);
  return (word & 0x80000000U) != 0 ? ~word : word | 0x80000000U;
}

__device__ inline Weighed weigh(const WeighedRow& row, int id) {
  const float logit = row.logits[id];
  const float weight = (exp_of_negative((logit - row.largest) * row.inverse_temperature) + row.rounding_addend) - row.rounding_addend;
  Weighed weighed;
  weighed.key = row.is_by_logit ? key_of_logit(logit) : __float_as_uint(weight);
  weighed.units = row.counts ? (logit == logit ? 1 : 0) : static_cast<Units>(weight * row.units);
  const bool is_left = weighed.key > row.last_key || (weighed.key == row.last_key && id <= row.last_id);
  if (!is_left || weight < row.least) {
    weighed.units = 0;
  }
  return weighed;
}

__device__ inline Units units_wanted(const Goal& goal, Units total) {
  if (goal.kind == Goal::kUnits) {
    return goal.units < total ? goal.units : total;
  }
  // The host compares sums with this product in double. They are whole numbers.
  const double part = goal.part * static_cast<double>(total);
  const Units below = static_cast<Units>(part);
  if (goal.kind == Goal::kMoreThanShare) {
    return below + 1;
  }
  const Units reached = static_cast<double>(below) < part ? below + 1 : below;
  return reached > 0 ? reached : 1;
}

}  // namespace lockstep::device::cuda
