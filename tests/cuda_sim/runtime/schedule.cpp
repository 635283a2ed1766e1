#include "tests/cuda_sim/runtime/schedule.hpp"

#include <chrono>
#include <thread>
#include <utility>

#include "tests/cuda_sim/runtime/memory.hpp"
#include "tests/cuda_sim/violation.hpp"

namespace cuda_sim {
namespace {

/// How many calls of the runtime a piece of work is held back at most.
constexpr int kTicksMax = 8;
/// In a stream that lags: its work then comes after all that others are given meanwhile, unless somebody waits for it.
constexpr int kLagTicksMax = 512;
/// How long a question may take that was asked before.
constexpr std::chrono::microseconds kQueryNap(200);

}  // namespace

Scheduler& Scheduler::instance() {
  static auto* const scheduler = new Scheduler;  // NOLINT: never destroyed, streams may outlive main
  return *scheduler;
}

std::shared_ptr<SimStream> Scheduler::make_stream(int device, unsigned flags, int priority) {
  auto stream = std::make_shared<SimStream>(device, flags, priority);
  {
    const std::scoped_lock lock(mutex_);
    std::erase_if(streams_, [](const auto& known) { return known.expired(); });
    stream->lags_ = draw_lag();
    streams_.push_back(stream);
  }
  std::thread([this, stream] { serve(stream); }).detach();  // it ends when the stream is closed and empty, which may be after main
  return stream;
}

void Scheduler::close(const std::shared_ptr<SimStream>& stream) {
  const std::scoped_lock lock(mutex_);
  stream->closing_ = true;
  if (stream->last_ && !stream->last_->done) {
    open_all_needed(*stream->last_);
  }
  changed_.notify_all();
}

/// Opens the work, what is before it in its stream, and what those wait for. Under the lock.
void Scheduler::open_all_needed(Operation& operation) {
  for (const std::shared_ptr<Operation>& before : operation.stream->queue_) {
    if (before->open && before.get() != &operation) {
      continue;
    }
    before->open = true;
    if (before->awaits && !before->awaits->done && !before->awaits->open) {
      open_all_needed(*before->awaits);
    }
    for (const std::weak_ptr<Operation>& earlier : before->opens) {
      if (const std::shared_ptr<Operation> other = earlier.lock(); other && !other->done && !other->open) {
        open_all_needed(*other);
      }
    }
    if (before.get() == &operation) {
      break;
    }
  }
}

void Scheduler::choose_gate(Operation& operation, bool& waits) {
  waits = false;
  if (policy_ == SchedulePolicy::kLate) {
    return;
  }
  if (operation.stream->lags_) {
    operation.ticks = 1 + static_cast<int>(random_() % kLagTicksMax);
    return;
  }
  const auto drawn = policy_ == SchedulePolicy::kEarly ? 0 : random_() % 3;
  if (drawn == 2) {
    operation.ticks = 1 + static_cast<int>(random_() % kTicksMax);
    return;
  }
  open_all_needed(operation);
  waits = drawn == 0;
}

void Scheduler::tick() {
  for (const std::weak_ptr<SimStream>& known : streams_) {
    const std::shared_ptr<SimStream> stream = known.lock();
    if (!stream || stream->queue_.empty()) {
      continue;
    }
    Operation& first = *stream->queue_.front();
    if (!first.open && first.ticks > 0 && --first.ticks == 0) {
      open_all_needed(first);
      changed_.notify_all();
    }
  }
}

std::shared_ptr<Operation> Scheduler::enqueue(SimStream& stream, Operation operation) {
  auto added = std::make_shared<Operation>(std::move(operation));
  added->stream = &stream;
  std::unique_lock lock(mutex_);
  tick();
  host_calls_pending_ += added->calls_host ? 1 : 0;
  stream.queue_.push_back(added);
  stream.last_ = added;
  bool waits = false;
  choose_gate(*added, waits);
  changed_.notify_all();
  // Work that calls the host may wait for the very thread that is here.
  if (waits && host_calls_pending_ == 0) {
    changed_.wait(lock, [&added] { return added->done; });
  }
  return added;
}

std::shared_ptr<Operation> Scheduler::last(SimStream& stream) {
  const std::scoped_lock lock(mutex_);
  return stream.last_;
}

std::vector<std::shared_ptr<Operation>> Scheduler::all_last() {
  const std::scoped_lock lock(mutex_);
  std::vector<std::shared_ptr<Operation>> all;
  for (const std::weak_ptr<SimStream>& known : streams_) {
    if (const std::shared_ptr<SimStream> stream = known.lock()) {
      all.push_back(stream->last_);
    }
  }
  return all;
}

bool Scheduler::may_pass(Operation& operation) {
  if (!operation.done && !operation.asked) {
    operation.asked = true;
    operation.skipped = ++host_waits_ == skipped_wait_;
  }
  return operation.done || operation.skipped;
}

std::uint64_t Scheduler::host_waits() {
  const std::scoped_lock lock(mutex_);
  return host_waits_;
}

void Scheduler::skip_host_wait(std::uint64_t ordinal) {
  const std::scoped_lock lock(mutex_);
  skipped_wait_ = ordinal == 0 ? 0 : host_waits_ + ordinal;
}

bool Scheduler::keeps_event_wait() {
  const std::scoped_lock lock(mutex_);
  return ++event_waits_ != skipped_event_wait_;
}

std::uint64_t Scheduler::event_waits() {
  const std::scoped_lock lock(mutex_);
  return event_waits_;
}

void Scheduler::skip_event_wait(std::uint64_t ordinal) {
  const std::scoped_lock lock(mutex_);
  skipped_event_wait_ = ordinal == 0 ? 0 : event_waits_ + ordinal;
}

void Scheduler::wait(const std::shared_ptr<Operation>& operation) {
  if (!operation) {
    return;
  }
  std::unique_lock lock(mutex_);
  if (!may_pass(*operation)) {
    open_all_needed(*operation);
    changed_.notify_all();
    changed_.wait(lock, [&operation] { return operation->done; });
  }
}

bool Scheduler::query(const std::shared_ptr<Operation>& operation) {
  if (!operation) {
    return true;
  }
  std::unique_lock lock(mutex_);
  tick();
  if (may_pass(*operation)) {
    return true;
  }
  if (!operation->open) {
    open_all_needed(*operation);
    changed_.notify_all();
    return false;
  }
  // Who asks again and again would take the core from the streams' threads.
  return changed_.wait_for(lock, kQueryNap, [&operation] { return operation->done; });
}

bool Scheduler::is_done(const Operation& operation) {
  const std::scoped_lock lock(mutex_);
  return operation.done;
}

std::chrono::steady_clock::time_point Scheduler::done_at(const Operation& operation) {
  const std::scoped_lock lock(mutex_);
  return operation.done_at;
}

void Scheduler::set_schedule(SchedulePolicy policy, std::uint64_t seed) {
  const std::scoped_lock lock(mutex_);
  policy_ = policy;
  random_.seed(seed);
  for (const std::weak_ptr<SimStream>& known : streams_) {
    if (const std::shared_ptr<SimStream> stream = known.lock()) {
      stream->lags_ = draw_lag();
    }
  }
}

std::uint64_t Scheduler::draw_seed() {
  const std::scoped_lock lock(mutex_);
  return policy_ == SchedulePolicy::kRandom ? random_() : 0;
}

unsigned Scheduler::draw(unsigned choices) {
  const std::scoped_lock lock(mutex_);
  if (policy_ != SchedulePolicy::kRandom) {
    return policy_ == SchedulePolicy::kEarly ? 0 : choices - 1;
  }
  return static_cast<unsigned>(random_() % choices);
}

void Scheduler::serve(const std::shared_ptr<SimStream>& stream) {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&stream] { return !stream->queue_.empty() || stream->closing_; });
    if (stream->queue_.empty()) {
      return;
    }
    const std::shared_ptr<Operation> operation = stream->queue_.front();
    changed_.wait(lock, [&operation] { return operation->open && (!operation->awaits || operation->awaits->done); });
    lock.unlock();
    if (operation->run && operation->calls_host) {
      operation->run();
    } else if (operation->run) {
      const DeviceAccess access(operation->label);
      operation->run();
    }
    lock.lock();
    operation->done = true;
    operation->done_at = std::chrono::steady_clock::now();
    operation->run = nullptr;
    operation->awaits = nullptr;
    host_calls_pending_ -= operation->calls_host ? 1 : 0;
    stream->queue_.pop_front();
    changed_.notify_all();
  }
}

}  // namespace cuda_sim
