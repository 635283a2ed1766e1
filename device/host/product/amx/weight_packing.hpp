// Weights of a model file made into tiles.
#pragma once

#include "device/host/kernels/kernels.hpp"
#include "device/host/product/weight_memory.hpp"
#include "lockstep/device/ops.hpp"

namespace lockstep::device::host {

/// `source` as tiles in `memory`: packed where that makes reading it faster, which large weights with the usual spread of exponents are; plain otherwise.
/// Products are the same, bit for bit.      Errors  kResourceExhausted.      Cost  reads the source once, and a part of it twice.
[[nodiscard]] Result<WeightHandle> pack_weight(const MatrixSource& source, const Kernels& kernels, WeightMemory& memory);

}  // namespace lockstep::device::host
