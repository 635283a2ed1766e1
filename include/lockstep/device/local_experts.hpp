// LocalExperts: the experts of a device that holds all of them, computed without the host knowing which rows they get.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "lockstep/core/bfloat16.hpp"
#include "lockstep/device/ops.hpp"
#include "lockstep/device/stream.hpp"

namespace lockstep::device {

/// Experts of one layer, by id; none where a layer has no experts.
struct ExpertWeights {
  std::span<const WeightHandle> gate_up;  ///< [experts], each [2 * width, hidden]
  std::span<const WeightHandle> down;     ///< [experts], each [hidden, width]
};

struct LocalExpertsOptions {
  std::vector<ExpertWeights> layers;  ///< all with experts alike; borrowed: weights outlive the object
  std::int64_t rows_max = 0;          ///< of one call
  int top_k = 0;
};

/// What Ops::route has left of some rows, in the device's memory.
struct ChosenExperts {
  std::int64_t rows = 0;
  const BFloat16* x = nullptr;               ///< [rows, hidden]
  const std::int32_t* expert_ids = nullptr;  ///< [rows, top_k], ascending within a row
  const float* weights = nullptr;            ///< [rows, top_k]
};

/// Groups rows by expert on the device, so that no host waits to learn how many each has, and a graph can hold all of it. Made by Ops::make_local_experts.
/// Ownership  its scratch memory, which one call uses at a time.      Threads  as Ops.      Cost  no allocation once made.
class LocalExperts {
 public:
  virtual ~LocalExperts() = default;
  LocalExperts(const LocalExperts&) = delete;
  LocalExperts& operator=(const LocalExperts&) = delete;
  /// out[r] += the weighed sum of what the experts of row r give: the bits of grouped_matmul, silu_mul, grouped_matmul, to_bfloat16 and weigh_and_sum.
  /// Shape  out [rows, hidden].      Errors  none: more rows than rows_max are our bug (LOCKSTEP_CHECK).
  virtual void compute(Stream& stream, std::size_t layer, const ChosenExperts& chosen, float* out) = 0;

 protected:
  LocalExperts() = default;
};

}  // namespace lockstep::device
