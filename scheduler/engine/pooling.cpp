#include "scheduler/engine/pooling.hpp"

#include <cmath>
#include <cstddef>

#include "lockstep/core/check.hpp"

namespace lockstep::scheduler {

void add_row(std::span<const BFloat16> row, std::span<float> sum) {
  LOCKSTEP_CHECK(row.size() == sum.size(), "a row of {} into a sum of {}", row.size(), sum.size());
  for (std::size_t i = 0; i < row.size(); ++i) {
    sum[i] += static_cast<float>(row[i]);
  }
}

bool scale_to_length_one(std::span<float> vector) {
  double squares = 0;  // one after the other, in double: the same on every machine
  for (const float value : vector) {
    squares += static_cast<double>(value) * static_cast<double>(value);
  }
  if (!(squares > 0) || !std::isfinite(squares)) {
    return false;
  }
  const double length = std::sqrt(squares);
  for (float& value : vector) {
    value = static_cast<float>(static_cast<double>(value) / length);
  }
  return true;
}

}  // namespace lockstep::scheduler
