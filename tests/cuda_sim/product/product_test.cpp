// Goal    Own products are right for every shape and place of rows, and in the order that product.cuh promises.
// Method  The kernels' twins, straight, against a plain loop in that order: to the bit, so a row's bits depend on no other row. All around the operands are
// NaNs.
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include <gtest/gtest.h>

// CUDA's language first.
// clang-format off
#include "tests/cuda_sim/twins/language.hpp"

#include "tests/cuda_sim/twins/async_copies.hpp"
#include "tests/cuda_sim/twins/tile_mma.hpp"

#include "device/cuda/kernels/product/product.cuh"
// clang-format on

namespace lockstep::device::cuda {
namespace {

constexpr std::size_t kMargin = 64;
constexpr float kNothing = std::numeric_limits<float>::quiet_NaN();

/// A matrix of random values in the middle of NaNs, `skew` elements off a multiple of kCopyBytes.
class Matrix {
 public:
  Matrix(std::size_t rows, std::size_t columns, std::size_t skew, unsigned seed) : columns_(columns), values_(rows * columns + 2 * kMargin + kCopyInputs) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    std::ranges::fill(values_, BFloat16(kNothing));
    const std::size_t off = reinterpret_cast<std::uintptr_t>(values_.data()) % kCopyBytes / sizeof(BFloat16);
    data_ = values_.data() + kMargin + (kCopyInputs - off) % kCopyInputs + skew;
    std::generate_n(data_, rows * columns, [&] { return BFloat16(normal(random)); });
  }
  [[nodiscard]] const BFloat16* data() const { return data_; }
  [[nodiscard]] float at(std::size_t row, std::size_t column) const { return static_cast<float>(data_[row * columns_ + column]); }

 private:
  std::size_t columns_;
  std::vector<BFloat16> values_;
  BFloat16* data_ = nullptr;
};

struct Groups {
  std::vector<std::int32_t> offsets;
  std::size_t inputs;
  std::size_t outputs;
  std::size_t skew = 0;

  [[nodiscard]] std::size_t count() const { return offsets.size() - 1; }
  [[nodiscard]] std::size_t rows() const { return static_cast<std::size_t>(offsets.back()); }
};

std::vector<std::int32_t> offsets_of(const std::vector<std::int32_t>& rows) {
  std::vector<std::int32_t> offsets{0};
  std::partial_sum(rows.begin(), rows.end(), std::back_inserter(offsets));
  return offsets;
}

/// What a run needs: operands, and how many blocks share the rows.
class Products {
 public:
  explicit Products(Groups groups) : groups_(std::move(groups)), x_(groups_.rows(), groups_.inputs, groups_.skew, 1) {
    for (std::size_t g = 0; g < groups_.count(); ++g) {
      weights_.emplace_back(groups_.outputs, groups_.inputs, g % 2 == 0 ? groups_.skew : 0, static_cast<unsigned>(2 + g));
    }
  }

  template <typename Cut>
  [[nodiscard]] std::vector<float> grouped(unsigned blocks_of_rows, std::uint64_t seed) const {
    std::vector<const BFloat16*> weights;
    std::ranges::transform(weights_, std::back_inserter(weights), &Matrix::data);
    std::vector<float> out(groups_.rows() * groups_.outputs + 2 * kMargin, kNothing);
    const ProductArguments arguments = arguments_of(nullptr, out);
    const auto run = [&] { compute_groups<Cut>(arguments, groups_.offsets.data(), weights.data(), static_cast<int>(groups_.count())); };
    run_grid(grid_of<Cut>(blocks_of_rows, seed), run);
    return out;
  }

  /// The first group's weight by all rows.
  template <typename Cut>
  [[nodiscard]] std::vector<float> one(unsigned blocks_of_rows, std::uint64_t seed) const {
    std::vector<float> out(groups_.rows() * groups_.outputs + 2 * kMargin, kNothing);
    const ProductArguments arguments = arguments_of(weights_.front().data(), out);
    run_grid(grid_of<Cut>(blocks_of_rows, seed), [&] { compute_matrix<Cut>(arguments, static_cast<std::int64_t>(groups_.rows())); });
    return out;
  }

  void expect_plain(const std::vector<float>& out, bool grouped) const {
    const auto [inputs, outputs] = std::pair{groups_.inputs, groups_.outputs};
    std::size_t group = 0;
    for (std::size_t row = 0; row < groups_.rows(); ++row) {
      while (grouped && row >= static_cast<std::size_t>(groups_.offsets[group + 1])) {
        ++group;
      }
      for (std::size_t output = 0; output < outputs; ++output) {
        float sum = 0.0F;
        for (std::size_t i = 0; i < inputs; ++i) {
          sum = std::fma(weights_[group].at(output, i), x_.at(row, i), sum);
        }
        const float computed = out[kMargin + row * outputs + output];
        ASSERT_EQ(std::bit_cast<std::uint32_t>(computed), std::bit_cast<std::uint32_t>(sum))
            << "row " << row << " of " << groups_.rows() << ", output " << output << " of " << outputs << ", " << inputs << " inputs, group " << group << ": "
            << computed << " for " << sum;
      }
    }
    for (std::size_t i = 0; i < kMargin; ++i) {
      ASSERT_TRUE(std::isnan(out[i]) && std::isnan(out[out.size() - 1 - i])) << "written outside of the result";
    }
  }

 private:
  [[nodiscard]] ProductArguments arguments_of(const BFloat16* weight, std::vector<float>& out) const {
    return {.x = x_.data(),
            .weight = weight,
            .out = out.data() + kMargin,
            .inputs = static_cast<std::int64_t>(groups_.inputs),
            .outputs = static_cast<std::int64_t>(groups_.outputs)};
  }
  template <typename Cut>
  [[nodiscard]] ::cuda_sim::Grid grid_of(unsigned blocks_of_rows, std::uint64_t seed) const {
    const auto columns = static_cast<unsigned>((groups_.outputs + Cut::kOutputs - 1) / Cut::kOutputs);
    return {.kernel = "product", .grid_size = {columns, blocks_of_rows}, .block_size = {kProductThreads}, .seed = seed};
  }

  Groups groups_;
  Matrix x_;
  std::vector<Matrix> weights_;
};

template <typename Cut>
class ProductInCut : public ::testing::Test {};
using Cuts = ::testing::Types<ShortCut, TallCut>;
TYPED_TEST_SUITE(ProductInCut, Cuts);

TYPED_TEST(ProductInCut, EveryShapeIsThePlainLoops) {
  std::uint64_t seed = 0;
  for (const std::size_t inputs : {1UL, 7UL, 8UL, 40UL, 64UL, 65UL, 136UL, 328UL}) {
    for (const std::size_t outputs : {1UL, 24UL, 65UL}) {
      const Products products({.offsets = {0, 3, 3, 12}, .inputs = inputs, .outputs = outputs});
      products.expect_plain(products.grouped<TypeParam>(3, seed++), true);
      products.expect_plain(products.one<TypeParam>(2, seed), false);
    }
  }
}

TYPED_TEST(ProductInCut, RowsThatAreNotAlignedAreThePlainLoops) {
  for (const std::size_t skew : {1UL, 4UL}) {
    const Products products({.offsets = {0, 5, 9}, .inputs = 72, .outputs = 20, .skew = skew});
    products.expect_plain(products.grouped<TypeParam>(2, 4), true);
  }
}

TYPED_TEST(ProductInCut, GroupsOfEverySizeAreFoundByAnyNumberOfBlocks) {
  std::vector<std::int32_t> rows{0, 1, 70, 0, 8, 9, 16, 17, 64, 0};
  rows.resize(37, 0);  // more groups than a warp has lanes; the last but one has rows again
  rows[35] = 2;
  const Products products({.offsets = offsets_of(rows), .inputs = 24, .outputs = 9});
  for (const unsigned blocks : {1U, 5U, 40U}) {
    products.expect_plain(products.grouped<TypeParam>(blocks, blocks), true);
  }
}

TYPED_TEST(ProductInCut, NoGroupsRowsOrInputsAreNoTrouble) {
  const Products empty({.offsets = {0, 0, 0}, .inputs = 16, .outputs = 16});
  empty.expect_plain(empty.grouped<TypeParam>(2, 1), true);
  const Products without_inputs({.offsets = {0, 2}, .inputs = 0, .outputs = 3});
  without_inputs.expect_plain(without_inputs.grouped<TypeParam>(1, 1), true);
}

}  // namespace
}  // namespace lockstep::device::cuda
