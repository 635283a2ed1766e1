// Goal    Each text of a call comes back as its vector, in its place; calls are admitted together and refused one by one; every way to end is answered.
// Method  A real server on a loopback port over a fake engine that the test drives.
#include "daemon/api/embeddings/embedding_service.hpp"

#include <array>
#include <cstring>
#include <openssl/evp.h>

#include <boost/json.hpp>
#include <gmock/gmock.h>

#include "daemon/api/embeddings/embedding_body.hpp"
#include "daemon/api/embeddings/output_fork.hpp"
#include "tests/unit/daemon/support/server_fixture.hpp"

namespace lockstep::daemon::testing {
namespace {

namespace json = boost::json;
using scheduler::FinishReason;
using scheduler::GenerationRequest;

class Embeddings : public ServerFixture {
 protected:
  void serve_embeddings() {
    embeddings_ = EmbeddingService::create(io_, {.context = {.api = {.served_names = {"tiny"}, .tokenizer = &tokenizer_}, .hidden_size = 2},
                                                 .pooling = scheduler::Pooling::kMean,
                                                 .inline_body_bytes = 128});
    serve(false, {}, {Route{"/v1/embeddings", "POST", [this](std::shared_ptr<Exchange> exchange) { embeddings_->handle(std::move(exchange)); }}});
    engine_->set_sink(embeddings_->sink());
    on_asio([this] { embeddings_->open_gate(*engine_); });
  }
  void deliver(const GenerationRequest& request, std::vector<float> embedding) {
    const scheduler::TokenEvent event{.request = request.id, .finish = FinishReason::kStop, .embedding = embedding};
    engine_->deliver({&event, 1});
  }
  static std::string error_code(const ClientResponse& response) { return std::string(json::parse(response.body).at("error").at("code").as_string()); }

  std::unique_ptr<EmbeddingService> embeddings_;
};

TEST_F(Embeddings, EachTextIsARequestThatGeneratesNothingAndComesBackInItsPlace) {
  serve_embeddings();
  HttpClient client(port_);
  client.send_post("/v1/embeddings", R"({"input":["ab","c"],"model":"tiny"})");
  const std::array requests{engine_->wait_for_request(), engine_->wait_for_request()};
  EXPECT_EQ(requests[0].prompt_token_ids, (std::vector<std::int32_t>{'a', 'b'}));
  for (const GenerationRequest& request : requests) {
    EXPECT_EQ(request.pooling, scheduler::Pooling::kMean);
    EXPECT_EQ(request.max_tokens, 0);
    EXPECT_NE(request.id & kEmbeddingIdBit, 0U);
  }
  deliver(requests[1], {0.0F, 1.0F});
  deliver(requests[0], {0.6F, 0.8F});
  const ClientResponse response = client.read_response();
  ASSERT_EQ(response.status, 200) << response.body;
  const json::value body = json::parse(response.body);
  EXPECT_EQ(body.at("object"), "list");
  EXPECT_EQ(body.at("model"), "tiny");
  EXPECT_EQ(body.at("usage").at("prompt_tokens"), 3);
  EXPECT_EQ(body.at("usage").at("total_tokens"), 3);
  ASSERT_EQ(body.at("data").as_array().size(), 2U);
  EXPECT_EQ(body.at("data").at(0).at("object"), "embedding");
  EXPECT_EQ(body.at("data").at(0).at("index"), 0);
  EXPECT_EQ(static_cast<float>(body.at("data").at(0).at("embedding").at(0).as_double()), 0.6F);
  EXPECT_EQ(static_cast<float>(body.at("data").at(0).at("embedding").at(1).as_double()), 0.8F);
  EXPECT_EQ(body.at("data").at(1).at("embedding").at(1).to_number<double>(), 1.0);
  EXPECT_EQ(on_asio([this] { return embeddings_->open_count(); }), 0U);
}

TEST(EmbeddingBody, Base64HoldsTheVeryBitsOfTheVector) {
  const std::vector<std::vector<float>> vectors{{0.1F, -2.5e-8F, 0.75F}};
  const json::value body = json::parse(embedding_body("a \"name\"", vectors, true, 3));
  EXPECT_EQ(body.at("model"), "a \"name\"");
  const std::string text(body.at("data").at(0).at("embedding").as_string());
  ASSERT_EQ(text.size(), 16U);
  std::array<unsigned char, 12> bytes{};
  ASSERT_EQ(EVP_DecodeBlock(bytes.data(), reinterpret_cast<const unsigned char*>(text.data()), static_cast<int>(text.size())), 12);  // OpenSSL's type for text
  std::array<float, 3> values{};
  std::memcpy(values.data(), bytes.data(), bytes.size());
  EXPECT_TRUE(std::equal(values.begin(), values.end(), vectors[0].begin()));
  const json::value numbers = json::parse(embedding_body("m", vectors, false, 3));
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(static_cast<float>(numbers.at("data").at(0).at("embedding").at(i).to_number<double>()), vectors[0][i]);
  }
}

TEST_F(Embeddings, ALongBodyIsReadOnTheWorkerAndAnsweredAllTheSame) {
  serve_embeddings();
  HttpClient client(port_);
  client.send_post("/v1/embeddings", R"({"input":")" + std::string(1000, 'x') + R"("})");
  const GenerationRequest request = engine_->wait_for_request();
  EXPECT_EQ(request.prompt_token_ids.size(), 1000U);
  deliver(request, {1.0F, 0.0F});
  EXPECT_EQ(client.read_response().status, 200);
  const ClientResponse bad = client.post("/v1/embeddings", R"({"input":")" + std::string(1000, 'x') + R"(","dimensions":1})");
  EXPECT_EQ(bad.status, 400);
  EXPECT_EQ(error_code(bad), "unsupported_value");
}

TEST_F(Embeddings, CallsThatComeTogetherAreAdmittedTogetherAndOneThatIsRefusedHarmsNoOther) {
  serve_embeddings();
  // The Asio thread is held until both calls have arrived in its sockets; then they are read in one turn.
  std::promise<void> release;
  boost::asio::post(io_, [&] { release.get_future().wait(); });
  HttpClient good(port_);
  HttpClient bad(port_);
  good.send_post("/v1/embeddings", R"({"input":"good"})");
  bad.send_post("/v1/embeddings", R"({"input":"bad!"})");
  engine_->refuse_those_with_prompt({'b', 'a', 'd', '!'});
  release.set_value();
  const GenerationRequest request = engine_->wait_for_request();
  EXPECT_EQ(request.prompt_token_ids, (std::vector<std::int32_t>{'g', 'o', 'o', 'd'}));
  EXPECT_EQ(bad.read_response().status, 400);
  deliver(request, {1.0F, 0.0F});
  EXPECT_EQ(good.read_response().status, 200);
}

TEST_F(Embeddings, RefusalsOfTheEngineAndItsFailuresHaveTheirStatus) {
  serve_embeddings();
  HttpClient client(port_);
  engine_->refuse_with(Error{ErrorCode::kResourceExhausted, "1024 requests are open"});
  EXPECT_EQ(client.post("/v1/embeddings", R"({"input":"a"})").status, 429);
  engine_->refuse_with(std::nullopt);
  client.send_post("/v1/embeddings", R"({"input":["a","b"]})");
  const std::array requests{engine_->wait_for_request(), engine_->wait_for_request()};
  engine_->deliver(requests[0].id, -1, FinishReason::kRankLost);
  const ClientResponse lost = client.read_response();
  EXPECT_EQ(lost.status, 503);
  EXPECT_EQ(error_code(lost), "rank_lost");
  EXPECT_TRUE(engine_->wait_for_cancel(requests[1].id)) << "nobody wants the rest of it";
  on_asio([this] { embeddings_->close_gate({.status = 503, .message = "this server is stopping", .code = "draining"}); });
  const ClientResponse draining = client.post("/v1/embeddings", R"({"input":"a"})");
  EXPECT_EQ(draining.status, 503);
  EXPECT_EQ(error_code(draining), "draining");
  EXPECT_EQ(client.post("/v1/embeddings", "{}", "text/plain").status, 503) << "the gate first";
}

TEST_F(Embeddings, ATextBeyondTheContextIsRefusedByTheCodeForIt) {
  serve_embeddings();
  HttpClient client(port_);
  const ClientResponse response = client.post("/v1/embeddings", R"({"input":["a",")" + std::string((1 << 20) + 1, 'x') + "\"]}");
  EXPECT_EQ(response.status, 400);
  EXPECT_EQ(error_code(response), "context_length_exceeded");
  EXPECT_NE(response.body.find("\"param\":\"input\""), std::string::npos) << response.body;
  EXPECT_NE(response.body.find("text 2 of 2 has 1048577 tokens"), std::string::npos) << response.body;
}

TEST_F(Embeddings, TheTextsOfAClientThatLeavesAreCancelled) {
  serve_embeddings();
  auto client = std::make_unique<HttpClient>(port_);
  client->send_post("/v1/embeddings", R"({"input":["a","b"]})");
  const std::array requests{engine_->wait_for_request(), engine_->wait_for_request()};
  client.reset();
  EXPECT_TRUE(engine_->wait_for_cancel(requests[0].id));
  EXPECT_TRUE(engine_->wait_for_cancel(requests[1].id));
  deliver(requests[0], {1.0F, 0.0F});  // too late, and ignored
  EXPECT_EQ(on_asio([this] { return embeddings_->open_count(); }), 0U);
}

TEST(OutputFork, GivesEachEventToWhomItConcernsInOrder) {
  struct Sink final : scheduler::OutputSink {
    void deliver(std::span<const scheduler::TokenEvent> events) override {
      for (const scheduler::TokenEvent& event : events) {
        seen.push_back(event.token);
      }
    }
    std::vector<std::int32_t> seen;
  };
  Sink texts;
  Sink embeddings;
  OutputFork fork(texts, embeddings);
  const std::array<scheduler::TokenEvent, 5> events{{{.request = 1, .token = 1},
                                                     {.request = kEmbeddingIdBit | 1, .token = 2},
                                                     {.request = kEmbeddingIdBit | 2, .token = 3},
                                                     {.request = 2, .token = 4},
                                                     {.request = 3, .token = 5}}};
  fork.deliver(events);
  fork.deliver({});
  EXPECT_EQ(texts.seen, (std::vector<std::int32_t>{1, 4, 5}));
  EXPECT_EQ(embeddings.seen, (std::vector<std::int32_t>{2, 3}));
}

}  // namespace
}  // namespace lockstep::daemon::testing
