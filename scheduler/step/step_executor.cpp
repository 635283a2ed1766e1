#include "scheduler/step/step_executor.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "lockstep/core/check.hpp"

namespace lockstep::scheduler {

namespace {

/// A stream's own tasks carry the deadlines; waiting for the streams themselves needs no other.
constexpr Duration kNoLimit = Duration::max();

/// What a rank that has given its part to the collective waits for.
comm::StepPhase phase_of(Stage collective) {
  return collective == Stage::kDispatch ? comm::StepPhase::kDispatching : comm::StepPhase::kCombining;
}

}  // namespace

Result<std::unique_ptr<StepExecutor>> StepExecutor::create(const StepExecutorParts& parts, const StepExecutorOptions& options) {
  std::unique_ptr<StepExecutor> executor(new StepExecutor(parts, options));  // the constructor is private
  LOCKSTEP_RETURN_IF_ERROR(executor->allocate());
  return executor;
}

Status StepExecutor::allocate() {
  const model::ModelConfig& config = *parts_.config;
  inline_stream_ = parts_.device->make_inline_stream("step");
  if (options_.micro_batches_max > 1) {
    LOCKSTEP_ASSIGN_OR_RETURN(compute_stream_, parts_.device->make_stream("compute"));
    LOCKSTEP_ASSIGN_OR_RETURN(comm_stream_, parts_.device->make_stream("comm"));
  }
  for (std::int32_t count = 1; count <= options_.micro_batches_max; ++count) {
    programs_.push_back(build_step_program(config.layer_is_sparse, count));
  }
  spans_.emplace(programs_.back().size());
  micro_batches_.resize(static_cast<std::size_t>(options_.micro_batches_max));
  for (MicroBatch& micro_batch : micro_batches_) {
    for (std::int32_t layer = 0; layer < config.layer_count; ++layer) {
      micro_batch.by_layer.emplace(parts_.transformer->layer_name(layer), &micro_batch.metadata);
    }
    for (std::size_t i = 0; i < static_cast<std::size_t>(StepEvent::kCount); ++i) {
      micro_batch.events.push_back(parts_.device->make_event());
    }
    if (config.expert_count > 0) {
      LOCKSTEP_ASSIGN_OR_RETURN(micro_batch.exchange,
                                comm::ExpertExchange::create(*parts_.communicator, *parts_.view, *parts_.placement,
                                                             {.hidden = config.hidden_size, .top_k = config.experts_per_token, .rows_max = options_.rows_max}));
    }
  }
  return {};
}

void StepExecutor::narrow(const comm::StepPlan& plan, const StepBatch& batch) {
  step_metadata_.assign(parts_.view->my_index, plan.tokens_per_member);
  const std::int32_t size = std::max(plan.micro_batch_tokens, 1);
  std::size_t next_sample = 0;
  for (std::int32_t index = 0; index < plan.micro_batches; ++index) {
    MicroBatch& micro_batch = micro_batches_[static_cast<std::size_t>(index)];
    const std::int32_t begin = std::min(index * size, batch.rows());
    const std::int32_t end = std::min(begin + size, batch.rows());
    const device::PagedRows all{
        .positions = batch.positions, .sequences = batch.sequences, .block_tables = batch.block_tables, .blocks_per_table = batch.blocks_per_table};
    micro_batch.metadata.rows = all.slice(static_cast<std::size_t>(begin), static_cast<std::size_t>(end));
    micro_batch.metadata.token_ids = std::span(batch.token_ids).subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
    step_metadata_.chunk_into(index, size, micro_batch.dp_metadata);
    micro_batch.sample_rows.clear();
    micro_batch.first_logit_row = static_cast<std::int32_t>(next_sample);
    for (; next_sample < batch.sample_rows.size() && batch.sample_rows[next_sample] < end; ++next_sample) {
      micro_batch.sample_rows.push_back(batch.sample_rows[next_sample] - begin);
    }
    const bool uniform = batch.prefill_tokens == 0;
    micro_batch.context = create_forward_context({.attn_metadata = &micro_batch.by_layer,
                                                  .num_tokens = end - begin,
                                                  .batch_descriptor = BatchDescriptor{.num_tokens = size, .uniform = uniform},
                                                  .dp_metadata = &micro_batch.dp_metadata,
                                                  .cudagraph_runtime_mode = plan.graph_mode,
                                                  .timing_tracker = parts_.timing_tracker});
    costs_.nonempty_micro_batches += end > begin ? 1 : 0;
  }
}

Status StepExecutor::run(const comm::StepPlan& plan, const StepBatch& batch, StepCosts& costs) {
  LOCKSTEP_CHECK(plan.micro_batches >= 1 && plan.micro_batches <= options_.micro_batches_max, "plan of {} micro-batches, prepared for {}", plan.micro_batches,
                 options_.micro_batches_max);
  step_ = plan.step;
  open_collective_ = nullptr;
  costs_ = {};
  std::uint64_t wire_bytes_before = 0;
  std::uint64_t crossed_rows_before = 0;
  for (const MicroBatch& micro_batch : micro_batches_) {
    wire_bytes_before += micro_batch.exchange ? micro_batch.exchange->wire_bytes_total() : 0;
    crossed_rows_before += micro_batch.exchange ? micro_batch.exchange->crossed_rows_total() : 0;
  }
  narrow(plan, batch);
  // One micro-batch has nothing to overlap with: inline, no thread hop.
  const bool threaded = plan.micro_batches > 1;
  device::Stream& compute = threaded ? *compute_stream_ : *inline_stream_;
  device::Stream& comm = threaded ? *comm_stream_ : *inline_stream_;
  const std::vector<ProgramEntry>& program = programs_[static_cast<std::size_t>(plan.micro_batches - 1)];
  spans_->start(program);
  inline_end_ = SteadyClock::instance().now();
  for (const ProgramEntry& entry : program) {
    MicroBatch& micro_batch = micro_batches_[static_cast<std::size_t>(entry.micro_batch)];
    device::Stream& stream = entry.stream == StreamRole::kCompute ? compute : comm;
    if (threaded && entry.wait != StepEvent::kNone) {
      stream.wait_for(*micro_batch.events[static_cast<std::size_t>(entry.wait)]);
    }
    stream.enqueue([this, &entry, &stream] { return execute_timed(entry, stream); });
    if (threaded && entry.record != StepEvent::kNone) {
      stream.record(*micro_batch.events[static_cast<std::size_t>(entry.record)]);
    }
  }
  // The comm stream first: the error of a collective names its cause better than the compute stream's wait for it.
  Status comm_status = threaded ? comm.synchronize(Deadline::after(kNoLimit)) : Status{};
  Status compute_status = compute.synchronize(Deadline::after(kNoLimit));
  LOCKSTEP_RETURN_IF_ERROR(std::move(comm_status));
  LOCKSTEP_RETURN_IF_ERROR(std::move(compute_status));
  for (const MicroBatch& micro_batch : micro_batches_) {
    costs_.wire_bytes += micro_batch.exchange ? micro_batch.exchange->wire_bytes_total() : 0;
    costs_.crossed_rows += micro_batch.exchange ? micro_batch.exchange->crossed_rows_total() : 0;
  }
  costs_.exchange_times = spans_->exchange_times();
  if (parts_.observer != nullptr) {
    spans_->tell(*parts_.observer, step_, threaded);
  }
  costs_.wire_bytes -= wire_bytes_before;
  costs_.crossed_rows -= crossed_rows_before;
  costs = costs_;
  return {};
}

Status StepExecutor::execute_timed(const ProgramEntry& entry, device::Stream& stream) {
  // Inline, an entry begins when the one before it ends: reading the clock is most of what a span costs.
  const bool is_inline = &stream == inline_stream_.get();
  const TimePoint begin = is_inline ? inline_end_ : SteadyClock::instance().now();
  Status status = execute(entry, stream);
  const TimePoint end = SteadyClock::instance().now();
  spans_->set(entry, begin, end);
  if (is_inline) {
    inline_end_ = end;
  }
  return status;
}

Status StepExecutor::execute(const ProgramEntry& entry, device::Stream& stream) {
  MicroBatch& micro_batch = micro_batches_[static_cast<std::size_t>(entry.micro_batch)];
  model::Transformer& transformer = *parts_.transformer;
  const set_forward_context scope(micro_batch.context);
  show(entry);
  switch (entry.stage) {
    case Stage::kEmbed:
      transformer.embed(entry.micro_batch, stream);
      return {};
    case Stage::kAttention:
      transformer.attention(entry.micro_batch, entry.layer, parts_.cache->layer(entry.layer), stream);
      if (transformer.is_sparse(entry.layer)) {
        transformer.route(entry.micro_batch, entry.layer, stream);
      }
      return {};
    case Stage::kDense:
      transformer.dense(entry.micro_batch, entry.layer, stream);
      return {};
    case Stage::kDispatch:
      return dispatch(entry, micro_batch);
    case Stage::kExperts:
      transformer.experts(entry.layer, micro_batch.exchange->received(), micro_batch.exchange->outputs(), stream);
      return {};
    case Stage::kCombine:
      return combine(entry, micro_batch);
    case Stage::kWeigh:
      transformer.combine(entry.micro_batch, micro_batch.exchange->combined(), stream);
      return {};
    case Stage::kHead:
      transformer.head(entry.micro_batch, micro_batch.sample_rows, micro_batch.first_logit_row, stream);
      return {};
  }
  return Error{ErrorCode::kInternal, fmt::format("step {}: unknown stage {}", step_, static_cast<int>(entry.stage))};
}

void StepExecutor::show(const ProgramEntry& entry) {
  const std::scoped_lock lock(progress_mutex_);
  if (open_collective_ == nullptr) {
    parts_.progress->advance(step_, entry.layer, comm::StepPhase::kComputing);
    return;
  }
  // What the other micro-batch computes meanwhile only ticks: a rank held up in a collective must not look like one that is busy itself.
  parts_.progress->advance(step_, open_collective_->layer, phase_of(open_collective_->stage));
}

void StepExecutor::open_collective(const ProgramEntry& entry) {
  const std::scoped_lock lock(progress_mutex_);
  open_collective_ = &entry;
  parts_.progress->advance(step_, entry.layer, phase_of(entry.stage));
}

void StepExecutor::close_collective(const ProgramEntry& entry) {
  const std::scoped_lock lock(progress_mutex_);
  open_collective_ = nullptr;
  parts_.progress->advance(step_, entry.layer, comm::StepPhase::kComputing);
}

void StepExecutor::announce(CollectiveKind kind, const ProgramEntry& entry) {
  if (parts_.observer != nullptr) {
    parts_.observer->on_collective({.kind = kind, .step = step_, .layer = entry.layer, .micro_batch = entry.micro_batch});
  }
}

Error StepExecutor::in_collective(Error error, const ProgramEntry& entry) const {
  error.message = fmt::format("{} of step {}, layer {}, micro-batch {}: {}", stage_name(entry.stage), step_, entry.layer, entry.micro_batch, error.message);
  return error;
}

Status StepExecutor::dispatch(const ProgramEntry& entry, MicroBatch& micro_batch) {
  announce(CollectiveKind::kDispatch, entry);
  const comm::ExchangePosition position{.step = step_, .layer = entry.layer, .micro_batch = entry.micro_batch};
  Status status = micro_batch.exchange->start_dispatch(position, micro_batch.dp_metadata, parts_.transformer->routed_rows(entry.micro_batch),
                                                       parts_.transformer->routed_experts(entry.micro_batch));
  if (!status) {
    return in_collective(std::move(status).error(), entry);
  }
  open_collective(entry);
  LOCKSTEP_RETURN_IF_ERROR(micro_batch.exchange->finish_dispatch(Deadline::after(options_.stall_timeout, parts_.watch)));  // says itself where it stood
  close_collective(entry);
  return {};
}

Status StepExecutor::combine(const ProgramEntry& entry, MicroBatch& micro_batch) {
  announce(CollectiveKind::kCombine, entry);
  Status status = micro_batch.exchange->start_combine();
  if (!status) {
    return in_collective(std::move(status).error(), entry);
  }
  open_collective(entry);
  LOCKSTEP_RETURN_IF_ERROR(micro_batch.exchange->finish_combine(Deadline::after(options_.stall_timeout, parts_.watch)));  // says itself where it stood
  close_collective(entry);
  return {};
}

}  // namespace lockstep::scheduler
