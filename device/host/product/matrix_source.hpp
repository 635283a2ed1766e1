// Reading a model file's matrix as float32.
#pragma once

#include <cstdint>

#include "lockstep/device/ops.hpp"

namespace lockstep::device::host {

/// Row `row` of `source` as float32, exactly.      out [source.columns].
void read_row(const MatrixSource& source, std::int64_t row, float* out);

}  // namespace lockstep::device::host
