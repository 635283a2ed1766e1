// Goal    The last place of a text is found as std::string_view::rfind finds it, and in linear time.
// Method  Random texts of two letters against rfind; one pair of texts for which rfind's comparisons are 10^12.
#include "daemon/api/text/find_last.hpp"

#include <random>
#include <string>

#include <gtest/gtest.h>

namespace lockstep::daemon {
namespace {

std::string random_text(std::mt19937& random, std::size_t length) {
  std::string text;
  for (std::size_t i = 0; i < length; ++i) {
    text += random() % 2 == 0 ? 'a' : 'b';
  }
  return text;
}

TEST(FindLast, AgreesWithRfind) {
  std::mt19937 random(7);
  for (int round = 0; round < 5000; ++round) {
    const std::string text = random_text(random, random() % 24);
    const std::string wanted = random_text(random, random() % 6);
    ASSERT_EQ(find_last(text, wanted), std::string_view(text).rfind(wanted)) << text << " " << wanted;
  }
}

TEST(FindLast, NoTextTakesAsLongAsBothLengthsMultiplied) {
  const std::string text(2'000'000, 'a');
  EXPECT_EQ(find_last(text, std::string(1'000'000, 'a') + "b"), std::string_view::npos) << "else ends only with ctest's limit";
  EXPECT_EQ(find_last(text + "b", std::string(1'000'000, 'a') + "b"), 1'000'000U);
}

}  // namespace
}  // namespace lockstep::daemon
