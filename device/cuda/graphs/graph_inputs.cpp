#include "device/cuda/graphs/graph_inputs.hpp"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "device/cuda/streams/cuda_stream.hpp"
#include "lockstep/core/check.hpp"

namespace lockstep::device::cuda {

const void* HostCopies::find(std::span<const std::byte> bytes) const {
  const std::scoped_lock lock(mutex_);
  const auto begin = reinterpret_cast<std::uintptr_t>(bytes.data());
  const auto found = std::ranges::find_if(copies_, [&](const Copy& copy) {
    const auto from = reinterpret_cast<std::uintptr_t>(copy.host.data());
    return begin >= from && begin + bytes.size() <= from + copy.host.size();
  });
  return found == copies_.end() ? nullptr : found->device + (begin - reinterpret_cast<std::uintptr_t>(found->host.data()));
}

void HostCopies::add(std::span<const std::byte> host, const std::byte* device) {
  const std::scoped_lock lock(mutex_);
  copies_.push_back({.host = host, .device = device});
}

void HostCopies::remove(const std::byte* host) {
  const std::scoped_lock lock(mutex_);
  std::erase_if(copies_, [host](const Copy& copy) { return copy.host.data() == host; });
}

Result<std::unique_ptr<GraphInputs>> CudaGraphInputs::create(const CudaContext& context, DeviceMemory& memory, std::shared_ptr<HostCopies> copies,
                                                             std::size_t bytes) {
  LOCKSTEP_ASSIGN_OR_RETURN(Buffer host, allocate_pinned(context, bytes));
  LOCKSTEP_ASSIGN_OR_RETURN(Buffer device, memory.allocate(bytes));
  return std::unique_ptr<GraphInputs>(std::make_unique<CudaGraphInputs>(std::move(host), std::move(device), std::move(copies)));
}

CudaGraphInputs::CudaGraphInputs(Buffer host, Buffer device, std::shared_ptr<HostCopies> copies)
    : host_(std::move(host)), device_(std::move(device)), copies_(std::move(copies)) {
  copies_->add(this->host(), device_.as<std::byte>());
}

CudaGraphInputs::~CudaGraphInputs() {
  copies_->remove(host_.as<std::byte>());
}

void CudaGraphInputs::upload(Stream& stream, std::size_t offset, std::size_t bytes) {
  LOCKSTEP_CHECK(offset <= host_.bytes() && bytes <= host_.bytes() - offset, "{} bytes from {} of graph inputs of {}", bytes, offset, host_.bytes());
  auto& on = static_cast<CudaStream&>(stream);
  on.check(cudaMemcpyAsync(device_.as<std::byte>() + offset, host_.as<std::byte>() + offset, bytes, cudaMemcpyHostToDevice, on.native()),
           "cudaMemcpyAsync (graph inputs)");
}

}  // namespace lockstep::device::cuda
