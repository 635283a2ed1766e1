// Goal: weights from a seed are the same everywhere and in any order of calls, differ by name and seed, and have values that keep activations sane.
// Method: moments over large tensors; recorded values, which must never change: ranks on different machines make them for themselves.
#include <array>
#include <cmath>
#include <cstring>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lockstep/model/weights.hpp"

namespace lockstep::model {
namespace {

using ::testing::ElementsAre;

std::vector<float> values_of(WeightSource& source, std::string_view name, const std::vector<std::int64_t>& shape) {
  const Result<TensorView> view = source.tensor(name, shape);
  EXPECT_TRUE(view) << view.error().message;
  EXPECT_EQ(view->type, device::DataType::kBFloat16);
  std::vector<BFloat16> stored(view->data.size() / sizeof(BFloat16));
  std::memcpy(stored.data(), view->data.data(), view->data.size());
  std::vector<float> values(stored.size());
  std::transform(stored.begin(), stored.end(), values.begin(), [](BFloat16 value) { return static_cast<float>(value); });
  return values;
}

struct Moments {
  double mean = 0;
  double deviation = 0;
};

Moments moments_of(const std::vector<float>& values) {
  Moments moments;
  for (const float value : values) {
    moments.mean += value / static_cast<double>(values.size());
  }
  for (const float value : values) {
    moments.deviation += (value - moments.mean) * (value - moments.mean) / static_cast<double>(values.size());
  }
  moments.deviation = std::sqrt(moments.deviation);
  return moments;
}

TEST(DummyWeights, ValuesDependOnSeedAndNameAndNotOnTheOrderOfCalls) {
  const auto one = make_dummy_weights(1);
  const auto again = make_dummy_weights(1);
  const auto other = make_dummy_weights(2);
  const std::vector<std::int64_t> shape{16, 64};
  const auto first = values_of(*one, "model.layers.0.self_attn.q_proj.weight", shape);
  const auto second = values_of(*one, "model.layers.1.self_attn.q_proj.weight", shape);
  EXPECT_NE(first, second);
  EXPECT_EQ(values_of(*again, "model.layers.1.self_attn.q_proj.weight", shape), second);
  EXPECT_EQ(values_of(*again, "model.layers.0.self_attn.q_proj.weight", shape), first);
  EXPECT_NE(values_of(*other, "model.layers.0.self_attn.q_proj.weight", shape), first);
  EXPECT_EQ(one->hash(), again->hash());
  EXPECT_NE(one->hash(), other->hash());
}

TEST(DummyWeights, ValuesAreTheRecordedOnesOnEveryMachine) {
  const auto bits = [](std::string_view name) {
    const auto source = make_dummy_weights(42);
    const Result<TensorView> view = source->tensor(name, std::array<std::int64_t, 1>{8});
    EXPECT_TRUE(view) << view.error().message;
    std::vector<std::uint16_t> result(8);
    std::memcpy(result.data(), view->data.data(), 16);
    return result;
  };
  EXPECT_THAT(bits("model.norm.weight"), ElementsAre(0x3f6d, 0x3f6e, 0x3f79, 0x3f83, 0x3f81, 0x3f70, 0x3f73, 0x3f76));
  EXPECT_THAT(bits("lm_head.weight"), ElementsAre(0xbe44, 0x3e3a, 0x3e27, 0x3e44, 0x3d58, 0xbf5b, 0x3f1e, 0xbf0b));
  EXPECT_THAT(bits("model.embed_tokens.weight"), ElementsAre(0xbf02, 0xbf10, 0xbe8e, 0xbfc6, 0xbe11, 0x3e1f, 0xbfe3, 0xbfaf));
}

TEST(DummyWeights, MatricesAreScaledByTheirInputsAndNormsStayNearOne) {
  const auto source = make_dummy_weights(42);
  const auto matrix = values_of(*source, "model.layers.0.mlp.experts.3.up_proj.weight", {512, 400});
  EXPECT_NEAR(moments_of(matrix).mean, 0.0, 0.001);
  EXPECT_NEAR(moments_of(matrix).deviation, 1.0 / 20.0, 0.001);
  const auto norm = values_of(*source, "model.norm.weight", {4096});
  EXPECT_NEAR(moments_of(norm).mean, 1.0, 0.01);
  EXPECT_NEAR(moments_of(norm).deviation, 0.05, 0.01);
}

TEST(DummyWeights, RowsAndNeighboursAreNotCorrelated) {
  const auto source = make_dummy_weights(3);
  constexpr std::size_t kColumns = 1024;
  const auto values = values_of(*source, "lm_head.weight", {256, kColumns});
  for (const std::size_t lag : {std::size_t{1}, std::size_t{2}, std::size_t{4}, std::size_t{64}, kColumns}) {
    double sum = 0;
    for (std::size_t i = 0; i + lag < values.size(); ++i) {
      sum += static_cast<double>(values[i]) * values[i + lag];
    }
    const double correlation = sum / static_cast<double>(values.size() - lag) * kColumns;
    EXPECT_NEAR(correlation, 0.0, 5.0 / std::sqrt(static_cast<double>(values.size()))) << "lag " << lag;
  }
}

TEST(DummyWeights, SizesThatOverflowAreRefused) {
  const auto source = make_dummy_weights(1);
  EXPECT_FALSE(source->tensor("a.weight", std::array<std::int64_t, 2>{std::int64_t{1} << 62U, 4}));
  EXPECT_FALSE(source->tensor("a.weight", std::array<std::int64_t, 1>{-1}));
}

}  // namespace
}  // namespace lockstep::model
