// Goal: a large body is tokenized beside the Asio thread, a client that leaves meanwhile is no trouble, another content type is refused.
// Method: a real server with the two routes on loopback.
#include "daemon/api/tokenize/tokenize_service.hpp"

#include <string>

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

}  // namespace
}  // namespace lockstep::daemon
