// CudaGraph: what was captured from a CUDA stream, ready to be launched.
#pragma once

#include <cstdint>
#include <cuda_runtime_api.h>
#include <memory>

#include "device/cuda/cuda_context.hpp"
#include "device/cuda/graphs/graph_inputs.hpp"
#include "device/cuda/memory/device_memory.hpp"
#include "lockstep/device/graph.hpp"

namespace lockstep::device::cuda {

class CudaGraph final : public Graph {
 public:
  /// Calls `body` between the begin and the end of a capture of `stream`.
  /// Errors  the body's, before what CUDA says of a capture that this has spoilt.
  [[nodiscard]] static Result<std::unique_ptr<Graph>> capture(std::shared_ptr<const CudaContext> context, Stream& stream, Task body);
  CudaGraph(std::shared_ptr<const CudaContext> context, cudaGraphExec_t executable, std::uint64_t kernels)
      : context_(std::move(context)), executable_(executable), kernels_(kernels) {}
  ~CudaGraph() override;

  void launch(Stream& stream) override;

 private:
  const std::shared_ptr<const CudaContext> context_;  ///< shared with the device, which a graph may outlive
  cudaGraphExec_t executable_;
  const std::uint64_t kernels_;  ///< that one launch runs
};

/// Ownership  borrows the memory.
class CudaGraphMaker final : public GraphMaker {
 public:
  CudaGraphMaker(std::shared_ptr<const CudaContext> context, DeviceMemory& memory, std::shared_ptr<HostCopies> copies)
      : context_(std::move(context)), memory_(&memory), copies_(std::move(copies)) {}
  [[nodiscard]] Result<std::unique_ptr<Graph>> capture(Stream& stream, Task body) override { return CudaGraph::capture(context_, stream, std::move(body)); }
  [[nodiscard]] Result<std::unique_ptr<GraphInputs>> make_inputs(std::size_t bytes) override {
    return CudaGraphInputs::create(*context_, *memory_, copies_, bytes);
  }

 private:
  const std::shared_ptr<const CudaContext> context_;
  DeviceMemory* memory_;
  const std::shared_ptr<HostCopies> copies_;  ///< shared with the device's ops
};

}  // namespace lockstep::device::cuda
