#include "device/cuda/streams/cuda_stream_times.hpp"

#include <chrono>

#include "device/cuda/streams/cuda_stream.hpp"

namespace lockstep::device::cuda {

Result<std::unique_ptr<StreamTimes>> CudaStreamTimes::create(std::shared_ptr<const CudaContext> context, std::size_t points) {
  std::unique_ptr<CudaStreamTimes> made(new CudaStreamTimes(std::move(context)));  // the constructor is private
  LOCKSTEP_RETURN_IF_ERROR(made->context_->bind());
  made->events_.reserve(points);
  for (std::size_t i = 0; i < points; ++i) {
    cudaEvent_t event = nullptr;
    LOCKSTEP_RETURN_IF_ERROR(made->context_->check(cudaEventCreateWithFlags(&event, cudaEventDefault), "cudaEventCreateWithFlags"));
    made->events_.push_back(event);
  }
  return std::unique_ptr<StreamTimes>(std::move(made));
}

CudaStreamTimes::~CudaStreamTimes() {
  for (const cudaEvent_t event : events_) {
    static_cast<void>(cudaEventDestroy(event));
  }
}

void CudaStreamTimes::mark(std::size_t point, Stream& stream) {
  auto& marked = static_cast<CudaStream&>(stream);
  marked.check(cudaEventRecord(events_[point], marked.native()), "cudaEventRecord");
}

Result<Duration> CudaStreamTimes::between(std::size_t from, std::size_t to) const {
  float ms = 0;
  LOCKSTEP_RETURN_IF_ERROR(context_->check(cudaEventElapsedTime(&ms, events_[from], events_[to]), "cudaEventElapsedTime"));
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double, std::milli>(ms));
}

}  // namespace lockstep::device::cuda
