// Goal    No file that an operator names holds up the start: what is no regular file is refused with the cause, by every option that names one.
// Method  A pipe that nobody writes to, a socket, a folder, devices: each was waited for, or read for ever, by one option or another.
#include "daemon/files/regular_file.hpp"

#include <fstream>
#include <functional>
#include <string>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "daemon/group/group_start.hpp"
#include "daemon/http/access/api_keys.hpp"
#include "daemon/http/tls/tls_identity.hpp"
#include "daemon/options/sources/config_file.hpp"

namespace lockstep::daemon {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr std::size_t kBytesMax = 100;

class RegularFileTest : public ::testing::Test {
 protected:
  RegularFileTest() {
    std::string name = (std::filesystem::temp_directory_path() / "lockstep-files-XXXXXX").string();
    folder_ = ::mkdtemp(name.data());
  }
  ~RegularFileTest() override { std::filesystem::remove_all(folder_); }

  [[nodiscard]] std::filesystem::path written(const std::string& text) const {
    std::filesystem::path file = folder_ / "file";
    std::ofstream(file, std::ios::trunc) << text;
    return file;
  }
  [[nodiscard]] std::filesystem::path pipe() const {
    std::filesystem::path file = folder_ / "pipe";
    ::mkfifo(file.c_str(), S_IRUSR | S_IWUSR);
    return file;
  }
  [[nodiscard]] std::filesystem::path bound_socket() const {
    std::filesystem::path file = folder_ / "socket";
    const int descriptor = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    file.string().copy(address.sun_path, sizeof address.sun_path - 1);
    EXPECT_EQ(::bind(descriptor, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    ::close(descriptor);
    return file;
  }

  std::filesystem::path folder_;
};

TEST_F(RegularFileTest, IsReadWholeUpToItsLimit) {
  EXPECT_EQ(read_regular_file(written(std::string(kBytesMax, 'x')), kBytesMax)->text, std::string(kBytesMax, 'x'));
  EXPECT_EQ(read_regular_file(written(""), kBytesMax)->text, "");
  EXPECT_EQ(read_regular_file("/dev/null", kBytesMax)->text, "");
  const auto longer = read_regular_file(written(std::string(kBytesMax + 1, 'x')), kBytesMax);
  ASSERT_FALSE(longer);
  EXPECT_EQ(longer.error().message, "has more than 100 bytes");
  std::filesystem::create_symlink(written("linked"), folder_ / "link");
  EXPECT_EQ(read_regular_file(folder_ / "link", kBytesMax)->text, "linked") << "as secrets are mounted in a pod";
}

TEST_F(RegularFileTest, SaysWhoMayReadIt) {
  const std::filesystem::path file = written("key");
  using std::filesystem::perms;
  std::filesystem::permissions(file, perms::owner_read);
  EXPECT_FALSE(read_regular_file(file, kBytesMax)->others_may_read);
  for (const perms other : {perms::group_read, perms::others_read}) {
    std::filesystem::permissions(file, perms::owner_read | other);
    EXPECT_TRUE(read_regular_file(file, kBytesMax)->others_may_read);
  }
}

TEST_F(RegularFileTest, WhateverElseIsThereIsRefusedAtOnceWithTheCause) {
  const std::vector<std::pair<std::filesystem::path, const char*>> cases{{pipe(), "is a pipe, not a regular file"},
                                                                         {bound_socket(), "is a socket or a device, not a regular file"},
                                                                         {folder_, "is a folder, not a regular file"},
                                                                         {"/dev/zero", "is a device, not a regular file"},
                                                                         {folder_ / "none", "cannot be opened: No such file or directory"}};
  for (const auto& [file, cause] : cases) {
    const auto read = read_regular_file(file, kBytesMax);
    ASSERT_FALSE(read) << file;
    EXPECT_EQ(read.error().message, cause);
    const Status checked = check_regular_file(file);
    ASSERT_FALSE(checked) << file;
    EXPECT_EQ(checked.error().message, cause);
  }
}

TEST_F(RegularFileTest, NoOptionWaitsForAPipe) {
  const std::filesystem::path named = pipe();
  const std::filesystem::path other = written("not PEM");
  const auto from_environment = [](std::string_view) { return std::optional<std::string>(); };
  const std::vector<std::pair<std::string, std::function<Status()>>> readers{{"--config",
                                                                              [&] {
                                                                                const auto read = read_config_file(named);
                                                                                return read ? Status() : read.error();
                                                                              }},
                                                                             {"--api-key-file",
                                                                              [&] {
                                                                                const auto read = read_key_file(named);
                                                                                return read ? Status() : read.error();
                                                                              }},
                                                                             {"--group-secret-file",
                                                                              [&] {
                                                                                const auto read = find_group_secret(named, {}, from_environment);
                                                                                return read ? Status() : read.error();
                                                                              }},
                                                                             {"--tls-cert",
                                                                              [&] {
                                                                                const auto read = TlsIdentity::load(named, other);
                                                                                return read ? Status() : read.error();
                                                                              }},
                                                                             {"--tls-key", [&] {
                                                                                const auto read = TlsIdentity::load(other, named);
                                                                                return read ? Status() : read.error();
                                                                              }}};
  for (const auto& [option, read] : readers) {
    const Status status = read();
    ASSERT_FALSE(status) << option;
    EXPECT_EQ(status.error().code, ErrorCode::kInvalidArgument) << option;
    EXPECT_THAT(status.error().message, StartsWith(option));
    EXPECT_THAT(status.error().message, HasSubstr(named.string() + ": is a pipe, not a regular file; expected "));
  }
}

}  // namespace
}  // namespace lockstep::daemon
