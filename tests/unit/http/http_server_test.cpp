// Goal: the server keeps HTTP's rules and its own bounds, whatever a client sends.
// Method: a real server on a loopback port and a client that sends bytes; limits are set low.
#include <atomic>
#include <string>

#include "tests/unit/daemon/support/server_fixture.hpp"

namespace lockstep::daemon::testing {
namespace {

using std::chrono_literals::operator""ms;
using std::chrono_literals::operator""s;

class HttpServerTest : public ServerFixture {
 protected:
  void serve_pages(HttpLimits limits = {}) {
    const Handler page = [](const std::shared_ptr<Exchange>& exchange) { exchange->respond({.content_type = "text/plain", .body = "page"}); };
    const Handler size = [](const std::shared_ptr<Exchange>& exchange) { exchange->respond({.body = std::to_string(exchange->request().body.size())}); };
    const Handler never = [this](const std::shared_ptr<Exchange>& exchange) { kept_ = exchange; };
    const Handler stream = [this](const std::shared_ptr<Exchange>& exchange) {
      kept_ = exchange;
      exchange->begin_stream({.content_type = "text/event-stream"});
      static_cast<void>(exchange->write("first"));
    };
    serve(true, limits, {{"/page", "GET", page}, {"/size", "POST", size}, {"/never", "GET", never}, {"/stream", "GET", stream}});
  }
  void TearDown() override {
    ServerFixture::TearDown();
    kept_.reset();
  }
  static std::string chunked_post(std::string_view chunks) {
    return "POST /size HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n" + std::string(chunks);
  }

  std::shared_ptr<Exchange> kept_;
};

TEST_F(HttpServerTest, ConnectionStaysOpenForMoreRequests) {
  serve_pages();
  HttpClient client(port_);
  for (int i = 0; i < 3; ++i) {
    const ClientResponse response = client.get("/page?query=1");
    EXPECT_EQ(response.status, 200);
    EXPECT_EQ(response.body, "page");
    EXPECT_EQ(response.headers.at("connection"), "keep-alive");
  }
  EXPECT_EQ(on_asio([this] { return server_->connection_count(); }), 1U);
}

TEST_F(HttpServerTest, ConnectionIsClosedWhenTheClientAsks) {
  serve_pages();
  HttpClient client(port_);
  client.send("GET /page HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(client.read_response().headers.at("connection"), "close");
  EXPECT_TRUE(client.read_end());
}

TEST_F(HttpServerTest, PipelinedRequestsAreAnsweredInOrder) {
  serve_pages();
  HttpClient client(port_);
  client.send("GET /page HTTP/1.1\r\nHost: t\r\n\r\nGET /nowhere HTTP/1.1\r\nHost: t\r\n\r\nGET /page HTTP/1.1\r\nHost: t\r\n\r\n");
  EXPECT_EQ(client.read_response().status, 200);
  EXPECT_EQ(client.read_response().status, 404);
  EXPECT_EQ(client.read_response().status, 200);
}

TEST_F(HttpServerTest, RequestSentWhileAnotherIsAnsweredIsServedAfterIt) {
  serve_pages();
  HttpClient client(port_);
  client.send("GET /stream HTTP/1.1\r\nHost: t\r\n\r\n");
  client.read_until("first");
  client.send("GET /page HTTP/1.1\r\nHost: t\r\n\r\n");
  on_asio([this] { kept_->finish(); });
  EXPECT_NE(client.read_until("\r\n0\r\n\r\n"), "");
  EXPECT_EQ(client.read_response().body, "page");
}

TEST_F(HttpServerTest, HeadHasTheLengthAndNoBody) {
  serve_pages();
  HttpClient client(port_);
  client.send("HEAD /page HTTP/1.1\r\nHost: t\r\n\r\n");
  EXPECT_EQ(client.read_response(true).headers.at("content-length"), "4");
  EXPECT_EQ(client.get("/page").body, "page") << "nothing of the first answer is left over";
}

TEST_F(HttpServerTest, UnknownPathIs404AndWrongMethodIs405WithAllow) {
  serve_pages();
  HttpClient client(port_);
  EXPECT_EQ(client.get("/nowhere").status, 404);
  EXPECT_EQ(client.get("/page/").status, 404);
  const ClientResponse wrong = client.post("/page", "x");
  EXPECT_EQ(wrong.status, 405);
  EXPECT_EQ(wrong.headers.at("allow"), "GET, HEAD, OPTIONS");
  EXPECT_NE(wrong.body.find(R"("error":{"message")"), std::string::npos);
  EXPECT_EQ(client.get("/size").headers.at("allow"), "POST, OPTIONS");
  client.send("HEAD /size HTTP/1.1\r\nHost: t\r\n\r\n");
  EXPECT_EQ(client.read_response(true).headers.at("allow"), "POST, OPTIONS");
}

TEST_F(HttpServerTest, BodyBeyondTheLimitIs413WithoutBeingRead) {
  HttpLimits limits;
  limits.body_bytes = 1000;
  serve_pages(limits);
  HttpClient announced(port_);
  announced.send("POST /size HTTP/1.1\r\nHost: t\r\nContent-Length: 1001\r\n\r\n");
  EXPECT_EQ(announced.read_response().status, 413);
  HttpClient chunked(port_);
  std::string chunks;
  for (int i = 0; i < 1001; ++i) {
    chunks += "1\r\nx\r\n";
  }
  chunked.send(chunked_post(chunks));
  EXPECT_EQ(chunked.read_response().status, 413);
  HttpClient exact(port_);
  EXPECT_EQ(exact.post("/size", std::string(1000, 'x')).body, "1000");
}

TEST_F(HttpServerTest, AClientThatSendsABodyFarBeyondTheLimitBeforeItReadsGetsItsAnswer) {
  HttpLimits limits;
  limits.body_bytes = 1000;
  serve_pages(limits);
  constexpr std::size_t kBytes = std::size_t{24} << 20;  // more than the buffers of both sides hold
  HttpClient client(port_);
  EXPECT_TRUE(client.send("POST /size HTTP/1.1\r\nHost: t\r\nContent-Length: " + std::to_string(kBytes) + "\r\n\r\n" + std::string(kBytes, 'x')));
  EXPECT_EQ(client.read_response().status, 413);
}

TEST_F(HttpServerTest, ManyTinyChunksAreOneBody) {
  serve_pages();
  HttpClient client(port_);
  std::string chunks;
  for (int i = 0; i < 50'000; ++i) {
    chunks += "1\r\nx\r\n";
  }
  client.send(chunked_post(chunks + "0\r\n\r\n"));
  EXPECT_EQ(client.read_response().body, "50000");
}

TEST_F(HttpServerTest, MoreChunksThanAllowedAre413HoweverSmallTheyAre) {
  HttpLimits limits;
  limits.chunks = 1000;
  serve_pages(limits);
  std::string chunks;
  for (int i = 0; i < 1000; ++i) {
    chunks += "1\r\nx\r\n";
  }
  HttpClient exact(port_);
  exact.send(chunked_post(chunks + "0\r\n\r\n"));
  EXPECT_EQ(exact.read_response().status, 413) << "the last one counts too";
  HttpClient fewer(port_);
  fewer.send(chunked_post(chunks.substr(6) + "0\r\n\r\n"));
  EXPECT_EQ(fewer.read_response().body, "999");
  HttpClient millions(port_);
  std::string more;
  for (int i = 0; i < 1'000'000; ++i) {
    more += "1\r\nx\r\n";
  }
  millions.send(chunked_post(more));
  const ClientResponse response = millions.read_response();
  EXPECT_EQ(response.status, 413);
  EXPECT_NE(response.body.find("too_many_chunks"), std::string::npos);
}

TEST_F(HttpServerTest, ChunkExtensionsAndTrailersAreBoundedAndCountForNothing) {
  serve_pages();
  HttpClient extension(port_);
  extension.send(chunked_post("3;" + std::string(100'000, 'e')));
  EXPECT_EQ(extension.read_response().status, 431);
  HttpClient trailer(port_);
  trailer.send(chunked_post("3\r\nabc\r\n0\r\n" + std::string(100'000, 't')));
  EXPECT_EQ(trailer.read_response().status, 431);
  HttpClient sound(port_);
  sound.send(chunked_post("3;name=value\r\nabc\r\n0\r\nx-trailer: 1\r\n\r\n"));
  EXPECT_EQ(sound.read_response().body, "3");
  EXPECT_EQ(sound.get("/page").body, "page") << "the trailer is read to its end";
}

TEST_F(HttpServerTest, HeaderBeyondTheLimitIs431) {
  serve_pages();
  HttpClient client(port_);
  client.send("GET /page HTTP/1.1\r\nX: " + std::string(20'000, 'a') + "\r\n\r\n");
  EXPECT_EQ(client.read_response().status, 431);
  HttpClient many(port_);
  std::string headers;
  for (int i = 0; i < 10'000; ++i) {
    headers += "a: b\r\n";
  }
  many.send("GET /page HTTP/1.1\r\n" + headers + "\r\n");
  EXPECT_EQ(many.read_response().status, 431);
}

TEST_F(HttpServerTest, WhatIsNotHttpIs400) {
  serve_pages();
  for (const char* text : {"hello\r\n\r\n",
                           "GET /page HTTP/9.9\r\n\r\n",
                           "GET  HTTP/1.1\r\n\r\n",
                           "GET /page HTTP/1.1\r\nno colon\r\n\r\n",
                           "POST /size HTTP/1.1\r\nHost: t\r\nContent-Length: -1\r\n\r\n",
                           "POST /size HTTP/1.1\r\nHost: t\r\nContent-Length: 99999999999999999999999\r\n\r\n",
                           "POST /size HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
                           "POST /size HTTP/1.1\r\nHost: t\r\nContent-Length : 1\r\n\r\n",
                           "GET /page HTTP/1.1\r\n\r\n",
                           "GET /page HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
                           "GET /page HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n",
                           "POST /size HTTP/1.1\r\nHost: t\r\nContent-Type: text/plain\r\nContent-Type: application/json\r\nContent-Length: 0\r\n\r\n",
                           "\nGET /page HTTP/1.1\r\nHost: t\r\n\r\n",
                           "\r\rGET /page HTTP/1.1\r\nHost: t\r\n\r\n",
                           "GET /page HTTP/1.1\r\nHost: a b\r\n\r\n",
                           "GET /page HTTP/1.1\r\nHost: a@b\r\n\r\n",
                           "GET /page HTTP/1.1\r\nHost: a/b\r\n\r\n",
                           "GET /page HTTP/1.1\r\nHost: t\r\nX: a\r\n b\r\n\r\n",
                           "GET /page HTTP/1.1\r\nHost: t\r\nX: a\r\n\tb\r\n\r\n",
                           "GET /page HTTP/1.1\r\nHost: t\r\nTransfer-Encoding:\r\n chunked\r\n\r\n",
                           "GET /page HTTP/1.1\r\n Host: t\r\n\r\n",
                           "GET /page HTTP/1.1\r\nHost: a\r\nX: a\x01"
                           "b\r\n\r\n",
                           "POST /size HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                           "POST /size HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                           "POST /size HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
                           "POST /size HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"}) {
    HttpClient client(port_);
    client.send(text);
    const int status = client.read_response().status;
    EXPECT_TRUE(status == 400 || status == 413) << text << " " << status;
    EXPECT_TRUE(client.read_end()) << text;
  }
}

TEST_F(HttpServerTest, ContinueIsSentToAClientThatWaitsForIt) {
  serve_pages();
  HttpClient client(port_);
  client.send("POST /size HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(client.read_response().status, 100);
  client.send("abc");
  EXPECT_EQ(client.read_response().body, "3");
}

TEST_F(HttpServerTest, ContinueIsSentHoweverItsNameIsWritten) {
  serve_pages();
  HttpClient client(port_);
  client.send("POST /size HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\nExpect: 100-Continue\r\n\r\n");
  EXPECT_EQ(client.read_response().status, 100);
}

TEST_F(HttpServerTest, BodyWhoseLengthNobodyKnowsIsRefusedAndWhatFollowsIsNotReadAsARequest) {
  serve_pages();
  for (const char* coding : {"identity", "xchunked", "gzip, chunked", "chunked, gzip", "gzip", "chunked\r\nTransfer-Encoding: chunked"}) {
    HttpClient client(port_);
    client.send("POST /size HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: " + std::string(coding) + "\r\n\r\nGET /page HTTP/1.1\r\nHost: t\r\n\r\n");
    const int status = client.read_response().status;
    EXPECT_TRUE(status == 501 || status == 400) << coding << " " << status;
    EXPECT_TRUE(client.read_end()) << coding;
  }
  HttpClient client(port_);
  client.send("POST /size HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
  EXPECT_EQ(client.read_response().body, "3");
}

TEST_F(HttpServerTest, TargetMayNameTheServerAsProxiesDo) {
  serve_pages();
  HttpClient client(port_);
  EXPECT_EQ(client.get("http://localhost:8000/page").body, "page");
  EXPECT_EQ(client.get("HTTP://[::1]/page?query=1").body, "page");
  EXPECT_EQ(client.get("http://localhost").status, 404);
  EXPECT_EQ(client.get("http:///page").body, "page");
  EXPECT_EQ(client.get("ftp://localhost/page").status, 404);
}

TEST_F(HttpServerTest, RequestThatDoesNotArriveInTimeIs408) {
  HttpLimits limits;
  limits.read_timeout = 40ms;
  serve_pages(limits);
  HttpClient header(port_);
  header.send("GET /page HT");
  EXPECT_EQ(header.read_response().status, 408);
  HttpClient body(port_);
  body.send("POST /size HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nabc");
  EXPECT_EQ(body.read_response().status, 408);
}

TEST_F(HttpServerTest, EmptyLinesBeforeARequestAreIgnored) {
  serve_pages();
  HttpClient client(port_);
  client.send("\r\nGET /page HTTP/1.1\r\nHost: t\r\n\r\n");
  EXPECT_EQ(client.read_response().body, "page");
  client.send("POST /size HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc\r\n\r\n\r\nGET /page HTTP/1.1\r\nHost: t\r\n\r\n\r");
  EXPECT_EQ(client.read_response().body, "3");
  EXPECT_EQ(client.read_response().body, "page");
  client.send("\n");
  EXPECT_EQ(client.get("/page").body, "page");
}

TEST_F(HttpServerTest, ConnectionWithNothingButAnEmptyLineIsIdleAndNotLate) {
  HttpLimits limits;
  limits.read_timeout = 20ms;
  limits.idle_timeout = 60ms;
  serve_pages(limits);
  for (const char* text : {"\r\n", "\r"}) {
    HttpClient client(port_);
    client.send(text);
    EXPECT_TRUE(client.read_end()) << "no 408: nobody has asked for anything";
  }
}

TEST_F(HttpServerTest, HalfAnEmptyLineBeforeTheEndEndsTheConnection) {
  serve_pages();
  HttpClient client(port_);
  client.send("POST /size HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc\r");
  EXPECT_EQ(client.read_response().body, "3");
  client.end_sending();
  EXPECT_TRUE(client.read_end());
}

TEST_F(HttpServerTest, IdleConnectionIsClosed) {
  HttpLimits limits;
  limits.idle_timeout = 40ms;
  serve_pages(limits);
  HttpClient client(port_);
  EXPECT_TRUE(client.read_end());
}

TEST_F(HttpServerTest, ConnectionBeyondTheLimitGets503) {
  HttpLimits limits;
  limits.connections = 2;
  serve_pages(limits);
  HttpClient first(port_);
  HttpClient second(port_);
  EXPECT_EQ(first.get("/page").status, 200);
  EXPECT_EQ(second.get("/page").status, 200);
  HttpClient third(port_);
  EXPECT_EQ(third.read_response().status, 503);
  EXPECT_EQ(first.get("/page").status, 200);
}

TEST_F(HttpServerTest, LargeBodiesWaitingForTheirEndAreLimitedInNumber) {
  HttpLimits limits;
  limits.large_body_bytes = 100;
  limits.large_bodies = 1;
  serve_pages(limits);
  HttpClient first(port_);
  first.send("POST /size HTTP/1.1\r\nHost: t\r\nContent-Length: 200\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(first.read_response().status, 100);
  HttpClient second(port_);
  EXPECT_EQ(second.post("/size", std::string(200, 'x')).status, 503);
  HttpClient small(port_);
  EXPECT_EQ(small.post("/size", std::string(100, 'x')).status, 200);
  first.send(std::string(200, 'x'));
  EXPECT_EQ(first.read_response().body, "200");
  HttpClient third(port_);
  EXPECT_EQ(third.post("/size", std::string(200, 'x')).status, 200) << "the place is free again";
}

TEST_F(HttpServerTest, SilentStreamGetsPings) {
  HttpLimits limits;
  limits.stream_ping = 20ms;
  serve_pages(limits);
  HttpClient client(port_);
  client.send("GET /stream HTTP/1.1\r\nHost: t\r\n\r\n");
  EXPECT_NE(client.read_until(": ping\n\n"), "");
}

TEST_F(HttpServerTest, StreamToAnHttp10ClientEndsWithTheConnection) {
  serve_pages();
  HttpClient client(port_);
  client.send("GET /stream HTTP/1.0\r\n\r\n");
  EXPECT_NE(client.read_until("\r\n\r\nfirst"), "") << "no chunks";
  on_asio([this] { kept_->finish(); });
  EXPECT_TRUE(client.read_end());
}

TEST_F(HttpServerTest, HandlerIsToldOnceThatItsClientLeft) {
  serve_pages();
  HttpClient client(port_);
  client.send("GET /stream HTTP/1.1\r\nHost: t\r\n\r\n");
  client.read_until("first");
  std::promise<void> left;
  std::atomic<int> times{0};
  on_asio([&] {
    kept_->on_abandoned([&] {
      if (++times == 1) {
        left.set_value();
      }
    });
  });
  client.close();
  ASSERT_EQ(left.get_future().wait_for(20s), std::future_status::ready);
  EXPECT_FALSE(on_asio([this] { return kept_->write("more"); }));
  on_asio([this] { kept_->finish(); });
  EXPECT_EQ(times, 1);
  EXPECT_TRUE(on_asio([this] { return server_->idle(); }));
}

TEST_F(HttpServerTest, ClosingTheServerEndsOpenExchanges) {
  serve_pages();
  HttpClient client(port_);
  client.send("GET /stream HTTP/1.1\r\nHost: t\r\n\r\n");
  client.read_until("first");
  on_asio([this] { server_->close(); });
  EXPECT_TRUE(client.read_end());
}

TEST_F(HttpServerTest, HarmlessRequestIdIsEchoedAndAnotherReplaced) {
  serve_pages();
  HttpClient client(port_);
  client.send("GET /page HTTP/1.1\r\nHost: t\r\nx-request-id: abc-123\r\n\r\n");
  EXPECT_EQ(client.read_response().headers.at("x-request-id"), "abc-123");
  client.send("GET /page HTTP/1.1\r\nHost: t\r\nx-request-id: <b>\r\n\r\n");
  const ClientResponse replaced = client.read_response();
  EXPECT_EQ(replaced.headers.at("x-request-id").find('<'), std::string::npos);
  EXPECT_NE(client.get("/page").headers.at("x-request-id"), replaced.headers.at("x-request-id"));
}

TEST_F(HttpServerTest, PortInUseIsAnErrorThatNamesIt) {
  serve_pages();
  const auto second = HttpServer::open(io_, {.port = port_}, Router({}));
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(second.error().message.find(std::to_string(port_)), std::string::npos);
}

TEST_F(HttpServerTest, TwoServersShareOnePort) {
  serve_pages();
  const auto find_port = HttpServer::open(io_, {.port = 0}, Router({}));
  ASSERT_TRUE(find_port);
  const std::uint16_t shared = (*find_port)->port();
  (*find_port)->close();
  const auto first = HttpServer::open(io_, {.shared_port = shared}, Router({}));
  const auto second = HttpServer::open(io_, {.shared_port = shared}, Router({}));
  ASSERT_TRUE(first) << first.error().message;
  ASSERT_TRUE(second) << second.error().message;
  on_asio([&] {
    (*first)->close();
    (*second)->close();
  });
}

}  // namespace
}  // namespace lockstep::daemon::testing
