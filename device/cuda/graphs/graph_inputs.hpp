// GraphInputs on CUDA, and where ops find the device's copy of what they are given.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "device/cuda/cuda_context.hpp"
#include "device/cuda/memory/device_memory.hpp"
#include "lockstep/device/graph.hpp"

namespace lockstep::device::cuda {

/// Which memory of the host has a copy on the device.      Threads  safe; nobody changes it while ops run, so nobody waits.
class HostCopies {
 public:
  /// Where the copy of `bytes` begins; null: they have none.
  [[nodiscard]] const void* find(std::span<const std::byte> bytes) const;
  void add(std::span<const std::byte> host, const std::byte* device);
  void remove(const std::byte* host);

 private:
  struct Copy {
    std::span<const std::byte> host;
    const std::byte* device;
  };
  mutable std::mutex mutex_;
  std::vector<Copy> copies_;
};

class CudaGraphInputs final : public GraphInputs {
 public:
  [[nodiscard]] static Result<std::unique_ptr<GraphInputs>> create(const CudaContext& context, DeviceMemory& memory, std::shared_ptr<HostCopies> copies,
                                                                   std::size_t bytes);
  CudaGraphInputs(Buffer host, Buffer device, std::shared_ptr<HostCopies> copies);
  ~CudaGraphInputs() override;

  [[nodiscard]] std::span<std::byte> host() const override { return {host_.as<std::byte>(), host_.bytes()}; }
  void upload(Stream& stream, std::size_t offset, std::size_t bytes) override;

 private:
  const Buffer host_;
  const Buffer device_;
  const std::shared_ptr<HostCopies> copies_;  ///< shared with the device and its ops
};

}  // namespace lockstep::device::cuda
