// The noise by which tokens are drawn.
#pragma once

#include <cstdint>

namespace lockstep::model {

/// Uniform in [0, 1), 53 bits, from (seed, position) alone.
[[nodiscard]] double uniform_noise(std::uint64_t seed, std::int64_t position);

}  // namespace lockstep::model
