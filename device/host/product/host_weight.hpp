// HostWeight: a packed weight as the host's matrix products share it.
#pragma once

#include <cstdint>
#include <optional>

#include <dnnl.hpp>

#include "device/host/product/amx/tile_product.hpp"
#include "lockstep/device/device.hpp"
#include "lockstep/device/ops.hpp"

namespace lockstep::device::host {

/// Shape of a weight: the key of what is prepared for it.
struct WeightShape {
  std::int64_t input = 0;
  std::int64_t output = 0;
  friend bool operator==(const WeightShape&, const WeightShape&) = default;
};

/// Whose layout a weight has.
enum class WeightLayout { kOneDnn, kTiles, kPanels };

class HostWeight final : public PackedWeight {
 public:
  HostWeight(WeightShape shape, WeightLayout layout, Buffer buffer) : shape_(shape), layout_(layout), buffer_(std::move(buffer)) {}
  HostWeight(WeightShape shape, Buffer buffer, dnnl::memory memory)
      : shape_(shape), layout_(WeightLayout::kOneDnn), buffer_(std::move(buffer)), memory_(std::move(memory)) {}

  HostWeight(WeightShape shape, Buffer buffer, TileCoding coding)
      : shape_(shape), layout_(WeightLayout::kTiles), buffer_(std::move(buffer)), coding_(std::move(coding)) {}

  [[nodiscard]] std::int64_t output_features() const override { return shape_.output; }
  [[nodiscard]] std::int64_t input_features() const override { return shape_.input; }
  [[nodiscard]] std::int64_t bytes() const override { return static_cast<std::int64_t>(buffer_.bytes()); }

  [[nodiscard]] const WeightShape& shape() const { return shape_; }
  [[nodiscard]] WeightLayout layout() const { return layout_; }
  /// oneDNN's view of the buffer. Made once and never re-pointed: setting a handle writes the layout's padding, under the eyes of other threads.
  [[nodiscard]] const dnnl::memory& memory() const { return *memory_; }
  [[nodiscard]] const float* panels() const { return buffer_.as<float>(); }
  [[nodiscard]] WeightTiles tiles() const {
    if (!coding_) {
      return {.tiles = buffer_.as<std::byte>()};
    }
    return {.tiles = buffer_.as<std::byte>(),
            .packed = true,
            .codes = &coding_->codes,
            .exceptions = coding_->exceptions.data(),
            .first_exception = coding_->first_exception.data()};
  }

 private:
  WeightShape shape_;
  WeightLayout layout_;
  Buffer buffer_;
  std::optional<dnnl::memory> memory_;  ///< of oneDNN's layout only
  std::optional<TileCoding> coding_;    ///< of packed tiles only
};

}  // namespace lockstep::device::host
