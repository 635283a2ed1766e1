// Goal    Every vector width gives the same bits, and these are right.
// Method  Random rows of all small lengths, with infinities and NaN among them, through every implementation that this machine runs; exponentials against the
//         standard library's in double.
#include "model/sampler/row_math.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "lockstep/device/token_sampler.hpp"

namespace lockstep::model {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<float> random_row(std::mt19937& random, std::size_t length) {
  std::normal_distribution<float> normal(0, 20);
  std::vector<float> row(length);
  for (float& value : row) {
    value = random() % 20 == 0 ? -kInfinity : (random() % 20 == 0 ? std::numeric_limits<float>::quiet_NaN() : normal(random));
  }
  return row;
}

TEST(RowMath, EveryWidthGivesTheSameBits) {
  std::mt19937 random(5);
  const RowMath& reference = row_math_implementations().back();
  for (std::size_t length = 0; length < 300; ++length) {
    const std::vector<float> row = random_row(random, length);
    const float largest = reference.largest(row);
    std::vector<float> weights(length);
    const WeightScale scale{.logit_max = std::max(largest, 0.0F), .inverse_temperature = 0.7F, .rounding_addend = length % 2 == 0 ? 0.0F : 0x1.0p-12F};
    reference.exponentials(row, scale, weights.data());
    for (const RowMath& math : row_math_implementations()) {
      EXPECT_EQ(math.largest(row), largest) << math.name << ", length " << length;
      std::vector<float> others(length);
      math.exponentials(row, scale, others.data());
      for (std::size_t i = 0; i < length; ++i) {
        ASSERT_EQ(std::bit_cast<std::uint32_t>(others[i]), std::bit_cast<std::uint32_t>(weights[i])) << math.name << ", " << row[i];
      }
      EXPECT_EQ(math.sum(weights), reference.sum(weights)) << math.name << ", length " << length;
    }
  }
}

TEST(RowMath, TheLargestIgnoresWhatIsNoNumber) {
  for (const RowMath& math : row_math_implementations()) {
    EXPECT_EQ(math.largest({}), -kInfinity);
    EXPECT_EQ(math.largest(std::vector<float>(200, std::numeric_limits<float>::quiet_NaN())), -kInfinity);
    for (std::size_t place = 0; place < 200; ++place) {
      std::vector<float> row(200, std::numeric_limits<float>::quiet_NaN());
      row[place] = -3.0F;
      EXPECT_EQ(math.largest(row), -3.0F) << math.name << ", " << place;
    }
  }
}

TEST(RowMath, ExponentialsAreThoseOfTheStandardLibrary) {
  std::vector<float> row;
  for (float x = -90.0F; x <= 0.0F; x += 0.00137F) {
    row.push_back(x);
  }
  row.push_back(0.0F);
  std::vector<float> weights(row.size());
  row_math().exponentials(row, {}, weights.data());
  for (std::size_t i = 0; i < row.size(); ++i) {
    if (row[i] > -87.0F) {
      const double exact = std::exp(static_cast<double>(row[i]));
      ASSERT_NEAR(weights[i], exact, 2e-7 * exact) << row[i];
    } else {
      ASSERT_EQ(weights[i], 0.0F) << row[i];
    }
  }
  EXPECT_EQ(weights.back(), 1.0F);
}

TEST(RowMath, SumsOfRoundedWeightsAreTheSameInEveryOrder) {
  std::mt19937 random(6);
  std::normal_distribution<float> normal(0, 6);
  for (const std::size_t length : {1U, 2U, 31U, 32U, 33U, 63U, 64U, 3000U, 151'936U}) {
    std::vector<float> row(length);
    std::ranges::generate(row, [&] { return normal(random); });
    const auto vocabulary = static_cast<std::int64_t>(length);
    std::vector<float> weights(length);
    row_math().exponentials(row, {.logit_max = row_math().largest(row), .rounding_addend = device::weight_rounding_addend(vocabulary)}, weights.data());
    EXPECT_EQ(*std::ranges::max_element(weights), 1.0F) << length;
    const double sum = row_math().sum(weights);
    std::ranges::sort(weights);
    EXPECT_EQ(std::accumulate(weights.begin(), weights.end(), 0.0), sum) << length;
    EXPECT_EQ(std::accumulate(weights.rbegin(), weights.rend(), 0.0), sum) << length;
    const double units = std::ldexp(sum, device::weight_fraction_bits(vocabulary));
    EXPECT_EQ(units, std::floor(units)) << length;
    EXPECT_LT(units, 0x1.0p53) << length;
  }
}

TEST(RowMath, SumsAreExactEnoughForAWholeVocabulary) {
  std::vector<float> weights(200'003, 1e-6F);
  weights[77] = 1.0F;
  EXPECT_NEAR(row_math().sum(weights), 1.0 + 200'002 * static_cast<double>(1e-6F), 1e-12);
}

}  // namespace
}  // namespace lockstep::model
