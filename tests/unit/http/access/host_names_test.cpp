// Goal: names that can be somebody's domain are accepted only where they are allowed; what a client on the machine itself writes always is.
// Method: Host headers, written here.
#include "daemon/http/access/host_names.hpp"

#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lockstep::daemon {
namespace {

TEST(HostNames, AcceptsWhateverComesWithoutAList) {
  EXPECT_TRUE(HostNames().accepts("evil.example:8000"));
  EXPECT_TRUE(HostNames(std::vector<std::string>{"*"}).accepts("evil.example:8000"));
}

TEST(HostNames, AddressesAndNamesOfOneWordAreNobodysDomain) {
  const HostNames names{std::vector<std::string>{}};
  for (const char* host : {"127.0.0.1", "127.0.0.1:8000", "[::1]", "[::1]:8000", "192.168.1.7:80", "localhost", "localhost:8000", "LOCALHOST",
                           "localhost.:8000", "api.localhost", "Api.LocalHost:1", "lockstep:8000", ""}) {
    EXPECT_TRUE(names.accepts(host)) << host;
  }
}

TEST(HostNames, SomebodysDomainIsRefusedUnlessItIsAllowed) {
  const HostNames names{std::vector<std::string>{"server.example"}};
  for (const char* host : {"evil.example", "evil.example:8000", "evil.example.", "localhost.evil.example", "127.0.0.1.evil.example", "notlocalhost.example",
                           "x.server.example", "server.example.evil.example", "[evil.example]", "127.0.0.1x.example", "0x7f.1"}) {
    EXPECT_FALSE(names.accepts(host)) << host;
  }
  EXPECT_FALSE(names.accepts(std::string(100'000, 'a') + ".localhost")) << "longer than any name";
  for (const char* host : {"server.example", "server.example:8000", "Server.Example", "server.example.:80"}) {
    EXPECT_TRUE(names.accepts(host)) << host;
  }
}

TEST(HostNames, NamesThatNoClientSendsAreRefusedByTheOption) {
  for (const char* good : {"*", "server.example", "a-b_c.d1", "server"}) {
    EXPECT_TRUE(check_host_name(good)) << good;
  }
  for (const char* bad : {"", "Server.example", "server.example:80", "https://server.example", "server.example.", "*.example", "a b", "[::1]"}) {
    const Status checked = check_host_name(bad);
    ASSERT_FALSE(checked) << bad;
    EXPECT_THAT(checked.error().message, testing::HasSubstr("--allowed-host"));
  }
  EXPECT_FALSE(check_host_name(std::string(254, 'a')));
}

}  // namespace
}  // namespace lockstep::daemon
