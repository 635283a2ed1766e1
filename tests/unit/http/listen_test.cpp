// Goal: a server listens where it is told: on a Unix socket that is removed at its end and never another's, or on what a service manager handed over.
// Method: real sockets in a temporary folder; an environment made up for the protocol's variables.
#include <filesystem>
#include <fstream>
#include <map>
#include <netinet/in.h>
#include <string>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <gmock/gmock.h>

#include "daemon/http/listen/listener.hpp"
#include "daemon/http/listen/socket_activation.hpp"
#include "tests/unit/daemon/support/server_fixture.hpp"

namespace lockstep::daemon::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class UnixSocket : public ServerFixture {
 protected:
  UnixSocket() {
    std::string name = (std::filesystem::temp_directory_path() / "lockstep-listen-XXXXXX").string();
    folder_ = ::mkdtemp(name.data());
    path_ = folder_ / "http.sock";
  }
  ~UnixSocket() override { std::filesystem::remove_all(folder_); }
  void serve_path() {
    serve_with(true, {.unix_socket = path_}, {{"/page", "GET", [](const std::shared_ptr<Exchange>& exchange) { exchange->respond({.body = "page"}); }}});
  }
  std::string refusal() {
    boost::asio::io_context io;
    const Result<Listener> listener = listen_on_path(io, path_);
    EXPECT_FALSE(listener);
    return listener ? "" : listener.error().message;
  }

  std::filesystem::path folder_;
  std::filesystem::path path_;
};

TEST_F(UnixSocket, IsServedToOwnerAndGroupAndRemovedAtTheEnd) {
  serve_path();
  EXPECT_EQ(server_->name(), "unix:" + path_.string());
  EXPECT_EQ(server_->port(), 0);
  struct stat facts {};
  ASSERT_EQ(::lstat(path_.c_str(), &facts), 0);
  EXPECT_EQ(facts.st_mode & 0777U, 0660U);
  HttpClient client(path_);
  EXPECT_EQ(client.get("/page").body, "page");
  on_asio([this] { server_->close(); });
  EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(UnixSocket, LeftByADeadProcessIsReplaced) {
  {
    boost::asio::io_context io;
    Result<Listener> dead = listen_on_path(io, path_);
    ASSERT_TRUE(dead) << dead.error().message;
    // A process that was killed removes nothing.
    std::filesystem::rename(path_, folder_ / "kept");
  }
  std::filesystem::rename(folder_ / "kept", path_);
  serve_path();
  HttpClient client(path_);
  EXPECT_EQ(client.get("/page").body, "page");
}

TEST_F(UnixSocket, InUseIsAnErrorAndStays) {
  serve_path();
  EXPECT_THAT(refusal(), AllOf(HasSubstr(path_.string()), HasSubstr("another process listens there")));
  HttpClient client(path_);
  EXPECT_EQ(client.get("/page").body, "page");
}

TEST_F(UnixSocket, WhereAFileIsOrNoFolderIsAnError) {
  std::ofstream(path_) << "precious";
  EXPECT_THAT(refusal(), HasSubstr("something else than a socket"));
  EXPECT_EQ(std::filesystem::file_size(path_), 8U);
  path_ = folder_ / "missing" / "http.sock";
  EXPECT_THAT(refusal(), HasSubstr("--unix-socket"));
  path_ = folder_ / std::string(200, 'x');
  EXPECT_THAT(refusal(), HasSubstr("at most 107 bytes"));
}

TEST_F(UnixSocket, OfAnotherServerIsNotRemoved) {
  serve_path();
  std::filesystem::rename(path_, folder_ / "old");
  boost::asio::io_context io;
  const Result<Listener> second = listen_on_path(io, path_);
  ASSERT_TRUE(second) << second.error().message;
  on_asio([this] { server_->close(); });
  EXPECT_TRUE(std::filesystem::exists(path_)) << "it is the second one's";
}

class Activation : public ::testing::Test {
 protected:
  Result<InheritedSockets> find(const comm::LaunchInfo& launch = {}) {
    const comm::EnvironmentReader environment = [this](std::string_view name) {
      const auto found = variables_.find(std::string(name));
      return found == variables_.end() ? std::nullopt : std::optional(found->second);
    };
    return find_inherited_sockets(environment, launch, 100);
  }
  std::map<std::string, std::string> variables_;
};

TEST_F(Activation, WithoutItsVariablesThereIsNone) {
  const auto found = find();
  ASSERT_TRUE(found);
  EXPECT_THAT(found->descriptors, IsEmpty());
  EXPECT_EQ(found->warning, "");
}

TEST_F(Activation, OfAnotherProcessIsLeftAloneWithAWarning) {
  variables_ = {{"LISTEN_FDS", "1"}, {"LISTEN_PID", "99"}};
  for (int i = 0; i < 2; ++i) {
    const auto found = find();
    ASSERT_TRUE(found);
    EXPECT_THAT(found->descriptors, IsEmpty());
    EXPECT_THAT(found->warning, HasSubstr("LISTEN_FDS"));
    variables_.erase("LISTEN_PID");
  }
}

TEST_F(Activation, UnderALauncherIsRefusedAndNamesIt) {
  variables_ = {{"LISTEN_FDS", "1"}, {"LISTEN_PID", "100"}};
  const auto found = find({.world_size = 2, .launcher = "mpirun"});
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(found.error().message, HasSubstr("mpirun"));
}

TEST_F(Activation, CountThatIsNoneIsRefused) {
  for (const char* count : {"", "0", "-1", "x", "17", "1 "}) {
    variables_ = {{"LISTEN_FDS", count}, {"LISTEN_PID", "100"}};
    const auto found = find();
    ASSERT_FALSE(found) << count;
    EXPECT_THAT(found.error().message, HasSubstr("LISTEN_FDS"));
  }
}

TEST(AdoptedSocket, MustListen) {
  boost::asio::io_context io;
  for (const int type : {SOCK_STREAM, SOCK_DGRAM}) {
    const int descriptor = ::socket(AF_INET, type, 0);
    const Result<Listener> listener = adopt_socket(io, descriptor);
    ASSERT_FALSE(listener);
    EXPECT_THAT(listener.error().message, HasSubstr("no listening stream socket"));
    ::close(descriptor);
  }
  EXPECT_FALSE(adopt_socket(io, -1));
}

class AdoptedServer : public ServerFixture {};

TEST_F(AdoptedServer, IsServedInThePlaceOfAPort) {
  const int descriptor = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(::bind(descriptor, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(::listen(descriptor, 8), 0);
  socklen_t length = sizeof address;
  ASSERT_EQ(::getsockname(descriptor, reinterpret_cast<sockaddr*>(&address), &length), 0);
  serve_with(true, {.port = 1, .inherited_sockets = {descriptor}},
             {{"/page", "GET", [](const std::shared_ptr<Exchange>& exchange) { exchange->respond({.body = "page"}); }}});
  EXPECT_EQ(port_, ntohs(address.sin_port));
  HttpClient client(port_);
  EXPECT_EQ(client.get("/page").body, "page");
}

}  // namespace
}  // namespace lockstep::daemon::testing
