// Goal: the table says the same as the members, the help and the documentation; slips of the pen are answered with what was meant.
// Method: each line's default is parsed and compared with DaemonOptions{}; nearest_name on slips of each kind.
#include "daemon/options/option_table.hpp"

#include <algorithm>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "daemon/options/help_text.hpp"
#include "daemon/options/values/nearest_name.hpp"

namespace lockstep::daemon {
namespace {

using ::testing::HasSubstr;

bool is_a_value(const OptionLine& line) {
  return !std::string_view(line.fallback).starts_with('(');
}

TEST(OptionTable, DefaultsInWordsAreThoseOfTheMembers) {
  for (const OptionLine& line : option_table()) {
    DaemonOptions options;
    if (is_a_value(line)) {
      EXPECT_TRUE(line.kind.apply(line.fallback, options)) << line.name;
      EXPECT_EQ(options, DaemonOptions{}) << line.name << ": the default in the table is not that of the member";
    } else {
      EXPECT_TRUE(std::string_view(line.fallback).ends_with(')')) << line.name;
    }
  }
}

TEST(OptionTable, GroupsStandTogetherAndNamesAreThereOnce) {
  std::set<std::string_view> groups;
  std::set<std::string_view> names;
  std::string_view group;
  for (const OptionLine& line : option_table()) {
    if (group != line.group) {
      EXPECT_TRUE(groups.insert(line.group).second) << line.name;
      group = line.group;
    }
    EXPECT_TRUE(names.insert(line.name).second) << line.name;
    EXPECT_FALSE(std::string_view(line.help).ends_with('.')) << line.name;
  }
}

TEST(OptionTable, HelpHasAllOfEachLine) {
  const std::string help = help_text("1.2.3");
  EXPECT_THAT(help, ::testing::StartsWith("lockstepd 1.2.3:"));
  for (const OptionLine& line : option_table()) {
    EXPECT_THAT(help, HasSubstr(std::string("\n") + line.group + "\n"));
    EXPECT_THAT(help, HasSubstr("\n  " + option_flag(line.name) + " ")) << line.name;
    EXPECT_THAT(help, HasSubstr(std::string(" ") + line.help + "\n")) << line.name;
    EXPECT_THAT(help, HasSubstr(line.kind.expected() + "; default " + option_default(line) + "; " + option_variable(line.name) + "\n")) << line.name;
  }
}

TEST(NearestName, IsFoundForSlipsOfThePen) {
  const std::vector<std::string> names{"--port", "--peer-bind", "--max-num-seqs", "--max-num-batched-tokens", "--model"};
  for (const auto& [slip, meant] : std::vector<std::pair<std::string, std::string>>{{"--prot", "--port"},
                                                                                    {"--por", "--port"},
                                                                                    {"--ports", "--port"},
                                                                                    {"--pert", "--port"},
                                                                                    {"--max_num_seqs", "--max-num-seqs"},
                                                                                    {"--MAX-NUM-SEQS", "--max-num-seqs"},
                                                                                    {"--Model", "--model"},
                                                                                    {"--max-num-b", "--max-num-batched-tokens"},
                                                                                    {"--max-num-batched", "--max-num-batched-tokens"}}) {
    EXPECT_EQ(nearest_name(slip, names), meant) << slip;
  }
  EXPECT_EQ(nearest_name("--tensor-parallel-size", names), "");
  EXPECT_EQ(nearest_name("", names), "");
  EXPECT_EQ(nearest_name(std::string(1 << 20, 'x'), names), "");
}

TEST(NearestName, DistanceCountsInsertionsDeletionsReplacementsAndSwaps) {
  EXPECT_EQ(edit_distance("", ""), 0U);
  EXPECT_EQ(edit_distance("", "abc"), 3U);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3U);
  EXPECT_EQ(edit_distance("abcd", "acbd"), 1U);
  EXPECT_EQ(edit_distance("abcd", "bacd"), 1U);
}

}  // namespace
}  // namespace lockstep::daemon
