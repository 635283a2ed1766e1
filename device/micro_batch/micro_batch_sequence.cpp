#include "lockstep/micro_batch/micro_batch_sequence.hpp"

#include <algorithm>
#include <exception>
#include <string>

#include <fmt/format.h>

#include "device/micro_batch/sequence_state.hpp"

namespace lockstep {

MicroBatchSequence::MicroBatchSequence(const MicroBatchOptions& options, Adaptation adaptation)
    : state_(std::make_unique<State>(options, std::move(adaptation))) {}

MicroBatchSequence::~MicroBatchSequence() {
  close();
}

void MicroBatchSequence::close() noexcept {
  // Tasks refer to our contexts, so they all have to end. Who wants their errors asks sync_streams before.
  static_cast<void>(state_->sync_streams(Deadline::after(Duration::max())));
}

std::int32_t MicroBatchSequence::batch_size() const {
  const std::scoped_lock lock(state_->mutex);
  return state_->batch_size;
}

std::int32_t MicroBatchSequence::micro_batch_size() const {
  const std::scoped_lock lock(state_->mutex);
  return state_->micro_batch_size;
}

std::int32_t MicroBatchSequence::num_micro_batches() const {
  const std::scoped_lock lock(state_->mutex);
  return state_->count;
}

MicroBatchInfo MicroBatchSequence::info(std::int32_t index) const {
  const std::scoped_lock lock(state_->mutex);
  return state_->slot_locked(index).info;
}

MicroBatchStats MicroBatchSequence::stats() const {
  const std::scoped_lock lock(state_->mutex);
  MicroBatchStats stats{.batch_size = state_->batch_size, .micro_batch_size = state_->micro_batch_size, .num_micro_batches = state_->count};
  for (std::int32_t i = 0; i < state_->count; ++i) {
    const MicroBatchInfo& info = state_->slots[static_cast<std::size_t>(i)].info;
    stats.pending += info.state == MicroBatchState::kPending ? 1 : 0;
    stats.running += info.state == MicroBatchState::kRunning ? 1 : 0;
    stats.failed += info.state == MicroBatchState::kFailed ? 1 : 0;
    if (info.state == MicroBatchState::kCompleted) {
      const double ms = info.duration_ms();
      stats.min_ms = stats.completed == 0 ? ms : std::min(stats.min_ms, ms);
      stats.max_ms = std::max(stats.max_ms, ms);
      stats.total_ms += ms;
      ++stats.completed;
    }
  }
  stats.mean_ms = stats.completed == 0 ? 0 : stats.total_ms / stats.completed;
  return stats;
}

MicroBatchSequence::Scope::Scope(State& state, std::int32_t index, bool completes)
    : state_(state), exceptions_(std::uncaught_exceptions()), completes_(completes) {
  const std::scoped_lock lock(state_.mutex);
  State::Slot& slot = state_.slot_locked(index);
  try {
    state_.enter_locked(slot);
  } catch (const MicroBatchCancelled&) {
    throw;  // another one failed; this one never began
  } catch (const std::exception& thrown) {
    abandon_locked(slot.info, thrown.what());
    throw;
  } catch (...) {  // a caller's function may throw anything, and the threads at the barrier have to know
    abandon_locked(slot.info, "something was thrown that is no std::exception");
    throw;
  }
  info_ = &slot.info;
  enqueued_before_ = info_->compute_stream->enqueued_count() + info_->comm_stream->enqueued_count();
  // A thread without a context keeps none, unless another thread brought one to this micro-batch.
  previous_ = is_forward_context_available() ? &get_forward_context() : nullptr;
  _set_forward_context(slot.base != nullptr ? &slot.context : previous_);
}

void MicroBatchSequence::Scope::abandon_locked(MicroBatchInfo& info, std::string_view why) {
  if (completes_ && info.state == MicroBatchState::kPending) {  // claimed: no other thread will ever take it
    state_.fail_locked(info);
    state_.cancel_locked(fmt::format("micro-batch {} could not be entered: {}", info.index, why));
  }
}

MicroBatchSequence::Scope::~Scope() {
  _set_forward_context(previous_);
  const bool failed = std::uncaught_exceptions() > exceptions_;
  const bool used_streams = info_->compute_stream->enqueued_count() + info_->comm_stream->enqueued_count() != enqueued_before_;
  if (state_.sizer && completes_ && !failed && used_streams) {
    state_.wait_for_streams(*info_);
  }
  const std::scoped_lock lock(state_.mutex);
  MicroBatchInfo& info = state_.slots[static_cast<std::size_t>(info_->index)].info;
  state_.forget_active_locked(info.index);
  if (failed) {
    state_.fail_locked(info);
    state_.cancel_locked(fmt::format("micro-batch {} failed: an exception left its body", info.index));
  } else if (completes_ && info.state == MicroBatchState::kRunning) {
    info.change_state(MicroBatchState::kCompleted);
    info.end_time = state_.clock.now();
    state_.adapt_locked(info);
  }
}

void MicroBatchSequence::complete(std::int32_t index) {
  const std::scoped_lock lock(state_->mutex);
  MicroBatchInfo& info = state_->slot_locked(index).info;
  info.change_state(MicroBatchState::kCompleted);
  info.end_time = state_->clock.now();
}

MicroBatchSequence::Range MicroBatchSequence::iterate(const PriorityFn& priority) {
  const std::scoped_lock lock(state_->mutex);
  state_->throw_if_cancelled_locked();
  if (state_->walks_started >= state_->options.num_threads) {
    throw std::logic_error(fmt::format("iterate() for the {}. time, but num_threads is {}: each thread walks a batch once; reset() starts the next",
                                       state_->walks_started + 1, state_->options.num_threads));
  }
  if (priority) {
    if (state_->sizer) {
      throw std::logic_error("an adaptive context walks in order of rows, because it splits those that remain: iterate() takes no priority there");
    }
    if (state_->walks_started == 0) {
      state_->order_locked(priority);
    }
  }
  ++state_->walks_started;
  return Range(*state_);
}

MicroBatchSequence::Range::Iterator MicroBatchSequence::Range::begin() {
  advance();
  return Iterator(*this);
}

void MicroBatchSequence::Range::advance() {
  scope_.reset();
  if (const std::optional<std::int32_t> index = state_.claim()) {
    scope_.emplace(state_, *index, true);
  }
}

Status MicroBatchSequence::sync_streams(const Deadline& deadline) {
  return state_->sync_streams(deadline);
}

void MicroBatchSequence::wait_barrier(const Deadline& deadline) {
  if (const Status met = state_->barrier.arrive_and_wait(deadline); !met) {
    cancel(met.error().message);  // a wait that gave up ends the walks, too
    throw MicroBatchCancelled(met.error().message);
  }
}

void MicroBatchSequence::cancel(std::string_view reason) {
  const std::scoped_lock lock(state_->mutex);
  state_->cancel_locked(reason);
}

void MicroBatchSequence::reset(std::int32_t batch_size) {
  if (batch_size < 0) {
    throw std::invalid_argument(fmt::format("batch_size is {}, expected at least 0", batch_size));
  }
  std::int32_t micro_batch_size = 0;
  {
    const std::scoped_lock lock(state_->mutex);
    micro_batch_size = state_->sizer ? state_->sizer->size() : state_->micro_batch_size;
  }
  state_->start_over({.batch_size = batch_size, .micro_batch_size = micro_batch_size, .num_micro_batches = state_->options.num_micro_batches_min});
}

void MicroBatchSequence::reset(const MicroBatchSplit& split) {
  if (split.batch_size < 0 || split.micro_batch_size < 1 || split.num_micro_batches < 0) {
    throw std::invalid_argument(fmt::format("batch_size is {}, micro_batch_size {}, num_micro_batches {}: expected at least 0, 1 and 0", split.batch_size,
                                            split.micro_batch_size, split.num_micro_batches));
  }
  if (state_->sizer) {
    throw std::logic_error("an adaptive context chooses its own micro-batch size: reset() takes a batch size only");
  }
  state_->start_over(split);
}

std::int32_t MicroBatchSequence::current_index() const {
  const std::scoped_lock lock(state_->mutex);
  const auto own = std::find_if(state_->active.rbegin(), state_->active.rend(), [](const State::Active& a) { return a.thread == std::this_thread::get_id(); });
  if (own == state_->active.rend()) {
    throw std::logic_error("record_output() without an index, but this thread is in no micro-batch: pass the index, as a stream's task has to");
  }
  return own->index;
}

void MicroBatchSequence::note_output(std::int32_t index) {
  const std::scoped_lock lock(state_->mutex);
  State::Slot& slot = state_->slot_locked(index);
  if (slot.has_output) {
    state_->fail_locked(slot.info);
    throw std::logic_error(fmt::format("a second output for micro-batch {}: each has exactly one", index));
  }
  if (slot.info.state == MicroBatchState::kPending || slot.info.state == MicroBatchState::kFailed) {
    throw std::logic_error(fmt::format("an output for micro-batch {}, which is {}: it has to be entered, and must not have failed", index,
                                       micro_batch_state_name(slot.info.state)));
  }
  slot.has_output = true;
}

void MicroBatchSequence::lose_output(std::int32_t index) {
  const std::scoped_lock lock(state_->mutex);
  State::Slot& slot = state_->slot_locked(index);
  slot.has_output = false;
  state_->fail_locked(slot.info);
}

void MicroBatchSequence::check_outputs() {
  static_cast<void>(sync_streams());  // its error is kept, with those of earlier calls
  const std::scoped_lock lock(state_->mutex);
  if (state_->gathered) {
    throw std::logic_error("the outputs of this batch were gathered before: reset() starts the next");
  }
  if (state_->stream_error) {
    throw std::runtime_error(fmt::format("no outputs, a stream failed: {}", state_->stream_error->message));
  }
  std::string failed;
  std::string missing;
  for (std::int32_t i = 0; i < state_->count; ++i) {
    State::Slot& slot = state_->slots[static_cast<std::size_t>(i)];
    if (slot.info.state == MicroBatchState::kFailed) {
      failed += fmt::format("{}{}", failed.empty() ? "" : ", ", i);
    } else if (!slot.has_output) {
      missing += fmt::format("{}{}", missing.empty() ? "" : ", ", i);
      state_->fail_locked(slot.info);
    }
  }
  if (!failed.empty()) {
    throw std::logic_error(fmt::format("no outputs: of {} micro-batches these failed: {}", state_->count, failed));
  }
  if (!missing.empty()) {
    throw std::logic_error(fmt::format("no outputs: of {} micro-batches these recorded none: {}", state_->count, missing));
  }
  state_->gathered = true;
}

void MicroBatchSequence::check_data_size(std::size_t elements, std::size_t elements_per_row) const {
  const auto rows = static_cast<std::size_t>(batch_size());
  // By division where there are rows: the product may overflow.
  const bool fits = rows == 0 || elements_per_row == 0 ? elements == 0 : elements / rows == elements_per_row && elements % rows == 0;
  if (!fits) {
    throw std::invalid_argument(
        fmt::format("iterate_with_data: {} elements, expected batch_size * elements_per_row, which is {} * {}", elements, rows, elements_per_row));
  }
}

}  // namespace lockstep
