#include "tests/cuda_sim/blas/algorithms.hpp"

#include <bit>
#include <cmath>
#include <cstring>

namespace cuda_sim {

namespace {

float widened(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16U);
}

float sum(const Product& product, std::size_t row, std::size_t column, std::size_t begin, std::size_t end) {
  float total = 0.0F;
  for (std::size_t i = begin; i < end; ++i) {
    total = std::fma(widened(product.a[row * product.leading_a + i]), widened(product.b[column * product.leading_b + i]), total);
  }
  return total;
}

/// The order of additions differs between algorithms, and so do the last bits; here they always do, by so many steps of the last one.
float rounded(float value, const Algorithm& algorithm) {
  if (!std::isfinite(value) || std::abs(value) < 1e-30F) {
    return value;
  }
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(value) ^ algorithm.id);
}

}  // namespace

const Configured* configured(const cublasLtMatmulAlgo_t* algorithm) {
  static_assert(sizeof(Configured) <= sizeof(cublasLtMatmulAlgo_t));
  const auto* const found = reinterpret_cast<const Configured*>(algorithm);  // the handle's words are the library's
  return found != nullptr && found->magic == kConfiguredMagic && found->algorithm < kAlgorithms.size() ? found : nullptr;
}

std::span<const std::uint32_t> preferred(std::size_t n) {
  static constexpr std::array<std::uint32_t, 3> kFew{2, 0, 1};
  static constexpr std::array<std::uint32_t, 3> kSome{0, 2, 1};
  static constexpr std::array<std::uint32_t, 3> kMany{1, 0, 2};
  constexpr std::size_t kFewColumns = 4;
  constexpr std::size_t kSomeColumns = 16;
  return n <= kFewColumns ? kFew : n <= kSomeColumns ? kSome : kMany;
}

std::size_t workspace_bytes(const Algorithm& algorithm, std::size_t m, std::size_t n) {
  return algorithm.splits > 1 ? algorithm.splits * m * n * sizeof(float) : 0;
}

void compute(const Product& product, const Algorithm& algorithm) {
  const std::size_t part = (product.k + algorithm.splits - 1) / algorithm.splits;
  for (std::size_t column = 0; column < product.n; ++column) {
    for (std::size_t row = 0; row < product.m; ++row) {
      if (algorithm.splits == 1) {
        product.d[column * product.leading_d + row] = rounded(sum(product, row, column, 0, product.k), algorithm);
        continue;
      }
      for (std::size_t split = 0; split < algorithm.splits; ++split) {
        const std::size_t end = std::min(product.k, (split + 1) * part);
        product.parts[(split * product.n + column) * product.m + row] = sum(product, row, column, std::min(split * part, end), end);
      }
    }
  }
}

void add_parts(const Product& product, const Algorithm& algorithm) {
  for (std::size_t column = 0; column < product.n; ++column) {
    for (std::size_t row = 0; row < product.m; ++row) {
      float total = 0.0F;
      for (std::size_t split = 0; split < algorithm.splits; ++split) {
        total += product.parts[(split * product.n + column) * product.m + row];
      }
      product.d[column * product.leading_d + row] = rounded(total, algorithm);
    }
  }
  std::memset(product.parts, 0xff, workspace_bytes(algorithm, product.m, product.n));
}

}  // namespace cuda_sim
