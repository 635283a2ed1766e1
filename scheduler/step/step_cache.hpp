// StepCache: the steps that are prepared, by the shape that their ranks agreed on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "lockstep/forward_context.hpp"
#include "scheduler/step/step_program.hpp"

namespace lockstep::scheduler {

/// The shape that a step with `rows` rows on this rank is prepared for: rows padded to a power of two, so that there are few. `decodes`: each request has one
/// row. Nothing is computed for the padding on hosts, whose products take rows as they come.
[[nodiscard]] BatchDescriptor step_shape(std::int32_t rows, bool decodes);

/// What is prepared for one shape.
struct PreparedStep {
  std::vector<std::span<const ProgramEntry>> programs;  ///< by number of micro-batches - 1
};

/// Everything is prepared when it is made, so that a step only looks up: programs, which shapes share. Graphs of them are StepGraphs' affair.
/// Threads  immutable.      Cost  one look-up a step.
class StepCache {
 public:
  StepCache(std::span<const std::uint8_t> layer_is_sparse, std::int32_t rows_max, std::int32_t micro_batches_max, RowTravel travel = RowTravel::kExchange);
  StepCache(const StepCache&) = delete;
  StepCache& operator=(const StepCache&) = delete;
  /// The prepared step of `shape`, whose rows are at most rows_max, padded.      Errors  none: another shape is a bug of ours (LOCKSTEP_CHECK).
  [[nodiscard]] const PreparedStep& find(const BatchDescriptor& shape) const;
  [[nodiscard]] std::size_t size() const { return steps_.size(); }
  [[nodiscard]] std::span<const ProgramEntry> program(std::int32_t micro_batches) const { return programs_[static_cast<std::size_t>(micro_batches - 1)]; }
  /// Of the longest program.
  [[nodiscard]] std::size_t entries_max() const { return programs_.back().size(); }

 private:
  std::vector<std::vector<ProgramEntry>> programs_;  ///< by number of micro-batches - 1
  std::unordered_map<BatchDescriptor, PreparedStep> steps_;
};

}  // namespace lockstep::scheduler
