// RowMath: passes over one row of logits, in the widest vectors that this machine has.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

namespace lockstep::model {

/// How logits become weights.
struct WeightScale {
  float logit_max = 0.0F;
  float inverse_temperature = 1.0F;
  float rounding_addend = 0.0F;  ///< see device::weight_rounding_addend
};

/// One implementation. All give the same bits: no multiply-add is fused, and sums run in an order that the source fixes.
struct RowMath {
  std::string_view name;
  /// The largest number of `row`; -infinity where there is none. NaN is never larger.
  float (*largest)(std::span<const float> row);
  /// weights[i] = e^((logits[i] - logit_max) * scale) for scale > 0 and logits up to logit_max, within 2e-7 of it relatively; 0 below e^-87, for -infinity and
  /// for NaN. Then rounded to (w + rounding_addend) - rounding_addend: not at all where that is 0. `weights` has room for as many.
  void (*exponentials)(std::span<const float> logits, const WeightScale& scale, float* weights);
  /// In double.
  double (*sum)(std::span<const float> weights);
};

/// Those that this machine can run, widest first; the last runs everywhere.
[[nodiscard]] std::span<const RowMath> row_math_implementations();
/// The first of them.
[[nodiscard]] inline const RowMath& row_math() {
  return row_math_implementations().front();
}

}  // namespace lockstep::model
