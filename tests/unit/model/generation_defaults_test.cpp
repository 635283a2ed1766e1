// Goal    generation_config.json gives the defaults of sampling, each within the range that a request's value has.
// Method  Small files; one key at a time to its last good value and its first bad one.
#include "lockstep/model/generation_defaults.hpp"

#include <string>
#include <utility>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/model/temporary_folder.hpp"

namespace lockstep::model {
namespace {

Result<GenerationDefaults> read(const std::string& text) {
  const TemporaryFolder folder;
  folder.write("generation_config.json", text);
  return read_generation_defaults(folder.path());
}

TEST(GenerationDefaults, AreReadAndOthersLeftAlone) {
  const auto defaults = read(R"({"do_sample": true, "temperature": 0.6, "top_p": 0.95, "top_k": 20, "min_p": 0, "repetition_penalty": 1.05,)"
                             R"("max_new_tokens": 2048, "eos_token_id": [1, 2], "num_beams": 1})");
  ASSERT_TRUE(defaults) << defaults.error().message;
  EXPECT_EQ(defaults->temperature, 0.6F);
  EXPECT_EQ(defaults->top_p, 0.95F);
  EXPECT_EQ(defaults->top_k, 20);
  EXPECT_EQ(defaults->min_p, 0.0F);
  EXPECT_EQ(defaults->repetition_penalty, 1.05F);
  EXPECT_EQ(defaults->max_new_tokens, 2048);
}

TEST(GenerationDefaults, AreNoneWithoutTheFileWithNullsAndOfTheEmbeddedModel) {
  const TemporaryFolder empty;
  EXPECT_EQ(*read_generation_defaults(empty.path()), GenerationDefaults{});
  EXPECT_EQ(*read(R"({"temperature": null, "top_k": null})"), GenerationDefaults{});
  EXPECT_EQ(*read_generation_defaults(LOCKSTEP_EMBEDDED_MODEL), GenerationDefaults{}) << "what README shows is OpenAI's defaults";
}

TEST(GenerationDefaults, ValuesThatNoRequestMayHaveAreRefusedByKey) {
  for (const auto& [good, bad] : {std::pair(R"({"temperature": 2})", R"({"temperature": 2.5})"), std::pair(R"({"temperature": 0})", R"({"temperature": -1})"),
                                  std::pair(R"({"top_p": 1})", R"({"top_p": 0})"), std::pair(R"({"top_p": 0.1})", R"({"top_p": "x"})"),
                                  std::pair(R"({"min_p": 1})", R"({"min_p": 1.5})"), std::pair(R"({"repetition_penalty": 10})", R"({"repetition_penalty": 0})"),
                                  std::pair(R"({"top_k": 0})", R"({"top_k": -1})"), std::pair(R"({"max_new_tokens": 1})", R"({"max_new_tokens": 0})")}) {
    EXPECT_TRUE(read(good)) << good;
    const auto refused = read(bad);
    ASSERT_FALSE(refused) << bad;
    EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
    const std::string key = std::string(bad).substr(2, std::string(bad).find('"', 2) - 2);
    EXPECT_THAT(refused.error().message, ::testing::AllOf(::testing::HasSubstr("generation_config.json"), ::testing::HasSubstr(key)));
  }
  EXPECT_FALSE(read("{"));
}

}  // namespace
}  // namespace lockstep::model
