// Goal: options of the front door that cannot be honoured are refused before a port opens, by name; what is risky is warned of.
// Method: options made here; the log goes to a string.
#include <map>
#include <memory>
#include <sstream>
#include <string>

#include <gmock/gmock.h>
#include <spdlog/sinks/ostream_sink.h>

#include "daemon/front_door/front_door.hpp"
#include "daemon/front_door/host_port.hpp"

namespace lockstep::daemon {
namespace {

using ::testing::HasSubstr;

class FrontDoorOptions : public ::testing::Test {
 protected:
  Result<FrontDoorParts> read() {
    const comm::EnvironmentReader environment = [this](std::string_view name) {
      const auto found = variables_.find(std::string(name));
      return found == variables_.end() ? std::nullopt : std::optional(found->second);
    };
    return read_front_door_parts(options_, launch_, environment, logger_);
  }
  void refused(std::string_view word) {
    const Result<FrontDoorParts> parts = read();
    ASSERT_FALSE(parts) << word;
    EXPECT_EQ(parts.error().code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(parts.error().message, HasSubstr(std::string(word)));
  }
  std::string log() {
    logger_.flush();
    return log_.str();
  }

  DaemonOptions options_;
  comm::LaunchInfo launch_;
  std::map<std::string, std::string> variables_;
  std::ostringstream log_;
  spdlog::logger logger_{"test", std::make_shared<spdlog::sinks::ostream_sink_mt>(log_)};
};

TEST_F(FrontDoorOptions, DefaultsAreOpenOnLoopbackAndNotWarnedOf) {
  const Result<FrontDoorParts> parts = read();
  ASSERT_TRUE(parts) << parts.error().message;
  EXPECT_TRUE(parts->keys.empty());
  EXPECT_EQ(parts->tls, nullptr);
  EXPECT_EQ(log(), "");
}

TEST_F(FrontDoorOptions, NetworkWithoutKeysIsWarnedOfOnce) {
  options_.host = "0.0.0.0";
  ASSERT_TRUE(read());
  EXPECT_THAT(log(), HasSubstr("whoever reaches 0.0.0.0 may use this server"));
  log_.str("");
  launch_.rank = 1;
  ASSERT_TRUE(read());
  EXPECT_EQ(log(), "");
}

TEST_F(FrontDoorOptions, KeysInPlainTextOverANetworkAreWarnedOf) {
  options_.host = "0.0.0.0";
  options_.api_keys = {"secret-key"};
  ASSERT_TRUE(read());
  EXPECT_THAT(log(), HasSubstr("plain text"));
  EXPECT_THAT(log(), ::testing::Not(HasSubstr("secret-key")));
}

TEST_F(FrontDoorOptions, CertificateWithoutKeyIsRefusedAndTheOtherWayRound) {
  options_.tls_certificate = "certificate.pem";
  refused("--tls-key");
  options_.tls_certificate.clear();
  options_.tls_key = "key.pem";
  refused("--tls-cert");
  options_.tls_certificate = "/nonexistent.pem";
  refused("/nonexistent.pem");
}

TEST_F(FrontDoorOptions, WhatCannotBeUsedIsNamed) {
  options_.api_key_file = "/nonexistent";
  refused("--api-key-file /nonexistent");
  options_.api_key_file.clear();
  options_.api_keys = {"two words"};
  refused("API key 1 of 1");
  options_.api_keys.clear();
  options_.cors_origins = {"example.org"};
  refused("--cors-allow-origin example.org");
  options_.cors_origins.clear();
  options_.metrics_address = "9090";
  refused("--metrics-address");
  variables_ = {{"LISTEN_FDS", "many"}};
  options_.metrics_address.clear();
  refused("LISTEN_FDS");
}

TEST_F(FrontDoorOptions, MetricsPortsMustNotMeetThoseOfOtherRanks) {
  launch_.local_size = 4;
  options_.metrics_address = "127.0.0.1:8003";
  refused("too near to --port 8000");
  options_.metrics_address = "127.0.0.1:65534";
  refused("leaves no room");
  options_.metrics_address = "127.0.0.1:8004";
  EXPECT_TRUE(read());
}

TEST(HostPort, IsReadInAllForms) {
  for (const auto& [text, host, port] :
       {std::tuple("127.0.0.1:9090", "127.0.0.1", 9090), std::tuple("[::1]:0", "::1", 0), std::tuple("localhost:65535", "localhost", 65535)}) {
    const Result<HostPort> read = read_host_port("--x", text);
    ASSERT_TRUE(read) << text;
    EXPECT_EQ(read->host, host);
    EXPECT_EQ(read->port, port);
  }
  for (const char* bad : {"", "9090", ":9090", "::1:9090", "host:", "host:65536", "host:-1", "[::1]", "host:port"}) {
    const Result<HostPort> read = read_host_port("--x", bad);
    ASSERT_FALSE(read) << bad;
    EXPECT_THAT(read.error().message, HasSubstr("--x"));
  }
}

}  // namespace
}  // namespace lockstep::daemon
