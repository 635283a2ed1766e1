// WeightSource: the tensors of a model by name, from safetensors files or from a seed.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lockstep/core/result.hpp"
#include "lockstep/device/ops.hpp"
#include "lockstep/model/model_config.hpp"

namespace lockstep::model {

/// A tensor as stored. `data` is borrowed from the source (a memory map, or a buffer that lives until the next call on the source) and not necessarily
/// aligned to its elements: copy it, do not cast it.
struct TensorView {
  device::DataType type = device::DataType::kBFloat16;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> data;
};

/// Where tensors come from. `tensor` is called by one thread at a time.
class WeightSource {
 public:
  virtual ~WeightSource() = default;
  WeightSource(const WeightSource&) = delete;
  WeightSource& operator=(const WeightSource&) = delete;
  /// Errors  kInvalidArgument naming file, tensor, expected and found shape.
  [[nodiscard]] virtual Result<TensorView> tensor(std::string_view name, std::span<const std::int64_t> expected_shape) = 0;
  /// Whether `tensor` would succeed, without reading or making the values.      Errors  as `tensor`.
  [[nodiscard]] virtual Status check(std::string_view name, std::span<const std::int64_t> expected_shape) = 0;
  /// A hint that `tensor` will ask for it soon: it may be read from the disk meanwhile.      Cost  no wait.
  virtual void will_need(std::string_view /*name*/) {}
  /// A hint that its values are not needed any more: they may leave this process's memory.
  virtual void done_with(std::string_view /*name*/) {}
  /// A hash of what identifies the content (file sizes, headers and samples of the values; the seed), for the configuration hash.
  [[nodiscard]] virtual std::uint64_t hash() const = 0;

 protected:
  WeightSource() = default;
};

/// Maps model.safetensors, or the shards that model.safetensors.index.json lists, and checks every header: sizes that overflow, overlap, leave gaps or do not
/// fit, entry and header caps. Errors  kInvalidArgument naming file, tensor, expected, found; of `tensor` also kUnsupported for a type that is no float.
/// A mapped file must not shrink while the source lives: the kernel answers a read past its new end with SIGBUS. Replace model files by renaming.
[[nodiscard]] Result<std::unique_ptr<WeightSource>> open_safetensors(const std::filesystem::path& folder);

/// Weights from a seed, in bfloat16, the same on every machine and for every tensor independent of the order of calls.
[[nodiscard]] std::unique_ptr<WeightSource> make_dummy_weights(std::uint64_t seed);

/// One tensor that a model must have.
struct TensorRequirement {
  std::string name;
  std::vector<std::int64_t> shape;
};
/// All tensors of `config`'s model, by Hugging Face name.
[[nodiscard]] std::vector<TensorRequirement> required_tensors(const ModelConfig& config);
/// Asks `source` for each: what is wrong with a model is known before any port opens, without reading weights.
[[nodiscard]] Status check_weights(WeightSource& source, const ModelConfig& config);

}  // namespace lockstep::model
