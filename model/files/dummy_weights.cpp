#include <cmath>

#include <fmt/format.h>

#include "lockstep/core/check.hpp"
#include "lockstep/core/hash.hpp"
#include "lockstep/model/weights.hpp"

namespace lockstep::model {

namespace {

/// Finalizer of a counter-based generator: every (key, index) gives an independent word, so no value depends on what was made before.
/// 32-bit multiplies, since only those vectorize without AVX-512.      Source  C. Wellons, "Prospecting for Hash Functions" (lowbias32).
constexpr std::uint32_t mix(std::uint32_t word) {
  word ^= word >> 16U;
  word *= 0x7feb352dU;
  word ^= word >> 15U;
  word *= 0x846ca68bU;
  word ^= word >> 16U;
  return word;
}

/// Values around `center` with standard deviation `deviation`: the sum of four uniform bytes, near enough to normal for weights.
void fill(std::vector<BFloat16>& values, std::uint64_t key, float center, float deviation) {
  const auto low = static_cast<std::uint32_t>(key);
  const auto high = static_cast<std::uint32_t>(key >> 32U);
  // Four bytes of 0..255 sum to a mean of 510 and a variance of 4 * (256^2 - 1) / 12.
  const float scale = deviation / std::sqrt(4.0F * 65535.0F / 12.0F);
  const std::size_t count = values.size();
  BFloat16* out = values.data();
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint32_t word = mix(static_cast<std::uint32_t>(i) ^ low) ^ high ^ static_cast<std::uint32_t>(std::uint64_t{i} >> 32U);
    const std::uint32_t bits = mix(word);
    const std::uint32_t pairs = (bits & 0x00ff00ffU) + ((bits >> 8U) & 0x00ff00ffU);
    const std::uint32_t sum = (pairs & 0xffffU) + (pairs >> 16U);
    const float value = center + scale * (static_cast<float>(static_cast<std::int32_t>(sum)) - 510.0F);
    // Rounding as BFloat16's constructor does, without its branch for NaN: these are finite, and the loop stays vectorizable.
    const auto word32 = std::bit_cast<std::uint32_t>(value);
    out[i].bits = static_cast<std::uint16_t>((word32 + 0x7fffU + ((word32 >> 16U) & 1U)) >> 16U);
  }
}

class DummyWeights final : public WeightSource {
 public:
  explicit DummyWeights(std::uint64_t seed) : seed_(seed) {}

  [[nodiscard]] Result<TensorView> tensor(std::string_view name, std::span<const std::int64_t> expected_shape) override {
    std::int64_t count = 1;
    for (const std::int64_t dimension : expected_shape) {
      if (dimension < 0 || __builtin_mul_overflow(count, dimension, &count)) {
        return Error{ErrorCode::kInvalidArgument, fmt::format("dummy weights: tensor \"{}\" has a size that overflows", name)};
      }
    }
    buffer_.resize(static_cast<std::size_t>(count));
    const std::uint64_t key = fnv1a(name, fnv1a(fmt::format("{};", seed_)));
    if (name.ends_with("norm.weight")) {
      fill(buffer_, key, 1.0F, 0.05F);
    } else {
      // Columns are what a product sums over: dividing by their square root keeps activations near unit size through any number of layers.
      const std::int64_t fan_in = expected_shape.empty() ? 1 : std::max<std::int64_t>(expected_shape.back(), 1);
      fill(buffer_, key, 0.0F, name.find("embed_tokens") != std::string_view::npos ? 1.0F : 1.0F / std::sqrt(static_cast<float>(fan_in)));
    }
    return TensorView{.type = device::DataType::kBFloat16, .shape = {expected_shape.begin(), expected_shape.end()}, .data = std::as_bytes(std::span(buffer_))};
  }

  [[nodiscard]] Status check(std::string_view /*name*/, std::span<const std::int64_t> /*expected_shape*/) override { return {}; }

  [[nodiscard]] std::uint64_t hash() const override { return fnv1a(fmt::format("dummy;{}", seed_)); }

 private:
  std::uint64_t seed_;
  std::vector<BFloat16> buffer_;
};

}  // namespace

std::unique_ptr<WeightSource> make_dummy_weights(std::uint64_t seed) {
  return std::make_unique<DummyWeights>(seed);
}

}  // namespace lockstep::model
