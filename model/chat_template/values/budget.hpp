// Budget: what one rendering may use.
#pragma once

#include <cstddef>
#include <cstdint>

#include "lockstep/core/result.hpp"

namespace lockstep::model::chat {

inline constexpr std::size_t kTextBytesMax = 16U << 20U;          ///< of the output, and of every text on the way
inline constexpr std::uint64_t kAllocatedBytesMax = 512U << 20U;  ///< of all values made during a rendering together
inline constexpr std::uint64_t kStepsMax = 5'000'000;             ///< expressions, elements and comparisons: below a second
inline constexpr int kCallDepthMax = 800;                         ///< nested expressions, statements and macro calls: what fits a thread's stack
inline constexpr int kValueDepthMax = 100;                        ///< lists in lists: repr, tojson, comparison and destruction recurse

/// Counts down what a rendering may use.      Threads  one rendering's.
class Budget {
 public:
  /// One unit of work, or `count`.
  [[nodiscard]] Status step(std::uint64_t count = 1) {
    steps_ += count;
    if (steps_ > kStepsMax) {
      return Error{ErrorCode::kInvalidArgument, "the chat template takes too many steps for this conversation: shorten it"};
    }
    return {};
  }
  /// Before a value of this size is made: also bounds the time that copies take.
  [[nodiscard]] Status allocate(std::size_t bytes) {
    allocated_ += bytes;
    if (bytes > kTextBytesMax) {
      return Error{ErrorCode::kInvalidArgument, "the chat template makes a value of more than 16 MiB: shorten the conversation"};
    }
    if (allocated_ > kAllocatedBytesMax) {
      return Error{ErrorCode::kInvalidArgument, "the chat template makes values of more than 512 MiB in all: shorten the conversation"};
    }
    return {};
  }

 private:
  std::uint64_t steps_ = 0;
  std::uint64_t allocated_ = 0;
};

}  // namespace lockstep::model::chat
