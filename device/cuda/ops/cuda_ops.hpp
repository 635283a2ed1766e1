// Ops of a CUDA device: each launches on the stream that it is given, and returns.
#pragma once

#include <array>
#include <memory>
#include <span>
#include <string>

#include "device/cuda/graphs/graph_inputs.hpp"
#include "device/cuda/kernels/attention_arguments.hpp"
#include "device/cuda/memory/device_memory.hpp"
#include "device/cuda/ops/staging.hpp"
#include "device/cuda/product/dense_product.hpp"
#include "lockstep/device/ops.hpp"
#include "lockstep/device/token_sampler.hpp"

namespace lockstep::device::cuda {

struct CudaOpsOptions {
  std::string instruction_set;              ///< with all that the bits of results depend on
  std::shared_ptr<const BlasLibrary> blas;  ///< null: products are computed by own kernels
  DenseProductOptions products{};
};

/// Spans of the host (token ids, positions, block tables, offsets) are staged for each call. A failed launch is the stream's failure.
class CudaOps final : public Ops, private TokenSampler {
 public:
  [[nodiscard]] static Result<std::unique_ptr<Ops>> create(std::shared_ptr<const CudaContext> context, DeviceMemory& memory,
                                                           std::shared_ptr<const HostCopies> copies, const CudaOpsOptions& options);

  [[nodiscard]] Result<WeightHandle> pack_weight(const MatrixSource& source) override;
  [[nodiscard]] Status prepare(const WeightHandle& weight, std::int64_t rows_max) override;
  void upload(Stream& stream, const void* from, std::size_t bytes, void* to) override;
  void download(Stream& stream, const void* from, std::size_t bytes, void* to) override;
  void embed(Stream& stream, std::span<const std::int32_t> token_ids, const BFloat16* table, std::int64_t hidden, float* out) override;
  void rms_norm(Stream& stream, const float* x, const float* weight, float epsilon, std::int64_t rows, std::int64_t hidden, BFloat16* out) override;
  void matmul(Stream& stream, const BFloat16* x, const WeightHandle& weight, std::int64_t rows, float* out) override;
  void grouped_matmul(Stream& stream, const BFloat16* x, const GroupedRows& groups, float* out) override;
  void add(Stream& stream, const float* y, std::int64_t count, float* x) override;
  void qk_norm_rope_store(Stream& stream, const AttentionShape& shape, const PagedRows& rows, const float* qkv, const float* q_norm, const float* k_norm,
                          const float* cos_sin, const KvCacheLayer& cache, float* q_out) override;
  void paged_attention(Stream& stream, const AttentionShape& shape, const PagedRows& rows, const float* q, const KvCacheLayer& cache, BFloat16* out) override;
  void route(Stream& stream, const Router& router, const float* logits, std::int64_t rows, std::int32_t* expert_ids, float* weights) override;
  void silu_mul(Stream& stream, const float* gate_up, std::int64_t rows, std::int64_t width, BFloat16* out) override;
  void to_bfloat16(Stream& stream, const float* x, std::int64_t count, BFloat16* out) override;
  void gather_rows(Stream& stream, const BFloat16* x, std::span<const std::int32_t> index, std::int64_t width, BFloat16* out) override;
  void gather_rows(Stream& stream, const float* x, std::span<const std::int32_t> index, std::int64_t width, float* out) override;
  void weigh_and_sum(Stream& stream, const BFloat16* expert_rows, const float* weights, std::int64_t rows, int top_k, std::int64_t hidden, float* out) override;
  [[nodiscard]] TokenSampler* token_sampler() override { return this; }
  [[nodiscard]] Result<std::unique_ptr<LocalExperts>> make_local_experts(const LocalExpertsOptions& options) override;
  [[nodiscard]] std::string instruction_set() const override { return instruction_set_; }

 private:
  void sample(Stream& stream, const TokenChoices& choices, std::int32_t* tokens) override;
  CudaOps(std::shared_ptr<const CudaContext> context, DeviceMemory& memory, std::shared_ptr<const HostCopies> copies, std::string instruction_set);
  /// Stages `arrays`, unless the device has copies of them all, and calls `launch(native stream, device addresses)`, unless there are no rows or the stream
  /// has failed.
  template <std::size_t kCount, typename Launch>
  void launch_staged(Stream& stream, const char* call, const std::array<std::span<const std::byte>, kCount>& arrays, const Launch& launch);
  /// The same for attention: `launch(native stream, arguments)`.
  template <typename Launch>
  void launch_paged(Stream& stream, const char* call, const AttentionShape& shape, const PagedRows& rows, const KvCacheLayer& cache, const Launch& launch);

  const std::shared_ptr<const CudaContext> context_;
  DeviceMemory* memory_;
  const std::shared_ptr<const HostCopies> copies_;  ///< shared with the device and its graph inputs
  const std::string instruction_set_;
  Staging staging_;
  std::unique_ptr<DenseProduct> dense_;         ///< null: own kernels compute all products
  std::vector<const BFloat16*> group_weights_;  ///< of the call being made
};

}  // namespace lockstep::device::cuda
