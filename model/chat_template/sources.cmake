target_sources(lockstep_model PRIVATE
  chat_template/chat_template.cpp chat_template/program_template.cpp chat_template/template_value.cpp
  chat_template/syntax/lexer.cpp chat_template/syntax/literals.cpp chat_template/syntax/parse_expressions.cpp chat_template/syntax/parse_postfix.cpp
  chat_template/syntax/parse_statements.cpp chat_template/syntax/source_text.cpp
  chat_template/values/compare.cpp chat_template/values/to_json.cpp chat_template/values/to_text.cpp chat_template/values/unicode.cpp
  chat_template/values/value.cpp
  chat_template/builtins/all_tests.cpp chat_template/builtins/arguments.cpp chat_template/builtins/builtin.cpp
  chat_template/builtins/container_methods.cpp chat_template/builtins/formatting.cpp chat_template/builtins/functions.cpp
  chat_template/builtins/text_functions.cpp chat_template/builtins/text_methods.cpp
  chat_template/builtins/filters/number_filters.cpp chat_template/builtins/filters/select_filters.cpp
  chat_template/builtins/filters/sequence_filters.cpp chat_template/builtins/filters/text_filters.cpp
  chat_template/evaluation/expressions.cpp chat_template/evaluation/loops.cpp chat_template/evaluation/operators.cpp
  chat_template/evaluation/statements.cpp)
