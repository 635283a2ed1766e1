// Goal    A Result is a value or an error, never both, and the two macros pass errors up unchanged.
// Method  Small functions that succeed or fail, with move-only values so that a hidden copy does not compile.
#include "lockstep/core/result.hpp"

#include <memory>
#include <set>
#include <string>

#include <gtest/gtest.h>

namespace lockstep {
namespace {

Result<int> parse_digit(char digit) {
  if (digit < '0' || digit > '9') {
    return Error{ErrorCode::kInvalidArgument, std::string("not a digit: ") + digit, 3};
  }
  return digit - '0';
}

Result<std::unique_ptr<int>> boxed_digit(char digit) {
  LOCKSTEP_ASSIGN_OR_RETURN(const int value, parse_digit(digit));
  return std::make_unique<int>(value);
}

Status check_digits(std::string_view digits, int& checked) {
  for (const char digit : digits) {
    LOCKSTEP_RETURN_IF_ERROR(parse_digit(digit));
    ++checked;
  }
  return {};
}

Result<int> sum_of_two(char first, char second) {
  // Two in one function: the macro's hidden names must differ.
  LOCKSTEP_ASSIGN_OR_RETURN(const auto left, boxed_digit(first));
  LOCKSTEP_ASSIGN_OR_RETURN(const auto right, boxed_digit(second));
  return *left + *right;
}

TEST(Result, HoldsTheValueWhenItSucceeded) {
  const Result<int> result = parse_digit('7');
  ASSERT_TRUE(result.has_value());
  EXPECT_TRUE(static_cast<bool>(result));
  EXPECT_EQ(*result, 7);
  EXPECT_EQ(result.value(), 7);
}

TEST(Result, HoldsCodeMessageAndRankWhenItFailed) {
  const Result<int> result = parse_digit('x');
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(result.error().message, "not a digit: x");
  EXPECT_EQ(result.error().rank, 3);
}

TEST(Result, GivesAwayAMoveOnlyValue) {
  const std::unique_ptr<int> owned = boxed_digit('4').value();
  EXPECT_EQ(*owned, 4);
  const std::unique_ptr<int> dereferenced = *boxed_digit('5');
  EXPECT_EQ(*dereferenced, 5);
}

TEST(Result, ReachesMembersOfItsValueByArrow) {
  Result<std::string> result = std::string("four");
  EXPECT_EQ(result->size(), 4U);
  result->push_back('!');
  EXPECT_EQ(std::as_const(result)->back(), '!');
}

TEST(Status, PassesItsErrorOnIntoAResultOfAnotherType) {
  const Status failed = Error{ErrorCode::kTimeout, "late"};
  const Result<std::string> passed_on = failed.error();
  ASSERT_FALSE(passed_on);
  EXPECT_EQ(passed_on.error().code, ErrorCode::kTimeout);
}

TEST(Status, SucceedsByDefaultAndFailsWithAnError) {
  const Status good;
  EXPECT_TRUE(good);
  Status bad = Error{ErrorCode::kPeerLost, "rank 2 is gone", 2};
  ASSERT_FALSE(bad.has_value());
  const Error taken = std::move(bad).error();
  EXPECT_EQ(taken.message, "rank 2 is gone");
  EXPECT_EQ(taken.rank, 2);
}

TEST(ReturnIfError, StopsAtTheFirstFailureAndPassesItOn) {
  int checked = 0;
  const Status status = check_digits("12x4", checked);
  EXPECT_EQ(checked, 2);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().message, "not a digit: x");
  EXPECT_EQ(status.error().rank, 3);
}

TEST(ReturnIfError, GoesOnWhileAllIsWell) {
  int checked = 0;
  EXPECT_TRUE(check_digits("1234", checked));
  EXPECT_EQ(checked, 4);
}

TEST(AssignOrReturn, UnpacksValuesAndPassesErrorsOn) {
  EXPECT_EQ(*sum_of_two('2', '3'), 5);
  EXPECT_EQ(sum_of_two('2', 'y').error().message, "not a digit: y");
  EXPECT_EQ(sum_of_two('z', '3').error().message, "not a digit: z");
}

TEST(ErrorCodeName, IsStableAndDifferentForEveryCode) {
  const std::set<std::string_view> names{error_code_name(ErrorCode::kInvalidArgument), error_code_name(ErrorCode::kResourceExhausted),
                                         error_code_name(ErrorCode::kTimeout),         error_code_name(ErrorCode::kPeerLost),
                                         error_code_name(ErrorCode::kDiverged),        error_code_name(ErrorCode::kCancelled),
                                         error_code_name(ErrorCode::kUnsupported),     error_code_name(ErrorCode::kInternal)};
  const std::set<std::string_view> expected{"invalid_argument", "resource_exhausted", "timeout",     "peer_lost",
                                            "diverged",         "cancelled",          "unsupported", "internal"};
  EXPECT_EQ(names, expected);
}

}  // namespace
}  // namespace lockstep
