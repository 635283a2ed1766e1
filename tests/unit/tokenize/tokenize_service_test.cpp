// Goal: a large body is tokenized beside the Asio thread, a client that leaves meanwhile is no trouble, another content type is refused.
// Method: a real server with the two routes on loopback.
#include "daemon/api/tokenize/tokenize_service.hpp"

#include <atomic>
#include <memory>
#include <semaphore>
#include <string>
#include <utility>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/daemon/support/server_fixture.hpp"

namespace lockstep::daemon {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

class TokenizeServer : public testing::ServerFixture {
 protected:
  void serve_tokens() {
    tokens_ =
        TokenizeService::create(io_, {.context = {.api = {.served_names = {"tiny"}, .tokenizer = &tokenizer_}, .max_model_len = 9}, .inline_body_bytes = 64});
    serve(true, {},
          {{"/tokenize", "POST", [this](std::shared_ptr<Exchange> exchange) { tokens_->tokenize(std::move(exchange)); }},
           {"/detokenize", "POST", [this](std::shared_ptr<Exchange> exchange) { tokens_->detokenize(std::move(exchange)); }}});
  }
  void TearDown() override {
    ServerFixture::TearDown();
    tokens_.reset();
  }
  std::unique_ptr<TokenizeService> tokens_;
};

TEST_F(TokenizeServer, SmallAndLargeBodiesAreAnsweredAlike) {
  serve_tokens();
  testing::HttpClient client(port_);
  EXPECT_THAT(client.post("/tokenize", R"({"prompt":"ab"})").body, StartsWith(R"({"count":2,)"));
  const testing::ClientResponse large = client.post("/tokenize", R"({"prompt":")" + std::string(100'000, 'x') + R"("})");
  EXPECT_EQ(large.status, 200);
  EXPECT_THAT(large.body, StartsWith(R"({"count":100000,)"));
  EXPECT_THAT(client.post("/detokenize", R"({"tokens":[97)" + std::string(100, ' ') + "]}").body, HasSubstr(R"("a")"));
}

TEST_F(TokenizeServer, AnotherContentTypeIsRefused) {
  serve_tokens();
  testing::HttpClient client(port_);
  EXPECT_EQ(client.post("/tokenize", R"({"prompt":"ab"})", "text/plain").status, 415);
  client.send("POST /detokenize HTTP/1.1\r\nHost: test\r\nContent-Length: 13\r\n\r\n{\"tokens\":[]}");
  EXPECT_EQ(client.read_response().status, 415) << "nor is a body without one taken";
}

TEST_F(TokenizeServer, ClientThatLeavesWhileItsBodyIsTokenizedIsForgotten) {
  serve_tokens();
  for (int i = 0; i < 20; ++i) {
    testing::HttpClient leaving(port_);
    leaving.send_post("/tokenize", R"({"prompt":")" + std::string(50'000, 'x') + R"("})");
    leaving.reset();
    leaving.close();
  }
  testing::HttpClient client(port_);
  EXPECT_EQ(client.post("/tokenize", R"({"prompt":")" + std::string(1000, 'x') + R"("})").status, 200);
}

/// Holds its first text until it is told to go on.
class HeldTokenizer final : public model::Tokenizer {
 public:
  Result<std::vector<std::int32_t>> encode(std::string_view text) const override {
    if (texts++ == 0) {
      begun.release();
      go_on.acquire();
    }
    return bytes_.encode(text);
  }
  Result<std::string> decode(std::span<const std::int32_t> ids, bool skip) const override { return bytes_.decode(ids, skip); }
  std::string_view token_bytes(std::int32_t id) const override { return bytes_.token_bytes(id); }
  bool is_special(std::int32_t id) const override { return bytes_.is_special(id); }
  std::int32_t vocabulary_size() const override { return bytes_.vocabulary_size(); }

  mutable std::atomic<int> texts{0};
  mutable std::binary_semaphore begun{0};
  mutable std::binary_semaphore go_on{0};

 private:
  testing::ByteTokenizer bytes_;
};

class UnansweredExchange final : public Exchange {
 public:
  explicit UnansweredExchange(std::string body) : request_{.content_type = "application/json", .body = std::move(body)} {}
  const HttpRequest& request() const override { return request_; }
  const std::string& request_id() const override { return request_.query; }
  TakenBody take_body() override { return {std::move(request_.body), nullptr}; }
  void respond(HttpResponse /*response*/) override {}
  void begin_stream(const HttpResponse& /*head*/) override {}
  bool write(std::string_view /*piece*/) override { return false; }
  void finish() override {}
  void on_abandoned(std::function<void()> /*callback*/) override {}

 private:
  HttpRequest request_;
};

TEST(TokenizeService, EndsWithoutTheTextsThatStillWait) {
  constexpr int kTexts = 300;  // some 300 ms of work, against the instant between the first text's end and the service's
  boost::asio::io_context io;
  HeldTokenizer tokenizer;
  auto service =
      TokenizeService::create(io, {.context = {.api = {.served_names = {"tiny"}, .tokenizer = &tokenizer}, .max_model_len = 9}, .inline_body_bytes = 64});
  for (int i = 0; i < kTexts; ++i) {
    service->tokenize(std::make_shared<UnansweredExchange>(R"({"prompt":")" + std::string(100'000, 'x') + R"("})"));
  }
  tokenizer.begun.acquire();
  tokenizer.go_on.release();
  service.reset();
  EXPECT_LT(tokenizer.texts, kTexts);
}

}  // namespace
}  // namespace lockstep::daemon
