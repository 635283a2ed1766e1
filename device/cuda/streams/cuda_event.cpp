#include "device/cuda/streams/cuda_event.hpp"

#include "device/cuda/streams/cuda_stream.hpp"
#include "device/cuda/streams/poll.hpp"

namespace lockstep::device::cuda {

CudaEvent::~CudaEvent() {
  if (native_ != nullptr) {
    static_cast<void>(cudaEventDestroy(native_));
  }
}

bool CudaEvent::query() const {
  const std::scoped_lock lock(mutex_);
  // Any answer but "not ready" ends the wait for it: what is wrong is `wait`'s to tell.
  return native_ == nullptr || cudaEventQuery(native_) != cudaErrorNotReady;
}

Status CudaEvent::wait(const Deadline& deadline) {
  LOCKSTEP_RETURN_IF_ERROR(poll(
      [this] {
        const std::scoped_lock lock(mutex_);
        return native_ == nullptr ? cudaSuccess : cudaEventQuery(native_);
      },
      *context_, "cudaEventQuery", {}, deadline));
  const std::scoped_lock lock(mutex_);
  return failure_ ? Status(*failure_) : Status{};
}

Status CudaEvent::record(cudaStream_t stream, std::string_view stream_name, const std::optional<Error>& failure) {
  const std::scoped_lock lock(mutex_);
  if (native_ == nullptr) {
    // No time stamps: an event with them costs the device more. Who wants some has CudaStreamTimes.
    LOCKSTEP_RETURN_IF_ERROR(context_->check(cudaEventCreateWithFlags(&native_, cudaEventDisableTiming), "cudaEventCreateWithFlags", stream_name));
  }
  failure_ = failure;
  return context_->check(cudaEventRecord(native_, stream), "cudaEventRecord", stream_name);
}

void CudaEvent::hold_back(CudaStream& stream) {
  const std::scoped_lock lock(mutex_);
  if (native_ == nullptr) {
    return;
  }
  stream.check(cudaStreamWaitEvent(stream.native(), native_, cudaEventWaitDefault), "cudaStreamWaitEvent");
  if (failure_) {
    stream.note(*failure_);
  }
}

}  // namespace lockstep::device::cuda
