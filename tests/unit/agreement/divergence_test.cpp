// Goal    A difference between members is told in one readable line, also when thousands of members differ.
// Method  Texts for chosen groups.
#include "comm/agreement/divergence.hpp"

#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lockstep::comm {
namespace {

using ::testing::HasSubstr;

TEST(DescribeValues, ListsTheLargestGroupFirstAndWritesLongRunsAsRanges) {
  EXPECT_EQ(describe_values(std::vector<std::int64_t>{5, 7, 7, 7, 7, 5, 7}, ValueFormat::kDecimal), "members 1-4, 6 have 7, members 0, 5 have 5");
  EXPECT_EQ(describe_values(std::vector<std::int64_t>{1, 1, 2}, ValueFormat::kHex32), "members 0, 1 have 0x00000001, member 2 has 0x00000002");
}

TEST(DescribeValues, StaysShortWhenEveryMemberHasItsOwnValue) {
  std::vector<std::int64_t> values(4096);
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<std::int64_t>(i);
  }
  const std::string text = describe_values(values, ValueFormat::kDecimal);
  EXPECT_LT(text.size(), 400U);
  EXPECT_THAT(text, HasSubstr("and 4088 other values"));
}

TEST(DescribeValues, StaysShortWhenEverySecondMemberDiffers) {
  std::vector<std::int64_t> values(4096);
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<std::int64_t>(i % 2);
  }
  const std::string text = describe_values(values, ValueFormat::kDecimal);
  EXPECT_LT(text.size(), 400U);
  EXPECT_THAT(text, HasSubstr("28, 30 and 2032 more have 0"));
}

TEST(FieldDiffers, BlamesTheFirstMemberOutsideTheMajority) {
  const Error error = field_differs("epoch", std::vector<std::int64_t>{4, 4, 9, 4, 8}, ValueFormat::kDecimal, "restart");
  EXPECT_EQ(error.code, ErrorCode::kDiverged);
  EXPECT_EQ(error.rank, 2);
  EXPECT_EQ(error.message, "epoch differs: members 0, 1, 3 have 4, member 2 has 9, member 4 has 8; restart");
}

}  // namespace
}  // namespace lockstep::comm
