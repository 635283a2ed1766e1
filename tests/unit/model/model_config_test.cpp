// Goal: config.json of both generations is read as the reference reads it, and whatever is wrong or unsupported in it is named.
// Method: the embedded model's file, and a small valid file with one key changed, added or removed at a time.
#include "lockstep/model/model_config.hpp"

#include <boost/json.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/model/temporary_folder.hpp"

namespace lockstep::model {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr std::string_view kSmall = R"({"architectures": ["Qwen3MoeForCausalLM"], "vocab_size": 300, "hidden_size": 80, "num_hidden_layers": 4,
  "num_attention_heads": 5, "num_key_value_heads": 1, "head_dim": 24, "max_position_embeddings": 256, "intermediate_size": 96, "num_experts": 7,
  "num_experts_per_tok": 3, "moe_intermediate_size": 40})";

/// kSmall with the keys of `changes` set; a key whose new value is the string "<absent>" is removed.
Result<ModelConfig> read_changed(std::string_view changes, std::string_view generation = "") {
  boost::json::object config = boost::json::parse(kSmall).as_object();
  const boost::json::value changed = boost::json::parse(changes);
  for (const auto& [key, value] : changed.as_object()) {
    if (value == "<absent>") {
      config.erase(key);
    } else {
      config[key] = value;
    }
  }
  const TemporaryFolder folder;
  folder.write("config.json", boost::json::serialize(config));
  if (!generation.empty()) {
    folder.write("generation_config.json", generation);
  }
  return read_model_config(folder.path());
}

TEST(ModelConfig, EmbeddedModelIsReadCompletely) {
  const Result<ModelConfig> config = read_model_config(LOCKSTEP_EMBEDDED_MODEL);
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->architecture, "Qwen3MoeForCausalLM");
  EXPECT_EQ(config->vocabulary_size, 4096);
  EXPECT_EQ(config->hidden_size, 192);
  EXPECT_EQ(config->layer_count, 4);
  EXPECT_EQ(config->query_heads, 6);
  EXPECT_EQ(config->kv_heads, 2);
  EXPECT_EQ(config->head_size, 32);
  EXPECT_EQ(config->context_length, 1024);
  EXPECT_EQ(config->expert_count, 8);
  EXPECT_EQ(config->experts_per_token, 2);
  EXPECT_EQ(config->expert_width, 128);
  EXPECT_TRUE(config->normalize_top_k);
  EXPECT_THAT(config->layer_is_sparse, ElementsAre(1, 1, 1, 1));
  EXPECT_EQ(config->rope_theta, 10000.0);
  EXPECT_EQ(config->rms_norm_epsilon, 1e-6F);
  EXPECT_TRUE(config->tied_embeddings);
  EXPECT_THAT(config->end_token_ids, ElementsAre(2));
}

TEST(ModelConfig, AbsentKeysTakeTheReferencesDefaults) {
  const Result<ModelConfig> config = read_changed(R"({"hidden_size": 80, "head_dim": "<absent>"})");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->head_size, 16) << "hidden_size / num_attention_heads";
  EXPECT_FALSE(config->normalize_top_k);
  EXPECT_FALSE(config->tied_embeddings);
  EXPECT_EQ(config->rope_theta, 10000.0);
  EXPECT_EQ(config->rms_norm_epsilon, 1e-6F);
  EXPECT_THAT(config->layer_is_sparse, ElementsAre(1, 1, 1, 1));
  EXPECT_THAT(config->end_token_ids, IsEmpty());
}

TEST(ModelConfig, BothGenerationsOfOneModelAreEqual) {
  const Result<ModelConfig> first = read_changed(R"({"rope_theta": 50000, "rope_scaling": null})");
  const Result<ModelConfig> second =
      read_changed(R"({"num_experts": "<absent>", "num_local_experts": 7, "rope_parameters": {"rope_theta": 50000.0, "rope_type": "default"}})");
  ASSERT_TRUE(first) << first.error().message;
  ASSERT_TRUE(second) << second.error().message;
  EXPECT_EQ(first->rope_theta, 50000.0);
  EXPECT_EQ(first->expert_count, second->expert_count);
  EXPECT_EQ(hash_model_config(*first), hash_model_config(*second));
}

TEST(ModelConfig, LayersAreDenseByStepAndByList) {
  const Result<ModelConfig> stepped = read_changed(R"({"decoder_sparse_step": 2})");
  ASSERT_TRUE(stepped) << stepped.error().message;
  EXPECT_THAT(stepped->layer_is_sparse, ElementsAre(0, 1, 0, 1));
  const Result<ModelConfig> listed = read_changed(R"({"mlp_only_layers": [0, 3]})");
  ASSERT_TRUE(listed) << listed.error().message;
  EXPECT_THAT(listed->layer_is_sparse, ElementsAre(0, 1, 1, 0));
  const Result<ModelConfig> dense = read_changed(R"({"num_experts": 0, "num_experts_per_tok": "<absent>", "moe_intermediate_size": "<absent>"})");
  ASSERT_TRUE(dense) << dense.error().message;
  EXPECT_THAT(dense->layer_is_sparse, ElementsAre(0, 0, 0, 0));
}

TEST(ModelConfig, WidthsAreNeededOnlyByLayersThatHaveThem) {
  EXPECT_TRUE(read_changed(R"({"intermediate_size": "<absent>"})"));
  const Result<ModelConfig> config = read_changed(R"({"intermediate_size": "<absent>", "mlp_only_layers": [1]})");
  ASSERT_FALSE(config);
  EXPECT_THAT(config.error().message, HasSubstr("intermediate_size is missing"));
}

TEST(ModelConfig, EndTokensComeFromTheGenerationConfigFirst) {
  const auto ids = [](std::string_view config, std::string_view generation) {
    const Result<ModelConfig> result = read_changed(config, generation);
    EXPECT_TRUE(result) << result.error().message;
    return result ? result->end_token_ids : std::vector<std::int32_t>{-1};
  };
  EXPECT_THAT(ids(R"({"eos_token_id": 5})", R"({"eos_token_id": [7, 9]})"), ElementsAre(7, 9));
  EXPECT_THAT(ids(R"({"eos_token_id": 5})", R"({"eos_token_id": null})"), ElementsAre(5));
  EXPECT_THAT(ids(R"({"eos_token_id": 5})", ""), ElementsAre(5));
}

struct Refusal {
  std::string_view change;
  ErrorCode code;
  std::string_view place;     ///< the message names where
  std::string_view expected;  ///< and what was expected
};

TEST(ModelConfig, WhatIsWrongIsRefusedNamingFilePlaceAndExpectation) {
  constexpr ErrorCode kInvalid = ErrorCode::kInvalidArgument;
  constexpr ErrorCode kUnsupported = ErrorCode::kUnsupported;
  const std::vector<Refusal> refusals{
      {R"({"architectures": ["LlamaForCausalLM"]})", kUnsupported, "architectures[0] is \"LlamaForCausalLM\"", "Qwen3MoeForCausalLM"},
      {R"({"architectures": []})", kInvalid, "architectures", "supported architectures"},
      {R"({"architectures": "<absent>"})", kInvalid, "architectures is missing", ""},
      {R"({"vocab_size": 4194305})", kInvalid, "vocab_size is 4194305", "1 to 4194304"},
      {R"({"vocab_size": 18446744073709551615})", kInvalid, "vocab_size is 18446744073709551615", "1 to 4194304"},
      {R"({"vocab_size": "300"})", kInvalid, "vocab_size is \"300\"", "an integer"},
      {R"({"hidden_size": 0})", kInvalid, "hidden_size is 0", "1 to 65536"},
      {R"({"hidden_size": 80.5})", kInvalid, "hidden_size is 80.5", "an integer"},
      {R"({"num_hidden_layers": 1025})", kInvalid, "num_hidden_layers is 1025", "1 to 1024"},
      {R"({"num_attention_heads": -1})", kInvalid, "num_attention_heads is -1", "1 to 1024"},
      {R"({"num_key_value_heads": 2})", kInvalid, "num_key_value_heads is 2", "divisor of num_attention_heads, which is 5"},
      {R"({"num_key_value_heads": 6})", kInvalid, "num_key_value_heads is 6", "1 to 5"},
      {R"({"head_dim": 25})", kInvalid, "head_dim is 25", "an even number"},
      {R"({"head_dim": 514})", kInvalid, "head_dim is 514", "2 to 512"},
      {R"({"head_dim": null, "hidden_size": 81})", kInvalid, "head_dim is missing", "81 / 5"},
      {R"({"num_experts": 4097})", kInvalid, "num_experts is 4097", "0 to 4096"},
      {R"({"num_experts": 4096, "num_hidden_layers": 65})", kInvalid, "65 layers of 4096 experts", "at most 262144"},
      {R"({"num_experts": 7, "num_local_experts": 8})", kInvalid, "num_experts is 7", "8, the value of num_local_experts"},
      {R"({"num_experts": "<absent>"})", kInvalid, "num_experts is missing", ""},
      {R"({"num_experts_per_tok": 8})", kInvalid, "num_experts_per_tok is 8", "1 to 7"},
      {R"({"mlp_only_layers": [4]})", kInvalid, "mlp_only_layers[0] is 4", "0 to 3"},
      {R"({"decoder_sparse_step": 0})", kInvalid, "decoder_sparse_step is 0", "from 1"},
      {R"({"rope_theta": 0})", kInvalid, "rope_theta is 0", "a number"},
      {R"({"rope_theta": 10000, "rope_parameters": {"rope_theta": 20000}})", kInvalid, "rope_parameters.rope_theta is 20000", "10000, the value of rope_theta"},
      {R"({"rope_scaling": {"type": "yarn", "factor": 4}})", kUnsupported, "rope_scaling.type is \"yarn\"", "default"},
      {R"({"rope_parameters": {"rope_type": "dynamic"}})", kUnsupported, "rope_parameters.rope_type is \"dynamic\"", "default"},
      {R"({"rope_parameters": 3})", kInvalid, "rope_parameters is 3", "an object"},
      {R"({"partial_rotary_factor": 0.5})", kUnsupported, "partial_rotary_factor is 0.5", "1"},
      {R"({"rms_norm_eps": 0})", kInvalid, "rms_norm_eps is 0", "a number"},
      {R"({"attention_bias": true})", kUnsupported, "attention_bias is true", "false"},
      {R"({"use_sliding_window": true})", kUnsupported, "use_sliding_window is true", "false"},
      {R"({"layer_types": ["full_attention", "sliding_attention"]})", kUnsupported, "layer_types[1] is \"sliding_attention\"", "full_attention"},
      {R"({"hidden_act": "gelu"})", kUnsupported, "hidden_act is \"gelu\"", "silu"},
      {R"({"quantization_config": {"quant_method": "fp8"}})", kUnsupported, "quantization_config", "quantized weights are not supported"},
      {R"({"tie_word_embeddings": 1})", kInvalid, "tie_word_embeddings is 1", "true or false"},
      {R"({"eos_token_id": 300})", kInvalid, "eos_token_id is 300", "0 to 299"},
      {R"({"eos_token_id": [1, "x"]})", kInvalid, "eos_token_id[1] is \"x\"", "an integer"},
  };
  for (const Refusal& refusal : refusals) {
    const Result<ModelConfig> config = read_changed(refusal.change);
    ASSERT_FALSE(config) << refusal.change;
    EXPECT_EQ(config.error().code, refusal.code) << refusal.change;
    EXPECT_THAT(config.error().message, AllOf(HasSubstr("config.json"), HasSubstr(std::string(refusal.place)), HasSubstr(std::string(refusal.expected))))
        << refusal.change;
  }
}

TEST(ModelConfig, FilesThatAreNoJsonOrNoFilesAreRefused) {
  const TemporaryFolder folder;
  EXPECT_THAT(read_model_config(folder.path()).error().message, AllOf(HasSubstr("config.json"), HasSubstr("no such file")));
  folder.write("config.json", "{\"architectures\": [");
  EXPECT_THAT(read_model_config(folder.path()).error().message, HasSubstr("not JSON"));
  folder.write("config.json", std::string(100, '['));
  EXPECT_THAT(read_model_config(folder.path()).error().message, HasSubstr("not JSON")) << "nested deeper than any config";
  folder.write("config.json", "[1]");
  EXPECT_THAT(read_model_config(folder.path()).error().message, HasSubstr("the document is an array of 1"));
  folder.write("config.json", std::string((4U << 20U) + 1, ' '));
  EXPECT_THAT(read_model_config(folder.path()).error().message, HasSubstr("expected at most 4194304"));
  std::filesystem::remove(folder.path() / "config.json");
  std::filesystem::create_directory(folder.path() / "config.json");
  EXPECT_THAT(read_model_config(folder.path()).error().message, HasSubstr("not a regular file"));
}

TEST(ModelConfig, HashChangesWithEachFieldThatChangesAnswersAndNotWithThePath) {
  const Result<ModelConfig> base = read_changed("{}");
  ASSERT_TRUE(base);
  ModelConfig moved = *base;
  moved.source = "elsewhere";
  EXPECT_EQ(hash_model_config(*base), hash_model_config(moved));
  for (const std::string_view change :
       {R"({"vocab_size": 301})", R"({"hidden_size": 96})", R"({"num_hidden_layers": 5})", R"({"num_attention_heads": 6})", R"({"num_key_value_heads": 5})",
        R"({"head_dim": 26})", R"({"max_position_embeddings": 257})", R"({"num_experts": 8})", R"({"num_experts_per_tok": 2})",
        R"({"moe_intermediate_size": 41})", R"({"norm_topk_prob": true})", R"({"mlp_only_layers": [1]})", R"({"rope_theta": 10001})",
        R"({"rms_norm_eps": 1e-5})", R"({"tie_word_embeddings": true})", R"({"eos_token_id": 1})"}) {
    const Result<ModelConfig> changed = read_changed(change);
    ASSERT_TRUE(changed) << changed.error().message;
    EXPECT_NE(hash_model_config(*base), hash_model_config(*changed)) << change;
  }
}

}  // namespace
}  // namespace lockstep::model
