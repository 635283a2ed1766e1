// Goal: the right model folder is found, and a bad one is refused before anything else happens.
// Method: the embedded model's files, copied into the layouts of a build tree and of an installation.
#include "daemon/served_model/served_model.hpp"

#include <filesystem>
#include <fstream>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lockstep::daemon {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

class ServedModelTest : public ::testing::Test {
 protected:
  void SetUp() override { fs::create_directories(root_ / "bin"); }
  void TearDown() override { fs::remove_all(root_); }
  void copy_model(const fs::path& to) {
    fs::create_directories(to);
    fs::copy(LOCKSTEP_EMBEDDED_MODEL, to, fs::copy_options::recursive | fs::copy_options::overwrite_existing);
  }

  fs::path root_ = fs::temp_directory_path() / ("lockstep_served_model_" + std::to_string(::getpid()));
  fs::path executable_ = root_ / "bin/lockstepd";
};

TEST_F(ServedModelTest, InstalledModelIsFoundBeforeTheBuildTrees) {
  EXPECT_THAT(find_embedded_model(executable_).error().message, HasSubstr("--model"));
  copy_model(root_ / "bin/model/embedded");
  EXPECT_EQ(*find_embedded_model(executable_), root_ / "bin/model/embedded");
  copy_model(root_ / "share/lockstep/models/tiny-moe");
  EXPECT_EQ(*find_embedded_model(executable_), root_ / "share/lockstep/models/tiny-moe");
}

TEST_F(ServedModelTest, EmbeddedModelOpensWithItsName) {
  copy_model(root_ / "bin/model/embedded");
  const auto model = open_served_model({}, executable_);
  ASSERT_TRUE(model) << model.error().message;
  EXPECT_EQ(model->name, "tiny-moe");
  EXPECT_EQ(model->load_format, "safetensors");
  EXPECT_GT(model->config.expert_count, 0);
  EXPECT_TRUE(model->tokenizer->encode("hello"));
}

TEST_F(ServedModelTest, ModelIsNamedAfterItsFolderUnlessItIsGivenAName) {
  copy_model(root_ / "my-model");
  DaemonOptions options;
  options.model = root_ / "my-model/";
  EXPECT_EQ(open_served_model(options, executable_)->name, "my-model");
  options.served_model_names = {"alias", "other"};
  const auto model = open_served_model(options, executable_);
  EXPECT_EQ(model->name, "alias");
  EXPECT_EQ(model->names, (std::vector<std::string>{"alias", "other"}));
}

TEST_F(ServedModelTest, DummyWeightsNeedNothingButAConfig) {
  fs::create_directories(root_ / "m");
  fs::copy(fs::path(LOCKSTEP_EMBEDDED_MODEL) / "config.json", root_ / "m/config.json");
  DaemonOptions options;
  options.model = root_ / "m";
  EXPECT_FALSE(open_served_model(options, executable_));
  options.load_format = LoadFormat::kDummy;
  const auto model = open_served_model(options, executable_);
  ASSERT_TRUE(model) << model.error().message;
  EXPECT_EQ(*model->tokenizer->encode("1 2"), (std::vector<std::int32_t>{1, 2}));
}

TEST_F(ServedModelTest, OptionsThatDoNotFitTheModelOrTheBuildAreRefused) {
  copy_model(root_ / "m");
  DaemonOptions options;
  options.model = root_ / "m";
  const std::int64_t context = open_served_model(options, executable_)->config.context_length;
  DaemonOptions long_context = options;
  long_context.max_model_len = static_cast<std::int32_t>(context) + 1;
  EXPECT_THAT(open_served_model(long_context, executable_).error().message,
              AllOf(HasSubstr("--max-model-len is " + std::to_string(context + 1)), HasSubstr(std::to_string(context) + " tokens")));
  DaemonOptions no_cache = options;
  no_cache.kv_cache_bytes = 100;
  EXPECT_THAT(open_served_model(no_cache, executable_).error().message, AllOf(HasSubstr("--kv-cache-memory is 100 bytes"), HasSubstr("give at least that")));
  DaemonOptions other_device = options;
  other_device.device = "abacus";
  const auto refused = open_served_model(other_device, executable_);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, AllOf(HasSubstr("--device is \"abacus\""), HasSubstr("cpu")));
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
}

TEST_F(ServedModelTest, TruncatedWeightsAndAMissingTokenizerAreRefused) {
  copy_model(root_ / "m");
  DaemonOptions options;
  options.model = root_ / "m";
  fs::rename(root_ / "m/tokenizer.json", root_ / "m/away.json");
  EXPECT_THAT(open_served_model(options, executable_).error().message, HasSubstr("tokenizer.json"));
  fs::rename(root_ / "m/away.json", root_ / "m/tokenizer.json");
  fs::resize_file(root_ / "m/model.safetensors", fs::file_size(root_ / "m/model.safetensors") - 1);
  EXPECT_THAT(open_served_model(options, executable_).error().message, HasSubstr("model.safetensors"));
}

TEST_F(ServedModelTest, ChatsAreRenderedByTheModelsTemplateOrTheGivenOneWithTheModelsTokens) {
  copy_model(root_ / "m");
  DaemonOptions options;
  options.model = root_ / "m";
  model::ChatInput input{.messages = model::TemplateValue::list(), .add_generation_prompt = false};
  model::TemplateValue message = model::TemplateValue::object();
  message.set("role", model::TemplateValue::string("user"));
  message.set("content", model::TemplateValue::string("hi"));
  input.messages.push_back(message);
  const auto own = open_served_model(options, executable_);
  ASSERT_TRUE(own) << own.error().message;
  EXPECT_EQ(*own->chat_template->render(input), "<|im_start|>user\nhi<|im_end|>\n");

  options.chat_template_file = root_ / "given.jinja";
  EXPECT_THAT(open_served_model(options, executable_).error().message,
              ::testing::AllOf(HasSubstr("--chat-template"), HasSubstr("given.jinja: no such file"), HasSubstr("a Jinja file")));
  std::ofstream(options.chat_template_file) << "{{ messages[0].content }}{{ eos_token }}";
  const auto given = open_served_model(options, executable_);
  ASSERT_TRUE(given) << given.error().message;
  EXPECT_EQ(*given->chat_template->render(input), "hi<|im_end|>");
  std::ofstream(options.chat_template_file) << "{% if %}";
  EXPECT_THAT(open_served_model(options, executable_).error().message, HasSubstr("given.jinja"));
}

TEST_F(ServedModelTest, DefaultsOfSamplingAreTheModelsUnlessTheyAreNotWanted) {
  copy_model(root_ / "m");
  DaemonOptions options;
  options.model = root_ / "m";
  std::ofstream(root_ / "m/generation_config.json") << R"({"eos_token_id": 2, "temperature": 0.5})";
  EXPECT_EQ(open_served_model(options, executable_)->generation_defaults.temperature, 0.5F);
  options.default_max_tokens = 64;
  EXPECT_EQ(open_served_model(options, executable_)->generation_defaults.max_new_tokens, 64);
  options.default_max_tokens = 0;
  options.generation_config = false;
  EXPECT_EQ(open_served_model(options, executable_)->generation_defaults, model::GenerationDefaults{});
  std::ofstream(root_ / "m/generation_config.json") << R"({"eos_token_id": 2, "temperature": 5})";
  EXPECT_TRUE(open_served_model(options, executable_));
  options.generation_config = true;
  EXPECT_THAT(open_served_model(options, executable_).error().message,
              ::testing::AllOf(HasSubstr("temperature"), HasSubstr("5"), HasSubstr("--generation-config none")));
}

TEST_F(ServedModelTest, MissingFolderIsNamed) {
  DaemonOptions options;
  options.model = root_ / "nowhere";
  EXPECT_THAT(open_served_model(options, executable_).error().message, HasSubstr("nowhere"));
}

}  // namespace
}  // namespace lockstep::daemon
