// ChatTemplate::open: where a model's template and special tokens come from.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lockstep/model/chat_template.hpp"
#include "tests/unit/model/temporary_folder.hpp"

namespace lockstep::model {
namespace {

using testing::HasSubstr;

TEST(ChatTemplateOpen, TheEmbeddedModelHasOne) {
  const auto opened = ChatTemplate::open(LOCKSTEP_EMBEDDED_MODEL);
  ASSERT_TRUE(opened) << opened.error().message;
  ASSERT_NE(*opened, nullptr);
  TemplateValue message = TemplateValue::object();
  message.set("role", TemplateValue::string("user"));
  message.set("content", TemplateValue::string("Hi"));
  ChatInput input{.messages = TemplateValue::list()};
  input.messages.push_back(message);
  const auto text = (*opened)->render(input);
  ASSERT_TRUE(text) << text.error().message;
  EXPECT_EQ(*text, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
}

TEST(ChatTemplateOpen, AModelWithoutATemplateGivesNone) {
  const TemporaryFolder folder;
  const auto opened = ChatTemplate::open(folder.path());
  ASSERT_TRUE(opened) << opened.error().message;
  EXPECT_EQ(*opened, nullptr);
}

TEST(ChatTemplateOpen, TheFileComesBeforeTheConfigAndSeesItsTokens) {
  const TemporaryFolder folder;
  folder.write("tokenizer_config.json", R"({"chat_template": "config", "bos_token": {"content": "<s>"}, "eos_token": "</s>", "pad_token": null})");
  folder.write("chat_template.jinja", "{{ bos_token }}file{{ eos_token }}{{ pad_token is defined }}{{ tools is none }}");
  const auto opened = ChatTemplate::open(folder.path());
  ASSERT_TRUE(opened) << opened.error().message;
  EXPECT_EQ(*(*opened)->render({}), "<s>file</s>FalseTrue");
}

TEST(ChatTemplateOpen, OfAListTheDefaultIsTaken) {
  const TemporaryFolder folder;
  folder.write("tokenizer_config.json", R"({"chat_template": [{"name": "rag", "template": "r"}, {"name": "default", "template": "d{{ x }}"}]})");
  const auto opened = ChatTemplate::open(folder.path());
  ASSERT_TRUE(opened) << opened.error().message;
  ChatInput input;
  input.extra = TemplateValue::object();
  input.extra.set("x", TemplateValue::integer(1));
  EXPECT_EQ(*(*opened)->render(input), "d1");
}

TEST(ChatTemplateOpen, WhatIsWrongNamesFileAndPlace) {
  const TemporaryFolder folder;
  folder.write("tokenizer_config.json", R"({"chat_template": [{"name": "rag", "template": "r"}]})");
  EXPECT_THAT(ChatTemplate::open(folder.path()).error().message, HasSubstr("chat_template is an array of 1, expected a list with one named \"default\""));
  folder.write("tokenizer_config.json", R"({"chat_template": 7})");
  EXPECT_THAT(ChatTemplate::open(folder.path()).error().message, HasSubstr("tokenizer_config.json: chat_template is 7, expected"));
  folder.write("tokenizer_config.json", R"({"chat_template": "x", "bos_token": []})");
  EXPECT_THAT(ChatTemplate::open(folder.path()).error().message, HasSubstr("bos_token"));
  folder.write("chat_template.jinja", "{% nope %}");
  folder.write("tokenizer_config.json", "{}");
  EXPECT_THAT(ChatTemplate::open(folder.path()).error().message, HasSubstr("chat_template.jinja:1:4: unknown or misplaced tag \"nope\""));
}

}  // namespace
}  // namespace lockstep::model
