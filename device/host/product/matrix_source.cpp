#include "device/host/product/matrix_source.hpp"

#include <bit>
#include <cmath>
#include <cstring>

namespace lockstep::device::host {

namespace {

/// IEEE half precision to float32: exact.
float half_to_float(std::uint16_t bits) {
  const float sign = (bits & 0x8000U) != 0 ? -1.0F : 1.0F;
  const auto exponent = static_cast<int>((bits >> 10U) & 0x1fU);
  const auto fraction = static_cast<float>(bits & 0x3ffU);
  if (exponent == 0x1f) {
    return (bits & 0x3ffU) != 0 ? std::bit_cast<float>(0x7fc00000U) : sign * std::bit_cast<float>(0x7f800000U);
  }
  return sign * (exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(fraction + 1024.0F, exponent - 25));
}

}  // namespace

void read_row(const MatrixSource& source, std::int64_t row, float* out) {
  // By memcpy: a model file's tensors need not be aligned.
  const std::byte* from = source.data + static_cast<std::size_t>(row * source.columns) * data_type_bytes(source.type);
  if (source.type == DataType::kFloat32) {
    std::memcpy(out, from, static_cast<std::size_t>(source.columns) * sizeof(float));
    return;
  }
  for (std::int64_t i = 0; i < source.columns; ++i) {
    std::uint16_t bits = 0;
    std::memcpy(&bits, from + 2 * i, sizeof bits);
    out[i] = source.type == DataType::kFloat16 ? half_to_float(bits) : std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16U);
  }
}

}  // namespace lockstep::device::host
