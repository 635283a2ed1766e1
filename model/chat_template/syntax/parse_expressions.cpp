// The grammar of expressions, from the loosest operator to the tightest.
#include <algorithm>

#include <fmt/format.h>

#include "model/chat_template/syntax/parser.hpp"

// All functions here call each other: Nested, checked in disjunction() and unary(), bounds the recursion.
// NOLINTBEGIN(misc-no-recursion)
namespace lockstep::model::chat {
namespace {

template <typename Operator>
struct Spelling {
  std::string_view symbol;
  Operator op;
};

constexpr std::array kComparisons{Spelling<CompareOperator>{"==", CompareOperator::kEqual},  Spelling<CompareOperator>{"!=", CompareOperator::kNotEqual},
                                  Spelling<CompareOperator>{"<", CompareOperator::kLess},    Spelling<CompareOperator>{"<=", CompareOperator::kLessEqual},
                                  Spelling<CompareOperator>{">", CompareOperator::kGreater}, Spelling<CompareOperator>{">=", CompareOperator::kGreaterEqual}};
constexpr std::array kProducts{Spelling<BinaryOperator>{"*", BinaryOperator::kMultiply}, Spelling<BinaryOperator>{"/", BinaryOperator::kDivide},
                               Spelling<BinaryOperator>{"//", BinaryOperator::kFloorDivide}, Spelling<BinaryOperator>{"%", BinaryOperator::kModulo}};
constexpr std::array kSums{Spelling<BinaryOperator>{"+", BinaryOperator::kAdd}, Spelling<BinaryOperator>{"-", BinaryOperator::kSubtract}};

template <typename Table>
const auto* spelled(const Table& table, const Token& token) {
  const auto place = std::ranges::find_if(table, [&token](const auto& entry) { return token.is_operator(entry.symbol); });
  return place == table.end() ? nullptr : &*place;
}

/// Moves expressions into a vector, which an initializer list cannot.
template <typename... Parts>
std::vector<ExpressionPtr> children_of(Parts... parts) {
  std::vector<ExpressionPtr> result;
  (result.push_back(std::move(parts)), ...);
  return result;
}

}  // namespace

bool Parser::take_operator(std::string_view symbol) {
  if (!current().is_operator(symbol)) {
    return false;
  }
  take();
  return true;
}

bool Parser::take_name(std::string_view name) {
  if (!current().is_name(name)) {
    return false;
  }
  take();
  return true;
}

Status Parser::expect_operator(std::string_view symbol, std::string_view where) {
  return take_operator(symbol) ? Status() : wrong(fmt::format("\"{}\" {}", symbol, where));
}

Result<std::string> Parser::expect_name(std::string_view what) {
  if (current().kind != Token::Kind::kName) {
    return wrong(what);
  }
  return take().text;
}

Error Parser::wrong(std::string_view expected) const {
  const Token& token = current();
  std::string found = "the end of the tag";
  if (token.kind == Token::Kind::kEnd) {
    found = "the end of the template";
  } else if (token.kind == Token::Kind::kInteger || token.kind == Token::Kind::kNumber) {
    found = "a number";
  } else if (token.kind == Token::Kind::kString) {
    found = "a string";
  } else if (!token.text.empty()) {
    found = fmt::format("\"{}\"", token.text.substr(0, 64));
  }
  return source_.error(token.offset, ErrorCode::kInvalidArgument, fmt::format("found {}, expected {}", found, expected));
}

Error Parser::unsupported(std::size_t offset, std::string_view what, std::string_view instead) const {
  return source_.error(offset, ErrorCode::kUnsupported, fmt::format("{} is outside the supported subset of Jinja: {}", what, instead));
}

int Parser::number_of(const std::string& name) {
  uses_varargs_ |= name == "varargs";
  uses_kwargs_ |= name == "kwargs";
  const auto [place, added] = numbers_.try_emplace(name, static_cast<int>(program_.names.size()));
  if (added) {
    program_.names.push_back(name);
  }
  return place->second;
}

Parser::Parsed Parser::node(ExpressionKind kind, std::size_t offset, std::vector<ExpressionPtr> children) {
  auto result = std::make_unique<Expression>();
  result->kind = kind;
  result->line = source_.line_of(offset);
  for (const ExpressionPtr& child : children) {
    result->depth = child ? std::max(result->depth, child->depth + 1) : result->depth;
  }
  if (result->depth > kTreeDepthMax) {
    return source_.error(offset, ErrorCode::kInvalidArgument,
                         fmt::format("an expression of more than {} operators in a row or nested: split it by \"set\"", kTreeDepthMax));
  }
  result->children = std::move(children);
  return result;
}

ExpressionPtr Parser::constant(std::size_t offset, Value value) {
  auto result = std::make_unique<Expression>();
  result->line = source_.line_of(offset);
  result->constant = std::move(value);
  return result;
}

Parser::Parsed Parser::tuple_or_expression(bool with_conditional) {
  const std::size_t offset = current().offset;
  LOCKSTEP_ASSIGN_OR_RETURN(ExpressionPtr first, expression(with_conditional));
  if (!current().is_operator(",")) {
    return first;
  }
  std::vector<ExpressionPtr> elements = children_of(std::move(first));
  while (take_operator(",")) {
    const Token::Kind kind = current().kind;
    if (kind == Token::Kind::kVariableEnd || kind == Token::Kind::kBlockEnd || current().is_operator(")")) {
      break;
    }
    LOCKSTEP_ASSIGN_OR_RETURN(ExpressionPtr next, expression(with_conditional));
    elements.push_back(std::move(next));
  }
  return node(ExpressionKind::kTuple, offset, std::move(elements));
}

Parser::Parsed Parser::expression(bool with_conditional) {
  return with_conditional ? conditional() : disjunction();
}

Parser::Parsed Parser::conditional() {
  LOCKSTEP_ASSIGN_OR_RETURN(ExpressionPtr value, disjunction());
  while (current().is_name("if")) {
    const std::size_t offset = take().offset;
    LOCKSTEP_ASSIGN_OR_RETURN(ExpressionPtr condition, disjunction());
    ExpressionPtr alternative;
    if (take_name("else")) {
      const Nested nested(*this);
      LOCKSTEP_RETURN_IF_ERROR(nested.check());
      LOCKSTEP_ASSIGN_OR_RETURN(alternative, conditional());
    }
    LOCKSTEP_ASSIGN_OR_RETURN(value, node(ExpressionKind::kConditional, offset, children_of(std::move(value), std::move(condition), std::move(alternative))));
  }
  return value;
}

Parser::Parsed Parser::disjunction() {
  const Nested nested(*this);
  LOCKSTEP_RETURN_IF_ERROR(nested.check());
  LOCKSTEP_ASSIGN_OR_RETURN(ExpressionPtr left, conjunction());
  while (current().is_name("or")) {
    const std::size_t offset = take().offset;
    LOCKSTEP_ASSIGN_OR_RETURN(ExpressionPtr right, conjunction());
    LOCKSTEP_ASSIGN_OR_RETURN(left, node(ExpressionKind::kOr, offset, children_of(std::move(left), std::move(right))));
  }
  return left;
}

Parser::Parsed Parser::conjunction() {
  LOCKSTEP_ASSIGN_OR_RETURN(ExpressionPtr left, negation());
  while (current().is_name("and")) {
    const std::size_t offset = take().offset;
    LOCKSTEP_ASSIGN_OR_RETURN(ExpressionPtr right, negation());
    LOCKSTEP_ASSIGN_OR_RETURN(left, node(ExpressionKind::kAnd, offset, children_of(std::move(left), std::move(right))));
  }
  return left;
}

Parser::Parsed Parser::negation() {
  if (!current().is_name("not")) {
    return comparison();
  }
  const Nested nested(*this);
  LOCKSTEP_RETURN_IF_ERROR(nested.check());
  const std::size_t offset = take().offset;
  LOCKSTEP_ASSIGN_OR_RETURN(ExpressionPtr operand, negation());
  return node(ExpressionKind::kNot, offset, children_of(std::move(operand)));
}

Parser::Parsed Parser::comparison() {
  const std::size_t offset = current().offset;
  LOCKSTEP_ASSIGN_OR_RETURN(ExpressionPtr first, sum());
  std::vector<ExpressionPtr> operands = children_of(std::move(first));
  std::vector<CompareOperator> compares;
  while (true) {
    if (const auto* found = spelled(kComparisons, current())) {
      take();
      compares.push_back(found->op);
    } else if (take_name("in")) {
      compares.push_back(CompareOperator::kIn);
    } else if (current().is_name("not") && ahead(1).is_name("in")) {
      take();
      take();
      compares.push_back(CompareOperator::kNotIn);
    } else {
      break;
    }
    LOCKSTEP_ASSIGN_OR_RETURN(ExpressionPtr next, sum());
    operands.push_back(std::move(next));
  }
  if (compares.empty()) {
    return std::move(operands.front());
  }
  LOCKSTEP_ASSIGN_OR_RETURN(ExpressionPtr result, node(ExpressionKind::kCompare, offset, std::move(operands)));
  result->compares = std::move(compares);
  return result;
}

Parser::Parsed Parser::sum() {
  LOCKSTEP_ASSIGN_OR_RETURN(ExpressionPtr left, concatenation());
  while (const auto* found = spelled(kSums, current())) {
    const std::size_t offset = take().offset;
    LOCKSTEP_ASSIGN_OR_RETURN(ExpressionPtr right, concatenation());
    LOCKSTEP_ASSIGN_OR_RETURN(left, node(ExpressionKind::kBinary, offset, children_of(std::move(left), std::move(right))));
    left->binary = found->op;
  }
  return left;
}

Parser::Parsed Parser::concatenation() {
  const std::size_t offset = current().offset;
  LOCKSTEP_ASSIGN_OR_RETURN(ExpressionPtr first, product());
  if (!current().is_operator("~")) {
    return first;
  }
  std::vector<ExpressionPtr> operands = children_of(std::move(first));
  while (take_operator("~")) {
    LOCKSTEP_ASSIGN_OR_RETURN(ExpressionPtr next, product());
    operands.push_back(std::move(next));
  }
  return node(ExpressionKind::kConcatenate, offset, std::move(operands));
}

Parser::Parsed Parser::product() {
  LOCKSTEP_ASSIGN_OR_RETURN(ExpressionPtr left, power());
  while (const auto* found = spelled(kProducts, current())) {
    const std::size_t offset = take().offset;
    LOCKSTEP_ASSIGN_OR_RETURN(ExpressionPtr right, power());
    LOCKSTEP_ASSIGN_OR_RETURN(left, node(ExpressionKind::kBinary, offset, children_of(std::move(left), std::move(right))));
    left->binary = found->op;
  }
  return left;
}

Parser::Parsed Parser::power() {
  LOCKSTEP_ASSIGN_OR_RETURN(ExpressionPtr left, unary(true));
  while (current().is_operator("**")) {  // from left to right, unlike Python's
    const std::size_t offset = take().offset;
    LOCKSTEP_ASSIGN_OR_RETURN(ExpressionPtr right, unary(true));
    LOCKSTEP_ASSIGN_OR_RETURN(left, node(ExpressionKind::kBinary, offset, children_of(std::move(left), std::move(right))));
    left->binary = BinaryOperator::kPower;
  }
  return left;
}

Parser::Parsed Parser::unary(bool with_filters) {
  const Nested nested(*this);
  LOCKSTEP_RETURN_IF_ERROR(nested.check());
  ExpressionPtr value;
  if (current().is_operator("-") || current().is_operator("+")) {
    const Token& sign = take();
    LOCKSTEP_ASSIGN_OR_RETURN(ExpressionPtr operand, unary(false));
    LOCKSTEP_ASSIGN_OR_RETURN(value,
                              node(sign.text == "-" ? ExpressionKind::kNegative : ExpressionKind::kPositive, sign.offset, children_of(std::move(operand))));
  } else {
    LOCKSTEP_ASSIGN_OR_RETURN(value, primary());
  }
  LOCKSTEP_ASSIGN_OR_RETURN(value, postfix(std::move(value)));
  return with_filters ? filters_and_tests(std::move(value)) : Parsed(std::move(value));
}

}  // namespace lockstep::model::chat
// NOLINTEND(misc-no-recursion)
