// The algorithms that the double has, and what they compute.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "tests/cuda_sim/blas/descriptors.hpp"

namespace cuda_sim {

/// How a product is computed. Each has its own rounding.
struct Algorithm {
  std::uint32_t id = 0;
  std::uint32_t splits = 1;         ///< parts that a sum is computed in
  std::uint32_t minimum_split = 1;  ///< inputs that each part has at least
};
inline constexpr std::array kAlgorithms{Algorithm{.id = 0}, Algorithm{.id = 1}, Algorithm{.id = 2, .splits = 4, .minimum_split = 4}};

/// What stands in a cublasLtMatmulAlgo_t.
struct Configured {
  std::uint64_t magic = 0;
  std::uint32_t algorithm = 0;  ///< of kAlgorithms
  /// What it was asked for: an algorithm relies on them.
  std::uint32_t alignment_a = 0;
  std::uint32_t alignment_b = 0;
  std::uint32_t alignment_d = 0;
};
inline constexpr std::uint64_t kConfiguredMagic = 0x6c74616c676f3133;
/// Null: the library has not made it.
[[nodiscard]] const Configured* configured(const cublasLtMatmulAlgo_t* algorithm);

/// d [m, n] = a [k, m]^T * b [k, n], column by column.
struct Product {
  const std::uint16_t* a = nullptr;  ///< bfloat16
  const std::uint16_t* b = nullptr;
  float* d = nullptr;
  float* parts = nullptr;  ///< [splits][n][m]
  std::size_t m = 0;
  std::size_t n = 0;
  std::size_t k = 0;
  std::size_t leading_a = 0;
  std::size_t leading_b = 0;
  std::size_t leading_d = 0;
};

/// The algorithms for so many columns, fastest first.
[[nodiscard]] std::span<const std::uint32_t> preferred(std::size_t n);
[[nodiscard]] std::size_t workspace_bytes(const Algorithm& algorithm, std::size_t m, std::size_t n);

/// The whole product, or its parts where it is split.
void compute(const Product& product, const Algorithm& algorithm);
/// Adds the parts, which are poison afterwards.
void add_parts(const Product& product, const Algorithm& algorithm);

}  // namespace cuda_sim
