// Parser: tokens to the tree.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "lockstep/core/result.hpp"
#include "model/chat_template/syntax/ast.hpp"
#include "model/chat_template/syntax/lexer.hpp"
#include "model/chat_template/syntax/source_text.hpp"

namespace lockstep::model::chat {

/// Errors  kInvalidArgument: wrong syntax, nested too deep; kUnsupported: a construct outside the subset. Both name the place.
[[nodiscard]] Result<Program> parse_program(const SourceText& source);

/// The state of one parse; the grammar of expressions is in parse_expressions.cpp, postfix.cpp, that of statements in parse_statements.cpp.
class Parser {
 public:
  Parser(const SourceText& source, std::vector<Token> tokens);
  Result<Program> run();

 private:
  using Parsed = Result<ExpressionPtr>;

  // parse_statements.cpp
  Result<Block> block(const std::vector<std::string_view>& ends);
  Result<std::unique_ptr<Statement>> tag();
  Status if_statement(Statement& statement);
  Status for_statement(Statement& statement);
  Status set_statement(Statement& statement);
  Status macro_statement(Statement& statement);
  Status macro_parameters(Statement& statement);
  Status with_statement(Statement& statement);
  Status body_until(Statement& statement, std::string_view end);
  Status end_of_tag(std::string_view what);
  Result<Target> target(bool with_attribute, std::string_view what);
  Result<Target> single_target(bool with_attribute, std::string_view what);

  // parse_expressions.cpp
  Parsed tuple_or_expression(bool with_conditional);
  Parsed expression(bool with_conditional = true);
  Parsed conditional();
  Parsed disjunction();
  Parsed conjunction();
  Parsed negation();
  Parsed comparison();
  Parsed sum();
  Parsed concatenation();
  Parsed product();
  Parsed power();
  Parsed unary(bool with_filters);

  // parse_postfix.cpp
  Parsed primary();
  Parsed parenthesised();
  Parsed list_literal();
  Parsed dict_literal();
  Parsed postfix(ExpressionPtr value);
  Parsed subscript(ExpressionPtr value);
  Parsed filters_and_tests(ExpressionPtr value);
  Parsed filter(ExpressionPtr value);
  Parsed test(ExpressionPtr value);
  Parsed call(ExpressionPtr callee);
  Status arguments(Expression& call);

  /// A node over its children: fails where the tree gets too deep.
  Parsed node(ExpressionKind kind, std::size_t offset, std::vector<ExpressionPtr> children);
  ExpressionPtr constant(std::size_t offset, Value value);

  [[nodiscard]] const Token& current() const { return tokens_[position_]; }
  [[nodiscard]] const Token& ahead(std::size_t count) const { return tokens_[std::min(position_ + count, tokens_.size() - 1)]; }
  const Token& take() { return tokens_[position_ + 1 < tokens_.size() ? position_++ : position_]; }
  bool take_operator(std::string_view symbol);
  bool take_name(std::string_view name);
  Status expect_operator(std::string_view symbol, std::string_view where);
  Result<std::string> expect_name(std::string_view what);
  [[nodiscard]] Error wrong(std::string_view expected) const;
  [[nodiscard]] Error unsupported(std::size_t offset, std::string_view what, std::string_view instead) const;
  int number_of(const std::string& name);

  /// Entered by whatever recurses: counts nesting of brackets and blocks, which the depth of finished nodes would notice too late.
  class Nested {
   public:
    explicit Nested(Parser& parser) : parser_(parser) { ++parser_.nesting_; }
    ~Nested() { --parser_.nesting_; }
    Nested(const Nested&) = delete;
    Nested& operator=(const Nested&) = delete;
    [[nodiscard]] Status check() const;

   private:
    Parser& parser_;
  };

  const SourceText& source_;
  std::vector<Token> tokens_;
  std::size_t position_ = 0;
  int nesting_ = 0;
  int loops_ = 0;   ///< enclosing `for`s, within the macro
  int scopes_ = 0;  ///< enclosing blocks with names of their own
  bool uses_varargs_ = false;
  bool uses_kwargs_ = false;
  std::map<std::string, int, std::less<>> numbers_;
  Program program_;
};

}  // namespace lockstep::model::chat
