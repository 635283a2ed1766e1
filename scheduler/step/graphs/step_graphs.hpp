// StepGraphs: steps of decodes as graphs of the device, captured before the first request for a few sizes each.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lockstep/comm/communicator.hpp"
#include "lockstep/core/deadline.hpp"
#include "lockstep/device/device.hpp"
#include "lockstep/device/graph.hpp"
#include "lockstep/forward_context.hpp"
#include "lockstep/model/transformer.hpp"
#include "scheduler/batch/batch_planner.hpp"
#include "scheduler/step/step_program.hpp"

namespace lockstep::scheduler {

struct StepGraphOptions {
  GraphMode most = GraphMode::kNone;  ///< no shape gets more
  std::int32_t rows_max = 0;          ///< of the largest shape
  std::int32_t blocks_per_table = 0;  ///< as StepBatch's
  const Watch* watch = nullptr;       ///< may end the waits of a capture
};

/// What the ranks have agreed to launch as graphs.
struct GraphSummary {
  std::int32_t shapes = 0;
  std::int32_t full = 0;  ///< of these shapes
  std::int32_t piecewise = 0;
  std::string failure{};  ///< why this rank has captured nothing of some shape; empty: it has captured all
};
/// As a line of the log; empty where there are no shapes.
[[nodiscard]] std::string to_string(const GraphSummary& summary);

/// The sizes that steps of up to `rows_max` rows are captured for: 1, 2, 4, 8, then multiples of 8, and rows_max.
[[nodiscard]] std::vector<std::int32_t> graph_sizes(std::int32_t rows_max);

/// The stages of a step that read nothing of the host but the batch, one run of them after the other as a graph: FULL where that is the whole step, whose rows
/// come to their experts within the devices then; PIECEWISE where exchanges and what reads their rows lie between. A step of fewer rows than its graph's is
/// padded by rows at position -1. Ownership  the graphs and the batch's memory; borrows the device.      Threads  the engine's.      Cost  a step: two copies
/// to the device; no allocation.
class StepGraphs {
 public:
  /// Runs the stage's ops on a stream.
  using Compute = std::function<Status(const ProgramEntry& entry, device::Stream& stream)>;
  struct Stretch {
    std::size_t begin = 0;  ///< entries [begin, end) of the program
    std::size_t end = 0;
    std::unique_ptr<device::Graph> graph;
  };
  /// What is prepared for one size.
  struct Shape {
    std::int32_t rows = 0;
    GraphMode mode = GraphMode::kNone;  ///< agreed on by all ranks
    std::vector<Stretch> stretches;     ///< ascending
    bool collective = false;            ///< there are collectives in the graph: all ranks launch it, those without rows too
    comm::DeviceTraffic traffic{};      ///< of a launch, where it is collective
  };

  /// Null where the device has no graphs, or none are wanted.      Errors  kResourceExhausted.
  [[nodiscard]] static Result<std::unique_ptr<StepGraphs>> create(device::Device& device, const StepGraphOptions& options);

  [[nodiscard]] std::span<Shape> shapes() { return shapes_; }
  /// The smallest shape for so many rows of the rank that has most; null: there is none, or the ranks have agreed on none for it.
  [[nodiscard]] Shape* find(std::int32_t rows);

  /// Runs each stretch of `program` once, then captures it; its mode is what this rank can do then. `compute` finds the batch of metadata(shape.rows).
  /// Errors  the stages' and the device's; the shape has no mode then.
  [[nodiscard]] Status capture(Shape& shape, std::span<const ProgramEntry> program, device::Stream& stream, const Compute& compute);

  /// The first `rows` rows of the batch's memory, as captured stages see them.
  [[nodiscard]] model::BatchMetadata metadata(std::int32_t rows) const;
  [[nodiscard]] std::span<const std::int32_t> sample_rows(std::int32_t rows) const { return column(kSampleRows).first(static_cast<std::size_t>(rows)); }
  /// Writes the batch, padded to `rows`; the last step has ended. From inside a task: enqueues that it comes to the device.
  void fill(const StepBatch& batch, std::int32_t rows);
  void upload(device::Stream& stream, std::int32_t rows);

 private:
  enum Column : std::size_t { kTokenIds, kPositions, kSequences, kSampleRows, kColumns };

  StepGraphs(device::GraphMaker& maker, const StepGraphOptions& options) : maker_(maker), options_(options) {}
  /// [rows_max] of each.
  [[nodiscard]] std::span<std::int32_t> column(Column which) const;
  [[nodiscard]] std::span<std::int32_t> block_tables() const;  ///< [rows_max][blocks_per_table]

  device::GraphMaker& maker_;
  const StepGraphOptions options_;
  std::unique_ptr<device::GraphInputs> inputs_;
  std::vector<Shape> shapes_;       ///< ascending by rows
  std::int32_t tables_filled_ = 0;  ///< of the batch
};

}  // namespace lockstep::scheduler
