// Ops of the host device: computes at once, on the thread that calls and those of the pool.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "device/host/instruction_set.hpp"
#include "device/host/kernels/kernels.hpp"
#include "device/host/product/amx/amx_product.hpp"
#include "device/host/product/onednn_product.hpp"
#include "device/host/product/panel_product.hpp"
#include "lockstep/device/ops.hpp"

namespace lockstep::device::host {

class HostOps final : public Ops {
 public:
  [[nodiscard]] static Result<std::unique_ptr<Ops>> create(const InstructionSet& instruction_set, ComputePool& pool);

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
  [[nodiscard]] Result<std::unique_ptr<LocalExperts>> make_local_experts(const LocalExpertsOptions& options) override;
  [[nodiscard]] std::string instruction_set() const override { return instruction_set_; }

 private:
  HostOps(const InstructionSet& instruction_set, std::unique_ptr<OneDnnProduct> onednn, ComputePool& pool);
  void multiply(const BFloat16* x, const PackedWeight& weight, std::int64_t rows, float* out);

  const std::string instruction_set_;
  const Kernels* kernels_;
  ComputePool* pool_;
  const bool uses_amx_;
  AmxProduct amx_;
  const std::unique_ptr<OneDnnProduct> onednn_;  ///< null with AMX, and below AVX-512
  PanelProduct panels_;
  /// Rows of one sequence, [begin, end), at most kAttentionRows.
  struct Run {
    std::int64_t begin = 0;
    std::int64_t end = 0;
  };
  std::vector<Run> runs_;     ///< of the attention being computed
  Buffer attention_scratch_;  ///< one part for each participant of the pool
};

}  // namespace lockstep::device::host
