// The weights of one rank, read from a WeightSource and packed for the device.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "lockstep/core/deadline.hpp"
#include "lockstep/device/device.hpp"
#include "lockstep/micro_batch.hpp"
#include "lockstep/model/model_config.hpp"
#include "lockstep/model/weights.hpp"

namespace lockstep::model {

/// One layer's weights. Products that read the same input are packed as one.
struct LayerWeights {
  std::string name;  ///< "model.layers.3.self_attn", as the ForwardContext's metadata is keyed
  bool sparse = false;
  device::Buffer input_norm;  ///< float [hidden]
  device::Buffer post_norm;   ///< float [hidden]
  device::Buffer query_norm;  ///< float [head size]
  device::Buffer key_norm;    ///< float [head size]
  device::WeightHandle qkv;   ///< [(query_heads + 2 * kv_heads) * head size, hidden]
  device::WeightHandle attention_output;
  device::WeightHandle router;                ///< [experts, hidden]; sparse only
  std::vector<device::WeightHandle> gate_up;  ///< [local experts, or 1 of a dense layer], [2 * width, hidden]
  std::vector<device::WeightHandle> down;     ///< the same count, [hidden, width]
};

struct ModelWeights {
  device::Buffer embedding;   ///< BFloat16 [vocabulary, hidden]
  device::Buffer final_norm;  ///< float [hidden]
  device::WeightHandle head;  ///< [vocabulary, hidden]; the embedding's when tied
  std::vector<LayerWeights> layers;
};

/// Reads and packs tensor by tensor, so that memory beside the packed weights stays at one layer's largest product and the tensors announced to the source:
/// those of one micro-batch of experts. Its size follows the time that packing takes, and falls while memory is short.
/// Errors  the source's and pack_weight's; the watch's, asked before each tensor: a peer that died ends a long load.
class WeightLoader {
 public:
  /// `memory_probe` null: host_memory_probe().
  WeightLoader(const ModelConfig& config, WeightSource& source, device::Device& device, device::Ops& ops, const Watch* watch, MemoryProbe memory_probe);
  [[nodiscard]] Result<ModelWeights> load(std::span<const std::int32_t> local_experts);

 private:
  struct Part {
    std::string name;
    std::int64_t rows;
  };
  [[nodiscard]] Result<LayerWeights> load_layer(std::int32_t layer, std::span<const std::int32_t> local_experts);
  [[nodiscard]] Status load_experts(const std::string& prefix, std::span<const std::int32_t> experts, LayerWeights& weights);
  [[nodiscard]] Status load_feed_forward(const std::string& prefix, std::int64_t width, LayerWeights& weights);
  /// The parts' rows one below the other, packed as one weight.
  [[nodiscard]] Result<device::WeightHandle> load_matrix(std::span<const Part> parts, std::int64_t columns);
  [[nodiscard]] Result<device::Buffer> load_vector(const std::string& name, std::int64_t size);
  [[nodiscard]] Result<device::Buffer> load_embedding();
  [[nodiscard]] Result<TensorView> tensor(const std::string& name, std::vector<std::int64_t> shape);

  const ModelConfig& config_;
  WeightSource& source_;
  device::Device& device_;
  device::Ops& ops_;
  const Watch* watch_;
  AdaptiveMicroBatchContext<> packing_;  ///< of a layer's experts; no collective is near, so that each rank may choose its own size
  std::vector<std::byte> joined_;        ///< scratch of load_matrix
};

}  // namespace lockstep::model
