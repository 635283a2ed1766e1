#include "device/cuda/cuda_context.hpp"

#include <fmt/format.h>

namespace lockstep::device::cuda {

Status CudaContext::check(cudaError_t code, std::string_view call, std::string_view stream) const {
  if (code == cudaSuccess) {
    return {};
  }
  // Not sticky ones are reported once: the next call must not find this one's error.
  static_cast<void>(cudaGetLastError());
  const ErrorCode kind = code == cudaErrorMemoryAllocation ? ErrorCode::kResourceExhausted : ErrorCode::kInternal;
  return Error{kind, fmt::format("{} failed on {}: {} ({})", call, place(stream), cudaGetErrorString(code), cudaGetErrorName(code))};
}

std::string CudaContext::place(std::string_view stream) const {
  std::string place = fmt::format("device {} ({})", index_, device_name_);
  if (!stream.empty()) {
    place += fmt::format(", stream \"{}\"", stream);
  }
  if (current_step_) {
    place += fmt::format(", step {}", current_step_());
  }
  return place;
}

}  // namespace lockstep::device::cuda
