// CudaStream: a CUDA stream behind the Stream interface.
#pragma once

#include <cstdint>
#include <cuda_runtime_api.h>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "device/cuda/cuda_context.hpp"
#include "device/cuda/streams/cuda_signal.hpp"
#include "lockstep/device/device.hpp"
#include "lockstep/device/stream.hpp"

namespace lockstep::device::cuda {

/// `enqueue` calls the task at once, on the caller's thread; what its ops launch runs on the device in order.
/// A failure of a task or a launch is known at once. One of the device's is found by `synchronize`, by an event's wait, or by the next call.
/// Ownership  the CUDA stream, which CUDA keeps until its work has ended.
class CudaStream final : public Stream {
 public:
  [[nodiscard]] static Result<std::unique_ptr<Stream>> create(std::shared_ptr<const CudaContext> context, std::string_view name, StreamPriority priority);
  /// Where making it fails, the stream has that failure.
  CudaStream(std::shared_ptr<const CudaContext> context, std::string_view name, StreamPriority priority);
  ~CudaStream() override;

  void enqueue(Task task) override;
  void record(Event& event) override;
  void wait_for(Event& event) override;
  [[nodiscard]] Status synchronize(const Deadline& deadline) override;
  [[nodiscard]] std::string_view name() const override { return name_; }

  [[nodiscard]] void* native_handle() const override { return native_; }

  [[nodiscard]] cudaStream_t native() const { return native_; }
  /// No other stream of this device ever has it; CUDA's handle may come back.
  [[nodiscard]] std::uint64_t id() const { return id_; }
  /// Keeps the first failure.
  void note(Status status);
  /// Later work waits on the device until `signal` has reached `point`. An error that comes with it is told by `synchronize`: by then work is launched already.
  void await(const std::shared_ptr<SignalState>& signal, std::uint64_t point);
  /// note() of what a CUDA call returned.
  void check(cudaError_t code, std::string_view call) { note(context_->check(code, call, name_)); }
  /// The same of a kernel's launch, which is counted.
  void launched(cudaError_t code, std::string_view call) {
    if (capturing_) {
      ++captured_kernels_;
    } else {
      context_->count_launch();
    }
    check(code, call);
  }
  /// The first failure, which the stream then has no longer.
  [[nodiscard]] Status take_failure();

  /// From here to end_capture, calls of this thread that would run something on this stream are recorded; none may wait for the device.
  [[nodiscard]] Status begin_capture();
  /// `graph` is the caller's; null after an error. `kernels`: how many were recorded.
  [[nodiscard]] Status end_capture(cudaGraph_t& graph, std::uint64_t& kernels);
  [[nodiscard]] bool is_capturing() const { return capturing_; }

 private:
  [[nodiscard]] Status open(StreamPriority priority);
  [[nodiscard]] Status run(Task& task) const;
  [[nodiscard]] Status wait_for_word(const SignalState& signal, std::uint64_t point) const;

  /// A signal's point that enqueued work waits for.
  struct Awaited {
    std::shared_ptr<SignalState> signal;
    std::uint64_t point = 0;
  };

  const std::shared_ptr<const CudaContext> context_;  ///< shared with the device, which a stream may outlive
  const std::string name_;
  const std::uint64_t id_;
  cudaStream_t native_ = nullptr;
  std::optional<Error> failure_;
  std::vector<Awaited> awaited_;  ///< not known to have come without an error
  bool capturing_ = false;
  std::uint64_t captured_kernels_ = 0;
};

}  // namespace lockstep::device::cuda
