// Each construct of the subset: what it renders to. The texts were recorded from jinja2 3.1.6, set up as reference.py sets it up; differential_test.py compares
// many more with it. This table is what the sanitizers see.
#include <string>
#include <string_view>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/chat_template/rendering.hpp"

namespace lockstep::model {
namespace {

struct Case {
  std::string_view name;
  std::string_view source;
  std::string_view expected;  ///< "error": the reference fails too
};

constexpr Case kLiterals[] = {
    {"Literals", "{{ 'a\\n\\x41\\u00e9\\'' ~ \"b\" 'c' }}", "a\nAé'bc"},
    {"Literals", "{{ 1_000 }} {{ 0x1F }} {{ 1e3 }} {{ 1.50 }} {{ 1e16 }} {{ 0.0001 }} {{ 0.00001 }}", "1000 31 1000.0 1.5 1e+16 0.0001 1e-05"},
    {"Literals", "{{ true }} {{ False }} {{ none }} {{ [1, 'a', none] }} {{ (1,) }} {{ () }} {{ {'k': [1.0], 2: true} }}",
     "True False None [1, 'a', None] (1,) () {'k': [1.0], 2: True}"},
    {"Literals", "{{ [\"it's\", 'a\"b', 'tab\\t', '\\u200b\\x7f'] }}", "[\"it's\", 'a\"b', 'tab\\t', '\\u200b\\x7f']"},
};

constexpr Case kOperators[] = {
    {"Operators", "{{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** 3 ** 2 }} {{ 2 ** -1 }} {{ -7.5 // 2 }} {{ -7.5 % 2 }}",
     "3 -4 2 3.5 64 0.5 -4.0 0.5"},
    {"Operators", "{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 'a' in 'cat' }} {{ 2 not in [1] }} {{ 'k' in {'k': 1} }} {{ 1 == 1.0 == true }}",
     "True False True True True True"},
    {"Operators", "{{ 'a' ~ 1 ~ none ~ x }}|{{ 'ab' * 2 }} {{ [1] * 2 + [2] }} {{ (1,) + (2,) }}", "a1None|abab [1, 1, 2] (1, 2)"},
    {"Operators", "{{ 0 or 'b' }} {{ '' and 1 }} {{ not [] }} {{ 1 if 0 }}|{{ 1 if 0 else 2 if 0 else 3 }}", "b  True |3"},
    {"Operators",
     "{{ '%s-%05.1f-%d%%' % ('a', 3.14159, 7) }} {{ '%(k)s' % {'k': 1} }} {{ '{} {1} {n}'.format('x', 'y', n=2) if false else '{}/{n}'.format('x', n=2) }}",
     "a-003.1-7% 1 x/2"},
};

constexpr Case kUndefined[] = {
    {"Undefined",
     "{{ x }}|{{ x is defined }}|{{ {}.y }}|{{ none.z }}|{{ x | default('d') }}|{{ '' | default('d', true) }}|{{ x | length }}|{% for i in x %}{% endfor %}",
     "|False|||d|d|0|"},
    {"Undefined", "{{ x.y }}", "error"},
    {"Undefined", "{{ x() }}", "error"},
    {"Undefined", "{{ x + 1 }}", "error"},
    {"Undefined", "{{ {}.y.z }}", "error"},
};

constexpr Case kSlices[] = {
    {"Slices",
     "{{ 'héllo'[1:3] }} {{ 'héllo'[::-1] }} {{ [1,2,3,4][-2:] }} {{ [1,2,3,4][::2] }} {{ [1,2,3,4][3:0:-2] }} {{ (1,2,3)[:-1] }} {{ 'é!'[-1] }} {{ [1][5] }}",
     "él olléh [3, 4] [1, 3] [4, 2] (1, 2) ! "},
};

constexpr Case kWhitespace[] = {
    {"Whitespace", "a\n  {% if true %}\n  b\n  {%- endif %}\n c\n", "a\n  b c"},
    {"Whitespace", "a \n{{- 'b' -}}\n c", "abc"},
    {"Whitespace", "  {%+ if true %}x{% endif +%}\n y", "  x\n y"},
    {"Whitespace", "{# c #}\n x {#- d -#} y\n\n", " xy\n"},
    {"Whitespace", "{% raw %}{{ x }}{% endraw %}\n z", "{{ x }} z"},
    {"Whitespace", "{%- raw -%}  {% x  {%- endraw -%} b", "{% xb"},
};

constexpr Case kLoops[] = {
    {"Loops", "{% for i in [1] %}{% continue %}{% else %}e{% endfor %}{% for i in [1, 2] %}{% if loop.last %}{% break %}{% endif %}{% else %}f{% endfor %}",
     "e"},
    {"Loops",
     "{% for a in 'xyz' %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem }}{{ "
     "loop.nextitem }};{% endfor %}",
     "103TrueFalse3y;212FalseFalse3xz;321FalseTrue3y;"},
    {"Loops",
     "{% for k, v in {'a': 1, 'b': 2}.items() if v > 1 %}{{ k }}{{ loop.length }}{{ loop.cycle('o', 'e') }}{% else %}none{% endfor %}{% for i in [] %}{% else "
     "%}empty{% endfor %}",
     "b1oempty"},
    {"Loops", "{% for i in range(9) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}", "013"},
    {"Loops", "{% set x = 1 %}{% for i in [1, 2] %}{% set x = x + i %}{{ x }}{% endfor %}{{ x }}", "231"},
    {"Loops", "{% set ns = namespace(s='', n=0) %}{% for i in 'ab' %}{% set ns.s = ns.s ~ i %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.s }}{{ ns.n }}",
     "ab2"},
    {"Loops", "{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}", "123"},
};

constexpr Case kMacros[] = {
    {"Macros", "{% macro m(a, b=a ~ '!', c) %}{% endmacro %}", "error"},
    {"Macros", "{% macro m(a, b='d', c=b) %}{{ a }}{{ b }}{{ c }};{% endmacro %}{{ m(1) }}{{ m(1, c=2) }}{{ m() }}{{ m(*[1, 2], **{'c': 3}) }}",
     "1dd;1d2;dd;123;"},
    {"Macros", "{% macro f(n) %}{{ n }}{% if n %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}", "3210"},
    {"Macros", "{% macro v() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ v(1, 2, k=3) }}", "(1, 2){'k': 3}"},
    {"Macros", "{% macro m() %}{{ y }}{% endmacro %}{% set y = 5 %}{{ m() }}{% for y in [6] %}{{ m() }}{% endfor %}", "55"},
    {"Macros", "{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}", "error"},
    {"Macros", "{% macro m(a) %}{% endmacro %}{{ m(b=2) }}", "error"},
};

constexpr Case kBlocks[] = {
    {"Blocks", "{% set x %}a{{ 1 }}{% endset %}{{ x }}{% set y | upper %}b{% endset %}{{ y }}", "a1B"},
    {"Blocks", "{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{{ a }}", "3"},
    {"Blocks", "{% filter upper | trim %} x {% endfilter %}", "X"},
    {"Blocks", "{% generation %}g{% set q = 1 %}{% endgeneration %}{{ q }}", "g"},
    {"Blocks", "{% set a, b = 1, [2] %}{{ a }}{{ b }}", "1[2]"},
    {"Blocks", "{% if 0 %}a{% elif 1 %}b{% else %}c{% endif %}", "b"},
};

constexpr Case kFilters[] = {
    {"Filters", "{{ {'b': [1, 2.0, none, true], 'a': 'é<\"\\n'} | tojson }}", "{\"b\": [1, 2.0, null, true], \"a\": \"é<\\\"\\n\"}"},
    {"Filters", "{{ {'b': [1, {}], 'a': []} | tojson(indent=2) }}", "{\n  \"b\": [\n    1,\n    {}\n  ],\n  \"a\": []\n}"},
    {"Filters", "{{ 'é\\U0001F600' | tojson(ensure_ascii=True) }} {{ {'b': 1, 'a': 2} | tojson(sort_keys=true, separators=(',', ':')) }}",
     "\"\\u00e9\\ud83d\\ude00\" {\"a\":2,\"b\":1}"},
    {"Filters", "{{ [3, 1, 2] | sort | join('-') }} {{ ['b', 'A'] | sort }} {{ [1, 2] | sort(reverse=true) }} {{ {'b': 1, 'A': 2} | dictsort }}",
     "1-2-3 ['A', 'b'] [2, 1] [('A', 2), ('b', 1)]"},
    {"Filters",
     "{{ [{'k': 1}, {'k': 2}, {}] | selectattr('k', 'defined') | map(attribute='k') | list }} {{ [1, 2, 3] | select('odd') | list }} {{ [1, 0] | reject | list "
     "}} {{ ['a'] | map('upper') | first }} {{ [{'a': {'b': 1}}] | map(attribute='a.b') | list }}",
     "[1, 2] [1, 3] [0] A [1]"},
    {"Filters",
     "{{ ' x ' | trim }}| {{ 'xxaxx' | trim('x') }} {{ 'a-b' | replace('-', '+') }} {{ 'heLLo wORLD-x' | title }} {{ 'heLLo' | capitalize }} {{ 'É' | lower }}",
     "x| a a+b Hello World-X Hello é"},
    {"Filters",
     "{{ '12' | int + 1 }} {{ 'x' | int }} {{ '3.9' | int }} {{ 'x' | int(-1) }} {{ '2.5' | float }} {{ 5 | string ~ 1 }} {{ -3 | abs }} {{ 2.567 | round(1) "
     "}} {{ [1, 2] | sum }} {{ [1, 3, 2] | max }} {{ [2, 1] | min }}",
     "13 0 3 -1 2.5 51 3 2.6 3 3 1"},
    {"Filters", "{{ 'a\\nb\\n\\nc' | indent(2) }}|{{ 'a\\nb' | indent(2, true) }}|{{ '' | indent }}", "a\n  b\n\n  c|  a\n  b|"},
    {"Filters", "{{ '<a>' | safe }} {{ ('<a>' | safe) + '<b>' }} {{ '<' | escape }}", "<a> <a>&lt;b&gt; &lt;"},
    {"Filters",
     "{{ [1, 2, 1] | unique | list }} {{ [1, 2] | reverse | list }} {{ 'abc' | reverse }} {{ {'a': 1} | items | list }} {{ 'ab' | list }} {{ [1, 2] | last }} "
     "{{ [[], [1]] | map('length') | list }}",
     "[1, 2] [2, 1] cba [('a', 1)] ['a', 'b'] 2 [0, 1]"},
};

constexpr Case kMethods[] = {
    {"Methods",
     "{{ ' a '.strip() }}|{{ 'xax'.lstrip('x') }}|{{ 'xax'.rstrip('x') }}|{{ 'a,b,,c'.split(',') }}|{{ ' a  b '.split() }}|{{ 'a.b.c'.rsplit('.', 1) }}|{{ "
     "'a\\nb\\n'.splitlines() }}",
     "a|ax|xa|['a', 'b', '', 'c']|['a', 'b']|['a.b', 'c']|['a', 'b']"},
    {"Methods",
     "{{ 'abc'.startswith('ab') }} {{ 'abc'.endswith(('x', 'c')) }} {{ 'abcb'.find('b') }} {{ 'abcb'.rfind('b') }} {{ 'abcb'.count('b') }} {{ "
     "'aXa'.replace('a', 'b', 1) }} {{ 'ab'.upper() }} {{ \"they're\".title() }} {{ ','.join(['a', 'b']) }}",
     "True True 1 3 2 bXa AB They'Re a,b"},
    {"Methods",
     "{{ {'a': 1}.get('a') }} {{ {'a': 1}.get('b', 2) }} {{ {'a': 1}.keys() | list }} {{ {'a': 1}.values() | list }} {{ {'a': 1}.items() }} {{ [1, 2].index(2) "
     "}} {{ 'a-b'.partition('-') }} {{ 'abc'.removeprefix('a') }} {{ '12'.isdigit() }}",
     "1 2 ['a'] [1] dict_items([('a', 1)]) 1 ('a', '-', 'b') bc True"},
    {"Methods", "{{ [1].append(2) }}", "error"},
    {"Methods", "{{ {}.update({}) }}", "error"},
};

constexpr Case kTests[] = {
    {"Tests",
     "{{ 1 is number }} {{ true is number }} {{ true is boolean }} {{ 1 is integer }} {{ 1.0 is float }} {{ 'a' is string }} {{ {} is mapping }} {{ [] is "
     "sequence }} {{ {} is sequence }} {{ 1 is iterable }} {{ none is none }} {{ x is undefined }} {{ 1 is odd }} {{ 4 is divisibleby(2) }} {{ 1 is in [1] }} "
     "{{ 1 is eq 1 }} {{ 'a' is equalto('a') }} {{ true is true }} {{ 1 is true }} {{ 1 is not string }} {{ none is sameas none }} {{ range is callable }}",
     "True True True True True True True True True False True True True True True True True True False True True True"},
};

constexpr Case kFunctions[] = {
    {"Functions", "{{ range(3) | list }} {{ range(3) }} {{ range(5, 1, -2) | list }} {{ dict(a=1) }} {{ namespace(a=1).a }}",
     "[0, 1, 2] range(0, 3) [5, 3] {'a': 1} 1"},
};

class Construct : public testing::TestWithParam<Case> {};

TEST_P(Construct, RendersAsTheReferenceDoes) {
  const std::string text = rendered(std::string(GetParam().source));
  if (GetParam().expected == "error") {
    EXPECT_THAT(text, testing::AnyOf(testing::StartsWith("parse: t:1:"), testing::StartsWith("render: the chat template does not fit"))) << GetParam().source;
  } else {
    EXPECT_EQ(text, GetParam().expected) << GetParam().source;
  }
}

std::string case_name(const testing::TestParamInfo<Case>& info) {
  return std::string(info.param.name) + std::to_string(info.index);
}

INSTANTIATE_TEST_SUITE_P(Literals, Construct, testing::ValuesIn(kLiterals), case_name);
INSTANTIATE_TEST_SUITE_P(Operators, Construct, testing::ValuesIn(kOperators), case_name);
INSTANTIATE_TEST_SUITE_P(Undefined, Construct, testing::ValuesIn(kUndefined), case_name);
INSTANTIATE_TEST_SUITE_P(Slices, Construct, testing::ValuesIn(kSlices), case_name);
INSTANTIATE_TEST_SUITE_P(Whitespace, Construct, testing::ValuesIn(kWhitespace), case_name);
INSTANTIATE_TEST_SUITE_P(Loops, Construct, testing::ValuesIn(kLoops), case_name);
INSTANTIATE_TEST_SUITE_P(Macros, Construct, testing::ValuesIn(kMacros), case_name);
INSTANTIATE_TEST_SUITE_P(Blocks, Construct, testing::ValuesIn(kBlocks), case_name);
INSTANTIATE_TEST_SUITE_P(Filters, Construct, testing::ValuesIn(kFilters), case_name);
INSTANTIATE_TEST_SUITE_P(Methods, Construct, testing::ValuesIn(kMethods), case_name);
INSTANTIATE_TEST_SUITE_P(Tests, Construct, testing::ValuesIn(kTests), case_name);
INSTANTIATE_TEST_SUITE_P(Functions, Construct, testing::ValuesIn(kFunctions), case_name);

}  // namespace
}  // namespace lockstep::model
