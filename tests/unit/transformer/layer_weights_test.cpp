// Goal    Loading reads exactly the tensors that a rank needs, in any type and alignment, and passes every error on as it was written.
// Method  Sources made here: one fails at a chosen tensor, one counts, one stores the same numbers (representable in all types) as bfloat16, float16, float32
//         or a mixture, at odd addresses; the logits must then be equal bit for bit.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lockstep/core/hash.hpp"
#include "lockstep/model/transformer.hpp"
#include "tests/support/group_harness.hpp"
#include "tests/support/teacher_forcing.hpp"

namespace lockstep::model {
namespace {

using device::DataType;
using ::testing::HasSubstr;
using tests::TeacherForcing;

/// float16 bits of a value that float16 can hold exactly.
std::uint16_t exact_half(float value) {
  if (value == 0.0F) {
    return 0;
  }
  int exponent = 0;
  const float fraction = std::frexp(std::abs(value), &exponent);  // [0.5, 1)
  const std::uint16_t sign = value < 0 ? 0x8000U : 0U;
  if (exponent - 1 < -14) {
    return static_cast<std::uint16_t>(sign | static_cast<std::uint16_t>(std::ldexp(std::abs(value), 24)));  // subnormal
  }
  const auto mantissa = static_cast<std::uint16_t>(std::ldexp(fraction, 11)) & 0x3ffU;
  return static_cast<std::uint16_t>(sign | static_cast<unsigned>(exponent - 1 + 15) << 10U | mantissa);
}

/// Multiples of a power of two, from -127 to 127 of them: exact in all three types. The router's are so small that float16 holds them as subnormals.
float value_at(std::string_view name, std::size_t index) {
  const std::uint64_t hash = fnv1a(name, 0x9e3779b97f4a7c15ULL * (index + 1));
  const auto count = static_cast<int>((hash >> 20U) % 255) - 127;
  return std::ldexp(static_cast<float>(count), name.ends_with("mlp.gate.weight") ? -22 : -9);
}

/// Numbers by name, in the type that `type_of` says, one byte off any alignment.
class TypedSource final : public WeightSource {
 public:
  explicit TypedSource(std::function<DataType(std::string_view name)> type_of) : type_of_(std::move(type_of)) {}
  Result<TensorView> tensor(std::string_view name, std::span<const std::int64_t> shape) override {
    names.emplace_back(name);
    std::size_t count = 1;
    for (const std::int64_t size : shape) {
      count *= static_cast<std::size_t>(size);
    }
    const DataType type = type_of_(name);
    const std::size_t element = device::data_type_bytes(type);
    data_.assign(count * element + 1, std::byte{0xff});
    for (std::size_t i = 0; i < count; ++i) {
      const float value = value_at(name, i);
      const std::uint16_t narrow = type == DataType::kFloat16 ? exact_half(value) : BFloat16(value).bits;
      std::memcpy(data_.data() + 1 + i * element, type == DataType::kFloat32 ? static_cast<const void*>(&value) : &narrow, element);
    }
    return TensorView{.type = type, .shape = {shape.begin(), shape.end()}, .data = std::span(data_).subspan(1)};
  }
  Status check(std::string_view, std::span<const std::int64_t>) override { return {}; }
  void will_need(std::string_view name) override {
    announced.insert(std::string(name));
    announced_most = std::max(announced_most, announced.size());
    ++announcements;
  }
  void done_with(std::string_view name) override {
    EXPECT_EQ(announced.erase(std::string(name)), 1U) << name;
    EXPECT_NE(std::ranges::find(names, name), names.end()) << name << " must have been read by now";
  }
  std::uint64_t hash() const override { return 1; }

  std::vector<std::string> names;
  std::set<std::string> announced;  ///< and not done with
  std::size_t announced_most = 0;
  std::size_t announcements = 0;

 private:
  std::function<DataType(std::string_view)> type_of_;
  std::vector<std::byte> data_;  // until the next call, as the interface says and no longer
};

/// Dummy weights but for one tensor.
class FailingSource final : public WeightSource {
 public:
  explicit FailingSource(std::string failing) : failing_(std::move(failing)) {}
  Result<TensorView> tensor(std::string_view name, std::span<const std::int64_t> shape) override {
    if (name == failing_) {
      return Error{ErrorCode::kInvalidArgument, "model.safetensors: " + failing_ + " is broken", 3};
    }
    return inner_->tensor(name, shape);
  }
  Status check(std::string_view, std::span<const std::int64_t>) override { return {}; }
  std::uint64_t hash() const override { return 1; }

 private:
  std::string failing_;
  std::unique_ptr<WeightSource> inner_ = make_dummy_weights(1);
};

/// Fails from the n-th question on.
class FailingWatch final : public Watch {
 public:
  explicit FailingWatch(int asked_well) : left_(asked_well) {}
  Status failure() const override { return left_-- > 0 ? Status{} : Status(Error{ErrorCode::kPeerLost, "rank 1 is gone", 1}); }
  TimePoint last_progress() const override { return {}; }

 private:
  mutable int left_;
};

ModelConfig config_with_a_dense_layer() {
  ModelConfig config = tests::small_config();
  config.layer_count = 3;
  config.layer_is_sparse = {1, 0, 1};
  config.tied_embeddings = false;
  return config;
}

class LayerWeights : public ::testing::Test {
 protected:
  void SetUp() override {
    Result<std::unique_ptr<device::Device>> device = device::make_device("cpu", {});
    ASSERT_TRUE(device) << device.error().message;
    device_ = std::move(*device);
  }
  Result<std::unique_ptr<Transformer>> load(const ModelConfig& config, WeightSource& source, std::vector<std::int32_t> experts, const Watch* watch = nullptr) {
    return Transformer::load(
        config, source, *device_,
        {.rows_max = 8, .group_rows_max = 16, .micro_batches_max = 1, .logit_rows_max = 4, .positions_max = 32, .local_experts = std::move(experts)}, watch);
  }
  static std::vector<std::vector<float>> logits_from(const ModelConfig& config, WeightSource& source) {
    Result<std::unique_ptr<TeacherForcing>> teacher = TeacherForcing::create(config, source, {.tokens_max = 48, .rows_per_step = 48});
    EXPECT_TRUE(teacher) << teacher.error().message;
    std::vector<std::int32_t> tokens;
    for (std::int32_t i = 0; i < 40; ++i) {
      tokens.push_back(i * 7 % config.vocabulary_size);
    }
    Result<std::vector<std::vector<float>>> logits = (*teacher)->logits(tokens);
    EXPECT_TRUE(logits) << logits.error().message;
    return std::move(*logits);
  }
  std::unique_ptr<device::Device> device_;
};

TEST_F(LayerWeights, ExpertsArePackedInMicroBatchesThatAreAnnouncedAndStayAtOneExpertWhileMemoryIsShort) {
  const ModelConfig config = config_with_a_dense_layer();
  for (const bool memory_is_short : {true, false}) {
    TypedSource source([](std::string_view) { return DataType::kBFloat16; });
    const auto loaded = Transformer::load(config, source, *device_,
                                          {.rows_max = 8,
                                           .group_rows_max = 16,
                                           .micro_batches_max = 1,
                                           .logit_rows_max = 4,
                                           .positions_max = 32,
                                           .local_experts = {0, 1, 2, 3, 5},
                                           .memory_probe = [memory_is_short] { return memory_is_short ? 0.95 : 0.0; }},
                                          nullptr);
    ASSERT_TRUE(loaded) << loaded.error().message;
    EXPECT_EQ(source.announcements, 2U * 5U * 3U) << "five experts of three tensors in two sparse layers";
    EXPECT_TRUE(source.announced.empty());
    if (memory_is_short) {
      EXPECT_EQ(source.announced_most, 3U);
    }
  }
}

TEST_F(LayerWeights, AnErrorOfAnyTensorIsPassedOnAsItIs) {
  const ModelConfig config = config_with_a_dense_layer();
  const std::vector<TensorRequirement> required = required_tensors(config);
  ASSERT_FALSE(required.empty());
  for (const TensorRequirement& tensor : required) {
    FailingSource source(tensor.name);
    const auto transformer = load(config, source, {0, 1, 2, 3, 4, 5});
    ASSERT_FALSE(transformer) << tensor.name << " was not asked for";
    EXPECT_EQ(transformer.error().code, ErrorCode::kInvalidArgument);
    EXPECT_EQ(transformer.error().message, "model.safetensors: " + tensor.name + " is broken");
    EXPECT_EQ(transformer.error().rank, 3);
  }
}

TEST_F(LayerWeights, EveryTensorIsAskedForOnceAndForeignExpertsNever) {
  const ModelConfig config = config_with_a_dense_layer();
  TypedSource source([](std::string_view) { return DataType::kBFloat16; });
  ASSERT_TRUE(load(config, source, {1, 4}));
  std::map<std::string, int> asked;
  for (const std::string& name : source.names) {
    ++asked[name];
  }
  for (const TensorRequirement& tensor : required_tensors(config)) {
    const std::size_t at = tensor.name.find(".experts.");
    const bool foreign = at != std::string::npos && tensor.name[at + 9] != '1' && tensor.name[at + 9] != '4';
    EXPECT_EQ(asked[tensor.name], foreign ? 0 : 1) << tensor.name;
    asked.erase(tensor.name);
  }
  EXPECT_TRUE(asked.empty()) << asked.begin()->first << " is no tensor of this model";
}

TEST_F(LayerWeights, TheWatchIsAskedBetweenTensorsAndEndsTheLoad) {
  const ModelConfig config = config_with_a_dense_layer();
  for (const int asked_well : {0, 1, 20}) {
    const std::unique_ptr<WeightSource> source = make_dummy_weights(1);
    const FailingWatch watch(asked_well);
    const auto transformer = load(config, *source, {0, 1, 2, 3, 4, 5}, &watch);
    ASSERT_FALSE(transformer) << asked_well;
    EXPECT_EQ(transformer.error().code, ErrorCode::kPeerLost);
    EXPECT_EQ(transformer.error().rank, 1);
  }
}

TEST_F(LayerWeights, ARankWithoutExpertsLoadsAndWarmsUp) {
  const ModelConfig config = tests::small_config();  // all layers sparse: this rank has no feed-forward weight at all
  const std::unique_ptr<WeightSource> source = make_dummy_weights(1);
  const auto transformer = load(config, *source, {});
  ASSERT_TRUE(transformer) << transformer.error().message;
  EXPECT_TRUE((*transformer)->warm_up());
}

TEST_F(LayerWeights, AModelOfDenseLayersOnlyComputes) {
  ModelConfig config = tests::small_config();
  config.layer_is_sparse = {0, 0};
  config.expert_count = 0;
  config.experts_per_token = 0;
  config.expert_width = 0;
  const std::unique_ptr<WeightSource> source = make_dummy_weights(1);
  const std::vector<std::vector<float>> logits = logits_from(config, *source);
  ASSERT_EQ(logits.size(), 40U);
  EXPECT_NE(logits[0], logits[1]);
}

TEST_F(LayerWeights, TheSameNumbersInAnyTypeGiveTheSameLogits) {
  for (const bool tied : {true, false}) {
    ModelConfig config = config_with_a_dense_layer();
    config.tied_embeddings = tied;
    TypedSource reference([](std::string_view) { return DataType::kBFloat16; });
    const std::vector<std::vector<float>> expected = logits_from(config, reference);
    ASSERT_FALSE(expected.empty());
    EXPECT_NE(expected[0], expected[1]);
    for (const float logit : expected.back()) {
      ASSERT_TRUE(std::isfinite(logit));
    }
    const std::map<std::string, std::function<DataType(std::string_view)>> types{
        {"float16", [](std::string_view) { return DataType::kFloat16; }},
        {"float32", [](std::string_view) { return DataType::kFloat32; }},
        {"a mixture within joined products", [](std::string_view name) {
           if (name.ends_with("q_proj.weight") || name.ends_with("up_proj.weight")) {
             return DataType::kFloat16;
           }
           return name.ends_with("k_proj.weight") || name.ends_with("gate_proj.weight") ? DataType::kFloat32 : DataType::kBFloat16;
         }}};
    for (const auto& [name, type_of] : types) {
      TypedSource source(type_of);
      EXPECT_EQ(logits_from(config, source), expected) << name;
    }
  }
}

}  // namespace
}  // namespace lockstep::model
