#include "tests/cuda_sim/runtime/capture/capture.hpp"

#include <algorithm>
#include <mutex>
#include <utility>

#include "tests/cuda_sim/runtime/state.hpp"

namespace cuda_sim {
namespace {

struct Captures {
  std::mutex mutex;
  std::map<const SimStream*, std::shared_ptr<Capture>> by_stream;  ///< streams that began one or joined it
  std::uint64_t begun = 0;
};

Captures& captures() {
  static auto* const all = new Captures;  // NOLINT: never destroyed, as streams
  return *all;
}

/// Under the lock; null: in none.
std::shared_ptr<Capture> capture_of(const Captures& all, const SimStream& stream) {
  const auto found = all.by_stream.find(&stream);
  return found == all.by_stream.end() ? nullptr : found->second;
}

/// What a call that no capture allows does to one.
cudaError_t spoil(Capture& capture) {
  const bool already = std::exchange(capture.invalidated, true);
  return failed(already ? cudaErrorStreamCaptureInvalidated : cudaErrorStreamCaptureUnsupported);
}

/// All that is before the nodes of `tails`, and they.
std::set<std::size_t> reached_from(const Capture& capture, const std::set<std::size_t>& tails) {
  std::set<std::size_t> reached = tails;
  for (std::size_t i = capture.nodes.size(); i-- > 0;) {
    if (reached.contains(i)) {
      reached.insert(capture.nodes[i].after.begin(), capture.nodes[i].after.end());
    }
  }
  return reached;
}

}  // namespace

cudaError_t submit(cudaStream_t handle, const char* call, Work work) {
  const std::shared_ptr<SimStream> stream = find_stream(handle, call);
  if (!stream) {
    return failed(cudaErrorInvalidResourceHandle);
  }
  {
    Captures& all = captures();
    const std::scoped_lock lock(all.mutex);
    if (const std::shared_ptr<Capture> capture = capture_of(all, *stream)) {
      if (capture->invalidated) {
        return failed(cudaErrorStreamCaptureInvalidated);
      }
      if (work.on_capture) {
        work.on_capture();
      }
      std::set<std::size_t>& tails = capture->tails[stream.get()];
      const std::size_t index = capture->nodes.size();
      std::set<std::size_t> after = std::exchange(tails, {index});
      for (const void* const chain : work.chains) {
        const auto [last, is_first] = capture->chains.try_emplace(chain, index);
        if (!is_first) {
          after.insert(std::exchange(last->second, index));
        }
      }
      capture->nodes.push_back({.work = std::move(work), .after = std::move(after)});
      return cudaSuccess;
    }
  }
  std::function<void()> run = work.prepare ? work.prepare(Launched::kByCall) : nullptr;
  const std::set<const void*> orders = work.order == nullptr ? std::set<const void*>{} : std::set<const void*>{work.order};
  LaunchOrders& all = LaunchOrders::instance();
  Operation operation{.label = std::move(work.label), .run = std::move(run), .awaits = nullptr, .calls_host = work.calls_host, .opens = all.last(orders)};
  all.launched(orders, Scheduler::instance().enqueue(*stream, std::move(operation)));
  return cudaSuccess;
}

LaunchOrders& LaunchOrders::instance() {
  static auto* const all = new LaunchOrders;  // NOLINT: never destroyed, as streams
  return *all;
}

std::vector<std::weak_ptr<Operation>> LaunchOrders::last(const std::set<const void*>& orders) {
  const std::scoped_lock lock(mutex_);
  std::vector<std::weak_ptr<Operation>> found;
  for (const void* const order : orders) {
    found.push_back(last_[order]);
  }
  return found;
}

void LaunchOrders::launched(const std::set<const void*>& orders, const std::shared_ptr<Operation>& operation) {
  const std::scoped_lock lock(mutex_);
  for (const void* const order : orders) {
    last_[order] = operation;
  }
}

bool is_capturing(const SimStream& stream) {
  Captures& all = captures();
  const std::scoped_lock lock(all.mutex);
  return capture_of(all, stream) != nullptr;
}

std::uint64_t capture_id(const SimStream& stream, cudaStreamCaptureMode& mode) {
  Captures& all = captures();
  const std::scoped_lock lock(all.mutex);
  const std::shared_ptr<Capture> capture = capture_of(all, stream);
  if (!capture) {
    return 0;
  }
  mode = capture->mode;
  return capture->id;
}

cudaError_t refuse_on_capturing(const SimStream& stream) {
  Captures& all = captures();
  const std::scoped_lock lock(all.mutex);
  const std::shared_ptr<Capture> capture = capture_of(all, stream);
  return capture ? spoil(*capture) : cudaSuccess;
}

cudaError_t refuse_while_capturing() {
  Captures& all = captures();
  const std::scoped_lock lock(all.mutex);
  for (const auto& [stream, capture] : all.by_stream) {
    const bool mine = capture->thread == std::this_thread::get_id() && capture->mode != cudaStreamCaptureModeRelaxed;
    if (mine || capture->mode == cudaStreamCaptureModeGlobal) {
      return spoil(*capture);
    }
  }
  return cudaSuccess;
}

cudaError_t refuse_captured_event(const CapturedPoint& point) {
  if (!point.capture) {
    return cudaSuccess;
  }
  const std::scoped_lock lock(captures().mutex);
  point.capture->invalidated = true;
  return failed(cudaErrorCapturedEvent);
}

cudaError_t begin_capture(const SimStream& stream, cudaStreamCaptureMode mode) {
  Captures& all = captures();
  const std::scoped_lock lock(all.mutex);
  if (capture_of(all, stream)) {
    return failed(cudaErrorIllegalState);
  }
  auto capture = std::make_shared<Capture>();
  capture->mode = mode;
  capture->thread = std::this_thread::get_id();
  capture->origin = &stream;
  capture->id = ++all.begun;
  capture->tails[&stream] = {};
  all.by_stream[&stream] = std::move(capture);
  return cudaSuccess;
}

cudaError_t end_capture(const SimStream& stream, std::vector<Node>& nodes) {
  Captures& all = captures();
  const std::scoped_lock lock(all.mutex);
  const std::shared_ptr<Capture> capture = capture_of(all, stream);
  if (!capture) {
    return failed(cudaErrorIllegalState);
  }
  if (capture->origin != &stream) {
    capture->invalidated = true;
    return failed(cudaErrorStreamCaptureUnmatched);
  }
  if (capture->mode != cudaStreamCaptureModeRelaxed && capture->thread != std::this_thread::get_id()) {
    return failed(cudaErrorStreamCaptureWrongThread);  // the thread that may end it can still do so
  }
  std::erase_if(all.by_stream, [&capture](const auto& entry) { return entry.second == capture; });
  if (capture->invalidated) {
    return failed(cudaErrorStreamCaptureInvalidated);
  }
  capture->invalidated = true;  // for events that still stand for points of it
  const std::set<std::size_t> joined = reached_from(*capture, capture->tails[&stream]);
  for (const auto& [forked, tails] : capture->tails) {
    if (!std::ranges::includes(joined, tails)) {
      return failed(cudaErrorStreamCaptureUnjoined);
    }
  }
  nodes = std::move(capture->nodes);
  return cudaSuccess;
}

cudaError_t capture_status(const SimStream& stream, cudaStreamCaptureStatus& status) {
  Captures& all = captures();
  const std::scoped_lock lock(all.mutex);
  const std::shared_ptr<Capture> capture = capture_of(all, stream);
  status = !capture ? cudaStreamCaptureStatusNone : capture->invalidated ? cudaStreamCaptureStatusInvalidated : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}

cudaError_t record_captured(const SimStream& stream, CapturedPoint& point) {
  Captures& all = captures();
  const std::scoped_lock lock(all.mutex);
  point = {};
  const std::shared_ptr<Capture> capture = capture_of(all, stream);
  if (!capture) {
    return cudaSuccess;
  }
  if (capture->invalidated) {
    return failed(cudaErrorStreamCaptureInvalidated);
  }
  point = {.capture = capture, .nodes = capture->tails[&stream]};
  return cudaSuccess;
}

cudaError_t wait_captured(const SimStream& stream, const CapturedPoint& point, bool never_recorded, bool& handled) {
  Captures& all = captures();
  const std::scoped_lock lock(all.mutex);
  handled = true;
  const std::shared_ptr<Capture> capture = capture_of(all, stream);
  if (capture && capture->invalidated) {
    return failed(cudaErrorStreamCaptureInvalidated);
  }
  if (!point.capture) {
    if (capture && !never_recorded) {
      capture->invalidated = true;  // the graph would depend on work that is not in it
      return failed(cudaErrorStreamCaptureIsolation);
    }
    handled = capture != nullptr;
    return cudaSuccess;
  }
  if (point.capture->invalidated) {
    return failed(cudaErrorCapturedEvent);
  }
  if (capture && capture != point.capture) {
    capture->invalidated = true;
    point.capture->invalidated = true;
    return failed(cudaErrorStreamCaptureMerge);
  }
  all.by_stream[&stream] = point.capture;  // joins it, if it is not in it
  point.capture->tails[&stream].insert(point.nodes.begin(), point.nodes.end());
  return cudaSuccess;
}

}  // namespace cuda_sim
