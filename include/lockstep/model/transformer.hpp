// Transformer: the model as stages per layer, written once over the ops.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "lockstep/comm/device_collectives.hpp"
#include "lockstep/comm/expert_exchange.hpp"
#include "lockstep/comm/group.hpp"
#include "lockstep/core/deadline.hpp"
#include "lockstep/device/device.hpp"
#include "lockstep/forward_context.hpp"
#include "lockstep/micro_batch/micro_batch_sizer.hpp"
#include "lockstep/model/model_config.hpp"
#include "lockstep/model/token_choice_list.hpp"
#include "lockstep/model/weights.hpp"

namespace lockstep::model {

/// The batch as the layers see it, found in the ForwardContext under every layer's name; a micro-batch's context holds its slice.
struct BatchMetadata final : AttentionMetadata {
  device::PagedRows rows;
  std::span<const std::int32_t> token_ids;  ///< [rows]
};

struct TransformerOptions {
  std::int32_t rows_max = 0;        ///< rows of one micro-batch on this rank
  std::int32_t group_rows_max = 0;  ///< rows of one micro-batch on all ranks together
  std::int32_t micro_batches_max = 1;
  std::int32_t logit_rows_max = 0;          ///< rows of one step whose logits are wanted
  std::int32_t positions_max = 0;           ///< tokens of a sequence
  std::vector<std::int32_t> local_experts;  ///< experts whose weights this rank holds, ascending
  bool rows_stay_on_device = false;         ///< what the exchange takes and gives lies in the device's memory: comm::exchanges_on_device
  /// Rows of one rank in steps whose rows come to their experts within the devices, where these can do that; 0: in none. Then with view and placement.
  std::int32_t rows_within_device_max = 0;
  const comm::GroupView* view = nullptr;       ///< borrowed during load
  const comm::Placement* placement = nullptr;  ///< borrowed during load
  MemoryProbe memory_probe{};                  ///< asked while weights are packed; null: host_memory_probe()
};

/// The layers of one rank. Every stage reads its rows from the current ForwardContext (BatchMetadata under layer_name(layer)) and works in the buffers of
/// `micro_batch`; called from inside Stream::enqueue'd tasks, with that stream. Stages of one micro-batch run in order: embed, then per layer attention, and
/// route → bring_routed → experts → combine (sparse; or route → local_experts) or dense, then head.
/// Ownership  owns weights and activation buffers; borrows the device and, during a stage, the KV cache.
/// Threads    one stage at a time (the ops are shared); any thread.      Cost  no allocation in a stage after warm_up.
/// Host       what stages leave for the host (routed rows and experts, experts' outputs, logits, normalized rows) may be read once the stage's stream has come
///            there. What they take from it they read by then, too; the exchange's rows lie in memory that a device can copy (Device::allocate_host).
///            With rows_stay_on_device routed rows, experts' rows and outputs, and what is combined are the device's, in the stream's order.
class Transformer {
 public:
  /// Reads, converts and packs this rank's weights.      Errors  those of the source and of pack_weight; the watch's, asked between tensors.
  [[nodiscard]] static Result<std::unique_ptr<Transformer>> load(const ModelConfig& config, WeightSource& source, device::Device& device,
                                                                 const TransformerOptions& options, const Watch* watch);
  virtual ~Transformer() = default;
  Transformer(const Transformer&) = delete;
  Transformer& operator=(const Transformer&) = delete;

  [[nodiscard]] virtual std::span<const device::KvCacheSpec> kv_cache_specs() const = 0;  ///< [layers]
  /// The name under which a layer's attention metadata is found ("model.layers.3.self_attn").
  [[nodiscard]] virtual const std::string& layer_name(std::int32_t layer) const = 0;
  [[nodiscard]] virtual bool is_sparse(std::int32_t layer) const = 0;
  /// Whether `local_experts` can take the place of exchange, `experts` and `combine`: for a rank alone in every step, for others where all ranks agree.
  [[nodiscard]] virtual bool has_local_experts() const = 0;
  /// Builds what matrix products of up to rows_max rows need, ahead of the first request.
  [[nodiscard]] virtual Status warm_up() = 0;

  virtual void embed(std::int32_t micro_batch, device::Stream& stream) = 0;
  virtual void attention(std::int32_t micro_batch, std::int32_t layer, const device::KvCacheLayer& cache, device::Stream& stream) = 0;
  virtual void dense(std::int32_t micro_batch, std::int32_t layer, device::Stream& stream) = 0;
  virtual void route(std::int32_t micro_batch, std::int32_t layer, device::Stream& stream) = 0;
  /// Experts and combine in one, for the rows of `route`; the host reads nothing of these. `group`: null for a rank alone. Else collective: all ranks have as
  /// many rows, some of them at no position, of a batch in graph inputs.      Errors  the group's.
  [[nodiscard]] virtual Status local_experts(std::int32_t micro_batch, std::int32_t layer, device::Stream& stream, comm::DeviceCollectives* group,
                                             const Deadline& deadline) = 0;
  /// That one `local_experts` with so many rows sends to other ranks.
  [[nodiscard]] virtual std::size_t local_experts_sent_bytes(std::int32_t rows) const = 0;
  /// Enqueues that what `route` left for the exchange comes to where that takes it.
  virtual void bring_routed(std::int32_t micro_batch, device::Stream& stream) = 0;
  /// What bring_routed has brought.      Shape  [rows, hidden] and [rows, top_k].
  [[nodiscard]] virtual std::span<const BFloat16> routed_rows(std::int32_t micro_batch) const = 0;
  [[nodiscard]] virtual std::span<const std::int32_t> routed_experts(std::int32_t micro_batch) const = 0;
  [[nodiscard]] virtual std::span<const float> routed_weights(std::int32_t micro_batch) const = 0;  ///< [rows, top_k]
  /// Computes this rank's experts for the rows that came in; `outputs` as ExpertExchange::outputs().
  virtual void experts(std::int32_t layer, const comm::ReceivedRows& received, std::span<BFloat16> outputs, device::Stream& stream) = 0;
  /// Weighs and sums the experts' outputs (ExpertExchange::combined()) into the rows.
  virtual void combine(std::int32_t micro_batch, std::span<const BFloat16> expert_rows, device::Stream& stream) = 0;
  /// The same of rows that their members weighed and summed (CombineMode::kPerRank), as many for each row as `sums` has room for, at most top_k.
  virtual void combine_sums(std::int32_t micro_batch, std::span<const BFloat16> sums, device::Stream& stream) = 0;
  /// Logits of the rows `rows` (indices into the micro-batch) to rows `first_logit_row` … of the logits buffer. Where the device samples they stay there.
  virtual void head(std::int32_t micro_batch, std::span<const std::int32_t> rows, std::int32_t first_logit_row, device::Stream& stream) = 0;
  /// The final norm of all rows, for what is read of them after the step: after the last layer, beside `head`.
  virtual void normalize(std::int32_t micro_batch, device::Stream& stream) = 0;
  /// [hidden], what `normalize` left for row `row` of the micro-batch; valid until its next stage.
  [[nodiscard]] virtual std::span<const BFloat16> normalized_row(std::int32_t micro_batch, std::int32_t row) const = 0;
  /// Logits of rows [first_row, first_row + count) of what `normalize` left, to rows 0 … of the logits buffer: the bits that `head` gives. Needs no context.
  virtual void head_of_normalized(std::int32_t micro_batch, std::int32_t first_row, std::int32_t count, device::Stream& stream) = 0;
  [[nodiscard]] virtual std::int32_t logit_rows_max() const = 0;
  [[nodiscard]] virtual std::span<const float> logits(std::int32_t logit_row) const = 0;  ///< [vocabulary], on the host

  /// Whether `head` leaves the logits to `sample` and `bring_logits`; else all are in the host's memory, and neither is called.
  [[nodiscard]] virtual bool samples_on_device() const = 0;
  /// Chooses tokens by `list`, whose rows are of the logits buffer; nothing for an empty one. `list` is read during the call.
  virtual void sample(const TokenChoiceList& list, device::Stream& stream) = 0;
  /// [list's choices], of the last `sample`, once its stream has come there; device::kNoToken where there was none.
  [[nodiscard]] virtual std::span<const std::int32_t> sampled_tokens() const = 0;
  /// Logit rows [first, first + count), which `sample` has not been asked about, to the host.
  virtual void bring_logits(std::int32_t first, std::int32_t count, device::Stream& stream) = 0;

 protected:
  Transformer() = default;
};

}  // namespace lockstep::model
