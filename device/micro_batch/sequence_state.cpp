#include "device/micro_batch/sequence_state.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>

#include <fmt/format.h>

namespace lockstep {

namespace {

/// More than any machine has cores for: each thread gets a pair of streams, and a wrong number would take all memory for them.
constexpr int kThreadsMax = 4096;

MicroBatchOptions checked(MicroBatchOptions options) {
  if (options.batch_size < 0) {
    throw std::invalid_argument(fmt::format("batch_size is {}, expected at least 0", options.batch_size));
  }
  if (options.micro_batch_size < 1) {
    throw std::invalid_argument(fmt::format("micro_batch_size is {}, expected at least 1", options.micro_batch_size));
  }
  if (options.num_threads < 1 || options.num_threads > kThreadsMax) {
    throw std::invalid_argument(fmt::format("num_threads is {}, expected 1 to {}", options.num_threads, kThreadsMax));
  }
  if (options.min_micro_batch < 1) {
    throw std::invalid_argument(fmt::format("min_micro_batch is {}, expected at least 1", options.min_micro_batch));
  }
  if (options.min_micro_batch > options.max_micro_batch) {
    throw std::invalid_argument(
        fmt::format("min_micro_batch is {}, expected at most max_micro_batch, which is {}", options.min_micro_batch, options.max_micro_batch));
  }
  if (options.num_micro_batches_min < 0) {
    throw std::invalid_argument(fmt::format("num_micro_batches_min is {}, expected at least 0", options.num_micro_batches_min));
  }
  if (options.adaptive) {
    options.micro_batch_size = std::clamp(options.micro_batch_size, options.min_micro_batch, options.max_micro_batch);
  }
  return options;
}

/// No threads unless asked for. One inline stream of a kind for each walker, for a task on one holds up whoever shares it.
std::unique_ptr<StreamManager> make_inline_streams(const MicroBatchOptions& options) {
  if (options.stream_manager != nullptr) {
    return nullptr;
  }
  return std::make_unique<StreamManager>(
      StreamManagerOptions{.num_compute_streams = options.num_threads, .num_comm_streams = options.num_threads, .inline_streams = true});
}

}  // namespace

MicroBatchSequence::State::State(const MicroBatchOptions& given, Adaptation adaptation)
    : options(checked(given)),
      clock(options.clock != nullptr ? *options.clock : SteadyClock::instance()),
      own_streams(make_inline_streams(options)),
      streams(own_streams ? *own_streams : *options.stream_manager),
      barrier(options.num_threads),
      sizer(std::move(adaptation.sizer)),
      memory_probe(std::move(adaptation.memory_probe)),
      batch_size(options.batch_size),
      num_micro_batches_min(options.num_micro_batches_min) {
  active.reserve(static_cast<std::size_t>(options.num_threads) + 8);
  walkers.reserve(active.capacity());
  used.reserve(streams.num_compute_streams() + streams.num_comm_streams());
  split_locked(0, 0, sizer ? sizer->size() : options.micro_batch_size);
}

void MicroBatchSequence::State::start_over(const MicroBatchSplit& split) {
  {
    const std::scoped_lock lock(mutex);
    if (!active.empty()) {
      throw std::logic_error(fmt::format("reset() while micro-batch {} is entered: leave it first", active.front().index));
    }
  }
  static_cast<void>(sync_streams(Deadline::after(Duration::max())));  // tasks refer to our contexts
  const std::scoped_lock lock(mutex);
  batch_size = split.batch_size;
  num_micro_batches_min = split.num_micro_batches;
  next = 0;
  walks_started = 0;
  used.clear();
  walkers.clear();
  known_base = nullptr;
  cancelled = false;
  cancel_reason.clear();
  stream_error.reset();
  gathered = false;
  barrier.reset();
  split_locked(0, 0, split.micro_batch_size);
}

void MicroBatchSequence::State::split_locked(std::int32_t first_index, std::int32_t first_row, std::int32_t size) {
  micro_batch_size = size;
  const std::int32_t remaining = batch_size - first_row;
  count = first_index + remaining / size + (remaining % size != 0 ? 1 : 0);
  count = std::max(count, num_micro_batches_min);
  while (slots.size() < static_cast<std::size_t>(count)) {
    slots.emplace_back();
  }
  for (std::int32_t i = first_index; i < count; ++i) {
    Slot& slot = slots[static_cast<std::size_t>(i)];
    slot.nominal_start = first_row + std::int64_t{i - first_index} * size;
    slot.nominal_size = size;
    slot.has_output = false;
    slot.base = nullptr;
    const auto start = static_cast<std::int32_t>(std::min<std::int64_t>(slot.nominal_start, batch_size));
    const auto end = static_cast<std::int32_t>(std::min<std::int64_t>(slot.nominal_start + size, batch_size));
    slot.info = {.index = i, .start = start, .end = end, .size = end - start};
  }
  order.resize(static_cast<std::size_t>(count));
  std::iota(order.begin() + first_index, order.end(), first_index);
}

void MicroBatchSequence::State::order_locked(const PriorityFn& priority) {
  priorities.resize(static_cast<std::size_t>(count));
  for (std::int32_t i = 0; i < count; ++i) {
    const double given = priority(slots[static_cast<std::size_t>(i)].info);
    if (std::isnan(given)) {
      throw std::invalid_argument(fmt::format("the priority of micro-batch {} is not a number: there is no place for it in the order", i));
    }
    priorities[static_cast<std::size_t>(i)] = given;
  }
  // Not stable_sort, which allocates: the index breaks ties.
  std::sort(order.begin(), order.end(), [this](std::int32_t a, std::int32_t b) {
    const double priority_a = priorities[static_cast<std::size_t>(a)];
    const double priority_b = priorities[static_cast<std::size_t>(b)];
    return priority_a > priority_b || (priority_a == priority_b && a < b);
  });
}

std::optional<std::int32_t> MicroBatchSequence::State::claim() {
  const std::scoped_lock lock(mutex);
  throw_if_cancelled_locked();
  while (next < count) {
    const std::int32_t index = order[static_cast<std::size_t>(next++)];
    if (slots[static_cast<std::size_t>(index)].info.state == MicroBatchState::kPending) {  // else entered by scope() before
      return index;
    }
  }
  return std::nullopt;
}

MicroBatchSequence::State::Slot& MicroBatchSequence::State::slot_locked(std::int32_t index) {
  if (index < 0 || index >= count) {
    throw std::out_of_range(fmt::format("micro-batch {}: expected 0 to {}, the batch has {} micro-batches", index, count - 1, count));
  }
  return slots[static_cast<std::size_t>(index)];
}

void MicroBatchSequence::State::enter_locked(Slot& slot) {
  throw_if_cancelled_locked();
  MicroBatchInfo& info = slot.info;
  if (info.state == MicroBatchState::kCompleted || info.state == MicroBatchState::kFailed) {
    throw std::logic_error(fmt::format("micro-batch {} is {}: it cannot be entered again before reset()", info.index, micro_batch_state_name(info.state)));
  }
  narrow_locked(slot);
  if (info.state == MicroBatchState::kPending) {
    choose_streams_locked(info);
    info.change_state(MicroBatchState::kRunning);
    info.start_time = clock.now();
  }
  active.push_back({.thread = std::this_thread::get_id(), .index = info.index});
}

void MicroBatchSequence::State::choose_streams_locked(MicroBatchInfo& info) {
  if (own_streams) {
    auto found = std::find(walkers.begin(), walkers.end(), std::this_thread::get_id());
    if (found == walkers.end()) {
      found = walkers.insert(walkers.end(), std::this_thread::get_id());
    }
    const std::size_t walker = static_cast<std::size_t>(found - walkers.begin()) % streams.num_compute_streams();
    info.compute_stream = &streams.compute_stream(walker);
    info.comm_stream = &streams.comm_stream(walker);
  } else {
    info.compute_stream = &streams.get_compute_stream(options.stream_policy);
    info.comm_stream = &streams.get_comm_stream(options.stream_policy);
  }
  for (StreamHandle* handle : {info.compute_stream, info.comm_stream}) {
    if (std::find(used.begin(), used.end(), handle) == used.end()) {
      used.push_back(handle);
    }
  }
}

void MicroBatchSequence::State::narrow_locked(Slot& slot) {
  // Once per batch: tasks on streams read the slot's context from then on.
  if (slot.base != nullptr || !options.narrow_forward_context || !is_forward_context_available()) {
    return;
  }
  const ForwardContext& base = *base_of_locked(&get_forward_context());
  const DPMetadata* all = base.dp_metadata;
  if (all != nullptr) {
    if (all->get_local_tokens() != batch_size) {
      throw std::logic_error(
          fmt::format("the forward context has {} local tokens, but batch_size is {}: make them equal, or set narrow_forward_context to false where rows are "
                      "not tokens",
                      all->get_local_tokens(), batch_size));
    }
    reserve_chunks_locked(*all);
    for (std::size_t rank = 0; rank < chunk_counts.size(); ++rank) {
      chunk_counts[rank] = static_cast<std::int32_t>(std::clamp<std::int64_t>(all->tokens_per_rank()[rank] - slot.nominal_start, 0, slot.nominal_size));
    }
    slot.chunk.assign(all->rank(), chunk_counts);
  }
  slot.context = base;
  slot.context.num_tokens = slot.info.size;
  slot.context.dp_metadata = all != nullptr ? &slot.chunk : nullptr;
  if (options.narrow_attention) {
    slot.context.attn_metadata = options.narrow_attention(slot.info);
  }
  if (base.batch_descriptor) {
    slot.context.batch_descriptor = base.batch_descriptor->with_num_tokens(slot.nominal_size);
    slot.context.batch_descriptor->num_reqs.reset();  // how many requests its rows belong to is not known here
  }
  slot.base = &base;
}

const ForwardContext* MicroBatchSequence::State::base_of_locked(const ForwardContext* current) {
  if (current != known_base) {
    for (const Slot& slot : slots) {
      if (&slot.context == current && slot.base != nullptr) {
        return slot.base;  // entered from inside another micro-batch: its narrowed context is not the batch's
      }
    }
    known_base = current;
  }
  return current;
}

void MicroBatchSequence::State::reserve_chunks_locked(const DPMetadata& metadata) {
  if (reserved_world != metadata.world_size()) {
    reserved_world = metadata.world_size();
    reserved_slots = 0;
    chunk_counts.resize(static_cast<std::size_t>(reserved_world));
  }
  for (; reserved_slots < slots.size(); ++reserved_slots) {
    // Not those in use by tasks: they have their room.
    if (slots[reserved_slots].base == nullptr) {
      slots[reserved_slots].chunk = metadata;
    }
  }
}

void MicroBatchSequence::State::forget_active_locked(std::int32_t index) {
  const auto found =
      std::find_if(active.rbegin(), active.rend(), [index](const Active& a) { return a.index == index && a.thread == std::this_thread::get_id(); });
  if (found != active.rend()) {
    active.erase(std::next(found).base());
  }
}

void MicroBatchSequence::State::adapt_locked(const MicroBatchInfo& info) {
  if (!sizer) {
    return;
  }
  sizer->observe(info.size, info.duration_ms(), memory_probe());
  if (sizer->size() == micro_batch_size || next >= count) {
    return;
  }
  // An adaptive walk goes by index, so what is left is one run of rows, unless scope() entered one of them.
  const auto rest = slots.begin() + next;
  if (std::all_of(rest, slots.begin() + count, [](const Slot& slot) { return slot.info.state == MicroBatchState::kPending; })) {
    split_locked(next, rest->info.start, sizer->size());
  }
}

void MicroBatchSequence::State::fail_locked(MicroBatchInfo& info) {
  if (info.state != MicroBatchState::kFailed) {
    info.change_state(MicroBatchState::kFailed);
    info.end_time = clock.now();
  }
}

void MicroBatchSequence::State::cancel_locked(std::string_view reason) {
  if (!cancelled) {
    cancelled = true;
    cancel_reason = reason;
    barrier.cancel(reason);
  }
}

void MicroBatchSequence::State::throw_if_cancelled_locked() const {
  if (cancelled) {
    throw MicroBatchCancelled(cancel_reason);
  }
}

void MicroBatchSequence::State::wait_for_streams(const MicroBatchInfo& info) {
  EventPair events;
  {
    const std::scoped_lock lock(mutex);
    if (!idle_events.empty()) {
      events = std::move(idle_events.back());
      idle_events.pop_back();
    }
  }
  if (!events.compute) {
    events = {.compute = streams.make_event(), .comm = streams.make_event()};
  }
  info.compute_stream->record_event(*events.compute);
  info.comm_stream->record_event(*events.comm);
  static_cast<void>(events.compute->wait(Deadline::after(Duration::max())));
  static_cast<void>(events.comm->wait(Deadline::after(Duration::max())));
  const std::scoped_lock lock(mutex);
  idle_events.push_back(std::move(events));
}

Status MicroBatchSequence::State::sync_streams(const Deadline& deadline) {
  Status first;
  for (std::size_t i = 0;; ++i) {
    StreamHandle* handle = nullptr;
    {
      const std::scoped_lock lock(mutex);
      if (i >= used.size()) {
        return first;
      }
      handle = used[i];
    }
    // Without the lock: the stream's tasks may record outputs.
    Status done = handle->synchronize(deadline);
    if (done) {
      continue;
    }
    const std::scoped_lock lock(mutex);
    if (done.error().code != ErrorCode::kTimeout) {  // late is not failed
      for (std::int32_t k = 0; k < count; ++k) {
        MicroBatchInfo& info = slots[static_cast<std::size_t>(k)].info;
        if (info.compute_stream == handle || info.comm_stream == handle) {
          fail_locked(info);
        }
      }
      if (!stream_error) {
        stream_error = done.error();
      }
    }
    if (first) {
      first = std::move(done);
    }
  }
}

}  // namespace lockstep
