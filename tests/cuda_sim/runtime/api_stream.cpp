// Streams and events.      Source  CUDA Runtime API 13.0: "Stream Management", "Event Management", "Stream synchronization behavior".
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cuda.h>
#include <cuda_runtime_api.h>
#include <map>
#include <memory>
#include <mutex>
#include <string_view>
#include <thread>

#include <fmt/format.h>

#include "tests/cuda_sim/runtime/capture/capture.hpp"
#include "tests/cuda_sim/runtime/memory.hpp"
#include "tests/cuda_sim/runtime/state.hpp"
#include "tests/cuda_sim/violation.hpp"

struct CUevent_st {
  unsigned flags = 0;
  [[nodiscard]] bool is_timed() const { return (flags & cudaEventDisableTiming) == 0; }
  std::mutex mutex;
  std::shared_ptr<cuda_sim::Operation> recorded;  ///< null: never, or in a capture
  cuda_sim::CapturedPoint captured;
};

namespace cuda_sim {
namespace {

/// Numerically lower is more urgent: what an H100 reports.
constexpr int kPriorityLowest = 0;
constexpr int kPriorityHighest = -5;

struct Handles {
  std::mutex mutex;
  std::map<cudaStream_t, std::shared_ptr<SimStream>> streams;
};

Handles& handles() {
  static auto* const all = new Handles;  // NOLINT: never destroyed, streams may outlive main
  return *all;
}

/// cuStreamWaitValue32 of the driver API, "Stream Memory Operations": the stream goes on when (int32_t)(*address - value) >= 0.
CUresult wait_for_value(CUstream handle, CUdeviceptr address, cuuint32_t value, unsigned flags) {
  constexpr const char* kCall = "cuStreamWaitValue32";
  const std::shared_ptr<SimStream> stream = find_stream(handle, kCall);
  if (!stream || flags != CU_STREAM_WAIT_VALUE_GEQ) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (refuse_on_capturing(*stream) != cudaSuccess) {
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  }
  auto* const word = reinterpret_cast<std::uint32_t*>(address);
  check_page_locked_range(word, sizeof *word, kCall);
  const auto run = [word, value] {
    while (static_cast<std::int32_t>(std::atomic_ref(*word).load(std::memory_order_acquire) - value) < 0) {
      check_page_locked_range(word, sizeof *word, kCall);
      std::this_thread::yield();
    }
  };
  // As a function of the host: it ends when the host has written the word, and needs no access to the device's memory.
  Scheduler::instance().enqueue(*stream, {.label = kCall, .run = run, .awaits = nullptr, .calls_host = true});
  return CUDA_SUCCESS;
}

/// Events that exist and whose time is taken.
std::atomic<std::uint64_t>& timed_events() {
  static std::atomic<std::uint64_t> count{0};
  return count;
}

/// What an event stands for.
struct Point {
  std::shared_ptr<Operation> recorded;
  CapturedPoint captured;
};

Point point_of(cudaEvent_t event) {
  const std::scoped_lock lock(event->mutex);
  return {event->recorded, event->captured};
}

}  // namespace

std::shared_ptr<SimStream> find_stream(cudaStream_t handle, const char* call) {
  if (handle == nullptr || handle == cudaStreamLegacy || handle == cudaStreamPerThread) {
    violation(fmt::format("{} on a default stream, which waits for all others", call));
  }
  Handles& all = handles();
  const std::scoped_lock lock(all.mutex);
  const auto found = all.streams.find(handle);
  if (found == all.streams.end()) {
    return nullptr;
  }
  if (found->second->device != current_device()) {
    return nullptr;  // "launches will fail if they are issued to a stream that is not associated to the current device"
  }
  return found->second;
}

}  // namespace cuda_sim

using namespace cuda_sim;  // the API's names are global

extern "C" {

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* handle, unsigned flags, int priority) {
  if (flags != cudaStreamNonBlocking) {
    violation("a blocking stream waits for the default stream: use cudaStreamNonBlocking");
  }
  // "If the priority is outside the range, it is clamped to the lowest or highest."
  const int clamped = std::clamp(priority, kPriorityHighest, kPriorityLowest);
  std::shared_ptr<SimStream> stream = Scheduler::instance().make_stream(current_device(), flags, clamped);
  Handles& all = handles();
  const std::scoped_lock lock(all.mutex);
  *handle = reinterpret_cast<cudaStream_t>(stream.get());
  all.streams[*handle] = std::move(stream);
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* handle, unsigned flags) {
  return cudaStreamCreateWithPriority(handle, flags, kPriorityLowest);
}

cudaError_t cudaDeviceGetStreamPriorityRange(int* lowest, int* highest) {
  *lowest = kPriorityLowest;
  *highest = kPriorityHighest;
  return cudaSuccess;
}

cudaError_t cudaStreamGetPriority(cudaStream_t handle, int* priority) {
  const std::shared_ptr<SimStream> stream = find_stream(handle, "cudaStreamGetPriority");
  if (!stream) {
    return failed(cudaErrorInvalidResourceHandle);
  }
  *priority = stream->priority;
  return cudaSuccess;
}

/// Returns at once; what the stream still has to do is done.
cudaError_t cudaStreamDestroy(cudaStream_t handle) {
  std::shared_ptr<SimStream> stream;
  {
    Handles& all = handles();
    const std::scoped_lock lock(all.mutex);
    const auto found = all.streams.find(handle);
    if (found == all.streams.end()) {
      return failed(cudaErrorInvalidResourceHandle);
    }
    if (is_capturing(*found->second)) {
      violation("cudaStreamDestroy of a stream that is in a capture");
    }
    stream = std::move(found->second);
    all.streams.erase(found);
  }
  Scheduler::instance().close(stream);
  return cudaSuccess;
}

cudaError_t cudaStreamQuery(cudaStream_t handle) {
  const std::shared_ptr<SimStream> stream = find_stream(handle, "cudaStreamQuery");
  if (!stream) {
    return failed(cudaErrorInvalidResourceHandle);
  }
  if (const cudaError_t code = refuse_on_capturing(*stream); code != cudaSuccess) {
    return code;
  }
  Scheduler& scheduler = Scheduler::instance();
  return scheduler.query(scheduler.last(*stream)) ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  const std::shared_ptr<SimStream> stream = find_stream(handle, "cudaStreamSynchronize");
  if (!stream) {
    return failed(cudaErrorInvalidResourceHandle);
  }
  if (const cudaError_t code = refuse_on_capturing(*stream); code != cudaSuccess) {
    return code;
  }
  Scheduler& scheduler = Scheduler::instance();
  scheduler.wait(scheduler.last(*stream));
  return cudaSuccess;
}

/// Waits for the event's most recent record at the time of this call; an event never recorded holds nothing back.
cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned /*flags*/) {
  const std::shared_ptr<SimStream> stream = find_stream(handle, "cudaStreamWaitEvent");
  if (!stream) {
    return failed(cudaErrorInvalidResourceHandle);
  }
  Point point = point_of(event);
  bool handled = false;
  if (const cudaError_t code = wait_captured(*stream, point.captured, point.recorded == nullptr, handled); code != cudaSuccess) {
    return code;
  }
  if (!handled && point.recorded && Scheduler::instance().keeps_event_wait()) {
    Scheduler::instance().enqueue(*stream, {.label = "cudaStreamWaitEvent", .run = nullptr, .awaits = std::move(point.recorded)});
  }
  return cudaSuccess;
}

/// The function must not call CUDA; work that comes after it in the stream waits for it.
cudaError_t cudaLaunchHostFunc(cudaStream_t handle, cudaHostFn_t function, void* data) {
  const auto prepare = [function, data](Launched) -> std::function<void()> { return [function, data] { function(data); }; };
  return submit(handle, "cudaLaunchHostFunc", {.label = "a function of the host", .prepare = prepare, .calls_host = true});
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  *event = new CUevent_st{.flags = flags, .mutex = {}, .recorded = nullptr, .captured = {}};
  timed_events() += (*event)->is_timed() ? 1 : 0;
  return cudaSuccess;
}

/// "Any pending work is not affected."
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  timed_events() -= event->is_timed() ? 1 : 0;
  delete event;
  return cudaSuccess;
}

/// Replaces what the event stood for; waits that were enqueued before keep the older point.
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t handle) {
  const std::shared_ptr<SimStream> stream = find_stream(handle, "cudaEventRecord");
  if (!stream) {
    return failed(cudaErrorInvalidResourceHandle);
  }
  Point point;
  if (const cudaError_t code = record_captured(*stream, point.captured); code != cudaSuccess) {
    return code;
  }
  if (!point.captured.capture) {
    point.recorded = Scheduler::instance().enqueue(*stream, {.label = "cudaEventRecord", .run = nullptr, .awaits = nullptr});
  }
  const std::scoped_lock lock(event->mutex);
  event->recorded = std::move(point.recorded);
  event->captured = std::move(point.captured);
  return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  const Point point = point_of(event);
  if (const cudaError_t code = refuse_captured_event(point.captured); code != cudaSuccess) {
    return code;
  }
  return Scheduler::instance().query(point.recorded) ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const Point point = point_of(event);
  if (const cudaError_t code = refuse_captured_event(point.captured); code != cudaSuccess) {
    return code;
  }
  Scheduler::instance().wait(point.recorded);
  return cudaSuccess;
}

/// "If cudaEventRecord() has not been called on either event, then cudaErrorInvalidResourceHandle is returned. If cudaEventRecord() has been called on both
/// events but one or both of them has not yet been completed, cudaErrorNotReady is returned. If either event was created with the cudaEventDisableTiming flag,
/// then this function will return cudaErrorInvalidResourceHandle." Of events of a capture, what cudaErrorCapturedEvent says of itself.
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t start, cudaEvent_t end) {
  if (ms == nullptr) {
    return failed(cudaErrorInvalidValue);
  }
  const Point from = point_of(start);
  const Point to = point_of(end);
  for (const Point& point : {from, to}) {
    if (const cudaError_t code = refuse_captured_event(point.captured); code != cudaSuccess) {
      return code;
    }
  }
  if (!start->is_timed() || !end->is_timed() || !from.recorded || !to.recorded) {
    return failed(cudaErrorInvalidResourceHandle);
  }
  Scheduler& scheduler = Scheduler::instance();
  // It is no way to poll: nothing is opened.
  if (!scheduler.is_done(*from.recorded) || !scheduler.is_done(*to.recorded)) {
    return failed(cudaErrorNotReady);
  }
  // "with a resolution of around 0.5 microseconds"
  constexpr std::int64_t kTickNs = 512;
  constexpr double kMsPerTick = static_cast<double>(kTickNs) / 1e6;
  const auto tick = [&scheduler](const Operation& operation) {
    return std::chrono::nanoseconds(scheduler.done_at(operation).time_since_epoch()).count() / kTickNs;
  };
  *ms = static_cast<float>(static_cast<double>(tick(*to.recorded) - tick(*from.recorded)) * kMsPerTick);
  return cudaSuccess;
}

/// Of the driver's calls, that which the backend asks for.
cudaError_t cudaGetDriverEntryPointByVersion(const char* symbol, void** function, unsigned /*version*/, unsigned long long /*flags*/,
                                             cudaDriverEntryPointQueryResult* result) {
  const bool known = std::string_view(symbol) == "cuStreamWaitValue32";
  *function = known ? reinterpret_cast<void*>(&wait_for_value) : nullptr;
  *result = known ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  return cudaSuccess;
}

/// Not CUDA's: another schedule from here on. 0 early, 1 late, 2 random.
void cuda_sim_set_schedule(int policy, std::uint64_t seed) {
  Scheduler::instance().set_schedule(static_cast<SchedulePolicy>(policy), seed);
}

/// Not CUDA's: how often the host had to wait, and a wait that is taken away.
std::uint64_t cuda_sim_host_waits() {
  return Scheduler::instance().host_waits();
}
void cuda_sim_skip_host_wait(std::uint64_t ordinal) {
  Scheduler::instance().skip_host_wait(ordinal);
}
/// Not CUDA's: how many events exist whose time is taken.
std::uint64_t cuda_sim_timed_events() {
  return timed_events();
}
/// Not CUDA's: how often streams were made to wait for events, and such a wait that is taken away.
std::uint64_t cuda_sim_event_waits() {
  return Scheduler::instance().event_waits();
}
void cuda_sim_skip_event_wait(std::uint64_t ordinal) {
  Scheduler::instance().skip_event_wait(ordinal);
}

}  // extern "C"
