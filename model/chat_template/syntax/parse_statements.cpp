// The grammar of statements.
#include <algorithm>

#include <fmt/format.h>

#include "model/chat_template/syntax/parser.hpp"

namespace lockstep::model::chat {
namespace {

constexpr std::string_view kSupportedTags = "supported are if, for, set, macro, break, continue, with, filter, generation and raw";

}  // namespace

Result<Program> parse_program(const SourceText& source) {
  LOCKSTEP_ASSIGN_OR_RETURN(std::vector<Token> tokens, tokenize(source));
  return Parser(source, std::move(tokens)).run();
}

Parser::Parser(const SourceText& source, std::vector<Token> tokens) : source_(source), tokens_(std::move(tokens)) {
  for (const char* name : {"loop", "varargs", "kwargs"}) {  // as WellKnownName numbers them
    number_of(name);
  }
}

Result<Program> Parser::run() {
  LOCKSTEP_ASSIGN_OR_RETURN(program_.body, block({}));
  return std::move(program_);
}

Status Parser::Nested::check() const {
  if (parser_.nesting_ <= kTreeDepthMax) {
    return {};
  }
  return parser_.source_.error(parser_.current().offset, ErrorCode::kInvalidArgument, fmt::format("nested more than {} deep", kTreeDepthMax));
}

// NOLINTNEXTLINE(misc-no-recursion): Nested bounds it
Result<Block> Parser::block(const std::vector<std::string_view>& ends) {
  const Nested nested(*this);
  LOCKSTEP_RETURN_IF_ERROR(nested.check());
  const std::size_t start = current().offset;
  Block result;
  while (current().kind != Token::Kind::kEnd) {
    auto statement = std::make_unique<Statement>();
    statement->line = source_.line_of(current().offset);
    if (current().kind == Token::Kind::kData) {
      statement->text = take().text;
    } else if (current().kind == Token::Kind::kVariableBegin) {
      take();
      statement->kind = StatementKind::kOutput;
      LOCKSTEP_ASSIGN_OR_RETURN(ExpressionPtr value, tuple_or_expression(true));
      statement->expressions.push_back(std::move(value));
      if (current().kind != Token::Kind::kVariableEnd) {
        return wrong("the end of the expression, \"}}\"");
      }
      take();
    } else {
      if (std::ranges::find(ends, ahead(1).text) != ends.end() && ahead(1).kind == Token::Kind::kName) {
        return result;
      }
      LOCKSTEP_ASSIGN_OR_RETURN(statement, tag());
    }
    result.push_back(std::move(statement));
  }
  if (!ends.empty()) {
    return source_.error(start, ErrorCode::kInvalidArgument, fmt::format("a block that begins here does not end: add \"{{% {} %}}\"", ends.back()));
  }
  return result;
}

// NOLINTNEXTLINE(misc-no-recursion)
Result<std::unique_ptr<Statement>> Parser::tag() {
  auto statement = std::make_unique<Statement>();
  statement->line = source_.line_of(take().offset);
  const std::size_t offset = current().offset;
  LOCKSTEP_ASSIGN_OR_RETURN(const std::string name, expect_name("the name of a tag"));
  Status parsed;
  if (name == "if") {
    parsed = if_statement(*statement);
  } else if (name == "for") {
    parsed = for_statement(*statement);
  } else if (name == "set") {
    parsed = set_statement(*statement);
  } else if (name == "macro") {
    parsed = macro_statement(*statement);
  } else if (name == "with") {
    parsed = with_statement(*statement);
  } else if (name == "generation") {
    statement->kind = StatementKind::kWith;
    parsed = body_until(*statement, "endgeneration");
  } else if (name == "filter") {
    statement->kind = StatementKind::kFilter;
    LOCKSTEP_ASSIGN_OR_RETURN(ExpressionPtr filters, filter(nullptr));
    while (take_operator("|")) {
      LOCKSTEP_ASSIGN_OR_RETURN(filters, filter(std::move(filters)));
    }
    statement->expressions.push_back(std::move(filters));
    parsed = body_until(*statement, "endfilter");
  } else if (name == "break" || name == "continue") {
    if (loops_ == 0) {
      return source_.error(offset, ErrorCode::kInvalidArgument, fmt::format("\"{}\" outside of a loop", name));
    }
    statement->kind = name == "break" ? StatementKind::kBreak : StatementKind::kContinue;
    parsed = end_of_tag(name);
  } else {
    static constexpr std::array<std::string_view, 10> kOthers{"block", "extends", "include", "import", "from", "call", "do", "autoescape", "trans", "debug"};
    return std::ranges::find(kOthers, name) != kOthers.end()
               ? unsupported(offset, fmt::format("the tag \"{}\"", name), kSupportedTags)
               : source_.error(offset, ErrorCode::kInvalidArgument, fmt::format("unknown or misplaced tag \"{}\"; {}", name, kSupportedTags));
  }
  LOCKSTEP_RETURN_IF_ERROR(parsed);
  return statement;
}

Status Parser::end_of_tag(std::string_view what) {
  if (current().kind != Token::Kind::kBlockEnd) {
    return wrong(fmt::format("the end of \"{}\", \"%}}\"", what));
  }
  take();
  return {};
}

/// The rest of a tag, a body with names of its own, and the end tag.
// NOLINTNEXTLINE(misc-no-recursion)
Status Parser::body_until(Statement& statement, std::string_view end) {
  LOCKSTEP_RETURN_IF_ERROR(end_of_tag(end.substr(3)));
  ++scopes_;
  auto body = block({end});
  --scopes_;
  LOCKSTEP_ASSIGN_OR_RETURN(Block content, std::move(body));
  statement.blocks.push_back(std::move(content));
  take();  // {%
  take();  // the end's name
  return end_of_tag(end);
}

// NOLINTNEXTLINE(misc-no-recursion)
Status Parser::if_statement(Statement& statement) {
  statement.kind = StatementKind::kIf;
  while (true) {
    LOCKSTEP_ASSIGN_OR_RETURN(ExpressionPtr condition, tuple_or_expression(false));
    statement.expressions.push_back(std::move(condition));
    LOCKSTEP_RETURN_IF_ERROR(end_of_tag("if"));
    LOCKSTEP_ASSIGN_OR_RETURN(Block body, block({"elif", "else", "endif"}));
    statement.blocks.push_back(std::move(body));
    take();
    if (take_name("elif")) {
      continue;
    }
    if (take_name("else")) {
      LOCKSTEP_RETURN_IF_ERROR(end_of_tag("else"));
      LOCKSTEP_ASSIGN_OR_RETURN(Block otherwise, block({"endif"}));
      statement.blocks.push_back(std::move(otherwise));
      take();
    }
    take();
    return end_of_tag("endif");
  }
}

// NOLINTNEXTLINE(misc-no-recursion)
Status Parser::for_statement(Statement& statement) {
  statement.kind = StatementKind::kFor;
  LOCKSTEP_ASSIGN_OR_RETURN(Target loop_target, target(false, "a name to loop with"));
  statement.targets.push_back(std::move(loop_target));
  if (!take_name("in")) {
    return wrong("\"in\"");
  }
  LOCKSTEP_ASSIGN_OR_RETURN(ExpressionPtr source, tuple_or_expression(false));
  ExpressionPtr condition;
  if (take_name("if")) {
    LOCKSTEP_ASSIGN_OR_RETURN(condition, expression());
  }
  if (current().is_name("recursive")) {
    return unsupported(current().offset, "\"recursive\"", "write a macro that calls itself");
  }
  statement.expressions.push_back(std::move(source));
  statement.expressions.push_back(std::move(condition));
  LOCKSTEP_RETURN_IF_ERROR(end_of_tag("for"));
  ++loops_;
  ++scopes_;
  auto body = block({"else", "endfor"});
  --loops_;
  LOCKSTEP_ASSIGN_OR_RETURN(Block content, std::move(body));
  statement.blocks.push_back(std::move(content));
  take();
  if (take_name("else")) {
    LOCKSTEP_RETURN_IF_ERROR(end_of_tag("else"));
    LOCKSTEP_ASSIGN_OR_RETURN(Block otherwise, block({"endfor"}));
    statement.blocks.push_back(std::move(otherwise));
    take();
  }
  --scopes_;
  take();
  return end_of_tag("endfor");
}

// NOLINTNEXTLINE(misc-no-recursion)
Status Parser::set_statement(Statement& statement) {
  LOCKSTEP_ASSIGN_OR_RETURN(Target destination, target(true, "a name to set"));
  statement.targets.push_back(std::move(destination));
  if (take_operator("=")) {
    statement.kind = StatementKind::kSet;
    LOCKSTEP_ASSIGN_OR_RETURN(ExpressionPtr value, tuple_or_expression(true));
    statement.expressions.push_back(std::move(value));
    return end_of_tag("set");
  }
  statement.kind = StatementKind::kSetBlock;
  ExpressionPtr filters;
  while (take_operator("|")) {
    LOCKSTEP_ASSIGN_OR_RETURN(filters, filter(std::move(filters)));
  }
  statement.expressions.push_back(std::move(filters));
  return body_until(statement, "endset");
}

Status Parser::macro_parameters(Statement& statement) {
  LOCKSTEP_RETURN_IF_ERROR(expect_operator("(", "behind a macro's name"));
  while (!take_operator(")")) {
    if (!statement.parameters.empty()) {
      LOCKSTEP_RETURN_IF_ERROR(expect_operator(",", "between parameters"));
    }
    Parameter parameter;
    LOCKSTEP_ASSIGN_OR_RETURN(parameter.text, expect_name("a parameter"));
    parameter.name = number_of(parameter.text);
    if (take_operator("=")) {
      LOCKSTEP_ASSIGN_OR_RETURN(parameter.fallback, expression());
    } else if (!statement.parameters.empty() && statement.parameters.back().fallback) {
      return wrong("\"=\": parameters behind one with a default need defaults");
    }
    statement.parameters.push_back(std::move(parameter));
  }
  return {};
}

// NOLINTNEXTLINE(misc-no-recursion)
Status Parser::macro_statement(Statement& statement) {
  if (scopes_ > 0) {
    return unsupported(current().offset, "a macro inside of a loop, a macro or a block", "move it to the top");
  }
  statement.kind = StatementKind::kMacro;
  LOCKSTEP_ASSIGN_OR_RETURN(statement.text, expect_name("the macro's name"));
  statement.name = number_of(statement.text);
  LOCKSTEP_RETURN_IF_ERROR(macro_parameters(statement));
  uses_varargs_ = false;
  uses_kwargs_ = false;
  LOCKSTEP_RETURN_IF_ERROR(body_until(statement, "endmacro"));
  statement.takes_varargs = uses_varargs_;
  statement.takes_kwargs = uses_kwargs_;
  return {};
}

// NOLINTNEXTLINE(misc-no-recursion)
Status Parser::with_statement(Statement& statement) {
  statement.kind = StatementKind::kWith;
  while (current().kind != Token::Kind::kBlockEnd) {
    if (!statement.targets.empty()) {
      LOCKSTEP_RETURN_IF_ERROR(expect_operator(",", "between assignments"));
    }
    LOCKSTEP_ASSIGN_OR_RETURN(Target destination, single_target(false, "a name to set"));
    LOCKSTEP_RETURN_IF_ERROR(expect_operator("=", "behind the name"));
    LOCKSTEP_ASSIGN_OR_RETURN(ExpressionPtr value, expression());
    statement.targets.push_back(std::move(destination));
    statement.expressions.push_back(std::move(value));
  }
  return body_until(statement, "endwith");
}

// NOLINTNEXTLINE(misc-no-recursion)
Result<Target> Parser::single_target(bool with_attribute, std::string_view what) {
  const Nested nested(*this);
  LOCKSTEP_RETURN_IF_ERROR(nested.check());
  if (take_operator("(")) {
    LOCKSTEP_ASSIGN_OR_RETURN(Target inner, target(false, what));
    LOCKSTEP_RETURN_IF_ERROR(expect_operator(")", "behind the names"));
    return inner;
  }
  static constexpr std::array<std::string_view, 6> kConstants{"true", "false", "none", "True", "False", "None"};
  if (std::ranges::find(kConstants, current().text) != kConstants.end() || (with_attribute && current().is_name("loop"))) {
    return wrong("a name that can be set");
  }
  Target result;
  LOCKSTEP_ASSIGN_OR_RETURN(const std::string name, expect_name(what));
  result.name = number_of(name);
  if (with_attribute && take_operator(".")) {
    LOCKSTEP_ASSIGN_OR_RETURN(result.attribute, expect_name("an attribute"));
  }
  return result;
}

// NOLINTNEXTLINE(misc-no-recursion)
Result<Target> Parser::target(bool with_attribute, std::string_view what) {
  LOCKSTEP_ASSIGN_OR_RETURN(Target first, single_target(with_attribute, what));
  if (!current().is_operator(",")) {
    return first;
  }
  Target several;
  several.parts.push_back(std::move(first));
  while (take_operator(",")) {
    if (current().kind != Token::Kind::kName && !current().is_operator("(")) {
      break;
    }
    LOCKSTEP_ASSIGN_OR_RETURN(Target next, single_target(false, what));
    several.parts.push_back(std::move(next));
  }
  return several;
}

}  // namespace lockstep::model::chat
