// Stream capture and graphs of the simulated runtime: calls that are recorded instead of run, and launches of what was recorded.
// Source  CUDA Runtime API 13.0: "Stream Management", "Graph Management", "Error Handling"; CUDA C++ Programming Guide 13.0: "CUDA Graphs", of it "Creating a
//         Graph Using Stream Capture": "Cross-stream Dependencies and Events", "Prohibited and Unhandled Operations", "Invalidation".
#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda_runtime_api.h>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "tests/cuda_sim/runtime/schedule.hpp"

namespace cuda_sim {

/// When work is launched: by the call itself, or by a launch of the graph that it was captured into.
enum class Launched { kByCall, kByGraph };

/// What a call would enqueue.
struct Work {
  std::string label;
  /// Called on the host's thread at each launch; what it returns runs on the stream. None: the work is only a point.
  std::function<std::function<void()>(Launched)> prepare;
  bool calls_host = false;
  /// Called when it is captured; may be none.
  std::function<void()> on_capture{};
  /// In a capture it comes after the last work of each of these, whichever their streams.
  std::vector<const void*> chains{};
  /// Launches of one order wait for each other by themselves, in the order of the host's calls: who waits for one lets the earlier ones begin. Null: none.
  const void* order = nullptr;
};

/// The newest launch of an order, and the next one.
class LaunchOrders {
 public:
  [[nodiscard]] static LaunchOrders& instance();
  [[nodiscard]] std::vector<std::weak_ptr<Operation>> last(const std::set<const void*>& orders);
  void launched(const std::set<const void*>& orders, const std::shared_ptr<Operation>& operation);

 private:
  std::mutex mutex_;
  std::map<const void*, std::weak_ptr<Operation>> last_;
};

struct Node {
  Work work;
  std::set<std::size_t> after;  ///< by index; all of them lower
};

/// One capture: the stream where it began, and those that have joined it by waiting for events.      Threads  under the module's lock.
struct Capture {
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  std::thread::id thread;
  const SimStream* origin = nullptr;
  std::uint64_t id = 0;  ///< from 1
  std::vector<Node> nodes;
  std::map<const SimStream*, std::set<std::size_t>> tails;  ///< what the next node of each stream comes after
  std::map<const void*, std::size_t> chains;                ///< the newest node of each
  bool invalidated = false;
};

/// A point of a capture, for an event.
struct CapturedPoint {
  std::shared_ptr<Capture> capture;  ///< null: the event was recorded in no capture, or that has ended
  std::set<std::size_t> nodes;
};

/// Enqueues the work, or captures it where the stream is in a capture.
cudaError_t submit(cudaStream_t handle, const char* call, Work work);

[[nodiscard]] bool is_capturing(const SimStream& stream);
/// The number and the mode of the capture that the stream is in; 0: none.
[[nodiscard]] std::uint64_t capture_id(const SimStream& stream, cudaStreamCaptureMode& mode);
/// A call that the stream's capture does not survive. cudaSuccess: the stream is in none.
[[nodiscard]] cudaError_t refuse_on_capturing(const SimStream& stream);
/// The same of a call that could wait for anything on the device, in this thread's captures and, where they are global, other threads'.
[[nodiscard]] cudaError_t refuse_while_capturing();
/// The same of a question about an event that stands for a point of a capture.
[[nodiscard]] cudaError_t refuse_captured_event(const CapturedPoint& point);

[[nodiscard]] cudaError_t begin_capture(const SimStream& stream, cudaStreamCaptureMode mode);
/// `nodes` is what was captured, after cudaSuccess.
[[nodiscard]] cudaError_t end_capture(const SimStream& stream, std::vector<Node>& nodes);
[[nodiscard]] cudaError_t capture_status(const SimStream& stream, cudaStreamCaptureStatus& status);
/// The point where the stream's capture is; with no capture where it is in none.
[[nodiscard]] cudaError_t record_captured(const SimStream& stream, CapturedPoint& point);
/// The stream's next node comes after `point`; a stream in no capture joins that of the point. `point` without a capture: the event was recorded, or
/// `never_recorded`, outside of all captures. `handled`: there is nothing to enqueue.
[[nodiscard]] cudaError_t wait_captured(const SimStream& stream, const CapturedPoint& point, bool never_recorded, bool& handled);

}  // namespace cuda_sim
