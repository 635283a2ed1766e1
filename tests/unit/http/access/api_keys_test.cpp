// Goal: exactly the keys that were set are accepted, however the header is written, and nothing of a key is told.
// Method: values of the Authorization header; key files written here.
#include "daemon/http/access/api_keys.hpp"

#include <filesystem>
#include <fstream>
#include <string>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lockstep::daemon {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

class KeyFileTest : public ::testing::Test {
 protected:
  KeyFileTest() : file_(std::filesystem::temp_directory_path() / ("lockstep-keys-" + std::to_string(::getpid()))) {}
  ~KeyFileTest() override { std::filesystem::remove(file_); }
  void write(std::string_view text, std::filesystem::perms permissions = std::filesystem::perms::owner_read) {
    std::ofstream(file_) << text;
    std::filesystem::permissions(file_, permissions);
  }
  std::filesystem::path file_;
};

TEST(ApiKeys, EachOfSeveralKeysIsAcceptedAndNothingElse) {
  const auto keys = ApiKeys::create({"first-key", "second-key"});
  ASSERT_TRUE(keys) << keys.error().message;
  for (const char* accepted : {"Bearer first-key", "Bearer second-key", "bearer first-key", "BEARER  first-key ", "bEaReR second-key"}) {
    EXPECT_TRUE(keys->accepts(accepted)) << accepted;
  }
  for (const char* refused : {"", "Bearer", "Bearer ", "Bearer first", "Bearer first-keyx", "Bearer First-Key", "first-key", "Basic first-key",
                              "Bearerfirst-key", "Bearer first-key second-key", "Bearer first-key,second-key", "Bearer\tfirst-key"}) {
    EXPECT_FALSE(keys->accepts(refused)) << refused;
  }
}

TEST(ApiKeys, WithoutKeysNothingIsAccepted) {
  EXPECT_TRUE(ApiKeys().empty());
  EXPECT_FALSE(ApiKeys().accepts("Bearer "));
  EXPECT_FALSE(ApiKeys().accepts("Bearer x"));
}

TEST(ApiKeys, KeyThatNoHeaderCanCarryIsRefusedWithoutBeingTold) {
  for (const std::string& bad : {std::string(), std::string("two words"), std::string("line\nfeed"), std::string("\xc3\xa4")}) {
    const auto keys = ApiKeys::create({"good", bad});
    ASSERT_FALSE(keys);
    EXPECT_EQ(keys.error().code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(keys.error().message, HasSubstr("API key 2 of 2"));
    EXPECT_THAT(keys.error().message, Not(HasSubstr("words")));
  }
}

TEST_F(KeyFileTest, LinesAreKeysAndCommentsAreNot) {
  write("# for the gateway\nkey-1\n\nkey-2  \r\n  \n");
  const auto read = read_key_file(file_);
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_THAT(read->keys, ElementsAre("key-1", "key-2"));
  EXPECT_EQ(read->warning, "");
}

TEST_F(KeyFileTest, KeyThatNoHeaderCanCarryIsRefusedByItsLineWithoutBeingTold) {
  for (const std::string& bad :
       {std::string(" spaced-key"), std::string("\tspaced-key"), std::string("spaced key"), std::string("spaced\xc3\xa4key"), std::string("spaced\0key", 10)}) {
    write("# for the gateway\n\ngood\n" + bad + "\nmore\n");
    const auto read = read_key_file(file_);
    ASSERT_FALSE(read) << bad;
    EXPECT_EQ(read.error().code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(read.error().message, AllOf(HasSubstr(file_.string()), HasSubstr("line 4"), Not(HasSubstr("spaced")), Not(HasSubstr("key\n"))));
    std::filesystem::remove(file_);
  }
}

TEST_F(KeyFileTest, FileThatOthersMayReadIsWarnedOf) {
  write("key-1\n", std::filesystem::perms::owner_read | std::filesystem::perms::others_read);
  const auto read = read_key_file(file_);
  ASSERT_TRUE(read);
  EXPECT_THAT(read->warning, HasSubstr("chmod 600"));
}

TEST_F(KeyFileTest, FileThatIsMissingOrHoldsNoKeyIsAnErrorThatNamesIt) {
  for (const bool exists : {false, true}) {
    if (exists) {
      write("# nothing\n");
    }
    const auto read = read_key_file(file_);
    ASSERT_FALSE(read);
    EXPECT_EQ(read.error().code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(read.error().message, HasSubstr(file_.string()));
  }
  EXPECT_FALSE(read_key_file(file_.parent_path())) << "a folder";
}

}  // namespace
}  // namespace lockstep::daemon
