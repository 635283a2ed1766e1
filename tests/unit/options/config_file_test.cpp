// Goal: the config file says what it looks like it says, and whatever else is in it is refused with its line.
// Method: texts through read_config_text; the messages name file and line.
#include "daemon/options/sources/config_file.hpp"

#include <filesystem>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lockstep::daemon {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Settings good(std::string_view text) {
  Result<Settings> settings = read_config_text(text, "file.conf");
  EXPECT_TRUE(settings) << settings.error().message;
  return settings ? *settings : Settings();
}

std::string bad(std::string_view text) {
  const Result<Settings> settings = read_config_text(text, "file.conf");
  EXPECT_FALSE(settings) << text;
  return settings ? "" : settings.error().message;
}

TEST(ConfigFile, ValuesAreBareOrInQuotesWithCommentsAround) {
  const Settings settings = good(
      "\xEF\xBB\xBF# comment\r\n; another\n[default]\n\n  port=1\r\nhost = \"::1\" # comment\nmodel = /my models/a#b # comment\n"
      "served-model-name = 'a \"b\" \\ #c'\n\"log-level\" = \"x\\\"y\\\\z\"\ndevice=");
  EXPECT_THAT(settings.at("port").values, ElementsAre("1"));
  EXPECT_EQ(settings.at("port").source, "in file.conf line 5");
  EXPECT_THAT(settings.at("host").values, ElementsAre("::1"));
  EXPECT_THAT(settings.at("model").values, ElementsAre("/my models/a#b"));
  EXPECT_THAT(settings.at("served-model-name").values, ElementsAre(R"(a "b" \ #c)"));
  EXPECT_THAT(settings.at("log-level").values, ElementsAre(R"(x"y\z)"));
  EXPECT_THAT(settings.at("device").values, ElementsAre(""));
  EXPECT_EQ(settings.size(), 6U);
}

TEST(ConfigFile, UnknownNameIsRefusedWithItsLineAndTheNearestOne) {
  EXPECT_THAT(bad("port = 1\nprot = 1"), HasSubstr(R"(file.conf line 2: "prot" is no option of lockstepd for a file; did you mean "port"?)"));
  EXPECT_THAT(bad("max_num_seqs = 1"), HasSubstr(R"(did you mean "max-num-seqs"?)"));
  EXPECT_THAT(bad("qqqqqqqqqqqqq = 1"), HasSubstr("expected lines of option = value"));
  EXPECT_THAT(bad("config = other.conf"), HasSubstr("no option of lockstepd for a file"));
  EXPECT_THAT(bad("= 1"), HasSubstr(R"("" is no option)"));
  EXPECT_THAT(bad(std::string("po\0rt = 1", 9)), HasSubstr("no option"));
}

TEST(ConfigFile, WhatIsNotALineOfOptionAndValueIsRefused) {
  EXPECT_THAT(bad("[server]\nport = 1"), HasSubstr("file.conf line 1: [server] is a section"));
  EXPECT_THAT(bad("port"), HasSubstr("line 1: port has no value; expected port = value"));
  EXPECT_THAT(bad("port = 1\nhost = ::1\nport = 1"), HasSubstr("line 3: port is there already, in file.conf line 1; expected once"));
  EXPECT_THAT(bad("host = \"::1"), HasSubstr("a quote is not closed; expected \" at the end"));
  EXPECT_THAT(bad("host = \"::1\" port = 2"), HasSubstr("something follows the value"));
  EXPECT_THAT(bad("host = \"\\n\""), HasSubstr("after a backslash"));
  EXPECT_THAT(bad("host = \"\\"), HasSubstr("after a backslash"));
  EXPECT_THAT(bad("port = [1, 2]"), HasSubstr("port takes one value, not an array"));
}

TEST(ConfigFile, FileThatCannotBeReadIsNamed) {
  for (const char* path : {"/nonexistent/file", "/", "/dev/zero"}) {
    const Result<Settings> settings = read_config_file(path);
    ASSERT_FALSE(settings) << path;
    EXPECT_THAT(settings.error().message, HasSubstr(std::string("--config ") + path + ": ")) << path;
  }
  EXPECT_TRUE(read_config_file("/dev/null"));
}

}  // namespace
}  // namespace lockstep::daemon
