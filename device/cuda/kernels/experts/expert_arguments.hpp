// What kernels that bring rows to experts are given; pointers are the device's.
#pragma once

#include <cstdint>

#include "lockstep/core/bfloat16.hpp"

namespace lockstep::device::cuda {

/// What rows of some members, as many of each, have chosen. A choice's number: member, row, which of the row's, in this order.
struct ExpertChoices {
  const BFloat16* x = nullptr;                ///< [rows, hidden] of the first member
  std::int64_t x_stride = 0;                  ///< values from one member's to the next one's
  const std::int32_t* expert_ids = nullptr;   ///< [rows, top_k] of the first member; -1: none
  std::int64_t id_stride = 0;                 ///< ids from one member's to the next one's
  const std::int32_t* local_index = nullptr;  ///< [members, expert_count]: which of this device's experts computes that for a member; -1: none
  int members = 1;
  int rows = 0;
  int top_k = 0;
  int expert_count = 0;
};

/// What experts gave for rows of this member, as it has come back.
struct ReturnedRows {
  const BFloat16* returned = nullptr;         ///< [rows, top_k, hidden] of the first member that computes
  std::int64_t member_stride = 0;             ///< values from one member's to the next one's
  const std::int32_t* expert_ids = nullptr;   ///< [rows, top_k]; -1 for all of a row: it has none
  const std::int32_t* computed_by = nullptr;  ///< [expert_count]: member
  const float* weights = nullptr;             ///< [rows, top_k]
  int rows = 0;
  int top_k = 0;
};

/// A row of this member on its way to all: [rows, hidden] and [rows, top_k].
struct PackedRows {
  BFloat16* rows = nullptr;
  std::int32_t* expert_ids = nullptr;
};

}  // namespace lockstep::device::cuda
