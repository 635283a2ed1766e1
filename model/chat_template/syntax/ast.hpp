// The tree of a parsed template.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "model/chat_template/builtins/builtin.hpp"
#include "model/chat_template/evaluation/operators.hpp"
#include "model/chat_template/values/value.hpp"

namespace lockstep::model::chat {

/// Deeper nesting is refused at parsing, so that no recursion over the tree can exhaust a stack.
inline constexpr int kTreeDepthMax = 100;

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

/// What the children mean stands beside each kind.
enum class ExpressionKind {
  kConstant,
  kName,
  kList,         ///< elements
  kTuple,        ///< elements
  kDict,         ///< key, value, key, value...
  kAttribute,    ///< the value; `text` is the name
  kItem,         ///< value, key
  kSlice,        ///< value, start, stop, step
  kCall,         ///< callee, positional arguments...; `named`
  kFilter,       ///< input, positional arguments...; `named`, `builtin`. No input (nullptr) within a filter block.
  kTest,         ///< input, positional arguments...; `named`, `builtin`
  kNot,          ///< operand
  kNegative,     ///< operand
  kPositive,     ///< operand
  kAnd,          ///< left, right
  kOr,           ///< left, right
  kCompare,      ///< first operand, and one more for each of `compares`
  kConcatenate,  ///< operands
  kBinary,       ///< left, right; `binary`
  kConditional,  ///< value, condition, alternative or nullptr
};

struct Expression {
  ExpressionKind kind = ExpressionKind::kConstant;
  int line = 0;
  int depth = 1;
  int name = -1;  ///< of kName: its number
  Value constant;
  std::string text;
  std::vector<ExpressionPtr> children;
  std::vector<std::pair<std::string, ExpressionPtr>> named;
  ExpressionPtr spread;        ///< of a call: *value, more positional arguments
  ExpressionPtr spread_named;  ///< of a call: **value, more arguments with names
  const Builtin* builtin = nullptr;
  std::vector<CompareOperator> compares;
  BinaryOperator binary = BinaryOperator::kAdd;
};

/// What `set` and `for` assign to: a name, an attribute of a namespace, or several of them.
struct Target {
  int name = -1;
  std::string attribute;      ///< not empty: of the namespace `name`
  std::vector<Target> parts;  ///< not empty: unpacked
};

struct Statement;
using Block = std::vector<std::unique_ptr<Statement>>;

struct Parameter {
  int name = -1;
  std::string text;
  ExpressionPtr fallback;  ///< or nullptr
};

enum class StatementKind {
  kData,      ///< `text`
  kOutput,    ///< expressions[0]
  kIf,        ///< expressions: conditions; blocks: one for each, and perhaps one more for else
  kFor,       ///< target; expressions[0] what to go through, [1] the filter or nullptr; blocks[0] body, [1] else
  kSet,       ///< target; expressions[0]
  kSetBlock,  ///< target; blocks[0]; expressions[0]: filters over the text, or nullptr
  kMacro,     ///< `name`, `text`, parameters; blocks[0]
  kWith,      ///< targets; expressions: their values; blocks[0]. Also a generation block, which has no targets.
  kFilter,    ///< expressions[0]: filters over the text; blocks[0]
  kBreak,
  kContinue,
};

struct Statement {
  StatementKind kind = StatementKind::kData;
  int line = 0;
  int name = -1;
  std::string text;
  std::vector<Target> targets;
  std::vector<ExpressionPtr> expressions;
  std::vector<Block> blocks;
  std::vector<Parameter> parameters;
  bool takes_varargs = false;  ///< of a macro: its body uses the name
  bool takes_kwargs = false;
};

/// A parsed template.
struct Program {
  Block body;
  std::vector<std::string> names;  ///< by number
};

/// Numbers that the parser gives to names of its own, in this order.
enum WellKnownName { kNameLoop, kNameVarargs, kNameKwargs, kWellKnownCount };

}  // namespace lockstep::model::chat
