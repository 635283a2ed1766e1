// Hostile templates and conversations: every one ends in an error that names its cause, soon, with a bounded stack and heap. Also the forms of messages.
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/chat_template/rendering.hpp"

namespace lockstep::model {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

std::string repeated(std::string_view part, std::size_t count) {
  std::string result;
  for (std::size_t i = 0; i < count; ++i) {
    result += part;
  }
  return result;
}

TEST(ChatTemplateLimits, NestingOfTheSourceIsRefusedAtParsing) {
  for (const std::string& source :
       {"{{ " + repeated("(", 20'000) + "1" + repeated(")", 20'000) + " }}", "{{ " + repeated("[", 20'000) + repeated("]", 20'000) + " }}",
        "{{ " + repeated("-", 20'000) + "1 }}", "{{ " + repeated("not ", 20'000) + "1 }}", "{{ 1" + repeated(" + 1", 20'000) + " }}",
        "{{ a" + repeated(".a", 20'000) + " }}", "{{ a" + repeated("|e", 20'000) + " }}", repeated("{% if 1 %}", 20'000), repeated("{% for i in a %}", 20'000),
        "{{ 1" + repeated(" if 1 else 1", 20'000) + " }}", "{{ f" + repeated("(f", 20'000) + repeated(")", 20'000) + " }}",
        "{% set " + repeated("(", 20'000) + "a" + repeated(")", 20'000) + " = 1 %}", "{{ " + repeated("{1:", 20'000) + "1" + repeated("}", 20'000) + " }}"}) {
    const std::string text = rendered(source);
    EXPECT_THAT(text, StartsWith("parse: t:1:")) << source.substr(0, 40);
    EXPECT_THAT(text, HasSubstr("more than 100")) << source.substr(0, 40);
  }
}

TEST(ChatTemplateLimits, WorkAndMemoryOfARenderingAreBounded) {
  const std::pair<std::string, std::string_view> cases[] = {
      {"{{ 'a' * 1000000000 }}", "16 MiB"},
      {"{{ [0] * 1000000000 }}", "16 MiB"},
      {"{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}", "too many steps"},
      {"{% set n = namespace(s='ab') %}{% for i in range(40) %}{% set n.s = n.s + n.s %}{% endfor %}", "16 MiB"},
      {"{% set n = namespace(l=[]) %}{% for i in range(200) %}{% set n.l = [n.l] %}{% endfor %}", "nested more than 100"},
      {"{% set n = namespace(l=[1]) %}{% for i in range(60) %}{% set n.l = [n.l, n.l] %}{% endfor %}{{ n.l }}", "too many steps"},
      {"{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "too deep"},
      {"{% for i in range(100000) %}{{ 'x' * 1000 }}{% endfor %}", "16 MiB"},
      {"{% for i in range(100000) %}" + repeated("{% for j in '' %}{% endfor %}", 10) + "{% endfor %}", "512 MiB"},
      {"{{ ('a' * 100000) | replace('a', 'b' * 100000) }}", "16 MiB"},
      {"{{ range(1000000) }}", "at most 100000"},
      {"{{ 9223372036854775807 + 1 }}", "64 bits"},
      {"{{ (-9223372036854775807 - 1) // -1 }}", "64 bits"},
      {"{{ 10 ** 100 }}", "64 bits"},
      {"{{ '%5000d' % 1 }}", "width"},
      {"{{ 1 % 0 }}", "division by zero"},
  };
  for (const auto& [source, reason] : cases) {
    const std::string text = rendered(source);
    EXPECT_THAT(text, StartsWith("render: the chat template does not fit this conversation: line 1 of it: ")) << source;
    EXPECT_THAT(text, HasSubstr(reason)) << source;
  }
}

TEST(ChatTemplateLimits, AValueThatRefersToItsLoopOutlivesTheLoop) {
  EXPECT_EQ(rendered("{% set n = namespace() %}{% for i in 'abc' if i != 'x' %}{% set n.l = loop %}{% break %}{% endfor %}{{ n.l.index }}{{ n.l.last }}"),
            "1True");
  EXPECT_EQ(rendered("{% set n = namespace() %}{% set n.me = n %}{{ n.me.me is defined }}"), "True");
}

TEST(ChatTemplateErrors, WhatDoesNotEndNamesWhereItBegan) {
  EXPECT_EQ(rendered("a\n {# b"), "parse: t:2:2: a comment that does not end: add \"#}\"");
  EXPECT_EQ(rendered("{{ a"), "parse: t:1:1: a tag that does not end: add \"}}\"");
  EXPECT_EQ(rendered("{% if a"), "parse: t:1:1: a tag that does not end: add \"%}\"");
  EXPECT_EQ(rendered("{{ 'a }}"), "parse: t:1:4: a string that does not end: add the closing quote");
  EXPECT_THAT(rendered("{% raw %} a"), HasSubstr("t:1:1: \"{% raw %}\" that does not end"));
  EXPECT_THAT(rendered("{% for a in b %}x"), HasSubstr("add \"{% endfor %}\""));
  EXPECT_THAT(rendered("{% if a %}x{% endfor %}"), HasSubstr("t:1:15: unknown or misplaced tag \"endfor\""));
}

TEST(ChatTemplateErrors, AConstructOutsideTheSubsetIsRefusedAtParsingAndNamed) {
  for (const auto& [source, name] :
       {std::pair{"{{ a | xmlattr }}", "the filter \"xmlattr\""}, std::pair{"{{ a is foo }}", "the test \"foo\""},
        std::pair{"{% include 'x' %}", "the tag \"include\""}, std::pair{"{{ a.encode() }}", "the method \"encode\""},
        std::pair{"{{ lipsum() }}", "the function \"lipsum\""}, std::pair{"{% for a in b recursive %}{% endfor %}", "\"recursive\""},
        std::pair{"{% for a in b %}{% macro m() %}{% endmacro %}{% endfor %}", "a macro inside of a loop, a macro or a block"}}) {
    const auto parsed = ChatTemplate::parse(source, "t");
    ASSERT_FALSE(parsed) << source;
    EXPECT_EQ(parsed.error().code, ErrorCode::kUnsupported) << source;
    EXPECT_THAT(parsed.error().message, HasSubstr(std::string(name) + " is outside the supported subset of Jinja: ")) << source;
    EXPECT_THAT(parsed.error().message, StartsWith("t:1:")) << source;
  }
}

TEST(ChatTemplateErrors, TextThatIsNotUtf8IsRefused) {
  EXPECT_THAT(rendered("a\xff"), HasSubstr("t: not UTF-8 at byte 1"));
  ChatInput input;
  input.extra = TemplateValue::object();
  input.extra.set("x", TemplateValue::string("ab\xc3"));
  EXPECT_THAT(rendered("{{ x }}", input), HasSubstr("a text of the conversation is not UTF-8 at byte 2"));
}

TEST(ChatTemplateErrors, RaiseExceptionGivesItsOwnWordsAndNothingElse) {
  EXPECT_EQ(rendered("\n{{ raise_exception('Roles must alternate: ' ~ 1) }}"), "render: Roles must alternate: 1");
}

TEST(ChatTemplateErrors, AnErrorNamesItsLineOnce) {
  EXPECT_EQ(rendered("{% if true %}\n\n{{ 'a' + x.y }}\n{% endif %}"),
            "render: the chat template does not fit this conversation: line 3 of it: 'x' is undefined");
}

}  // namespace
}  // namespace lockstep::model
