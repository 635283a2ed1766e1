// Goal: tensors are found in single files and in shards, with the bytes, types and shapes that the files have; what is missing or misshapen is named.
// Method: the embedded model, and small files written by the test.
#include <cstring>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lockstep/model/weights.hpp"
#include "tests/unit/model/temporary_folder.hpp"

namespace lockstep::model {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr std::array<std::int64_t, 2> kTwoByThree{2, 3};
constexpr std::array<std::int64_t, 1> kFour{4};

std::string text_of(std::span<const std::byte> bytes) {
  std::string text(bytes.size(), '\0');
  std::memcpy(text.data(), bytes.data(), bytes.size());
  return text;
}

TEST(Safetensors, EmbeddedModelHasAllTensorsOfItsConfig) {
  const Result<ModelConfig> config = read_model_config(LOCKSTEP_EMBEDDED_MODEL);
  ASSERT_TRUE(config) << config.error().message;
  Result<std::unique_ptr<WeightSource>> source = open_safetensors(LOCKSTEP_EMBEDDED_MODEL);
  ASSERT_TRUE(source) << source.error().message;
  const Status status = check_weights(**source, *config);
  EXPECT_TRUE(status) << status.error().message;
}

TEST(Safetensors, ShardedSecondModelHasAllTensorsOfItsFirstGenerationConfig) {
  const std::filesystem::path folder = std::filesystem::path(LOCKSTEP_TEST_DATA) / "second_model";
  const Result<ModelConfig> config = read_model_config(folder);
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_THAT(config->layer_is_sparse, ElementsAre(0, 1, 0, 0, 0, 1)) << "every second layer but the listed one";
  EXPECT_FALSE(config->tied_embeddings);
  EXPECT_EQ(config->rope_theta, 50000.0);
  EXPECT_THAT(config->end_token_ids, ElementsAre(299, 7));
  Result<std::unique_ptr<WeightSource>> source = open_safetensors(folder);
  ASSERT_TRUE(source) << source.error().message;
  const Status status = check_weights(**source, *config);
  EXPECT_TRUE(status) << status.error().message;
}

TEST(Safetensors, ValuesAreTheFilesBytesAlsoWhereUnaligned) {
  const TemporaryFolder folder;
  // A header of odd length: nothing behind it is aligned.
  const std::string header =
      R"({"__metadata__":{"format":"pt"},"b":{"dtype":"F16","shape":[4],"data_offsets":[12,20]},"a":{"data_offsets":[0,12],"shape":[2,3],"dtype":"BF16"}} )";
  ASSERT_EQ(header.size() % 2, 1U);
  folder.write("model.safetensors", safetensors_file(header, "ABCDEFGHIJKLmnopqrst"));
  Result<std::unique_ptr<WeightSource>> source = open_safetensors(folder.path());
  ASSERT_TRUE(source) << source.error().message;
  const Result<TensorView> first = (*source)->tensor("a", kTwoByThree);
  ASSERT_TRUE(first) << first.error().message;
  EXPECT_EQ(first->type, device::DataType::kBFloat16);
  EXPECT_THAT(first->shape, ElementsAre(2, 3));
  EXPECT_EQ(text_of(first->data), "ABCDEFGHIJKL");
  const Result<TensorView> second = (*source)->tensor("b", kFour);
  ASSERT_TRUE(second) << second.error().message;
  EXPECT_EQ(second->type, device::DataType::kFloat16);
  EXPECT_EQ(text_of(second->data), "mnopqrst");
}

TEST(Safetensors, ScalarsEmptyTensorsAndEmptyFilesAreValid) {
  const TemporaryFolder folder;
  folder.write("model.safetensors",
               safetensors_file(R"({"s":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"e":{"dtype":"F32","shape":[0,9],"data_offsets":[4,4]}})", "1234"));
  Result<std::unique_ptr<WeightSource>> source = open_safetensors(folder.path());
  ASSERT_TRUE(source) << source.error().message;
  EXPECT_TRUE((*source)->tensor("s", {}));
  EXPECT_TRUE((*source)->tensor("e", std::array<std::int64_t, 2>{0, 9}));
  folder.write("model.safetensors", safetensors_file("{}", ""));
  EXPECT_TRUE(open_safetensors(folder.path()));
}

TEST(Safetensors, MissingMisshapenAndIntegerTensorsAreNamedWithExpectedAndFound) {
  const TemporaryFolder folder;
  folder.write("model.safetensors",
               safetensors_file(R"({"a":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]},"i":{"dtype":"I32","shape":[2],"data_offsets":[12,20]}})",
                                std::string(20, 'x')));
  Result<std::unique_ptr<WeightSource>> source = open_safetensors(folder.path());
  ASSERT_TRUE(source) << source.error().message;
  EXPECT_THAT((*source)->tensor("c", kFour).error().message, AllOf(HasSubstr("model.safetensors"), HasSubstr("\"c\" is missing"), HasSubstr("[4]")));
  EXPECT_THAT((*source)->tensor("a", std::array<std::int64_t, 2>{3, 2}).error().message,
              AllOf(HasSubstr("model.safetensors"), HasSubstr("\"a\" has shape [2, 3]"), HasSubstr("expected [3, 2]")));
  const Result<TensorView> integers = (*source)->tensor("i", std::array<std::int64_t, 1>{2});
  ASSERT_FALSE(integers);
  EXPECT_EQ(integers.error().code, ErrorCode::kUnsupported);
  EXPECT_THAT(integers.error().message, AllOf(HasSubstr("\"i\" has dtype I32"), HasSubstr("BF16, F16 or F32")));
  EXPECT_FALSE((*source)->check("c", kFour));
  EXPECT_TRUE((*source)->check("a", kTwoByThree));
}

/// Two shards with one tensor each, and an index.
void write_shards(const TemporaryFolder& folder, std::string_view weight_map) {
  folder.write("one.safetensors", safetensors_file(R"({"a":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]}})", "ABCDEFGHIJKL"));
  folder.write("two.safetensors", safetensors_file(R"({"b":{"dtype":"BF16","shape":[4],"data_offsets":[0,8]}})", "mnopqrst"));
  folder.write("model.safetensors.index.json", std::string(R"({"metadata":{"total_size":20},"weight_map":)") + std::string(weight_map) + "}");
}

TEST(Safetensors, ShardsAreFoundThroughTheIndex) {
  const TemporaryFolder folder;
  write_shards(folder, R"({"a":"one.safetensors","b":"two.safetensors"})");
  Result<std::unique_ptr<WeightSource>> source = open_safetensors(folder.path());
  ASSERT_TRUE(source) << source.error().message;
  EXPECT_EQ(text_of((*source)->tensor("a", kTwoByThree)->data), "ABCDEFGHIJKL");
  EXPECT_EQ(text_of((*source)->tensor("b", kFour)->data), "mnopqrst");
  EXPECT_THAT((*source)->tensor("c", kFour).error().message, HasSubstr("and 1 more"));
}

TEST(Safetensors, AnIndexThatPointsAnywhereElseIsRefused) {
  const TemporaryFolder folder;
  const auto message = [&folder](std::string_view weight_map) {
    write_shards(folder, weight_map);
    const auto source = open_safetensors(folder.path());
    return source ? std::string("accepted") : source.error().message;
  };
  for (const std::string_view name : {"../one.safetensors", "/etc/passwd", "sub/one.safetensors", "..", ".", "", "sub\\\\one", "one\\u0000.safetensors"}) {
    EXPECT_THAT(message(std::string(R"({"a":")") + std::string(name) + "\"}"), AllOf(HasSubstr("weight_map.a"), HasSubstr("a file in the same folder")))
        << name;
  }
  EXPECT_THAT(message(R"({"a":"three.safetensors"})"), AllOf(HasSubstr("three.safetensors"), HasSubstr("cannot open")));
  EXPECT_THAT(message(R"({"a":"one.safetensors","b":"one.safetensors"})"), AllOf(HasSubstr("one.safetensors"), HasSubstr("\"b\" is missing")));
  EXPECT_THAT(message(R"({"a":7})"), AllOf(HasSubstr("weight_map.a is 7"), HasSubstr("a string")));
  EXPECT_THAT(message("{}"), HasSubstr("weight_map is an object of 0"));
  EXPECT_THAT(message("[]"), HasSubstr("weight_map is an array of 0"));
}

TEST(Safetensors, ATensorInTwoShardsIsRefused) {
  const TemporaryFolder folder;
  write_shards(folder, R"({"a":"one.safetensors","b":"two.safetensors"})");
  folder.write(
      "two.safetensors",
      safetensors_file(R"({"a":{"dtype":"BF16","shape":[4],"data_offsets":[0,8]},"b":{"dtype":"BF16","shape":[1],"data_offsets":[8,10]}})", "mnopqrstuv"));
  const auto source = open_safetensors(folder.path());
  ASSERT_FALSE(source);
  EXPECT_THAT(source.error().message, AllOf(HasSubstr("\"a\" is in"), HasSubstr("one.safetensors"), HasSubstr("two.safetensors")));
}

TEST(Safetensors, AFolderWithoutWeightsSaysWhatItLooksFor) {
  const TemporaryFolder folder;
  const auto source = open_safetensors(folder.path());
  ASSERT_FALSE(source);
  EXPECT_THAT(source.error().message, AllOf(HasSubstr("model.safetensors"), HasSubstr("index.json"), HasSubstr("--load-format dummy")));
}

TEST(Safetensors, HashDependsOnHeadersSizesAndValuesAndNotOnTheFolder) {
  const auto hash = [](std::string_view header, std::string_view data) {
    const TemporaryFolder folder;
    folder.write("model.safetensors", safetensors_file(header, data));
    auto source = open_safetensors(folder.path());
    EXPECT_TRUE(source) << source.error().message;
    return source ? (*source)->hash() : 0;
  };
  constexpr std::string_view kHeader = R"({"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}})";
  EXPECT_EQ(hash(kHeader, "abcd"), hash(kHeader, "abcd"));
  EXPECT_NE(hash(kHeader, "abcd"), hash(kHeader, "abce")) << "a fine-tuned model has the headers of the one that it was made from";
  EXPECT_NE(hash(kHeader, "abcd"), hash(R"({"b":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}})", "abcd"));
  EXPECT_NE(hash(kHeader, "abcd"), hash(R"({"a":{"dtype":"BF16","shape":[3],"data_offsets":[0,6]}})", "abcdef"));
  // Training moves values everywhere, so also those in the middle of a tensor, which are the ones that are looked at.
  constexpr std::string_view kLarge = R"({"a":{"dtype":"BF16","shape":[50000],"data_offsets":[0,100000]}})";
  const std::string data(100000, 'x');
  std::string changed = data;
  changed.replace(47000, 7000, 7000, 'y');
  EXPECT_EQ(hash(kLarge, data), hash(kLarge, data));
  EXPECT_NE(hash(kLarge, data), hash(kLarge, changed));
}

}  // namespace
}  // namespace lockstep::model
