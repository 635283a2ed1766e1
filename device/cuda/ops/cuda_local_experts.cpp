#include "device/cuda/ops/cuda_local_experts.hpp"

#include <algorithm>
#include <chrono>
#include <utility>

#include "device/cuda/kernels/launch.hpp"
#include "device/cuda/ops/cuda_weight.hpp"
#include "device/cuda/streams/cuda_stream.hpp"
#include "lockstep/core/check.hpp"

namespace lockstep::device::cuda {

namespace {

/// Copying some KiB takes microseconds: after this long the device hangs.
constexpr Duration kCopyLimit = std::chrono::seconds(60);

const CudaWeight& cuda_weight(const WeightHandle& weight) {
  return static_cast<const CudaWeight&>(*weight);
}

}  // namespace

Result<std::unique_ptr<LocalExperts>> CudaLocalExperts::create(const CudaContext& context, DeviceMemory& memory, const LocalExpertsOptions& options) {
  std::unique_ptr<CudaLocalExperts> made(new CudaLocalExperts(options));  // the constructor is private
  LOCKSTEP_RETURN_IF_ERROR(made->allocate(memory));
  LOCKSTEP_RETURN_IF_ERROR(made->place_weights(context, memory, options));
  return std::unique_ptr<LocalExperts>(std::move(made));
}

CudaLocalExperts::CudaLocalExperts(const LocalExpertsOptions& options) : rows_max_(options.rows_max), top_k_(options.top_k) {
  const auto sparse = std::ranges::find_if(options.layers, [](const ExpertWeights& layer) { return !layer.gate_up.empty(); });
  LOCKSTEP_CHECK(sparse != options.layers.end(), "none of {} layers has experts", options.layers.size());
  shape_ = {.experts = std::ssize(sparse->gate_up), .hidden = sparse->gate_up.front()->input_features(), .width = sparse->down.front()->input_features()};
}

Status CudaLocalExperts::allocate(DeviceMemory& memory) {
  const std::int64_t choices = rows_max_ * top_k_;
  const auto allocate_into = [&memory](Buffer& buffer, std::int64_t elements, std::size_t element_bytes) -> Status {
    LOCKSTEP_ASSIGN_OR_RETURN(buffer, memory.allocate(static_cast<std::size_t>(elements) * element_bytes));
    return {};
  };
  LOCKSTEP_RETURN_IF_ERROR(allocate_into(offsets_, shape_.experts + 1, sizeof(std::int32_t)));
  LOCKSTEP_RETURN_IF_ERROR(allocate_into(source_, choices, sizeof(std::int32_t)));
  LOCKSTEP_RETURN_IF_ERROR(allocate_into(place_of_, choices, sizeof(std::int32_t)));
  LOCKSTEP_RETURN_IF_ERROR(allocate_into(grouped_, choices * shape_.hidden, sizeof(BFloat16)));
  LOCKSTEP_RETURN_IF_ERROR(allocate_into(gate_up_, choices * 2 * shape_.width, sizeof(float)));
  LOCKSTEP_RETURN_IF_ERROR(allocate_into(activated_, choices * shape_.width, sizeof(BFloat16)));
  LOCKSTEP_RETURN_IF_ERROR(allocate_into(down_, choices * shape_.hidden, sizeof(float)));
  return allocate_into(returned_, choices * shape_.hidden, sizeof(BFloat16));
}

Status CudaLocalExperts::place_weights(const CudaContext& context, DeviceMemory& memory, const LocalExpertsOptions& options) {
  const std::size_t bytes = options.layers.size() * 2 * static_cast<std::size_t>(shape_.experts) * sizeof(const BFloat16*);
  LOCKSTEP_ASSIGN_OR_RETURN(weights_, memory.allocate(bytes));
  LOCKSTEP_ASSIGN_OR_RETURN(const Buffer pinned, allocate_pinned(context, bytes));  // zeroed: layers without experts have no addresses
  auto* to = pinned.as<const BFloat16*>();
  for (const ExpertWeights& layer : options.layers) {
    for (const std::span<const WeightHandle> matrices : {layer.gate_up, layer.down}) {
      LOCKSTEP_CHECK(matrices.empty() || std::ssize(matrices) == shape_.experts, "{} experts in a layer, {} in another", matrices.size(), shape_.experts);
      std::ranges::transform(matrices, to, [](const WeightHandle& weight) { return cuda_weight(weight).data(); });
      to += shape_.experts;
    }
  }
  // Its own context would outlive the call: borrowed, since the stream does not.
  CudaStream stream(std::shared_ptr<const CudaContext>(std::shared_ptr<const CudaContext>(), &context), "experts", StreamPriority::kNormal);
  stream.check(cudaMemcpyAsync(weights_.as<void>(), pinned.as<void>(), bytes, cudaMemcpyHostToDevice, stream.native()), "cudaMemcpyAsync (addresses)");
  return stream.synchronize(Deadline::after(kCopyLimit));
}

void CudaLocalExperts::compute(Stream& stream, std::size_t layer, const ChosenExperts& chosen, float* out) {
  LOCKSTEP_CHECK(chosen.rows <= rows_max_, "{} rows for experts, at most {}", chosen.rows, rows_max_);
  auto& on = static_cast<CudaStream&>(stream);
  const std::int64_t choices = chosen.rows * top_k_;
  if (choices == 0) {
    return;
  }
  const auto& [experts, hidden, width] = shape_;
  auto* const offsets = offsets_.as<std::int32_t>();
  auto* const grouped = grouped_.as<BFloat16>();
  auto* const returned = returned_.as<BFloat16>();
  cudaStream_t native = on.native();
  on.launched(launch_group_choices(native, chosen.expert_ids, chosen.rows, top_k_, static_cast<int>(experts), offsets, source_.as<std::int32_t>(),
                                   place_of_.as<std::int32_t>()),
              "group_choices");
  on.launched(launch_gather(native, chosen.x, source_.as<std::int32_t>(), choices, hidden, grouped), "gather_rows (to experts)");
  on.launched(launch_grouped_matmul(native, grouped, offsets, weights(layer, 0), experts, choices, hidden, 2 * width, gate_up_.as<float>()),
              "grouped_matmul (gate_up)");
  on.launched(launch_silu_mul(native, gate_up_.as<float>(), choices, width, activated_.as<BFloat16>()), "silu_mul");
  on.launched(launch_grouped_matmul(native, activated_.as<BFloat16>(), offsets, weights(layer, 1), experts, choices, width, hidden, down_.as<float>()),
              "grouped_matmul (down)");
  on.launched(launch_narrow(native, down_.as<float>(), choices * hidden, grouped), "to_bfloat16");
  on.launched(launch_gather(native, grouped, place_of_.as<std::int32_t>(), choices, hidden, returned), "gather_rows (from experts)");
  on.launched(launch_weigh_and_sum(native, returned, chosen.weights, chosen.rows, top_k_, hidden, out), "weigh_and_sum");
}

}  // namespace lockstep::device::cuda
