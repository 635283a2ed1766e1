#include "comm/nccl/plugin/nccl_context.hpp"

#include <utility>

#include <fmt/format.h>

namespace lockstep::comm::nccl {

Result<std::shared_ptr<const NcclContext>> NcclContext::create(const CommOptions& options) {
  const LaunchInfo& launch = options.launch;
  int count = 0;
  if (const cudaError_t code = cudaGetDeviceCount(&count); code != cudaSuccess) {
    static_cast<void>(cudaGetLastError());
    return Error{ErrorCode::kUnsupported, fmt::format("rank {}: no usable GPU: {} ({})", launch.rank, cudaGetErrorString(code), cudaGetErrorName(code))};
  }
  if (count > 1 && launch.local_rank >= count) {
    return Error{ErrorCode::kUnsupported, fmt::format("rank {} is rank {} of {} on this host, and CUDA shows {} devices: NCCL needs one for each rank",
                                                      launch.rank, launch.local_rank, launch.local_size, count)};
  }
  std::shared_ptr<NcclContext> context(new NcclContext(options, launch.local_rank % count));
  LOCKSTEP_RETURN_IF_ERROR(context->bind());
  cudaDeviceProp properties{};
  LOCKSTEP_RETURN_IF_ERROR(context->check(cudaGetDeviceProperties(&properties, context->device_), "cudaGetDeviceProperties", {}));
  context->device_name_ = properties.name;
  return std::shared_ptr<const NcclContext>(std::move(context));
}

Status NcclContext::probe(const CommOptions& options) {
  const Result<std::shared_ptr<const NcclContext>> made = create(options);
  return made ? Status{} : Status(made.error());
}

std::string NcclContext::where(std::string_view place) const {
  std::string text = fmt::format("{}{}device {} ({})", place, place.empty() ? "" : ", ", device_, device_name_);
  if (current_step_) {
    text += fmt::format(", step {}", current_step_());
  }
  return text;
}

Status NcclContext::check(cudaError_t code, std::string_view call, std::string_view place) const {
  if (code == cudaSuccess) {
    return {};
  }
  // Not sticky ones are reported once: the next call must not find this one's error.
  static_cast<void>(cudaGetLastError());
  const ErrorCode kind = code == cudaErrorMemoryAllocation ? ErrorCode::kResourceExhausted : ErrorCode::kInternal;
  return Error{kind, fmt::format("rank {}: {} failed on {}: {} ({})", rank_, call, where(place), cudaGetErrorString(code), cudaGetErrorName(code))};
}

Status NcclContext::check(ncclResult_t code, std::string_view call, std::string_view place, ncclComm_t communicator) const {
  if (code == ncclSuccess || code == ncclInProgress) {
    return {};
  }
  const char* const last = communicator == nullptr ? "" : ncclGetLastError(communicator);
  const std::string_view details = last == nullptr ? "" : last;
  const ErrorCode kind = code == ncclRemoteError ? ErrorCode::kPeerLost : ErrorCode::kInternal;
  return Error{kind,
               fmt::format("rank {}: {} failed on {}: {}{}{}", rank_, call, where(place), ncclGetErrorString(code), details.empty() ? "" : ": ", details)};
}

}  // namespace lockstep::comm::nccl
