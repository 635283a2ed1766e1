#include "device/cuda/streams/cuda_stream.hpp"

#include <cuda.h>
#include <cudaTypedefs.h>
#include <exception>
#include <utility>

#include <fmt/format.h>

#include "device/cuda/streams/cuda_event.hpp"
#include "device/cuda/streams/poll.hpp"

namespace lockstep::device::cuda {

Result<std::unique_ptr<Stream>> CudaStream::create(std::shared_ptr<const CudaContext> context, std::string_view name, StreamPriority priority) {
  auto stream = std::make_unique<CudaStream>(std::move(context), name, priority);
  if (stream->failure_) {
    return *stream->failure_;
  }
  return std::unique_ptr<Stream>(std::move(stream));
}

CudaStream::CudaStream(std::shared_ptr<const CudaContext> context, std::string_view name, StreamPriority priority)
    : context_(std::move(context)), name_(name), id_(context_->new_stream_id()) {
  note(open(priority));
}

Status CudaStream::open(StreamPriority priority) {
  LOCKSTEP_RETURN_IF_ERROR(context_->bind());
  int lowest = 0;
  int highest = 0;
  LOCKSTEP_RETURN_IF_ERROR(context_->check(cudaDeviceGetStreamPriorityRange(&lowest, &highest), "cudaDeviceGetStreamPriorityRange", name_));
  // Non-blocking: no order with the default stream, which nothing here uses.
  const int chosen = priority == StreamPriority::kHigh ? highest : lowest;
  return context_->check(cudaStreamCreateWithPriority(&native_, cudaStreamNonBlocking, chosen), "cudaStreamCreateWithPriority", name_);
}

CudaStream::~CudaStream() {
  if (native_ != nullptr) {
    static_cast<void>(cudaStreamDestroy(native_));
  }
}

void CudaStream::note(Status status) {
  if (!status && !failure_) {
    failure_ = std::move(status).error();
  }
}

Status CudaStream::run(Task& task) const {
  LOCKSTEP_RETURN_IF_ERROR(context_->bind());
  try {
    return task();
  } catch (const std::exception& thrown) {
    return Error{ErrorCode::kInternal, fmt::format("a task of stream \"{}\" threw: {}", name_, thrown.what())};
  } catch (...) {  // everything: it becomes the stream's error, as on every device
    return Error{ErrorCode::kInternal, fmt::format("a task of stream \"{}\" threw something that is no std::exception", name_)};
  }
}

void CudaStream::enqueue(Task task) {
  if (!failure_) {
    note(run(task));
  }
}

void CudaStream::record(Event& event) {
  // Also after a failure: work of before it may still run, and who waits for the event must not be told otherwise.
  note(static_cast<CudaEvent&>(event).record(native_, name_, failure_));
}

void CudaStream::wait_for(Event& event) {
  static_cast<CudaWaitable&>(event).hold_back(*this);
}

void CudaStream::await(const std::shared_ptr<SignalState>& signal, std::uint64_t point) {
  if (point == 0) {
    return;  // never armed
  }
  std::erase_if(awaited_, [](const Awaited& awaited) { return awaited.signal->reached(awaited.point) && awaited.signal->status_at(awaited.point); });
  awaited_.push_back({signal, point});
  note(wait_for_word(*signal, point));
}

Status CudaStream::wait_for_word(const SignalState& signal, std::uint64_t point) const {
  // A call of the driver: the runtime has none, and shows the way to the driver's.
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  constexpr unsigned kVersion = 11070;  // of the call's present form
  LOCKSTEP_RETURN_IF_ERROR(context_->check(cudaGetDriverEntryPointByVersion("cuStreamWaitValue32", &function, kVersion, cudaEnableDefault, &found),
                                           "cudaGetDriverEntryPointByVersion", name_));
  if (found != cudaDriverEntryPointSuccess || function == nullptr) {
    return Error{ErrorCode::kUnsupported, "the driver has no cuStreamWaitValue32: install branch 580 or newer"};
  }
  const auto wait_value = reinterpret_cast<PFN_cuStreamWaitValue32_v11070>(function);
  const auto address = reinterpret_cast<CUdeviceptr>(signal.word());  // page-locked memory has one address for host and device
  const CUresult result = wait_value(native_, address, static_cast<cuuint32_t>(point), CU_STREAM_WAIT_VALUE_GEQ);
  return result == CUDA_SUCCESS
             ? Status{}
             : Error{ErrorCode::kInternal, fmt::format("cuStreamWaitValue32 failed on stream \"{}\": CUresult {}", name_, static_cast<int>(result))};
}

Status CudaStream::synchronize(const Deadline& deadline) {
  LOCKSTEP_RETURN_IF_ERROR(poll([this] { return cudaStreamQuery(native_); }, *context_, "cudaStreamQuery", name_, deadline));
  for (const Awaited& awaited : std::exchange(awaited_, {})) {
    note(awaited.signal->status_at(awaited.point));
  }
  return take_failure();
}

Status CudaStream::take_failure() {
  if (std::optional<Error> failure = std::exchange(failure_, std::nullopt)) {
    return *std::move(failure);
  }
  return {};
}

Status CudaStream::begin_capture() {
  // Thread-local: of this thread alone, calls that could wait for the capture without being part of it are refused; others go on, as ranks in one process do.
  LOCKSTEP_RETURN_IF_ERROR(context_->check(cudaStreamBeginCapture(native_, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture", name_));
  capturing_ = true;
  captured_kernels_ = 0;
  return {};
}

Status CudaStream::end_capture(cudaGraph_t& graph, std::uint64_t& kernels) {
  capturing_ = false;
  kernels = captured_kernels_;
  graph = nullptr;
  return context_->check(cudaStreamEndCapture(native_, &graph), "cudaStreamEndCapture", name_);
}

}  // namespace lockstep::device::cuda
