// LocalExperts: the experts of a device, computed without the host knowing which rows they get.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "lockstep/core/bfloat16.hpp"
#include "lockstep/device/ops.hpp"
#include "lockstep/device/stream.hpp"

namespace lockstep::device {

/// This device's experts of one layer; none where a layer has no experts.
struct ExpertWeights {
  std::span<const WeightHandle> gate_up;  ///< [own experts], each [2 * width, hidden]
  std::span<const WeightHandle> down;     ///< [own experts], each [hidden, width]
};

/// Who of the members, each with a device of its own, computes what for whom. One member alone: everything is its own.
struct ExpertShares {
  std::int32_t members = 1;
  std::int32_t me = 0;
  std::vector<std::int32_t>
      local_index;  ///< [members, experts]: place in ExpertWeights of the one that computes an expert for a member here; -1: another member
  std::vector<std::int32_t> computed_by;  ///< [experts]: the member that computes them for rows of this one
};

struct LocalExpertsOptions {
  std::vector<ExpertWeights> layers;  ///< borrowed: weights outlive the object
  ExpertShares shares;
  std::int64_t hidden = 0;
  std::int64_t width = 0;
  std::int64_t rows_max = 0;  ///< of one member
  int top_k = 0;
};

/// What Ops::route has left of some rows, in the device's memory.
struct ChosenExperts {
  std::int64_t rows = 0;                     ///< the same on all members
  std::span<const std::int32_t> positions;   ///< [rows], in graph inputs; negative: padding, which no expert gets. Not looked at by a member alone
  const BFloat16* x = nullptr;               ///< [rows, hidden]
  const std::int32_t* expert_ids = nullptr;  ///< [rows, top_k], ascending within a row
  const float* weights = nullptr;            ///< [rows, top_k]
};

/// A block of one size for each member, in the device's memory; where the own one is within `receive`, it is to stay there.
struct MemberBlocks {
  const std::byte* send = nullptr;
  std::byte* receive = nullptr;  ///< [members]
  std::size_t bytes = 0;         ///< of one block
};

/// Groups rows by expert on the device, so that no host waits to learn how many each has, and a graph can hold all of it. Made by Ops::make_local_experts.
/// A member alone calls `compute`. Others call `pack`, bring everyone's block to everyone, call `compute_gathered`, bring each member its block, and call
/// `weigh`: blocks have the size of the most that can be in them, as nobody knows what is. Either way the bits are those of grouped_matmul, silu_mul,
/// grouped_matmul, to_bfloat16 and weigh_and_sum.
/// Ownership  scratch memory and blocks, which one such round uses at a time.      Threads  as Ops.      Cost  no allocation once made.
/// Errors     none: more rows than rows_max are our bug (LOCKSTEP_CHECK).
class LocalExperts {
 public:
  virtual ~LocalExperts() = default;
  LocalExperts(const LocalExperts&) = delete;
  LocalExperts& operator=(const LocalExperts&) = delete;
  /// out[r] += the weighed sum of what the experts of row r give.      Shape  out [rows, hidden].
  virtual void compute(Stream& stream, std::size_t layer, const ChosenExperts& chosen, float* out) = 0;
  /// Writes this member's block, which is the own one of `receive`.      Returns  what is to be gathered.
  virtual MemberBlocks pack(Stream& stream, const ChosenExperts& chosen) = 0;
  /// Computes this device's experts for the rows of all members.      Returns  what is to be exchanged: a block for each member, a block from each.
  virtual MemberBlocks compute_gathered(Stream& stream, std::size_t layer, std::int64_t rows) = 0;
  /// out[r] += the weighed sum of what has come back; nothing for padding.      Shape  out [rows, hidden].
  virtual void weigh(Stream& stream, const ChosenExperts& chosen, float* out) = 0;
  /// That one round with so many rows sends to other members.
  [[nodiscard]] virtual std::size_t sent_bytes(std::int64_t rows) const = 0;

 protected:
  LocalExperts() = default;
};

}  // namespace lockstep::device
