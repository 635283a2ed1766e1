// Goal: a client that ends its sending side gets the answers to what it has sent; one that left for good is noticed at once, though both begin alike.
// Method: a real server on a loopback port and on a Unix socket; handlers that keep their exchange. Pings of the server's own are an hour away.
#include <filesystem>
#include <future>
#include <string>

#include <fmt/format.h>

#include "tests/unit/daemon/support/server_fixture.hpp"

namespace lockstep::daemon::testing {
namespace {

using std::chrono_literals::operator""h;
using std::chrono_literals::operator""s;

class EndOfInput : public ServerFixture {
 protected:
  EndOfInput() {
    std::string name = (std::filesystem::temp_directory_path() / "lockstep-end-XXXXXX").string();
    folder_ = ::mkdtemp(name.data());
  }
  ~EndOfInput() override { std::filesystem::remove_all(folder_); }

  void open(const std::filesystem::path& unix_socket = {}) {
    const Handler page = [](const std::shared_ptr<Exchange>& exchange) { exchange->respond({.content_type = "text/plain", .body = "page"}); };
    const Handler later = [this](const std::shared_ptr<Exchange>& exchange) { keep(exchange); };
    const Handler stream = [this](const std::shared_ptr<Exchange>& exchange) {
      exchange->begin_stream({.content_type = "text/event-stream"});
      static_cast<void>(exchange->write("first"));
      keep(exchange);
    };
    HttpServerOptions options{.unix_socket = unix_socket};
    options.limits.stream_ping = 1h;
    serve_with(true, options, {{"/page", "GET", page}, {"/later", "GET", later}, {"/stream", "GET", stream}});
  }
  void keep(const std::shared_ptr<Exchange>& exchange) {
    kept_ = exchange;
    kept_->on_abandoned([this] { left_.set_value(); });
    begun_.set_value();
  }
  /// Sends a request for `target` and waits until its handler has seen it.
  void ask(HttpClient& client, std::string_view target, std::string_view version = "HTTP/1.1") {
    client.send(fmt::format("GET {} {}\r\nHost: t\r\n\r\n", target, version));
    ASSERT_EQ(begun_.get_future().wait_for(20s), std::future_status::ready);
  }
  [[nodiscard]] bool noticed_that_it_left() { return left_.get_future().wait_for(20s) == std::future_status::ready; }
  void TearDown() override {
    ServerFixture::TearDown();
    kept_.reset();
  }

  std::filesystem::path folder_;
  std::shared_ptr<Exchange> kept_;
  std::promise<void> begun_;
  std::promise<void> left_;
};

TEST_F(EndOfInput, AnswerThatComesLaterReachesAClientThatSendsNoMore) {
  open();
  HttpClient client(port_);
  ask(client, "/later");
  client.end_sending();
  EXPECT_EQ(client.read_response().status, 100) << "by which a client that left would be noticed";
  on_asio([this] { kept_->respond({.body = "late"}); });
  const ClientResponse response = client.read_response();
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.body, "late");
  EXPECT_EQ(response.headers.at("connection"), "close");
  EXPECT_TRUE(client.read_end());
}

TEST_F(EndOfInput, StreamGoesOnToItsEnd) {
  open();
  HttpClient client(port_);
  ask(client, "/stream");
  client.end_sending();
  EXPECT_NE(client.read_until(": ping\n\n"), "") << "by which a client that left would be noticed";
  on_asio([this] {
    static_cast<void>(kept_->write("second"));
    kept_->finish();
  });
  EXPECT_NE(client.read_until("second\r\n0\r\n\r\n"), "");
  EXPECT_TRUE(client.read_end());
}

TEST_F(EndOfInput, Http10ClientThatLeavesAUnixSocketIsNoticedAtOnce) {
  open(folder_ / "socket");
  HttpClient client(folder_ / "socket");
  ask(client, "/later", "HTTP/1.0");
  client.close();
  EXPECT_TRUE(noticed_that_it_left());
}

TEST_F(EndOfInput, Http10ClientGetsItsAnswerAndNothingBeforeIt) {
  open(folder_ / "socket");
  HttpClient client(folder_ / "socket");
  ask(client, "/later", "HTTP/1.0");
  client.end_sending();
  for (int turn = 0; turn < 10; ++turn) {  // the end has been there since before the first of them
    on_asio([] {});
  }
  on_asio([this] { kept_->respond({.body = "late"}); });
  EXPECT_EQ(client.read_response().body, "late");
  EXPECT_TRUE(client.read_end());
}

TEST_F(EndOfInput, EveryRequestSentBeforeItIsAnswered) {
  open();
  HttpClient client(port_);
  ask(client, "/later");
  client.send("GET /page HTTP/1.1\r\nHost: t\r\n\r\nGET /page HTTP/1.1\r\nHost: t\r\n\r\nGET /pa");
  client.end_sending();
  EXPECT_EQ(client.read_response().status, 100);
  on_asio([this] { kept_->respond({.body = "late"}); });
  EXPECT_EQ(client.read_response().body, "late");
  EXPECT_EQ(client.read_response().body, "page");
  EXPECT_EQ(client.read_response().body, "page");
  EXPECT_TRUE(client.read_end()) << "the third is not whole, and never will be";
}

TEST_F(EndOfInput, ClientThatLeavesWhileItsAnswerIsComputedIsNoticedAtOnce) {
  open();
  HttpClient client(port_);
  ask(client, "/later");
  client.close();
  EXPECT_TRUE(noticed_that_it_left());
}

TEST_F(EndOfInput, ClientThatLeavesASilentStreamIsNoticedAtOnce) {
  open();
  HttpClient client(port_);
  ask(client, "/stream");
  client.read_until("first");
  client.close();
  EXPECT_TRUE(noticed_that_it_left());
}

TEST_F(EndOfInput, ClientThatLeavesAfterItsSendingSideHasEndedIsNoticedAtOnce) {
  open();
  HttpClient client(port_);
  ask(client, "/later");
  client.end_sending();
  EXPECT_EQ(client.read_response().status, 100);
  client.reset();
  EXPECT_TRUE(noticed_that_it_left());
}

}  // namespace
}  // namespace lockstep::daemon::testing
