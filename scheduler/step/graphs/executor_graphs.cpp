// What of StepExecutor is about graphs.
#include <algorithm>

#include <fmt/format.h>

#include "scheduler/step/step_executor.hpp"

namespace lockstep::scheduler {

void StepExecutor::capture_graphs() {
  if (!graphs_ || captures_collectives()) {
    return;
  }
  for (StepGraphs::Shape& shape : graphs_->shapes()) {
    note_failure(capture(shape, cache_->program(1)));
  }
}

void StepExecutor::note_failure(Status captured) {
  if (!captured && graph_failure_.empty()) {
    graph_failure_ = std::move(captured).error().message;
  }
}

bool StepExecutor::captures_collectives() const {
  return graphs_ && parts_.view->size() > 1 && parts_.transformer->has_local_experts();
}

Status StepExecutor::capture_collectives() {
  LOCKSTEP_ASSIGN_OR_RETURN(collectives_, parts_.communicator->device_messages()->open_collectives(deadline()));
  bool all_can = true;
  for (StepGraphs::Shape& shape : graphs_->shapes()) {
    if (all_can) {
      note_failure(capture(shape, program_within_devices_));
      shape.collective = true;
      shape.traffic = collectives_->take_captured();
      // Before the next one: what one rank ran without another would wait for it.
      auto mode = static_cast<std::int32_t>(shape.mode);
      LOCKSTEP_RETURN_IF_ERROR(reduce_to_least(std::span(&mode, 1)));
      all_can = mode == static_cast<std::int32_t>(GraphMode::kFull);
    }
    if (!all_can) {
      shape.collective = false;
      note_failure(capture(shape, cache_->program(1)));
    }
  }
  return {};
}

Status StepExecutor::capture(StepGraphs::Shape& shape, std::span<const ProgramEntry> program) {
  MicroBatch& micro_batch = micro_batches_.front();
  micro_batch.metadata = graphs_->metadata(shape.rows);
  micro_batch.sample_rows = graphs_->sample_rows(shape.rows);
  micro_batch.first_logit_row = 0;
  micro_batch.wants_hidden = false;
  const std::vector<std::int32_t> tokens(static_cast<std::size_t>(parts_.view->size()), shape.rows);
  step_metadata_.assign(parts_.view->my_index, tokens);
  step_context_ = create_forward_context({.num_tokens = shape.rows,
                                          .batch_descriptor = BatchDescriptor{.num_tokens = shape.rows, .uniform = true},
                                          .dp_metadata = &step_metadata_,
                                          .cudagraph_runtime_mode = options_.graphs.most,
                                          .timing_tracker = parts_.timing_tracker});
  split_->reset(MicroBatchSplit{.batch_size = shape.rows, .micro_batch_size = shape.rows, .num_micro_batches = 1});
  const set_forward_context context(step_context_);
  const MicroBatches::Scope scope = split_->scope(0);
  return graphs_->capture(shape, program, inline_streams_->compute_stream(0).stream(),
                          [this](const ProgramEntry& entry, device::Stream& stream) { return compute(entry, stream); });
}

Status StepExecutor::agree_graphs() {
  if (!graphs_) {
    return {};  // on all members: the device and the options are in the configuration hash
  }
  if (captures_collectives()) {
    LOCKSTEP_RETURN_IF_ERROR(capture_collectives());
  }
  std::vector<std::int32_t> modes;
  for (const StepGraphs::Shape& shape : graphs_->shapes()) {
    modes.push_back(static_cast<std::int32_t>(shape.mode));
  }
  LOCKSTEP_RETURN_IF_ERROR(reduce_to_least(modes));
  for (std::size_t i = 0; i < modes.size(); ++i) {
    graphs_->shapes()[i].mode = static_cast<GraphMode>(modes[i]);
  }
  return {};
}

Status StepExecutor::reduce_to_least(std::span<std::int32_t> values) {
  LOCKSTEP_ASSIGN_OR_RETURN(const comm::Ticket ticket, parts_.communicator->start_all_reduce(values, comm::ReduceOp::kMin));
  return parts_.communicator->wait(ticket, values, deadline());
}

Status StepExecutor::launch(StepGraphs::Shape& shape, device::Graph& graph, device::Stream& stream) {
  if (!shape.collective) {
    graph.launch(stream);
    return {};
  }
  exchanges_run_ = true;
  return collectives_->launch(graph, shape.traffic, stream, deadline());
}

void StepExecutor::count_collectives(std::int32_t rows) {
  const auto layers = static_cast<std::uint64_t>(std::ranges::count(parts_.config->layer_is_sparse, std::uint8_t{1}));
  costs_.wire_bytes += layers * parts_.transformer->local_experts_sent_bytes(rows);
  costs_.crossed_rows += layers * static_cast<std::uint64_t>(rows) * static_cast<std::uint64_t>(parts_.view->size() - 1);
}

GraphSummary StepExecutor::graph_summary() const {
  GraphSummary summary;
  summary.failure = graph_failure_;
  for (const StepGraphs::Shape& shape : graphs_ ? graphs_->shapes() : std::span<StepGraphs::Shape>{}) {
    ++summary.shapes;
    summary.full += shape.mode == GraphMode::kFull ? 1 : 0;
    summary.piecewise += shape.mode == GraphMode::kPiecewise ? 1 : 0;
  }
  return summary;
}

std::string to_string(const GraphSummary& summary) {
  if (summary.shapes == 0) {
    return {};
  }
  std::string text = fmt::format("CUDA graphs for {} sizes of decode steps: {} as one graph, {} as graphs between the exchanges, {} without", summary.shapes,
                                 summary.full, summary.piecewise, summary.shapes - summary.full - summary.piecewise);
  if (!summary.failure.empty()) {
    text += fmt::format("; this rank could not capture: {}", summary.failure);
  }
  return text;
}

GraphMode StepExecutor::propose_graph_mode(const StepBatch& batch) const {
  const bool plain = std::ranges::none_of(batch.entries, [](const StepBatch::Entry& entry) { return entry.pools || entry.scores; });
  return graphs_ && batch.prefill_tokens == 0 && plain ? options_.graphs.most : GraphMode::kNone;
}

StepGraphs::Shape* StepExecutor::prepare_graphs(const comm::StepPlan& plan, const StepBatch& batch) {
  // Agreed numbers decide, so that all members do the same.
  if (!graphs_ || plan.graph_mode == GraphMode::kNone || plan.micro_batches != 1 || plan.prefill_tokens_total > 0) {
    return nullptr;
  }
  StepGraphs::Shape* const shape = graphs_->find(step_metadata_.max_tokens());
  // Without rows there is nothing to launch, but for what other ranks wait for.
  const bool launches = shape != nullptr && (shape->collective ? plan.graph_mode == GraphMode::kFull : batch.rows() > 0);
  if (!launches) {
    return nullptr;
  }
  graphs_->fill(batch, shape->rows);
  return shape;
}

}  // namespace lockstep::scheduler
