// Goal    A conversation reaches the template as it was sent, text parts as one text, and everything that cannot be honoured is refused by name.
// Method  read_chat_request with a template that writes down what it was given; tables of bodies.
#include "daemon/api/chat/chat_request.hpp"

#include <limits>
#include <span>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/unit/daemon/support/fakes.hpp"

namespace lockstep::daemon {
namespace {

class ChatRequest : public ::testing::Test {
 protected:
  std::optional<ApiError> parse(std::string_view body) {
    job_ = {};
    return read_chat_request(body, {.served_names = {"tiny"}, .tokenizer = &tokenizer_, .chat_template = &template_}, job_);
  }
  /// The prompt's text; the error where there is one.
  std::string prompt(std::string_view body) {
    if (const auto error = parse(body)) {
      return "error: " + error->message;
    }
    std::string text;
    for (const std::int32_t token : job_.prompts.at(0)) {
      text += static_cast<char>(token);
    }
    return text;
  }

  testing::ByteTokenizer tokenizer_;
  testing::FakeChatTemplate template_;
  GenerationJob job_;
};

TEST_F(ChatRequest, MessagesAreRenderedByTheTemplate) {
  EXPECT_EQ(prompt(R"({"messages":[{"role":"system","content":"be"},{"role":"user","content":"hi"}]})"), "<system>be</system><user>hi</user><assistant>");
}

TEST_F(ChatRequest, TextPartsBecomeOneText) {
  EXPECT_EQ(prompt(R"({"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}]})"), "<user>a\nb</user><assistant>");
}

TEST_F(ChatRequest, DefaultsAreOpenAis) {
  ASSERT_FALSE(parse(R"({"messages":[{"role":"user","content":"hi"}]})"));
  EXPECT_FALSE(job_.max_tokens);
  EXPECT_EQ(job_.default_max_tokens, std::numeric_limits<std::int32_t>::max()) << "what the context has left";
  EXPECT_EQ(job_.sampling.log_probabilities, -1);
  EXPECT_TRUE(job_.echoes.empty());
}

TEST_F(ChatRequest, LogProbabilitiesHaveTheirOwnForm) {
  const std::string messages = R"({"messages":[{"role":"user","content":"hi"}],)";
  ASSERT_FALSE(parse(messages + R"("logprobs":true})"));
  EXPECT_EQ(job_.sampling.log_probabilities, 0);
  ASSERT_FALSE(parse(messages + R"("logprobs":true,"top_logprobs":20})"));
  EXPECT_EQ(job_.sampling.log_probabilities, 20);
  ASSERT_FALSE(parse(messages + R"("logprobs":false,"top_logprobs":0})"));
  EXPECT_EQ(job_.sampling.log_probabilities, -1);
}

TEST_F(ChatRequest, WhatAMessageHasBesideReachesTheTemplate) {
  ASSERT_FALSE(parse(R"({"messages":[{"role":"user","content":"hi","name":"bob","weight":2.5,"flags":[true,null,{"x":-3}]}],)"
                     R"("chat_template_kwargs":{"enable_thinking":false},"reasoning_effort":"low"})"));
  const model::TemplateValue& message = template_.last_input.messages.elements().at(0);
  EXPECT_EQ(message.find("name")->as_string(), "bob");
  EXPECT_EQ(message.find("weight")->as_number(), 2.5);
  EXPECT_TRUE(message.find("flags")->elements().at(0).as_boolean());
  EXPECT_TRUE(message.find("flags")->elements().at(1).is_null());
  EXPECT_EQ(message.find("flags")->elements().at(2).find("x")->as_integer(), -3);
  EXPECT_FALSE(template_.last_input.extra.find("enable_thinking")->as_boolean());
  EXPECT_EQ(template_.last_input.extra.find("reasoning_effort")->as_string(), "low");
  EXPECT_TRUE(template_.last_input.tools.is_null());
}

TEST_F(ChatRequest, WhatAnAnswerSentBackDoesNotHaveDoesNotReachTheTemplate) {
  for (const std::string calls : {"null", "[]", "{}"}) {
    ASSERT_FALSE(parse(R"({"messages":[{"role":"assistant","content":"hi","refusal":null,"name":null,"tool_calls":)" + calls + R"(,"function_call":)" + calls +
                       R"(},{"role":"user","content":"hi"}]})"));
    const model::TemplateValue& message = template_.last_input.messages.elements().at(0);
    for (const std::string_view member : {"refusal", "name", "tool_calls", "function_call"}) {
      EXPECT_EQ(message.find(member), nullptr) << member << " of " << calls << ": templates ask whether it is there";
    }
    EXPECT_EQ(message.find("content")->as_string(), "hi");
  }
}

TEST_F(ChatRequest, TheFinalMessageMayBeContinued) {
  const std::string messages = R"({"messages":[{"role":"user","content":"sun"},{"role":"assistant","content":"The sun "}],)";
  EXPECT_EQ(prompt(messages + R"("continue_final_message":true})"), "<user>sun</user><assistant>The sun ");
  EXPECT_EQ(prompt(messages + R"("add_generation_prompt":false})"), "<user>sun</user><assistant>The sun </assistant>");
  EXPECT_TRUE(parse(messages + R"("continue_final_message":true,"add_generation_prompt":true})"));
  EXPECT_TRUE(parse(R"({"messages":[{"role":"assistant","content":" "}],"continue_final_message":true})"));
}

TEST_F(ChatRequest, AModelWithoutATemplateSaysSo) {
  const auto error = read_chat_request(R"({"messages":[{"role":"user","content":"hi"}]})", {.served_names = {"tiny"}, .tokenizer = &tokenizer_}, job_);
  ASSERT_TRUE(error);
  EXPECT_EQ(error->status, 400);
  EXPECT_EQ(error->code, "no_chat_template");
}

TEST_F(ChatRequest, WhatTheTemplateRefusesIsTheClientsToChange) {
  const auto error = parse(R"({"messages":[{"role":"nobody","content":"hi"}]})");
  ASSERT_TRUE(error);
  EXPECT_EQ(error->status, 400);
  EXPECT_EQ(error->param, "messages");
  EXPECT_NE(error->message.find("nobody"), std::string::npos);
}

TEST_F(ChatRequest, FieldsThatAskForNothingOrThatNobodyNeedsAreAccepted) {
  EXPECT_FALSE(parse(
      R"({"messages":[{"role":"user","content":"hi","tool_calls":[]}],"tools":[],"tool_choice":"none","functions":null,"response_format":{"type":"text"},)"
      R"("modalities":["text"],"store":false,"metadata":{"a":"b"},"user":"x","service_tier":"auto","parallel_tool_calls":true,"n":1,"logit_bias":null,)"
      R"("prediction":{"type":"content","content":"hi"},"verbosity":"medium","prompt_cache_key":"k","safety_identifier":"s"})"));
}

TEST_F(ChatRequest, EverythingElseIsRefusedAndNamesTheField) {
  const std::string messages = R"({"messages":[{"role":"user","content":"hi"}],)";
  const std::vector<std::pair<std::string, std::string>> bad{
      {"{}", "messages"},
      {R"({"messages":[]})", "messages"},
      {R"({"messages":{}})", "messages"},
      {R"({"messages":"hi"})", "messages"},
      {R"({"messages":[5]})", "messages[0]"},
      {R"({"messages":[{"content":"hi"}]})", "messages[0].role"},
      {R"({"messages":[{"role":"","content":"hi"}]})", "messages[0].role"},
      {R"({"messages":[{"role":5,"content":"hi"}]})", "messages[0].role"},
      {R"({"messages":[{"role":")" + std::string(65, 'r') + R"(","content":"hi"}]})", "messages[0].role"},
      {R"({"messages":[{"role":"user"}]})", "messages[0].content"},
      {R"({"messages":[{"role":"user","content":null}]})", "messages[0].content"},
      {R"({"messages":[{"role":"user","content":5}]})", "messages[0].content"},
      {R"({"messages":[{"role":"user","content":[]}]})", "messages[0].content"},
      {R"({"messages":[{"role":"user","content":"a"},{"role":"user","content":[{"type":"text","text":"a"},"b"]}]})", "messages[1].content[1]"},
      {R"({"messages":[{"role":"user","content":[{"text":"a"}]}]})", "messages[0].content[0]"},
      {R"({"messages":[{"role":"user","content":[{"type":"text"}]}]})", "messages[0].content[0]"},
      {R"({"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}]})", "messages[0].content[0]"},
      {R"({"messages":[{"role":"assistant","content":"a","tool_calls":[{"id":"1"}]}]})", "messages[0].tool_calls"},
      {R"({"messages":[{"role":"assistant","content":"a","function_call":{"name":"f"}}]})", "messages[0].function_call"},
      {messages + R"("tools":[{"type":"function"}]})", "tools"},
      {messages + R"("tools":[{"type":"function"}],"tool_choice":"auto"})", "tools"},
      {messages + R"("tools":"x","tool_choice":"none"})", "tools"},
      {messages + R"("tool_choice":"required"})", "tool_choice"},
      {messages + R"("tool_choice":{"type":"function","function":{"name":"f"}}})", "tool_choice"},
      {messages + R"("store":true})", "store"},
      {messages + R"("prediction":"hi"})", "prediction"},
      {messages + R"("verbosity":"low"})", "verbosity"},
      {messages + R"("max_tokens":0})", "max_tokens"},
      {messages + R"("functions":[{}]})", "functions"},
      {messages + R"("documents":[{}]})", "documents"},
      {messages + R"("mm_processor_kwargs":{"a":1}})", "mm_processor_kwargs"},
      {messages + R"("response_format":{"type":"json_object"}})", "response_format"},
      {messages + R"("response_format":"text"})", "response_format"},
      {messages + R"("modalities":["text","audio"]})", "modalities"},
      {messages + R"("audio":{}})", "audio"},
      {messages + R"("chat_template":"x"})", "chat_template"},
      {messages + R"("chat_template_kwargs":5})", "chat_template_kwargs"},
      {messages + R"("reasoning_effort":5})", "reasoning_effort"},
      {messages + R"("echo":true})", "echo"},
      {messages + R"("logprobs":1})", "logprobs"},
      {messages + R"("top_logprobs":2})", "top_logprobs"},
      {messages + R"("logprobs":true,"top_logprobs":21})", "top_logprobs"},
      {messages + R"("add_generation_prompt":1})", "add_generation_prompt"},
      {messages + R"("continue_final_message":1})", "continue_final_message"},
      {messages + R"("max_completion_tokens":0})", "max_completion_tokens"},
      {messages + R"("n":129})", "n"},
      {messages + R"("temperature":3})", "temperature"}};
  for (const auto& [body, field] : bad) {
    const auto error = parse(body);
    ASSERT_TRUE(error) << body;
    EXPECT_EQ(error->status, 400) << body;
    EXPECT_EQ(error->param.value_or(""), field) << body << ": " << error->message;
  }
}

TEST_F(ChatRequest, AnAnswerOfTheAssistantMayHaveHadNoText) {
  for (const std::string content : {"", R"(,"content":null)", R"(,"content":[])", R"(,"content":"")"}) {
    EXPECT_EQ(prompt(R"({"messages":[{"role":"assistant","tool_calls":null)" + content + R"(},{"role":"user","content":"hi"}]})"),
              "<assistant></assistant><user>hi</user><assistant>")
        << content;
  }
}

TEST_F(ChatRequest, ToolsThatMustNotBeCalledAreNotShownToTheModel) {
  ASSERT_FALSE(parse(R"({"messages":[{"role":"user","content":"hi"}],"tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":"none"})"));
  EXPECT_TRUE(template_.last_input.tools.is_null());
}

TEST_F(ChatRequest, MaxNewTokensOfTheModelAreTheDefault) {
  ASSERT_FALSE(read_chat_request(R"({"messages":[{"role":"user","content":"hi"}]})",
                                 {.served_names = {"tiny"}, .tokenizer = &tokenizer_, .chat_template = &template_, .defaults = {.max_new_tokens = 77}}, job_));
  EXPECT_EQ(job_.default_max_tokens, 77);
  EXPECT_EQ(job_.prompt_field, "messages");
}

/// Knows one token by its text.
class MarkTokenizer final : public model::Tokenizer {
 public:
  Result<std::vector<std::int32_t>> encode(std::string_view text) const override {
    std::vector<std::int32_t> tokens;
    for (std::size_t at = 0; at < text.size();) {
      const bool marked = text.substr(at).starts_with("<|end|>");
      tokens.push_back(marked ? testing::kEndToken : static_cast<unsigned char>(text[at]));
      at += marked ? 7 : 1;
    }
    return tokens;
  }
  Result<std::string> decode(std::span<const std::int32_t> ids, bool skip) const override { return bytes_.decode(ids, skip); }
  std::string_view token_bytes(std::int32_t id) const override { return bytes_.token_bytes(id); }
  bool is_special(std::int32_t id) const override { return id == testing::kEndToken; }
  std::int32_t vocabulary_size() const override { return bytes_.vocabulary_size(); }

 private:
  testing::ByteTokenizer bytes_;
};

TEST_F(ChatRequest, TextsOfSpecialTokensAreRefusedWhereTheServerSaysSo) {
  const MarkTokenizer tokenizer;
  ApiContext context{.served_names = {"tiny"}, .tokenizer = &tokenizer, .chat_template = &template_};
  const std::vector<std::string> bodies{R"({"messages":[{"role":"user","content":"ok"},{"role":"user","content":"a<|end|>b"}]})",
                                        R"({"messages":[{"role":"user","content":"ok"},{"role":"user","content":[{"type":"text","text":"<|end|>"}]}]})",
                                        R"({"messages":[{"role":"user","content":"ok"},{"role":"user","content":"a","name":"<|end|>"}]})"};
  for (const std::string& body : bodies) {
    job_ = {};
    EXPECT_FALSE(read_chat_request(body, context, job_)) << body;
    context.refuses_special_tokens = true;
    const auto error = read_chat_request(body, context, job_);
    ASSERT_TRUE(error) << body;
    EXPECT_EQ(error->param, "messages[1]");
    context.refuses_special_tokens = false;
  }
  context.refuses_special_tokens = true;
  EXPECT_FALSE(read_chat_request(R"({"messages":[{"role":"user","content":"a<|en"}]})", context, job_));
}

TEST_F(ChatRequest, TooManyMessagesAreRefused) {
  std::string messages = R"({"role":"user","content":"a"})";
  for (int i = 0; i < 4096; ++i) {
    messages += R"(,{"role":"user","content":"a"})";
  }
  EXPECT_TRUE(parse("{\"messages\":[" + messages + "]}"));
}

}  // namespace
}  // namespace lockstep::daemon
