// TokenChoiceList: how the tokens of a step are chosen, as a device's sampler takes it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "lockstep/device/token_sampler.hpp"
#include "lockstep/model/sampler.hpp"

namespace lockstep::model {

/// Biases, forbidden tokens and counted tokens of a step, at most: with penalties a row has as many as its text has different tokens.
inline constexpr std::size_t kLogitChangesMax = std::size_t{1} << 18U;

/// Ownership  copies all that it is given.      Threads  one at a time.      Cost  linear in the changes; no allocation after it is made.
class TokenChoiceList {
 public:
  TokenChoiceList(std::int32_t rows_max, std::size_t changes_max);
  void clear();
  /// False where there is no room for the row or its changes: nothing is added then.
  [[nodiscard]] bool add(const SamplerInput& input, std::int32_t logit_row);

  [[nodiscard]] std::span<const device::TokenChoice> choices() const { return choices_; }
  [[nodiscard]] std::span<const device::LogitChange> changes() const { return changes_; }

 private:
  std::vector<device::TokenChoice> choices_;
  std::vector<device::LogitChange> changes_;
};

}  // namespace lockstep::model
