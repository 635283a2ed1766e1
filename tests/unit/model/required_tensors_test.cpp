// Goal: the list of tensors is exactly what a Qwen3-MoE checkpoint holds.
// Method: a config with dense and sparse layers, a tied and an untied head; the embedded model's own file is checked in safetensors_test.cpp.
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lockstep/model/weights.hpp"

namespace lockstep::model {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

ModelConfig two_layers() {
  ModelConfig config;
  config.vocabulary_size = 300;
  config.hidden_size = 80;
  config.layer_count = 2;
  config.query_heads = 6;
  config.kv_heads = 2;
  config.head_size = 24;
  config.dense_width = 96;
  config.expert_count = 7;
  config.experts_per_token = 3;
  config.expert_width = 40;
  config.layer_is_sparse = {0, 1};
  return config;
}

TEST(RequiredTensors, DenseAndSparseLayersHaveTheNamesAndShapesOfTheFormat) {
  std::map<std::string, std::vector<std::int64_t>> shapes;
  for (const TensorRequirement& tensor : required_tensors(two_layers())) {
    EXPECT_TRUE(shapes.emplace(tensor.name, tensor.shape).second) << tensor.name << " is listed twice";
  }
  EXPECT_THAT(shapes["model.embed_tokens.weight"], ElementsAre(300, 80));
  EXPECT_THAT(shapes["lm_head.weight"], ElementsAre(300, 80));
  EXPECT_THAT(shapes["model.norm.weight"], ElementsAre(80));
  EXPECT_THAT(shapes["model.layers.0.input_layernorm.weight"], ElementsAre(80));
  EXPECT_THAT(shapes["model.layers.1.post_attention_layernorm.weight"], ElementsAre(80));
  EXPECT_THAT(shapes["model.layers.1.self_attn.q_proj.weight"], ElementsAre(144, 80));
  EXPECT_THAT(shapes["model.layers.1.self_attn.k_proj.weight"], ElementsAre(48, 80));
  EXPECT_THAT(shapes["model.layers.1.self_attn.v_proj.weight"], ElementsAre(48, 80));
  EXPECT_THAT(shapes["model.layers.1.self_attn.o_proj.weight"], ElementsAre(80, 144));
  EXPECT_THAT(shapes["model.layers.1.self_attn.q_norm.weight"], ElementsAre(24));
  EXPECT_THAT(shapes["model.layers.1.self_attn.k_norm.weight"], ElementsAre(24));
  EXPECT_THAT(shapes["model.layers.0.mlp.gate_proj.weight"], ElementsAre(96, 80));
  EXPECT_THAT(shapes["model.layers.0.mlp.down_proj.weight"], ElementsAre(80, 96));
  EXPECT_THAT(shapes["model.layers.1.mlp.gate.weight"], ElementsAre(7, 80));
  EXPECT_THAT(shapes["model.layers.1.mlp.experts.6.up_proj.weight"], ElementsAre(40, 80));
  EXPECT_THAT(shapes["model.layers.1.mlp.experts.0.down_proj.weight"], ElementsAre(80, 40));
  EXPECT_EQ(shapes.size(), 3U + 2U * 8U + 3U + 1U + 7U * 3U);
}

TEST(RequiredTensors, ATiedHeadNeedsNoTensorOfItsOwn) {
  ModelConfig config = two_layers();
  const std::size_t untied = required_tensors(config).size();
  config.tied_embeddings = true;
  EXPECT_EQ(required_tensors(config).size(), untied - 1);
}

TEST(CheckWeights, NamesTheFirstTensorThatIsWrong) {
  const auto dummy = make_dummy_weights(1);
  EXPECT_TRUE(check_weights(*dummy, two_layers()));
  auto source = open_safetensors(LOCKSTEP_EMBEDDED_MODEL);
  ASSERT_TRUE(source) << source.error().message;
  Result<ModelConfig> config = read_model_config(LOCKSTEP_EMBEDDED_MODEL);
  ASSERT_TRUE(config) << config.error().message;
  config->expert_count = 9;
  EXPECT_THAT(check_weights(**source, *config).error().message, HasSubstr("model.layers.0.mlp.gate.weight\" has shape [8, 192], expected [9, 192]"));
}

}  // namespace
}  // namespace lockstep::model
