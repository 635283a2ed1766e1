#include "scheduler/step/step_executor.hpp"

#include <algorithm>
#include <exception>

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
  cache_ = std::make_unique<StepCache>(config.layer_is_sparse, options_.rows_max, options_.micro_batches_max);
  spans_.emplace(cache_->entries_max());
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
  return make_streams();
}

Status StepExecutor::make_streams() {
  const auto context_over = [this](StreamManager& streams) {
    return MicroBatchOptions{.stream_manager = &streams, .adaptive = false, .narrow_attention = [this](const MicroBatchInfo& info) {
                               return static_cast<const AttentionMetadataByLayer*>(&micro_batches_[static_cast<std::size_t>(info.index)].by_layer);
                             }};
  };
  try {
    inline_streams_ =
        std::make_unique<StreamManager>(StreamManagerOptions{.num_compute_streams = 1, .num_comm_streams = 1, .inline_streams = true}, parts_.device);
    inline_split_.emplace(context_over(*inline_streams_));
    if (options_.micro_batches_max > 1) {
      // One of each: a second compute stream would run stages of two micro-batches at once, which share the ops.
      streams_ = std::make_unique<StreamManager>(StreamManagerOptions{.num_compute_streams = 1, .num_comm_streams = 1}, parts_.device);
      threaded_split_.emplace(context_over(*streams_));
    }
  } catch (const std::exception& thrown) {
    return Error{ErrorCode::kResourceExhausted, fmt::format("no streams for --micro-batches {}: {}", options_.micro_batches_max, thrown.what())};
  }
  return {};
}

void StepExecutor::slice(const MicroBatches& split, const StepBatch& batch) {
  const device::PagedRows all{
      .positions = batch.positions, .sequences = batch.sequences, .block_tables = batch.block_tables, .blocks_per_table = batch.blocks_per_table};
  std::size_t next_sample = 0;
  for (std::int32_t index = 0; index < split.num_micro_batches(); ++index) {
    const MicroBatchInfo info = split.info(index);
    MicroBatch& micro_batch = micro_batches_[static_cast<std::size_t>(index)];
    micro_batch.metadata.rows = all.slice(static_cast<std::size_t>(info.start), static_cast<std::size_t>(info.end));
    micro_batch.metadata.token_ids = std::span(batch.token_ids).subspan(static_cast<std::size_t>(info.start), static_cast<std::size_t>(info.size));
    micro_batch.sample_rows.clear();
    micro_batch.first_logit_row = static_cast<std::int32_t>(next_sample);
    for (; next_sample < batch.sample_rows.size() && batch.sample_rows[next_sample] < info.end; ++next_sample) {
      micro_batch.sample_rows.push_back(batch.sample_rows[next_sample] - info.start);
    }
    micro_batch.wants_hidden = std::ranges::any_of(batch.entries, [&info](const StepBatch::Entry& entry) {
      return (entry.pools || entry.scores) && entry.first_row < info.end && entry.first_row + entry.rows > info.start;
    });
    costs_.nonempty_micro_batches += info.size > 0 ? 1 : 0;
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
  step_metadata_.assign(parts_.view->my_index, plan.tokens_per_member);
  // Agreed numbers only: every rank looks up the same shape.
  const BatchDescriptor shape = step_shape(step_metadata_.max_tokens(), plan.prefill_tokens_total == 0);
  step_context_ = create_forward_context({.num_tokens = batch.rows(),
                                          .batch_descriptor = shape,
                                          .dp_metadata = &step_metadata_,
                                          .cudagraph_runtime_mode = plan.graph_mode,
                                          .timing_tracker = parts_.timing_tracker});
  // One micro-batch has nothing to overlap with: inline, no thread hop.
  MicroBatches& split = plan.micro_batches > 1 ? *threaded_split_ : *inline_split_;
  rows_per_micro_batch_ = std::max(plan.micro_batch_tokens, 1);
  split.reset(MicroBatchSplit{.batch_size = batch.rows(), .micro_batch_size = rows_per_micro_batch_, .num_micro_batches = plan.micro_batches});
  slice(split, batch);
  {
    const set_forward_context scope(step_context_);
    LOCKSTEP_RETURN_IF_ERROR(run_program(split, cache_->find(shape)));
  }
  for (const MicroBatch& micro_batch : micro_batches_) {
    costs_.wire_bytes += micro_batch.exchange ? micro_batch.exchange->wire_bytes_total() : 0;
    costs_.crossed_rows += micro_batch.exchange ? micro_batch.exchange->crossed_rows_total() : 0;
  }
  costs_.exchange_times = spans_->exchange_times();
  if (parts_.observer != nullptr) {
    spans_->tell(*parts_.observer, step_, plan.micro_batches > 1);
  }
  costs_.wire_bytes -= wire_bytes_before;
  costs_.crossed_rows -= crossed_rows_before;
  costs = costs_;
  return {};
}

Result<std::int32_t> StepExecutor::make_logits(std::int32_t first_row, std::int32_t rows) {
  const std::int32_t micro_batch = first_row / rows_per_micro_batch_;
  const std::int32_t row = first_row % rows_per_micro_batch_;
  const std::int32_t count = std::min({rows, rows_per_micro_batch_ - row, parts_.transformer->logit_rows_max()});
  device::Stream& stream = inline_streams_->compute_stream(0).stream();
  stream.enqueue([this, micro_batch, row, count, &stream]() -> Status {
    parts_.transformer->head_of_normalized(micro_batch, row, count, stream);
    return {};
  });
  LOCKSTEP_RETURN_IF_ERROR(stream.synchronize(Deadline::after(kNoLimit)));
  return count;
}

Status StepExecutor::execute_timed(const ProgramEntry& entry, device::Stream& stream) {
  // Inline, an entry begins when the one before it ends: reading the clock is most of what a span costs.
  const bool is_inline = &stream == &inline_streams_->compute_stream(0).stream();
  const TimePoint begin = is_inline ? inline_end_ : SteadyClock::instance().now();
  Status status = execute(entry, stream);
  const TimePoint end = SteadyClock::instance().now();
  spans_->set(entry, begin, end);
  if (is_inline) {
    inline_end_ = end;
    test_agreement();
  }
  return status;
}

void StepExecutor::test_agreement() {
  if (parts_.agreement == nullptr || !parts_.agreement->is_under_way()) {
    return;
  }
  const TimePoint begin = inline_end_;
  parts_.agreement->test();
  inline_end_ = SteadyClock::instance().now();
  costs_.agreement_time += inline_end_ - begin;
}

Status StepExecutor::run_program(MicroBatches& split, const PreparedStep& prepared) {
  const std::int32_t count = split.num_micro_batches();
  const bool threaded = count > 1;
  device::Stream* compute = nullptr;
  device::Stream* comm = nullptr;
  const std::span<const ProgramEntry> program = prepared.programs[static_cast<std::size_t>(count - 1)];
  spans_->start(program);
  inline_end_ = SteadyClock::instance().now();
  for (auto entry = program.begin(); entry != program.end();) {
    // Entered once for all entries in a row: with one micro-batch that is the whole program.
    const MicroBatches::Scope scope = split.scope(entry->micro_batch);
    MicroBatch& micro_batch = micro_batches_[static_cast<std::size_t>(entry->micro_batch)];
    // The bare streams: the handles' locks are for users on several threads.
    compute = &scope.info().compute_stream->stream();
    comm = threaded ? &scope.info().comm_stream->stream() : compute;
    for (; entry != program.end() && entry->micro_batch == scope.info().index; ++entry) {
      device::Stream& stream = entry->stream == StreamRole::kCompute ? *compute : *comm;
      if (threaded && entry->wait != StepEvent::kNone) {
        stream.wait_for(*micro_batch.events[static_cast<std::size_t>(entry->wait)]);
      }
      stream.enqueue([this, &entry = *entry, &stream] { return execute_timed(entry, stream); });
      if (threaded && entry->record != StepEvent::kNone) {
        stream.record(*micro_batch.events[static_cast<std::size_t>(entry->record)]);
      }
    }
  }
  // The comm stream first: the error of a collective names its cause better than the compute stream's wait for it.
  Status comm_status = threaded ? comm->synchronize(Deadline::after(kNoLimit)) : Status{};
  Status compute_status = compute->synchronize(Deadline::after(kNoLimit));
  LOCKSTEP_RETURN_IF_ERROR(std::move(comm_status));
  LOCKSTEP_RETURN_IF_ERROR(std::move(compute_status));
  for (std::int32_t index = 0; index < count; ++index) {
    split.complete(index);
  }
  return {};
}

Status StepExecutor::execute(const ProgramEntry& entry, device::Stream& stream) {
  MicroBatch& micro_batch = micro_batches_[static_cast<std::size_t>(entry.micro_batch)];
  model::Transformer& transformer = *parts_.transformer;
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
      if (micro_batch.wants_hidden) {
        transformer.normalize(entry.micro_batch, stream);
      }
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
  Status status = micro_batch.exchange->start_dispatch(position, *get_forward_context().dp_metadata, parts_.transformer->routed_rows(entry.micro_batch),
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
