// Goal    The text ends where the first stop string is complete, however it was cut into pieces, and nothing of a stop string is shown before.
// Method  Cases by hand; then random texts over two letters, full of overlaps, against a search that looks at every prefix of the whole text.
#include "daemon/api/text/stop_strings.hpp"

#include <optional>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace lockstep::daemon {
namespace {

/// What is visible after each piece.
std::vector<std::string> shown_after(const std::vector<std::string>& stops, bool include, const std::vector<std::string>& pieces) {
  StopStringFinder finder(stops, include);
  std::string shown;
  std::vector<std::string> result;
  for (const std::string& piece : pieces) {
    finder.push(piece, shown);
    result.push_back(shown);
  }
  finder.finish(shown);
  result.push_back(shown);
  return result;
}

using Strings = std::vector<std::string>;

TEST(StopStrings, HoldBackWhatMayBecomeOne) {
  EXPECT_EQ(shown_after({"stop"}, false, {"a st", "o", "p it"}), (Strings{"a ", "a ", "a ", "a "}));
  EXPECT_EQ(shown_after({"stop"}, false, {"a st", "ay"}), (Strings{"a ", "a stay", "a stay"}));
  EXPECT_EQ(shown_after({"stop"}, false, {"a sto"}), (Strings{"a ", "a sto"})) << "the end of the text shows what was held back";
  EXPECT_EQ(shown_after({"\n\n"}, false, {"a\n", "b\n", "\nc"}), (Strings{"a", "a\nb", "a\nb", "a\nb"}));
}

TEST(StopStrings, AreShownWhereTheClientWantsThem) {
  EXPECT_EQ(shown_after({"stop"}, true, {"a st", "op it"}), (Strings{"a st", "a stop", "a stop"}));
}

TEST(StopStrings, TheFirstToBeCompleteWinsAndTheLongestOfThose) {
  EXPECT_EQ(shown_after({"abcd", "c"}, false, {"abcd"}).back(), "ab");
  EXPECT_EQ(shown_after({"c", "abc"}, false, {"xabc"}).back(), "x");
  EXPECT_EQ(shown_after({"aab"}, false, {"a", "a", "a", "b"}).back(), "a") << "a failed start must not hide a later one";
}

TEST(StopStrings, NoneNeverHoldAnything) {
  EXPECT_EQ(shown_after({}, false, {"abc", "d"}), (Strings{"abc", "abcd", "abcd"}));
}

/// The end of the shown text, by looking at every prefix.
std::optional<std::size_t> end_by_search(const std::string& text, const std::vector<std::string>& stops, bool include) {
  for (std::size_t end = 1; end <= text.size(); ++end) {
    std::size_t longest = 0;
    for (const std::string& stop : stops) {
      if (text.substr(0, end).ends_with(stop)) {
        longest = std::max(longest, stop.size());
      }
    }
    if (longest > 0) {
      return include ? end : end - longest;
    }
  }
  return {};
}

TEST(StopStrings, RandomTextsEndWhereTheSearchSaysHoweverTheyAreCut) {
  std::mt19937 random(11);
  const auto word = [&random](std::size_t length) {
    std::string text;
    for (std::size_t i = 0; i < length; ++i) {
      text += static_cast<char>('a' + random() % 2);
    }
    return text;
  };
  int stopped = 0;
  for (int round = 0; round < 20000; ++round) {
    std::vector<std::string> stops(random() % 4);
    for (std::string& stop : stops) {
      stop = word(1 + random() % 7);
    }
    const bool include = random() % 2 == 0;
    const std::string text = word(random() % 40);
    const auto end = end_by_search(text, stops, include);
    const std::string expected = text.substr(0, end.value_or(text.size()));
    StopStringFinder finder(stops, include);
    std::string shown;
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t length = 1 + random() % 5;
      finder.push(text.substr(at, length), shown);
      at += length;
      ASSERT_TRUE(expected.starts_with(shown)) << "round " << round << ": \"" << shown << "\" was shown of \"" << text << "\"";
      if (finder.found()) {
        ASSERT_EQ(shown, expected) << "round " << round;
      }
    }
    finder.finish(shown);
    ASSERT_EQ(shown, expected) << "round " << round << ", text " << text;
    ASSERT_EQ(finder.found(), end.has_value()) << "round " << round;
    stopped += end ? 1 : 0;
  }
  EXPECT_GT(stopped, 5000);
}

}  // namespace
}  // namespace lockstep::daemon
