#include "lockstep/micro_batch/stream_manager.hpp"

#include <algorithm>
#include <chrono>
#include <stdexcept>
#include <thread>

#include <fmt/format.h>

namespace lockstep {

namespace {
/// A waiter looks at its deadline this often, because the deadline's clock may be a test's and its watch may change its mind.
constexpr Duration kLookAgain = std::chrono::milliseconds(50);
}  // namespace

std::string_view stream_type_name(StreamType type) {
  switch (type) {
    case StreamType::kCompute:
      return "compute";
    case StreamType::kCommunication:
      return "communication";
    case StreamType::kDefault:
      return "default";
    case StreamType::kHighPriority:
      return "high_priority";
  }
  return "unknown";
}

void StreamHandle::enqueue_task(device::Task task) {
  const std::scoped_lock lock(mutex_);
  enqueued_count_.fetch_add(1, std::memory_order_relaxed);
  ++changes_;
  stream_->enqueue(std::move(task));
}

Status StreamHandle::synchronize(const Deadline& deadline) {
  // Not under the lock while it waits: what the stream waits for may be a task of another one that has yet to enqueue here.
  std::unique_lock lock(mutex_);
  // Recorded anew only where something has come meanwhile: a device passes no point at the moment at which it is recorded.
  while (changes_run_ != changes_) {
    const std::uint64_t seen = changes_;
    stream_->record(*all_run_);
    lock.unlock();
    while (!all_run_->query()) {
      LOCKSTEP_RETURN_IF_ERROR(deadline.check());
      static_cast<void>(all_run_->reached_within(std::min(deadline.next_check() - std::chrono::steady_clock::now(), kLookAgain)));
    }
    lock.lock();
    changes_run_ = std::max(changes_run_, seen);
  }
  return stream_->synchronize(deadline);  // which waits for what has come by stream() alone
}

void StreamHandle::record_event(device::Event& event) {
  const std::scoped_lock lock(mutex_);
  stream_->record(event);
}

void StreamHandle::wait_event(device::Event& event) {
  const std::scoped_lock lock(mutex_);
  ++changes_;
  stream_->wait_for(event);
}

StreamManager::StreamManager(const StreamManagerOptions& options, device::Device* device) : device_(device) {
  if (options.num_compute_streams < 1) {
    throw std::invalid_argument(fmt::format("num_compute_streams is {}, expected at least 1", options.num_compute_streams));
  }
  if (options.num_comm_streams < 1) {
    throw std::invalid_argument(fmt::format("num_comm_streams is {}, expected at least 1", options.num_comm_streams));
  }
  if (device_ == nullptr) {
    const int core_count = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
    auto made = device::make_device("cpu", {.local_rank = 0, .core_count = core_count});
    if (!made) {
      throw std::runtime_error(made.error().message);
    }
    own_device_ = std::move(made).value();
    device_ = own_device_.get();
  }
  const StreamType compute_type = options.use_high_priority ? StreamType::kHighPriority : StreamType::kCompute;
  compute_ = make_pool(options.num_compute_streams, "compute", compute_type, options.use_high_priority ? -1 : 0, options.inline_streams);
  comm_ = make_pool(options.num_comm_streams, "comm", StreamType::kCommunication, 0, options.inline_streams);
}

StreamManager::~StreamManager() {
  // A stream's destructor drops what has not run. Here an order between streams may still need it: every task runs, then the streams go.
  static_cast<void>(synchronize_all());
}

StreamManager::Pool StreamManager::make_pool(int count, std::string_view name, StreamType type, int priority, bool inline_streams) {
  Pool pool;
  for (int i = 0; i < count; ++i) {
    const std::string stream_name = fmt::format("{}-{}", name, i);
    // Exchanges are what others wait for.
    const auto urgency = priority < 0 || type == StreamType::kCommunication ? device::StreamPriority::kHigh : device::StreamPriority::kNormal;
    Result<std::unique_ptr<device::Stream>> stream = inline_streams ? device_->make_inline_stream(stream_name) : device_->make_stream(stream_name, urgency);
    if (!stream) {
      throw std::runtime_error(stream.error().message);
    }
    pool.push_back(std::make_unique<StreamHandle>(std::move(stream).value(), type, priority, device_->make_event()));
  }
  return pool;
}

StreamHandle& StreamManager::pick(Pool& pool, std::atomic<std::size_t>& next, StreamPolicy policy) {
  if (policy == StreamPolicy::round_robin) {
    return *pool[next.fetch_add(1, std::memory_order_relaxed) % pool.size()];
  }
  return **std::min_element(pool.begin(), pool.end(), [](const auto& a, const auto& b) { return a->outstanding_work() < b->outstanding_work(); });
}

Status StreamManager::synchronize_all(const Deadline& deadline) {
  Status first;
  for (Pool* pool : {&compute_, &comm_}) {
    for (const std::unique_ptr<StreamHandle>& handle : *pool) {
      if (Status done = handle->synchronize(deadline); !done && first) {
        first = std::move(done);
      }
    }
  }
  return first;
}

}  // namespace lockstep
