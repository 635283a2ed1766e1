// A device's experts: rows are grouped there, by kernels that the host launches without knowing how many rows each expert gets.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "device/cuda/cuda_context.hpp"
#include "device/cuda/graphs/graph_inputs.hpp"
#include "device/cuda/kernels/experts/launch_experts.hpp"
#include "device/cuda/memory/device_memory.hpp"
#include "device/cuda/streams/cuda_stream.hpp"
#include "lockstep/device/local_experts.hpp"

namespace lockstep::device::cuda {

class CudaLocalExperts final : public LocalExperts {
 public:
  /// Errors  kResourceExhausted; kInternal: CUDA's.
  [[nodiscard]] static Result<std::unique_ptr<LocalExperts>> create(const CudaContext& context, DeviceMemory& memory, std::shared_ptr<const HostCopies> copies,
                                                                    const LocalExpertsOptions& options);

  void compute(Stream& stream, std::size_t layer, const ChosenExperts& chosen, float* out) override;
  MemberBlocks pack(Stream& stream, const ChosenExperts& chosen) override;
  MemberBlocks compute_gathered(Stream& stream, std::size_t layer, std::int64_t rows) override;
  void weigh(Stream& stream, const ChosenExperts& chosen, float* out) override;
  [[nodiscard]] std::size_t sent_bytes(std::int64_t rows) const override;

 private:
  CudaLocalExperts(const LocalExpertsOptions& options, std::shared_ptr<const HostCopies> copies);
  [[nodiscard]] Status allocate(DeviceMemory& memory);
  /// Brings what never changes to the device: the weights' addresses, and who computes what.
  [[nodiscard]] Status place_tables(const CudaContext& context, DeviceMemory& memory, const LocalExpertsOptions& options);
  /// From choices to `returned_`, a row for each that this device computes.
  void run(CudaStream& on, std::size_t layer, const ExpertChoices& choices);
  /// What is left of `returned` is filled in from `chosen`.
  void weigh_returned(CudaStream& on, ReturnedRows returned, const ChosenExperts& chosen, float* out);
  /// [experts], on the device, of one layer's gate_up (0) or down (1).
  [[nodiscard]] const BFloat16* const* weights(std::size_t layer, std::size_t which) const {
    return weights_.as<const BFloat16*>() + (2 * layer + which) * static_cast<std::size_t>(experts_);
  }
  /// Of a block that is gathered: rows, then ids.
  [[nodiscard]] std::size_t id_offset(std::int64_t rows) const;
  [[nodiscard]] std::size_t gathered_bytes(std::int64_t rows) const;
  [[nodiscard]] std::size_t returned_bytes(std::int64_t rows) const;
  [[nodiscard]] std::byte* own_block(std::int64_t rows) const { return gathered_.as<std::byte>() + static_cast<std::size_t>(me_) * gathered_bytes(rows); }

  const std::shared_ptr<const HostCopies> copies_;
  const std::int64_t members_;
  const std::int64_t me_;
  const std::int64_t expert_count_;  ///< of the model
  const std::int64_t experts_;       ///< of this device
  const std::int64_t hidden_;
  const std::int64_t width_;
  const std::int64_t rows_max_;
  const int top_k_;
  Buffer weights_;      ///< [layers][2][own experts] addresses
  Buffer local_index_;  ///< int32 [members, experts]
  Buffer computed_by_;  ///< int32 [experts]
  Buffer offsets_;      ///< int32 [own experts + 1]: where each one's rows begin
  Buffer source_;       ///< int32 [places]: the choice that has it
  Buffer place_of_;     ///< int32 [choices]
  Buffer grouped_;      ///< BFloat16 [places, hidden], in order of experts
  Buffer gate_up_;      ///< float [places, 2 * width]
  Buffer activated_;    ///< BFloat16 [places, width]
  Buffer down_;         ///< float [places, hidden]
  Buffer returned_;     ///< BFloat16 [choices, hidden]: by the member that they are for
  Buffer gathered_;     ///< [members] blocks; nothing for a member alone
  Buffer received_;     ///< BFloat16 [members, own choices, hidden]; nothing for a member alone
};

}  // namespace lockstep::device::cuda
