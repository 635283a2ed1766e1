#include "device/cuda/cuda_device.hpp"

#include <array>
#include <cuda_runtime_api.h>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "device/cuda/cuda_context.hpp"
#include "device/cuda/device_choice.hpp"
#include "device/cuda/graphs/cuda_graph.hpp"
#include "device/cuda/graphs/graph_inputs.hpp"
#include "device/cuda/memory/device_memory.hpp"
#include "device/cuda/ops/cuda_ops.hpp"
#include "device/cuda/streams/cuda_event.hpp"
#include "device/cuda/streams/cuda_signal.hpp"
#include "device/cuda/streams/cuda_stream.hpp"
#include "device/cuda/streams/cuda_stream_times.hpp"
#include "lockstep/core/check.hpp"

namespace lockstep::device::cuda {

namespace {

/// The first architecture that kernels are compiled for: bfloat16 arithmetic begins there.
constexpr int kComputeCapabilityMin = 8;
/// What cuBLAS recommends for its workspace: 32 MiB from Hopper on, else 4 MiB.      Source  cuBLAS 13.0, "cublasSetWorkspace".
constexpr int kLargeWorkspaceCapability = 9;
constexpr std::size_t kLargeWorkspaceBytes = std::size_t{32} << 20;
constexpr std::size_t kWorkspaceBytes = std::size_t{4} << 20;

struct FoundDevice {
  int index = 0;
  cudaDeviceProp properties{};
  std::string bus_id;
};

Result<FoundDevice> find_device(const DeviceOptions& options) {
  int count = 0;
  if (const cudaError_t code = cudaGetDeviceCount(&count); code != cudaSuccess) {
    static_cast<void>(cudaGetLastError());
    return Error{ErrorCode::kUnsupported, fmt::format("no usable GPU: {} ({})", cudaGetErrorString(code), cudaGetErrorName(code))};
  }
  FoundDevice found;
  LOCKSTEP_ASSIGN_OR_RETURN(found.index, choose_device_index(options, count));
  const CudaContext unnamed(found.index, "unknown", {});
  LOCKSTEP_RETURN_IF_ERROR(unnamed.check(cudaGetDeviceProperties(&found.properties, found.index), "cudaGetDeviceProperties"));
  std::array<char, 32> bus_id{};
  LOCKSTEP_RETURN_IF_ERROR(unnamed.check(cudaDeviceGetPCIBusId(bus_id.data(), static_cast<int>(bus_id.size()), found.index), "cudaDeviceGetPCIBusId"));
  found.bus_id = bus_id.data();
  if (found.properties.major < kComputeCapabilityMin) {
    return Error{ErrorCode::kUnsupported, fmt::format("device {} ({}) has compute capability {}.{}, needed is {}.0 or newer", found.index,
                                                      found.properties.name, found.properties.major, found.properties.minor, kComputeCapabilityMin)};
  }
  return found;
}

class CudaDevice final : public Device {
 public:
  CudaDevice(std::shared_ptr<const CudaContext> context, std::unique_ptr<DeviceClaim> claim, std::unique_ptr<DeviceMemory> memory, CudaOpsOptions ops,
             std::string remark)
      : context_(std::move(context)), claim_(std::move(claim)), memory_(std::move(memory)), ops_(std::move(ops)), remark_(std::move(remark)) {}

  [[nodiscard]] Result<Buffer> allocate(std::size_t bytes) override { return memory_->allocate(bytes); }
  [[nodiscard]] Result<Buffer> allocate_host(std::size_t bytes) override { return allocate_pinned(*context_, bytes); }
  [[nodiscard]] Result<std::unique_ptr<Stream>> make_stream(std::string_view name, StreamPriority priority) override {
    return CudaStream::create(context_, name, priority);
  }
  // A launch returns at once whichever thread makes it, so there is nothing that "inline" could spare.
  [[nodiscard]] std::unique_ptr<Stream> make_inline_stream(std::string_view name) override {
    return std::make_unique<CudaStream>(context_, name, StreamPriority::kNormal);
  }
  [[nodiscard]] std::unique_ptr<Event> make_event() override { return std::make_unique<CudaEvent>(context_); }
  [[nodiscard]] std::unique_ptr<Signal> make_signal() override {
    Result<std::shared_ptr<SignalState>> state = SignalState::create(*context_);
    LOCKSTEP_CHECK(state.has_value(), "a signal's word: {}", state.error().message);
    return std::make_unique<CudaSignal>(*state);
  }
  [[nodiscard]] Result<std::unique_ptr<Ops>> make_ops() override { return CudaOps::create(context_, *memory_, copies_, ops_); }
  [[nodiscard]] std::string_view name() const override { return "cuda"; }
  [[nodiscard]] bool host_memory() const override { return false; }
  [[nodiscard]] GraphMaker* graphs() override { return &graph_maker_; }
  [[nodiscard]] Result<std::unique_ptr<StreamTimes>> make_stream_times(std::size_t points) override { return CudaStreamTimes::create(context_, points); }
  [[nodiscard]] std::string remark() const override { return remark_; }
  [[nodiscard]] DeviceUsage usage() const override {
    return {.memory_total_bytes = memory_->bytes_total(),
            .memory_free_bytes = memory_->bytes_free(),
            .memory_used_bytes = memory_->bytes_used(),
            .memory_used_max_bytes = memory_->bytes_used_max(),
            .memory_reserved_bytes = memory_->bytes_reserved(),
            .launches = context_->launches(),
            .graph_launches = context_->graph_launches(),
            .host_waits = context_->host_waits()};
  }

 private:
  const std::shared_ptr<const CudaContext> context_;  ///< shared with streams and events, which may outlive the device
  const std::unique_ptr<DeviceClaim> claim_;          ///< null where devices are shared
  const std::unique_ptr<DeviceMemory> memory_;
  const CudaOpsOptions ops_;
  const std::string remark_;
  const std::shared_ptr<HostCopies> copies_ = std::make_shared<HostCopies>();  ///< shared with ops and graph inputs
  CudaGraphMaker graph_maker_{context_, *memory_, copies_};
};

}  // namespace

Status probe_cuda_device(const DeviceOptions& options) {
  if (const Result<FoundDevice> found = find_device(options); !found) {
    return found.error();
  }
  return {};
}

Result<std::unique_ptr<Device>> create_cuda_device(const DeviceOptions& options) {
  LOCKSTEP_ASSIGN_OR_RETURN(const FoundDevice found, find_device(options));
  std::unique_ptr<DeviceClaim> claim;
  if (!options.share_device) {
    LOCKSTEP_ASSIGN_OR_RETURN(claim, DeviceClaim::create(found.bus_id));
  }
  auto context = std::make_shared<const CudaContext>(found.index, found.properties.name, options.current_step);
  LOCKSTEP_RETURN_IF_ERROR(context->bind());
  LOCKSTEP_ASSIGN_OR_RETURN(std::unique_ptr<DeviceMemory> memory, DeviceMemory::create(context, options.memory_limit_bytes));
  CudaOpsOptions ops{.instruction_set = fmt::format("cuda_sm_{}{}", found.properties.major, found.properties.minor)};
  std::string remark;
  if (Result<std::shared_ptr<const BlasLibrary>> blas = BlasLibrary::open(*context)) {
    ops.blas = std::move(*blas);
    ops.instruction_set = fmt::format("{}+{}", ops.instruction_set, ops.blas->name());
  } else {
    remark = fmt::format("matrix products are computed by kernels of our own, which are not tuned: {}", blas.error().message);
  }
  ops.products = {.batch_invariant = options.batch_invariant,
                  .workspace_bytes_max = found.properties.major >= kLargeWorkspaceCapability ? kLargeWorkspaceBytes : kWorkspaceBytes};
  if (options.batch_invariant) {
    ops.instruction_set += "+batch_invariant";
  }
  return std::unique_ptr<Device>(std::make_unique<CudaDevice>(std::move(context), std::move(claim), std::move(memory), std::move(ops), std::move(remark)));
}

}  // namespace lockstep::device::cuda
