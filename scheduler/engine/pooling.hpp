// The arithmetic of embeddings: sums of hidden states, and their direction.
#pragma once

#include <span>

#include "lockstep/core/bfloat16.hpp"

namespace lockstep::scheduler {

/// sum += row. Rows are added one by one in order of position, so that the sum's bits do not depend on chunks, batches or micro-batches.
void add_row(std::span<const BFloat16> row, std::span<float> sum);
/// Divides by the Euclidean length, which makes a mean of a sum too. False, and unchanged, where there is no direction: a length of 0, or none that is finite.
[[nodiscard]] bool scale_to_length_one(std::span<float> vector);

}  // namespace lockstep::scheduler
