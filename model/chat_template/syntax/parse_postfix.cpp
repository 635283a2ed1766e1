// Literals, and what stands behind a value: attributes, subscripts, calls, filters, tests.
#include <algorithm>

#include <fmt/format.h>

#include "model/chat_template/syntax/parser.hpp"

// Reached from unary(), whose Nested bounds the recursion.
// NOLINTBEGIN(misc-no-recursion)
namespace lockstep::model::chat {

Parser::Parsed Parser::primary() {
  const Token token = current();
  switch (token.kind) {
    case Token::Kind::kString: {
      std::string text;
      while (current().kind == Token::Kind::kString) {  // neighbours are one string
        text += take().text;
      }
      return constant(token.offset, Value::text(std::move(text)));
    }
    case Token::Kind::kInteger:
      take();
      return constant(token.offset, Value::integer(token.integer));
    case Token::Kind::kNumber:
      take();
      return constant(token.offset, Value::number(token.number));
    case Token::Kind::kName: {
      take();
      if (token.text == "true" || token.text == "True" || token.text == "false" || token.text == "False") {
        return constant(token.offset, Value::boolean(token.text == "true" || token.text == "True"));
      }
      if (token.text == "none" || token.text == "None") {
        return constant(token.offset, Value::none());
      }
      static constexpr std::array<std::string_view, 3> kOtherGlobals{"lipsum", "cycler", "joiner"};
      if (std::ranges::find(kOtherGlobals, token.text) != kOtherGlobals.end() && current().is_operator("(")) {
        return unsupported(token.offset, fmt::format("the function \"{}\"", token.text), "there are range, dict, namespace, raise_exception and strftime_now");
      }
      auto result = std::make_unique<Expression>();
      result->kind = ExpressionKind::kName;
      result->line = source_.line_of(token.offset);
      result->name = number_of(token.text);
      return result;
    }
    default:
      break;
  }
  if (token.is_operator("(")) {
    return parenthesised();
  }
  if (token.is_operator("[")) {
    return list_literal();
  }
  return token.is_operator("{") ? dict_literal() : Parsed(wrong("a value"));
}

Parser::Parsed Parser::parenthesised() {
  const std::size_t offset = take().offset;
  if (take_operator(")")) {
    return node(ExpressionKind::kTuple, offset, {});
  }
  LOCKSTEP_ASSIGN_OR_RETURN(ExpressionPtr value, tuple_or_expression(true));
  LOCKSTEP_RETURN_IF_ERROR(expect_operator(")", "that closes the bracket"));
  return value;
}

Parser::Parsed Parser::list_literal() {
  const std::size_t offset = take().offset;
  std::vector<ExpressionPtr> elements;
  while (!take_operator("]")) {
    if (!elements.empty()) {
      LOCKSTEP_RETURN_IF_ERROR(expect_operator(",", "between elements"));
      if (take_operator("]")) {
        break;
      }
    }
    LOCKSTEP_ASSIGN_OR_RETURN(ExpressionPtr element, expression());
    elements.push_back(std::move(element));
  }
  return node(ExpressionKind::kList, offset, std::move(elements));
}

Parser::Parsed Parser::dict_literal() {
  const std::size_t offset = take().offset;
  std::vector<ExpressionPtr> pairs;
  while (!take_operator("}")) {
    if (!pairs.empty()) {
      LOCKSTEP_RETURN_IF_ERROR(expect_operator(",", "between members"));
      if (take_operator("}")) {
        break;
      }
    }
    LOCKSTEP_ASSIGN_OR_RETURN(ExpressionPtr key, expression());
    LOCKSTEP_RETURN_IF_ERROR(expect_operator(":", "between key and value"));
    LOCKSTEP_ASSIGN_OR_RETURN(ExpressionPtr value, expression());
    pairs.push_back(std::move(key));
    pairs.push_back(std::move(value));
  }
  return node(ExpressionKind::kDict, offset, std::move(pairs));
}

Parser::Parsed Parser::postfix(ExpressionPtr value) {
  while (true) {
    if (current().is_operator(".")) {
      const std::size_t offset = take().offset;
      std::vector<ExpressionPtr> children;
      children.push_back(std::move(value));
      if (current().kind == Token::Kind::kInteger) {
        children.push_back(constant(offset, Value::integer(take().integer)));
        LOCKSTEP_ASSIGN_OR_RETURN(value, node(ExpressionKind::kItem, offset, std::move(children)));
        continue;
      }
      LOCKSTEP_ASSIGN_OR_RETURN(std::string name, expect_name("an attribute's name"));
      if (current().is_operator("(") && !is_method_name(name)) {
        return unsupported(offset, fmt::format("the method \"{}\"", name), "there are " + method_names());
      }
      LOCKSTEP_ASSIGN_OR_RETURN(value, node(ExpressionKind::kAttribute, offset, std::move(children)));
      value->text = std::move(name);
    } else if (current().is_operator("[")) {
      LOCKSTEP_ASSIGN_OR_RETURN(value, subscript(std::move(value)));
    } else if (current().is_operator("(")) {
      LOCKSTEP_ASSIGN_OR_RETURN(value, call(std::move(value)));
    } else {
      return value;
    }
  }
}

Parser::Parsed Parser::subscript(ExpressionPtr value) {
  const std::size_t offset = take().offset;
  std::vector<ExpressionPtr> children;
  children.push_back(std::move(value));
  bool is_slice = false;
  for (int part = 0; part < 3; ++part) {
    if (part == 0 && current().is_operator("]")) {
      return wrong("a subscript");
    }
    if (current().is_operator(":") || current().is_operator("]")) {
      children.push_back(constant(offset, Value::none()));
    } else {
      LOCKSTEP_ASSIGN_OR_RETURN(ExpressionPtr bound, expression());
      children.push_back(std::move(bound));
    }
    if (!take_operator(":")) {
      break;
    }
    is_slice = true;
  }
  if (current().is_operator(",")) {
    return unsupported(current().offset, "a subscript of several values", "subscript one after the other");
  }
  LOCKSTEP_RETURN_IF_ERROR(expect_operator("]", "that closes the subscript"));
  if (!is_slice) {
    return node(ExpressionKind::kItem, offset, std::move(children));
  }
  while (children.size() < 4) {
    children.push_back(constant(offset, Value::none()));
  }
  return node(ExpressionKind::kSlice, offset, std::move(children));
}

Parser::Parsed Parser::filters_and_tests(ExpressionPtr value) {
  while (true) {
    if (take_operator("|")) {
      LOCKSTEP_ASSIGN_OR_RETURN(value, filter(std::move(value)));
    } else if (take_name("is")) {
      LOCKSTEP_ASSIGN_OR_RETURN(value, test(std::move(value)));
    } else if (current().is_operator("(")) {
      LOCKSTEP_ASSIGN_OR_RETURN(value, call(std::move(value)));
    } else {
      return value;
    }
  }
}

Parser::Parsed Parser::filter(ExpressionPtr value) {
  const std::size_t offset = current().offset;
  LOCKSTEP_ASSIGN_OR_RETURN(const std::string name, expect_name("a filter's name"));
  const Builtin* builtin = find_filter(name);
  if (builtin == nullptr || current().is_operator(".")) {
    return unsupported(offset, fmt::format("the filter \"{}\"", name), "there are " + filter_names());
  }
  std::vector<ExpressionPtr> children;
  children.push_back(std::move(value));
  LOCKSTEP_ASSIGN_OR_RETURN(ExpressionPtr result, node(ExpressionKind::kFilter, offset, std::move(children)));
  result->builtin = builtin;
  if (current().is_operator("(")) {
    LOCKSTEP_RETURN_IF_ERROR(arguments(*result));
  }
  return result;
}

Parser::Parsed Parser::test(ExpressionPtr value) {
  const bool negated = take_name("not");
  const std::size_t offset = current().offset;
  LOCKSTEP_ASSIGN_OR_RETURN(const std::string name, expect_name("a test's name"));
  const Builtin* builtin = find_test(name);
  if (builtin == nullptr || current().is_operator(".")) {
    return unsupported(offset, fmt::format("the test \"{}\"", name), "there are " + test_names());
  }
  std::vector<ExpressionPtr> children;
  children.push_back(std::move(value));
  LOCKSTEP_ASSIGN_OR_RETURN(ExpressionPtr result, node(ExpressionKind::kTest, offset, std::move(children)));
  result->builtin = builtin;
  const Token& next = current();
  const bool is_value = next.kind == Token::Kind::kName || next.kind == Token::Kind::kString || next.kind == Token::Kind::kInteger ||
                        next.kind == Token::Kind::kNumber || next.is_operator("[") || next.is_operator("{");
  if (next.is_operator("(")) {
    LOCKSTEP_RETURN_IF_ERROR(arguments(*result));
  } else if (is_value && !next.is_name("else") && !next.is_name("or") && !next.is_name("and")) {
    if (next.is_name("is")) {
      return wrong("no second \"is\": join tests by \"and\"");
    }
    LOCKSTEP_ASSIGN_OR_RETURN(ExpressionPtr argument, primary());
    LOCKSTEP_ASSIGN_OR_RETURN(argument, postfix(std::move(argument)));
    result->depth = std::max(result->depth, argument->depth + 1);
    result->children.push_back(std::move(argument));
  }
  if (!negated) {
    return result;
  }
  std::vector<ExpressionPtr> operand;
  operand.push_back(std::move(result));
  return node(ExpressionKind::kNot, offset, std::move(operand));
}

Parser::Parsed Parser::call(ExpressionPtr callee) {
  const std::size_t offset = current().offset;
  std::vector<ExpressionPtr> children;
  children.push_back(std::move(callee));
  LOCKSTEP_ASSIGN_OR_RETURN(ExpressionPtr result, node(ExpressionKind::kCall, offset, std::move(children)));
  LOCKSTEP_RETURN_IF_ERROR(arguments(*result));
  return result;
}

Status Parser::arguments(Expression& call) {
  const std::size_t offset = take().offset;
  bool first = true;
  while (!take_operator(")")) {
    if (!first) {
      LOCKSTEP_RETURN_IF_ERROR(expect_operator(",", "between arguments"));
      if (take_operator(")")) {
        break;
      }
    }
    first = false;
    if (current().is_operator("*") || current().is_operator("**")) {
      ExpressionPtr& spread = take().text == "*" ? call.spread : call.spread_named;
      if (spread || call.spread_named) {
        return wrong("one \"*\" and then one \"**\" at most");
      }
      LOCKSTEP_ASSIGN_OR_RETURN(spread, expression());
      call.depth = std::max(call.depth, spread->depth + 1);
      continue;
    }
    std::string name;
    if (current().kind == Token::Kind::kName && ahead(1).is_operator("=")) {
      name = take().text;
      take();
    } else if (!call.named.empty() || call.spread || call.spread_named) {
      return wrong("an argument with a name, behind another one or behind \"*\"");
    }
    LOCKSTEP_ASSIGN_OR_RETURN(ExpressionPtr value, expression());
    call.depth = std::max(call.depth, value->depth + 1);
    if (name.empty()) {
      call.children.push_back(std::move(value));
    } else if (std::ranges::find(call.named, name, [](const auto& pair) { return pair.first; }) != call.named.end()) {
      return source_.error(offset, ErrorCode::kInvalidArgument, fmt::format("the argument \"{}\" is given twice", name));
    } else {
      call.named.emplace_back(std::move(name), std::move(value));
    }
  }
  if (call.depth > kTreeDepthMax) {
    return source_.error(offset, ErrorCode::kInvalidArgument, fmt::format("nested more than {} deep", kTreeDepthMax));
  }
  return {};
}

}  // namespace lockstep::model::chat
// NOLINTEND(misc-no-recursion)
