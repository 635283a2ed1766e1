// Goal: /tokenize and /detokenize answer in vLLM's form, and name the field that is wrong.
// Method: bodies through the pure functions, over a tokenizer of bytes.
#include "daemon/api/tokenize/tokenize_answers.hpp"

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/daemon/support/fakes.hpp"

namespace lockstep::daemon {
namespace {

using ::testing::HasSubstr;

class TokenizeAnswers : public ::testing::Test {
 protected:
  testing::ByteTokenizer tokenizer_;
  testing::FakeChatTemplate chat_template_;
  TokenizeContext context_{.api = {.served_names = {"tiny", "alias"}, .tokenizer = &tokenizer_, .chat_template = &chat_template_}, .max_model_len = 99};
};

TEST_F(TokenizeAnswers, TextBecomesIdsAndBack) {
  const HttpResponse response = tokenize_answer(R"({"prompt":"ab","model":"alias"})", context_);
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.body, R"({"count":2,"max_model_len":99,"tokens":[97,98],"token_strs":null})");
  EXPECT_EQ(detokenize_answer(R"({"tokens":[97,98]})", context_).body, R"({"prompt":"ab"})");
}

TEST_F(TokenizeAnswers, TokensHaveNamesWhenAsked) {
  const HttpResponse response = tokenize_answer(R"({"prompt":"a\"\u00e9","return_token_strs":true,"add_special_tokens":false})", context_);
  EXPECT_EQ(response.status, 200) << response.body;
  EXPECT_THAT(response.body, HasSubstr(R"("token_strs":["a","\"","bytes:\\xc3","bytes:\\xa9"])"));
}

TEST_F(TokenizeAnswers, ConversationIsRenderedFirst) {
  const std::string body = R"({"messages":[{"role":"user","content":"x"}]})";
  const HttpResponse rendered = tokenize_answer(body, context_);
  EXPECT_EQ(rendered.status, 200) << rendered.body;
  const HttpResponse same = tokenize_answer(R"({"prompt":"<user>x</user><assistant>"})", context_);
  EXPECT_EQ(rendered.body, same.body);
  context_.api.chat_template = nullptr;
  const HttpResponse refused = tokenize_answer(body, context_);
  EXPECT_EQ(refused.status, 400);
  EXPECT_THAT(refused.body, HasSubstr("no_chat_template"));
}

TEST_F(TokenizeAnswers, EmptyTextHasNoTokens) {
  EXPECT_EQ(tokenize_answer(R"({"prompt":""})", context_).body, R"({"count":0,"max_model_len":99,"tokens":[],"token_strs":null})");
  EXPECT_EQ(detokenize_answer(R"({"tokens":[]})", context_).body, R"({"prompt":""})");
}

struct Wrong {
  bool detokenize;
  const char* body;
  int status;
  const char* word;
};

class WrongTokenizeRequest : public TokenizeAnswers, public ::testing::WithParamInterface<Wrong> {};

TEST_P(WrongTokenizeRequest, IsRefusedByName) {
  const HttpResponse response = GetParam().detokenize ? detokenize_answer(GetParam().body, context_) : tokenize_answer(GetParam().body, context_);
  EXPECT_EQ(response.status, GetParam().status) << response.body;
  EXPECT_THAT(response.body, HasSubstr(GetParam().word));
}

INSTANTIATE_TEST_SUITE_P(
    Bodies, WrongTokenizeRequest,
    ::testing::Values(Wrong{false, "", 400, "JSON"}, Wrong{false, "[]", 400, "object"}, Wrong{false, "{}", 400, "either prompt or messages"},
                      Wrong{false, R"({"prompt":"a","messages":[]})", 400, "either prompt or messages"},
                      Wrong{false, R"({"prompt":["a"]})", 400, "prompt must be a string"},
                      Wrong{false, R"({"messages":[{"role":"user","content":"a"}],"tools":[{"type":"function"}]})", 400, "tools are not supported"},
                      Wrong{false, R"({"messages":[{"role":"user","content":"a"}],"chat_template":"x"})", 400, "chat_template is not supported"},
                      Wrong{false, R"({"messages":[{"role":"user","content":"a"}],"documents":[{}]})", 400, "documents is not supported"},
                      Wrong{false, R"({"prompt":"a","model":"other"})", 404, "model_not_found"}, Wrong{false, R"({"prompt":"a","model":1})", 400, "model"},
                      Wrong{false, R"({"prompt":"a","return_token_strs":1})", 400, "return_token_strs"},
                      Wrong{false, R"({"prompt":"a","add_special_tokens":"no"})", 400, "add_special_tokens"}, Wrong{true, "{}", 400, "tokens"},
                      Wrong{true, R"({"tokens":"a"})", 400, "tokens"}, Wrong{true, R"({"tokens":[-1]})", 400, "tokens"},
                      Wrong{true, R"({"tokens":[1.5]})", 400, "tokens"}, Wrong{true, R"({"tokens":[4294967396]})", 400, "tokens"},
                      Wrong{true, R"({"tokens":[97],"model":"other"})", 404, "model_not_found"}));

}  // namespace
}  // namespace lockstep::daemon
