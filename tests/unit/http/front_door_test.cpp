// Goal: what a request's head alone decides is decided before its body; answers are told to browsers as configured; one turn of the event loop is one send.
// Method: a real server on a loopback port and a client that sends bytes, as in http_server_test.cpp; sends are counted by an observer.
#include <atomic>
#include <malloc.h>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "daemon/http/access/cors.hpp"
#include "tests/unit/daemon/support/server_fixture.hpp"

namespace lockstep::daemon::testing {
namespace {

using std::chrono_literals::operator""ms;

class CountingObserver final : public HttpObserver {
 public:
  void on_sent(std::size_t bytes) override {
    ++sends;
    sent_bytes += bytes;
  }
  void on_response(const ResponseFacts& facts) override {
    last_route = facts.route;
    last_method = facts.method;
    last_status = facts.status;
    last_bytes = facts.bytes;
    last_remote = facts.remote;
  }
  // Read on the Asio thread.
  std::size_t sends = 0;
  std::size_t sent_bytes = 0;
  std::string last_route;
  std::string last_method;
  std::string last_remote;
  std::size_t last_bytes = 0;
  int last_status = 0;
};

class FrontDoor : public ServerFixture {
 protected:
  void open(HttpServerOptions options = {}, ApiKeys keys = {}) {
    const Handler page = [](const std::shared_ptr<Exchange>& exchange) { exchange->respond({.content_type = "text/plain", .body = "page"}); };
    const Handler size = [](const std::shared_ptr<Exchange>& exchange) { exchange->respond({.body = std::to_string(exchange->request().body.size())}); };
    const Handler never = [this](const std::shared_ptr<Exchange>& exchange) {
      kept_ = exchange;
      exchange->on_abandoned([this] { ++abandoned_; });
    };
    const Handler stream = [this](const std::shared_ptr<Exchange>& exchange) {
      kept_ = exchange;
      exchange->on_abandoned([this] { ++abandoned_; });
      exchange->begin_stream({.content_type = "text/event-stream"});
      static_cast<void>(exchange->write("first"));
    };
    options.observers.push_back(&observer_);
    serve_with(true, std::move(options),
               {{"/probe", "GET", page, Access::kOpen}, {"/page", "GET", page}, {"/size", "POST", size}, {"/never", "GET", never}, {"/stream", "GET", stream}},
               std::move(keys));
  }
  void TearDown() override {
    ServerFixture::TearDown();
    kept_.reset();
  }

  /// Twice around: the first task may come between a send and the word that it is done, the second cannot.
  std::size_t sends() {
    on_asio([] {});
    return on_asio([this] { return observer_.sends; });
  }

  CountingObserver observer_;
  std::shared_ptr<Exchange> kept_;
  int abandoned_ = 0;
};

TEST_F(FrontDoor, RequestWithoutAKeyIsRefusedBeforeItsBodyIsRead) {
  open({}, *ApiKeys::create({"secret"}));
  HttpClient large(port_);
  large.send("POST /size HTTP/1.1\r\nHost: t\r\nContent-Length: 1000000\r\n\r\n");
  const ClientResponse refused = large.read_response();
  EXPECT_EQ(refused.status, 401);
  EXPECT_EQ(refused.headers.at("www-authenticate"), "Bearer");
  EXPECT_EQ(refused.headers.at("connection"), "close") << "where the next request begins is not known";
  HttpClient waiting(port_);
  waiting.send("POST /size HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(waiting.read_response().status, 401) << "not 100";
  HttpClient small(port_);
  EXPECT_EQ(small.post("/size", "abc").status, 401);
  EXPECT_EQ(small.get("/probe").status, 200) << "the same connection goes on";
  small.send("POST /size HTTP/1.1\r\nHost: t\r\nAuthorization: bearer secret\r\nContent-Length: 3\r\n\r\nabc");
  EXPECT_EQ(small.read_response().body, "3");
}

TEST_F(FrontDoor, KeyInATrailerCountsForNothing) {
  open({}, *ApiKeys::create({"secret"}));
  HttpClient client(port_);
  client.send("POST /size HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nAuthorization: Bearer secret\r\n\r\n");
  EXPECT_EQ(client.read_response().status, 401);
}

TEST_F(FrontDoor, UnknownExpectationIs417AndACompressedBodyIs415) {
  open();
  HttpClient expecting(port_);
  expecting.send("POST /size HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\nExpect: a-miracle\r\n\r\nabc");
  EXPECT_EQ(expecting.read_response().status, 417);
  HttpClient expecting_more(port_);
  expecting_more.send("POST /size HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\nExpect: 100-continue\r\nExpect: a-miracle\r\n\r\nabc");
  EXPECT_EQ(expecting_more.read_response().status, 417);
  for (const char* coding : {"gzip", "identity, gzip", "identity\r\nContent-Encoding: gzip", "gzip\r\nContent-Encoding: identity"}) {
    HttpClient compressed(port_);
    compressed.send("POST /size HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\nContent-Encoding: " + std::string(coding) + "\r\n\r\nabc");
    EXPECT_EQ(compressed.read_response().status, 415) << coding;
  }
  HttpClient plain(port_);
  plain.send("POST /size HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\nContent-Encoding: identity\r\n\r\nabc");
  EXPECT_EQ(plain.read_response().status, 200);
}

TEST_F(FrontDoor, Http10ClientIsNotSentAContinue) {
  open();
  HttpClient client(port_);
  client.send("POST /size HTTP/1.0\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabc");
  EXPECT_EQ(client.read_response().status, 200);
}

TEST_F(FrontDoor, OptionsTellsTheMethodsAndHasNoBody) {
  open();
  HttpClient client(port_);
  client.send("OPTIONS /size HTTP/1.1\r\nHost: t\r\n\r\n");
  const ClientResponse response = client.read_response(true);
  EXPECT_EQ(response.status, 204);
  EXPECT_EQ(response.headers.at("allow"), "POST, OPTIONS");
  EXPECT_FALSE(response.headers.contains("content-length"));
  EXPECT_FALSE(response.headers.contains("access-control-allow-origin")) << "no origin is allowed unless it is said";
  EXPECT_EQ(client.get("/page").body, "page");
}

TEST_F(FrontDoor, PageOfAnAllowedOriginMayAskAndReadAndAnotherMayNot) {
  open({.cors_origins = {"https://a.example", "https://b.example"}}, *ApiKeys::create({"secret"}));
  HttpClient client(port_);
  client.send(
      "OPTIONS /size HTTP/1.1\r\nHost: t\r\nOrigin: https://b.example\r\nAccess-Control-Request-Method: POST\r\n"
      "Access-Control-Request-Headers: authorization,x-stainless-os\r\n\r\n");
  const ClientResponse preflight = client.read_response(true);
  EXPECT_EQ(preflight.status, 204) << "browsers send no key with it";
  EXPECT_EQ(preflight.headers.at("access-control-allow-origin"), "https://b.example");
  EXPECT_EQ(preflight.headers.at("access-control-allow-headers"), "authorization,x-stainless-os");
  EXPECT_EQ(preflight.headers.at("vary"), "Origin");
  client.send("GET /page HTTP/1.1\r\nHost: t\r\nOrigin: https://b.example\r\n\r\n");
  const ClientResponse refused = client.read_response();
  EXPECT_EQ(refused.status, 401);
  EXPECT_EQ(refused.headers.at("access-control-allow-origin"), "https://b.example") << "a page must be able to read why";
  for (const char* other : {"https://c.example", "null", "https://a.example.evil", "https://A.example"}) {
    client.send("GET /probe HTTP/1.1\r\nHost: t\r\nOrigin: " + std::string(other) + "\r\n\r\n");
    const ClientResponse response = client.read_response();
    EXPECT_FALSE(response.headers.contains("access-control-allow-origin")) << other;
    EXPECT_EQ(response.headers.at("vary"), "Origin") << other;
  }
}

TEST_F(FrontDoor, ARefusalIsReportedUnderTheRouteThatWasAskedForWhereThatIsKnown) {
  HttpLimits limits;
  limits.body_bytes = 1000;
  limits.header_bytes = 2000;
  open({.limits = limits, .host_names = HostNames(std::vector<std::string>{})}, *ApiKeys::create({"secret"}));
  struct Refused {
    std::string request;
    int status;
    std::string route;
    std::string method;
  };
  const std::string key = "Host: localhost\r\nAuthorization: Bearer secret\r\n";
  const std::vector<Refused> all{{"POST /size HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", 401, "/size", "POST"},
                                 {"POST /size HTTP/1.1\r\n" + key + "Content-Length: 1001\r\n\r\n", 413, "/size", "POST"},
                                 {"POST /size HTTP/1.1\r\n" + key + "Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc", 415, "/size", "POST"},
                                 {"POST /size HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 0\r\n\r\n", 403, "/size", "POST"},
                                 {"POST /siz HTTP/1.1\r\n" + key + "Content-Length: 1001\r\n\r\n", 413, "none", "POST"},
                                 {"GET /page HTTP/1.1\r\n" + key + "X-Long: " + std::string(3000, 'x') + "\r\n\r\n", 431, "none", "none"},
                                 {"no HTTP\r\n\r\n", 400, "none", "none"}};
  for (const Refused& refused : all) {
    HttpClient client(port_);
    client.send(refused.request);
    EXPECT_EQ(client.read_response().status, refused.status);
    EXPECT_EQ(on_asio([this] { return observer_.last_status; }), refused.status);
    EXPECT_EQ(on_asio([this] { return observer_.last_route; }), refused.route) << refused.status;
    EXPECT_EQ(on_asio([this] { return observer_.last_method; }), refused.method) << refused.status;
  }
}

TEST_F(FrontDoor, RefusalBeforeARouteHasTheClientsIdAndMayBeReadByItsPage) {
  HttpLimits limits;
  limits.body_bytes = 1000;
  open({.limits = limits, .cors_origins = {"https://a.example"}});
  const std::vector<std::pair<std::string, int>> heads{{"Content-Length: 1001\r\n", 413}, {"Content-Length: 4\r\nExpect: 200-ok\r\n", 417}};
  for (const auto& [headers, status] : heads) {
    HttpClient client(port_);
    client.send("POST /size HTTP/1.1\r\nHost: t\r\nOrigin: https://a.example\r\nx-request-id: mine\r\n" + headers + "\r\n");
    const ClientResponse refused = client.read_response();
    EXPECT_EQ(refused.status, status);
    EXPECT_EQ(refused.headers.at("x-request-id"), "mine") << status;
    EXPECT_EQ(refused.headers.at("access-control-allow-origin"), "https://a.example") << status;
  }
  HttpClient client(port_);
  client.send("GET /page HTTP/1.1\r\nHost: t\r\nx-request-id: mine\r\n\r\n");
  EXPECT_EQ(client.read_response().headers.at("x-request-id"), "mine");
  client.send("no HTTP\r\n\r\n");
  const ClientResponse malformed = client.read_response();
  EXPECT_EQ(malformed.status, 400);
  EXPECT_NE(malformed.headers.at("x-request-id"), "mine") << "the last request's";
  EXPECT_NE(malformed.headers.at("x-request-id"), "none");
}

TEST_F(FrontDoor, StreamAndItsPiecesOfOneTurnAreOneSend) {
  open();
  HttpClient client(port_);
  client.send("GET /stream HTTP/1.1\r\nHost: t\r\n\r\n");
  client.read_until("first");
  EXPECT_EQ(sends(), 1U) << "head and first piece";
  on_asio([this] {
    for (int i = 0; i < 20; ++i) {
      static_cast<void>(kept_->write("piece " + std::to_string(i)));
    }
  });
  client.read_until("piece 19");
  EXPECT_EQ(sends(), 2U);
  on_asio([this] {
    static_cast<void>(kept_->write("last"));
    kept_->finish();
  });
  client.read_until("0\r\n\r\n");
  EXPECT_EQ(sends(), 3U);
  EXPECT_EQ(on_asio([this] { return observer_.last_bytes; }), on_asio([this] { return observer_.sent_bytes; }));
}

TEST_F(FrontDoor, WholeAnswerIsOneSend) {
  open();
  HttpClient client(port_);
  for (std::size_t i = 1; i <= 3; ++i) {
    EXPECT_EQ(client.get("/page").body, "page");
    EXPECT_EQ(sends(), i);
  }
  EXPECT_EQ(on_asio([this] { return observer_.last_route; }), "/page");
  EXPECT_EQ(on_asio([this] { return observer_.last_remote; }).substr(0, 10), "127.0.0.1:");
}

TEST_F(FrontDoor, EmptyPieceDoesNotEndAStream) {
  open();
  HttpClient client(port_);
  client.send("GET /stream HTTP/1.1\r\nHost: t\r\n\r\n");
  client.read_until("first");
  EXPECT_TRUE(on_asio([this] { return kept_->write(""); }));
  on_asio([this] { static_cast<void>(kept_->write("second")); });
  const std::string bytes = client.read_until("second");
  EXPECT_EQ(bytes.find("0\r\n\r\n"), std::string::npos);
}

TEST_F(FrontDoor, AnswerThatTakesTooLongIs504AndItsHandlerIsTold) {
  HttpLimits limits;
  limits.request_timeout = 40ms;
  open({.limits = limits});
  HttpClient client(port_);
  const ClientResponse response = client.get("/never");
  EXPECT_EQ(response.status, 504);
  EXPECT_NE(response.body.find("request_timeout"), std::string::npos);
  EXPECT_EQ(on_asio([this] { return abandoned_; }), 1);
  on_asio([this] { kept_->respond({.body = "late"}); });
  EXPECT_EQ(client.get("/page").body, "page") << "the connection goes on, and the late answer is gone";
}

TEST_F(FrontDoor, StreamThatTakesTooLongEndsWithAnErrorEvent) {
  HttpLimits limits;
  limits.request_timeout = 40ms;
  open({.limits = limits});
  HttpClient client(port_);
  client.send("GET /stream HTTP/1.1\r\nHost: t\r\n\r\n");
  const std::string body = client.read_until("0\r\n\r\n");
  EXPECT_NE(body.find("data: {\"error\""), std::string::npos);
  EXPECT_EQ(on_asio([this] { return abandoned_; }), 1);
  EXPECT_FALSE(on_asio([this] { return kept_->write("late"); }));
}

TEST_F(FrontDoor, RequestsSentAheadAreKeptUpToABoundAndAllAnswered) {
  open();
  HttpClient client(port_);
  std::string many;
  constexpr int kCount = 5000;  // 150 KB: more than a connection keeps
  for (int i = 0; i < kCount; ++i) {
    many += "GET /page HTTP/1.1\r\nHost: t\r\n\r\n";
  }
  std::jthread sender([&] { client.send(many); });
  for (int i = 0; i < kCount; ++i) {
    ASSERT_EQ(client.read_response().body, "page") << i;
  }
}

TEST_F(FrontDoor, KeysMayBeReplacedWhileItRuns) {
  open({}, *ApiKeys::create({"old"}));
  HttpClient client(port_);
  on_asio([this] { server_->set_keys(*ApiKeys::create({"new"})); });
  client.send("GET /page HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer old\r\n\r\n");
  EXPECT_EQ(client.read_response().status, 401);
  client.send("GET /page HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer new\r\n\r\n");
  EXPECT_EQ(client.read_response().status, 200);
}

TEST(CorsOrigin, HasTheFormThatBrowsersSend) {
  for (const char* good : {"*", "https://a.example", "http://localhost:3000", "http://[::1]:8080"}) {
    EXPECT_TRUE(check_cors_origin(good)) << good;
  }
  for (const char* bad : {"", "a.example", "https://", "https://a.example/", "https://A.example", "ftp://a", "https://a b", "https://:80"}) {
    EXPECT_FALSE(check_cors_origin(bad)) << bad;
  }
}

class LargeAnswers : public ServerFixture {
 protected:
  void open(HttpLimits limits) {
    const Handler large = [](const std::shared_ptr<Exchange>& exchange) { exchange->respond({.content_type = "image/x", .body = lines()}); };
    const Handler stream = [](const std::shared_ptr<Exchange>& exchange) {
      exchange->begin_stream({.content_type = "text/event-stream"});
      static_cast<void>(exchange->write(lines()));
      exchange->finish();
    };
    serve(true, limits, {{"/large", "GET", large}, {"/stream", "GET", stream}});
  }
  static std::string lines() {
    std::string text;
    for (std::size_t i = 0; i < kLines; ++i) {
      text.append(kLineBytes - 1, 'x') += '\n';
    }
    return text;
  }
  /// Reads an answer of lines without keeping it: the number of lines.
  static std::size_t read_lines(HttpClient& client) {
    std::size_t count = 0;
    while (count < kLines && client.read_until("\n").size() == kLineBytes) {
      ++count;
    }
    return count;
  }
  static constexpr std::size_t kLineBytes = 4096;
  static constexpr std::size_t kLines = 4096;
  static constexpr std::size_t kBytes = kLineBytes * kLines;  // more than socket buffers take
};

TEST_F(LargeAnswers, ThatNobodyReadsAreBoundedTogether) {
  HttpLimits limits;
  limits.answer_bytes = 2 * kBytes;
  open(limits);
  HttpClient first(port_);
  HttpClient second(port_);
  for (HttpClient* unread : {&first, &second}) {
    unread->send("GET /large HTTP/1.1\r\nHost: t\r\n\r\n");
    EXPECT_NE(unread->read_until("\r\n\r\n").find(" 200 "), std::string::npos);
  }
  HttpClient third(port_);
  const ClientResponse refused = third.get("/large");
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.headers.at("retry-after"), "1");
  EXPECT_EQ(third.get("/v1/none").status, 404) << "small answers go on";
  EXPECT_EQ(read_lines(first), kLines);
  EXPECT_EQ(first.get("/large").status, 200) << "its own room is free again";
}

TEST_F(LargeAnswers, LeaveNothingInAnIdleConnection) {
  open({});
  std::vector<std::unique_ptr<HttpClient>> idle;
  const auto used = [] {
    const struct mallinfo2 facts = ::mallinfo2();  // counts nothing under a sanitizer
    return facts.uordblks + facts.hblkhd;
  };
  const std::size_t before = used();
  for (int i = 0; i < 8; ++i) {
    idle.push_back(std::make_unique<HttpClient>(port_));
    idle.back()->send("GET /large HTTP/1.1\r\nHost: t\r\n\r\n");
    idle.back()->read_until("\r\n\r\n");
    EXPECT_EQ(read_lines(*idle.back()), kLines);
  }
  for (const auto& client : idle) {
    EXPECT_EQ(client->get("/v1/none").status, 404);
  }
  EXPECT_LT(on_asio(used), before + 8 * kBytes / 2);
}

TEST_F(LargeAnswers, OnePieceOfAStreamMayBeLargerThanWhatMayWait) {
  open({});
  HttpClient client(port_);
  EXPECT_EQ(client.get("/stream").body.size(), kBytes);
}

}  // namespace
}  // namespace lockstep::daemon::testing
