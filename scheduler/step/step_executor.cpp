#include "scheduler/step/step_executor.hpp"

#include <algorithm>
#include <exception>

#include <fmt/format.h>

#include "lockstep/core/check.hpp"

namespace lockstep::scheduler {

namespace {

/// Of a stream that has nothing to wait for.
constexpr Duration kNoLimit = Duration::max();

/// What a rank that has given its part to the collective waits for.
comm::StepPhase phase_of(Stage collective) {
  return collective == Stage::kDispatch ? comm::StepPhase::kDispatching : comm::StepPhase::kCombining;
}

}  // namespace

StepExecutor::StepExecutor(const StepExecutorParts& parts, const StepExecutorOptions& options)
    : parts_(parts),
      options_(options),
      alone_(parts.transformer->has_local_experts() && parts.view->size() == 1),
      rows_stay_on_device_(!alone_ && comm::exchanges_on_device(*parts.communicator, parts.device, options.combine)),
      device_watch_(parts.watch, parts.communicator->device_messages()),
      sampling_(*parts.transformer) {}

Result<std::unique_ptr<StepExecutor>> StepExecutor::create(const StepExecutorParts& parts, const StepExecutorOptions& options) {
  std::unique_ptr<StepExecutor> executor(new StepExecutor(parts, options));  // the constructor is private
  LOCKSTEP_RETURN_IF_ERROR(executor->allocate());
  return executor;
}

Status StepExecutor::allocate() {
  const model::ModelConfig& config = *parts_.config;
  const bool exchanges = config.expert_count > 0 && !alone_;
  cache_ = std::make_unique<StepCache>(config.layer_is_sparse, options_.rows_max, options_.micro_batches_max,
                                       alone_ ? RowTravel::kWithinDevice : RowTravel::kExchange);
  spans_.emplace(cache_->entries_max());
  device_spans_.emplace(*parts_.device, cache_->entries_max());
  open_collectives_.reserve(static_cast<std::size_t>(options_.micro_batches_max));
  micro_batches_.resize(static_cast<std::size_t>(options_.micro_batches_max));
  if (rows_stay_on_device_) {
    LOCKSTEP_ASSIGN_OR_RETURN(exchange_ops_, parts_.device->make_ops());
  }
  for (MicroBatch& micro_batch : micro_batches_) {
    for (std::int32_t layer = 0; layer < config.layer_count; ++layer) {
      micro_batch.by_layer.emplace(parts_.transformer->layer_name(layer), &micro_batch.metadata);
    }
    if (exchanges) {
      LOCKSTEP_ASSIGN_OR_RETURN(micro_batch.exchange, comm::ExpertExchange::create(*parts_.communicator, *parts_.view, *parts_.placement,
                                                                                   {.hidden = config.hidden_size,
                                                                                    .top_k = config.experts_per_token,
                                                                                    .rows_max = options_.rows_max,
                                                                                    .gather_rows = options_.gather_rows,
                                                                                    .combine = options_.combine,
                                                                                    .device = parts_.device,
                                                                                    .ops = exchange_ops_.get(),
                                                                                    .lane = static_cast<int>(&micro_batch - micro_batches_.data())}));
    }
  }
  options_.graphs.watch = &device_watch_;
  LOCKSTEP_ASSIGN_OR_RETURN(graphs_, StepGraphs::create(*parts_.device, options_.graphs));
  program_within_devices_ = build_step_program(config.layer_is_sparse, 1, RowTravel::kWithinDevice);
  return make_streams();
}

Status StepExecutor::make_streams() {
  try {
    inline_streams_ =
        std::make_unique<StreamManager>(StreamManagerOptions{.num_compute_streams = 1, .num_comm_streams = 1, .inline_streams = true}, parts_.device);
    split_.emplace(MicroBatchOptions{.stream_manager = inline_streams_.get(), .adaptive = false, .narrow_attention = [this](const MicroBatchInfo& info) {
                                       return static_cast<const AttentionMetadataByLayer*>(&micro_batches_[static_cast<std::size_t>(info.index)].by_layer);
                                     }});
  } catch (const std::exception& thrown) {
    return Error{ErrorCode::kResourceExhausted, fmt::format("no streams for --micro-batches {}: {}", options_.micro_batches_max, thrown.what())};
  }
  if (options_.micro_batches_max > 1) {
    LOCKSTEP_ASSIGN_OR_RETURN(overlapped_, OverlappedProgram::create(*parts_.device, cache_->entries_max(), options_.micro_batches_max));
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
    micro_batch.own_sample_rows.clear();
    micro_batch.first_logit_row = static_cast<std::int32_t>(next_sample);
    for (; next_sample < batch.sample_rows.size() && batch.sample_rows[next_sample] < info.end; ++next_sample) {
      micro_batch.own_sample_rows.push_back(batch.sample_rows[next_sample] - info.start);
    }
    micro_batch.sample_rows = micro_batch.own_sample_rows;
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
  open_collectives_.clear();
  exchanges_run_ = false;
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
  MicroBatches& split = *split_;
  rows_per_micro_batch_ = std::max(plan.micro_batch_tokens, 1);
  split.reset(MicroBatchSplit{.batch_size = batch.rows(), .micro_batch_size = rows_per_micro_batch_, .num_micro_batches = plan.micro_batches});
  slice(split, batch);
  sampling_.plan(batch);
  StepGraphs::Shape* const graphs = prepare_graphs(plan, batch);
  costs_.graph_mode = graphs == nullptr ? GraphMode::kNone : std::min(graphs->mode, plan.graph_mode);
  const bool collective = graphs != nullptr && graphs->collective;
  const std::span<const ProgramEntry> program =
      collective ? program_within_devices_ : cache_->find(shape).programs[static_cast<std::size_t>(plan.micro_batches - 1)];
  last_entry_ = &program.back();
  spans_->start(program);
  device_spans_->start(program, parts_.observer != nullptr && parts_.observer->wants_device_times());
  {
    const set_forward_context scope(step_context_);
    // One micro-batch has nothing to overlap with: inline, no thread hop.
    LOCKSTEP_RETURN_IF_ERROR(plan.micro_batches > 1 ? overlapped_->run(program, *this) : run_inline(program, graphs));
  }
  for (std::int32_t index = 0; index < plan.micro_batches; ++index) {
    split.complete(index);
  }
  for (const MicroBatch& micro_batch : micro_batches_) {
    costs_.wire_bytes += micro_batch.exchange ? micro_batch.exchange->wire_bytes_total() : 0;
    costs_.crossed_rows += micro_batch.exchange ? micro_batch.exchange->crossed_rows_total() : 0;
  }
  costs_.exchange_times = spans_->exchange_times();
  costs_.exchanges_timed = !rows_stay_on_device_ || parts_.view->size() == 1;  // alone, rows go nowhere
  if (parts_.observer != nullptr) {
    spans_->tell(*parts_.observer, step_, plan.micro_batches > 1);
    device_spans_->tell(*parts_.observer, step_);
  }
  costs_.wire_bytes -= wire_bytes_before;
  costs_.crossed_rows -= crossed_rows_before;
  if (collective) {
    count_collectives(graphs->rows);
  }
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
  LOCKSTEP_RETURN_IF_ERROR(wait_for(stream));
  return count;
}

TimePoint StepExecutor::test_agreement(TimePoint begin) {
  if (parts_.agreement == nullptr || !parts_.agreement->is_under_way()) {
    return begin;
  }
  parts_.agreement->test();
  const TimePoint end = SteadyClock::instance().now();
  costs_.agreement_time += end - begin;
  return end;
}

Status StepExecutor::run_inline(std::span<const ProgramEntry> program, StepGraphs::Shape* shape) {
  const MicroBatches::Scope scope = split_->scope(0);
  device::Stream& stream = inline_streams_->compute_stream(0).stream();
  const bool runs_at_once = parts_.device->host_memory();  // then an error is known stage by stage, and waiting costs nothing
  // An entry begins when the one before it ends: reading the clock is most of what a span costs.
  TimePoint begin = SteadyClock::instance().now();
  std::span<StepGraphs::Stretch> stretches;
  if (shape != nullptr) {
    stretches = shape->stretches;
    stream.enqueue([this, shape, &stream]() -> Status {
      graphs_->upload(stream, shape->rows);
      return {};
    });
  }
  for (std::size_t i = 0; i < program.size(); ++i) {
    const ProgramEntry& entry = program[i];
    std::size_t last = i;
    if (entry.stream == StreamRole::kComm) {
      LOCKSTEP_RETURN_IF_ERROR(start_exchange(entry));
      LOCKSTEP_RETURN_IF_ERROR(finish(entry, deadline()));
    } else {
      if (!stretches.empty() && stretches.front().begin == i) {
        last = stretches.front().end - 1;  // it neither takes an exchange's rows nor gives any: those stages are not captured
        show(entry);
        device_spans_->is_graph(entry);
        device_spans_->begin_of(entry).set(stream);
        stream.enqueue([this, shape, graph = stretches.front().graph.get(), &stream] { return launch(*shape, *graph, stream); });
        device_spans_->end_of(entry).set(stream);
        stretches = stretches.subspan(1);
      } else {
        take_rows(entry, stream);
        // A task, because it is the stream that makes an error of what a stage throws.
        stream.enqueue([this, &entry, &stream] { return compute(entry, stream); });
        give_rows(entry, stream);
      }
      if (last + 1 == program.size()) {
        enqueue_sampling(stream);
      }
      // A device is waited for where the host needs what it has computed: before an exchange that it reads something for, and at the end.
      if (runs_at_once || last + 1 == program.size() || (program[last + 1].stream == StreamRole::kComm && needs_result(program[last + 1]))) {
        LOCKSTEP_RETURN_IF_ERROR(wait_for(stream));
      }
    }
    const TimePoint end = SteadyClock::instance().now();
    spans_->set(entry, begin, end);
    for (; i < last; ++i) {
      spans_->set(program[i + 1], end, end);  // of a graph, the first stage stands for all
    }
    begin = test_agreement(end);
  }
  return {};
}

void StepExecutor::enqueue(const ProgramEntry& entry, device::Stream& compute_stream) {
  const MicroBatches::Scope scope = split_->scope(entry.micro_batch);
  take_rows(entry, compute_stream);
  compute_stream.enqueue([this, &entry, &compute_stream]() -> Status {
    stage_clock_.start();
    LOCKSTEP_RETURN_IF_ERROR(compute(entry, compute_stream));
    const StageClock::Time time = stage_clock_.stop();
    // On a device a task only launches what computes.
    spans_->set(entry, time.begin, time.end, parts_.device->host_memory() ? time.off_core : Duration{});
    return {};
  });
  give_rows(entry, compute_stream);
  if (&entry == last_entry_) {
    enqueue_sampling(compute_stream);
  }
}

void StepExecutor::enqueue_sampling(device::Stream& stream) {
  if (sampling_.is_needed()) {
    device_spans_->begin_of_sampling().set(stream);
    stream.enqueue([this, &stream]() -> Status {
      sampling_.enqueue(stream);
      return {};
    });
  }
  device_spans_->end_of_step().set(stream);
}

void StepExecutor::take_rows(const ProgramEntry& entry, device::Stream& stream) {
  const device::StreamMark begin = device_spans_->begin_of(entry);
  if (rows_stay_on_device_ && (entry.stage == Stage::kExperts || entry.stage == Stage::kWeigh)) {
    exchange_of(entry).take(stream, begin);
  } else {
    begin.set(stream);
  }
}

void StepExecutor::give_rows(const ProgramEntry& entry, device::Stream& stream) {
  device_spans_->end_of(entry).set(stream);  // before what others wait for
  if (rows_stay_on_device_ && entry.stage == Stage::kExperts) {
    exchange_of(entry).computed(stream);
  }
}

Deadline StepExecutor::device_deadline() {
  if (parts_.device->host_memory()) {
    return Deadline::after(kNoLimit);
  }
  if (exchanges_run_ && parts_.view->size() > 1) {
    // What the device waits for may be a peer's rows: who is held up by another rank must not look like one that is busy.
    const std::scoped_lock lock(progress_mutex_);
    parts_.progress->advance(step_, parts_.progress->report().layer, comm::StepPhase::kCombining);
  }
  return Deadline::after(options_.stall_timeout, &device_watch_);
}

Status StepExecutor::in_step(Status waited) const {
  if (!waited) {
    waited.error().message =
        fmt::format("step {}, waiting for the device{}: {}", step_, exchanges_run_ ? ", which may wait for rows of other ranks" : "", waited.error().message);
  }
  return waited;
}

Status StepExecutor::compute(const ProgramEntry& entry, device::Stream& stream) {
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
      if (entry.record == StepEvent::kRouted) {
        transformer.bring_routed(entry.micro_batch, stream);
      }
      return {};
    case Stage::kDense:
      transformer.dense(entry.micro_batch, entry.layer, stream);
      return {};
    case Stage::kExperts:
      if (entry.wait == StepEvent::kNone) {
        return transformer.local_experts(entry.micro_batch, entry.layer, stream, collectives_, deadline());
      }
      transformer.experts(entry.layer, micro_batch.exchange->received(), micro_batch.exchange->outputs(), stream);
      return {};
    case Stage::kWeigh:
      if (options_.combine == comm::CombineMode::kPerRank) {
        transformer.combine_sums(entry.micro_batch, micro_batch.exchange->combined(), stream);
      } else {
        transformer.combine(entry.micro_batch, micro_batch.exchange->combined(), stream);
      }
      return {};
    case Stage::kHead:
      if (micro_batch.wants_hidden) {
        transformer.normalize(entry.micro_batch, stream);
      }
      transformer.head(entry.micro_batch, micro_batch.sample_rows, micro_batch.first_logit_row, stream);
      return {};
    case Stage::kDispatch:
    case Stage::kCombine:
      break;
  }
  return Error{ErrorCode::kInternal, fmt::format("step {}: stage {} is none that computes", step_, static_cast<int>(entry.stage))};
}

void StepExecutor::show(const ProgramEntry& entry) {
  const std::scoped_lock lock(progress_mutex_);
  if (open_collectives_.empty()) {
    parts_.progress->advance(step_, entry.layer, comm::StepPhase::kComputing);
    return;
  }
  // What another micro-batch computes meanwhile only ticks: a rank held up in a collective must not look like one that is busy itself.
  const ProgramEntry& oldest = *open_collectives_.front();
  parts_.progress->advance(step_, oldest.layer, phase_of(oldest.stage));
}

void StepExecutor::open_collective(const ProgramEntry& entry) {
  {
    const std::scoped_lock lock(progress_mutex_);
    open_collectives_.push_back(&entry);
  }
  show(entry);
}

void StepExecutor::close_collective(const ProgramEntry& entry) {
  {
    const std::scoped_lock lock(progress_mutex_);
    std::erase(open_collectives_, &entry);
  }
  show(entry);
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

Status StepExecutor::start(const ProgramEntry& entry) {
  const MicroBatches::Scope scope = split_->scope(entry.micro_batch);
  return start_exchange(entry);
}

Status StepExecutor::start_exchange(const ProgramEntry& entry) {
  const bool dispatches = entry.stage == Stage::kDispatch;
  micro_batches_[static_cast<std::size_t>(entry.micro_batch)].exchange_begin = SteadyClock::instance().now();
  show(entry);
  announce(dispatches ? CollectiveKind::kDispatch : CollectiveKind::kCombine, entry);
  comm::ExpertExchange& exchange = exchange_of(entry);
  if (rows_stay_on_device_) {
    exchange.mark_next(device_spans_->begin_of(entry), device_spans_->end_of(entry));
  }
  Status status = dispatches
                      ? exchange.start_dispatch({.step = step_, .layer = entry.layer, .micro_batch = entry.micro_batch}, *get_forward_context().dp_metadata,
                                                {.rows = parts_.transformer->routed_rows(entry.micro_batch),
                                                 .expert_ids = parts_.transformer->routed_experts(entry.micro_batch),
                                                 .weights = parts_.transformer->routed_weights(entry.micro_batch)})
                      : exchange.start_combine();
  if (!status) {
    return in_collective(std::move(status).error(), entry);
  }
  open_collective(entry);
  return {};
}

Status StepExecutor::finish(const ProgramEntry& entry, const Deadline& deadline) {
  comm::ExpertExchange& exchange = exchange_of(entry);
  LOCKSTEP_RETURN_IF_ERROR(entry.stage == Stage::kDispatch ? exchange.finish_dispatch(deadline) : exchange.finish_combine(deadline));  // says itself where
  close_collective(entry);
  exchanges_run_ = rows_stay_on_device_;
  spans_->set(entry, micro_batches_[static_cast<std::size_t>(entry.micro_batch)].exchange_begin, SteadyClock::instance().now());
  return {};
}

}  // namespace lockstep::scheduler
