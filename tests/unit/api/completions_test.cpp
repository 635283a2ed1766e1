// Goal: a completion reaches the engine as asked, and its tokens reach the client, whole or as a stream; every way in which it can end is answered.
// Method: a real server on a loopback port over a fake engine that echoes, or that the test drives.
#include <boost/json.hpp>

#include "tests/unit/daemon/support/server_fixture.hpp"

namespace lockstep::daemon::testing {
namespace {

namespace json = boost::json;
using scheduler::FinishReason;

class Completions : public ServerFixture {
 protected:
  static std::string error_code(const ClientResponse& response) { return std::string(json::parse(response.body).at("error").at("code").as_string()); }
};

TEST_F(Completions, TextAndUsageComeBackInOneObject) {
  serve(true);
  HttpClient client(port_);
  const ClientResponse response = client.post("/v1/completions", R"({"model":"tiny","prompt":"abc","max_tokens":5})");
  ASSERT_EQ(response.status, 200) << response.body;
  EXPECT_EQ(response.headers.at("x-lockstep-rank"), "3");
  const json::value body = json::parse(response.body);
  EXPECT_EQ(body.at("object"), "text_completion");
  EXPECT_EQ(body.at("model"), "tiny");
  EXPECT_EQ(std::string(body.at("id").as_string()), "cmpl-" + response.headers.at("x-request-id"));
  EXPECT_EQ(body.at("choices").at(0).at("text"), "abcab");
  EXPECT_EQ(body.at("choices").at(0).at("finish_reason"), "length");
  EXPECT_EQ(body.at("usage").at("prompt_tokens"), 3);
  EXPECT_EQ(body.at("usage").at("completion_tokens"), 5);
  EXPECT_EQ(body.at("usage").at("total_tokens"), 8);
}

TEST_F(Completions, StreamSendsEachTokenThenReasonUsageAndDone) {
  serve(true);
  HttpClient client(port_);
  const ClientResponse response =
      client.post("/v1/completions", R"({"prompt":[120,121],"max_tokens":3,"stream":true,"stream_options":{"include_usage":true}})");
  ASSERT_EQ(response.status, 200);
  EXPECT_EQ(response.headers.at("content-type"), "text/event-stream");
  std::vector<std::string> events;
  for (std::size_t at = 0; at < response.body.size();) {
    const std::size_t end = response.body.find("\n\n", at);
    ASSERT_NE(end, std::string::npos);
    ASSERT_EQ(response.body.substr(at, 6), "data: ");
    events.push_back(response.body.substr(at + 6, end - at - 6));
    at = end + 2;
  }
  ASSERT_EQ(events.size(), 6U) << response.body;
  EXPECT_EQ(json::parse(events[0]).at("choices").at(0).at("text"), "x");
  EXPECT_TRUE(json::parse(events[0]).at("choices").at(0).at("finish_reason").is_null());
  EXPECT_TRUE(json::parse(events[0]).at("usage").is_null());
  EXPECT_EQ(json::parse(events[2]).at("choices").at(0).at("text"), "x");
  EXPECT_EQ(json::parse(events[3]).at("choices").at(0).at("finish_reason"), "length");
  EXPECT_TRUE(json::parse(events[4]).at("choices").as_array().empty());
  EXPECT_EQ(json::parse(events[4]).at("usage").at("total_tokens"), 5);
  EXPECT_EQ(events[5], "[DONE]");
  EXPECT_EQ(client.post("/v1/completions", R"({"prompt":"a","max_tokens":1})").status, 200) << "the connection lives on after a stream";
}

TEST_F(Completions, EndTokenIsCountedAndIsNoText) {
  serve(false);
  HttpClient client(port_);
  client.send_post("/v1/completions", R"({"prompt":"a"})");
  const auto request = engine_->wait_for_request();
  engine_->deliver(request.id, 'h');
  engine_->deliver(request.id, 'i', FinishReason::kStop);
  const json::value body = json::parse(client.read_response().body);
  EXPECT_EQ(body.at("choices").at(0).at("text"), "h");
  EXPECT_EQ(body.at("choices").at(0).at("finish_reason"), "stop");
  EXPECT_EQ(body.at("usage").at("completion_tokens"), 2);
}

TEST_F(Completions, FieldsReachTheEngine) {
  serve(false);
  HttpClient client(port_);
  client.send_post("/v1/completions", R"({"prompt":"ab","max_tokens":7,"temperature":0.5,"top_p":0.25,"top_k":9,"seed":18446744073709551615,)"
                                      R"("ignore_eos":true,"stop_token_ids":[1,2],"user":"someone","never_heard_of":{"x":1}})");
  const auto request = engine_->wait_for_request();
  EXPECT_EQ(request.prompt_token_ids, (std::vector<std::int32_t>{'a', 'b'}));
  EXPECT_EQ(request.max_tokens, 7);
  EXPECT_EQ(request.sampling.temperature, 0.5F);
  EXPECT_EQ(request.sampling.top_p, 0.25F);
  EXPECT_EQ(request.sampling.top_k, 9);
  EXPECT_EQ(request.sampling.seed, 18446744073709551615ULL);
  EXPECT_TRUE(request.ignore_eos);
  EXPECT_EQ(request.stop_token_ids, (std::vector<std::int32_t>{1, 2}));
  engine_->deliver(request.id, 'x', FinishReason::kLength);
  EXPECT_EQ(client.read_response().status, 200);
}

TEST_F(Completions, TwoRequestsWithoutSeedGetDifferentOnes) {
  serve(false);
  HttpClient first(port_);
  HttpClient second(port_);
  first.send_post("/v1/completions", R"({"prompt":"a"})");
  const auto one = engine_->wait_for_request();
  second.send_post("/v1/completions", R"({"prompt":"a"})");
  const auto two = engine_->wait_for_request();
  EXPECT_NE(one.sampling.seed, two.sampling.seed);
}

TEST_F(Completions, LongTextIsTokenizedOnTheWorkerAndAnswered) {
  serve(true);
  HttpClient client(port_);
  const std::string text(100'000, 'q');
  const ClientResponse response = client.post("/v1/completions", R"({"prompt":")" + text + R"(","max_tokens":2})");
  ASSERT_EQ(response.status, 200);
  EXPECT_EQ(json::parse(response.body).at("usage").at("prompt_tokens"), 100'000);
}

TEST_F(Completions, ClientThatLeavesAStreamCancelsIt) {
  serve(false);
  HttpClient client(port_);
  client.send_post("/v1/completions", R"({"prompt":"a","stream":true})");
  const auto request = engine_->wait_for_request();
  engine_->deliver(request.id, 'h');
  EXPECT_NE(client.read_until("\"h\""), "");
  client.close();
  EXPECT_TRUE(engine_->wait_for_cancel(request.id));
  engine_->deliver(request.id, 'i');  // late events of a forgotten request do no harm
  engine_->deliver(request.id, -1, FinishReason::kCancelled);
  EXPECT_EQ(on_asio([this] { return service_->open_count(); }), 0U);
}

TEST_F(Completions, ClientThatLeavesWhileItWaitsCancelsItsRequest) {
  serve(false);
  HttpClient client(port_);
  client.send_post("/v1/completions", R"({"prompt":"a"})");
  const auto request = engine_->wait_for_request();
  client.reset();
  EXPECT_TRUE(engine_->wait_for_cancel(request.id));
}

TEST_F(Completions, ClientThatNeverReadsIsCutOffAndItsRequestCancelled) {
  HttpLimits limits;
  limits.queued_bytes = 4096;
  serve(false, limits);
  HttpClient client(port_);
  client.send_post("/v1/completions", R"({"prompt":"a","stream":true,"max_tokens":1000000})");
  const auto request = engine_->wait_for_request();
  // The kernel's buffers hold a few megabytes; each event is some 150 bytes.
  for (int i = 0; i < 200'000 && on_asio([this] { return service_->open_count(); }) == 1; ++i) {
    engine_->deliver(request.id, 'x');
  }
  EXPECT_TRUE(engine_->wait_for_cancel(request.id));
  EXPECT_TRUE(client.read_end());
}

TEST_F(Completions, LostRankIsACodedErrorBeforeTheFirstToken) {
  serve(false);
  HttpClient plain(port_);
  HttpClient stream(port_);
  const Error error{ErrorCode::kPeerLost, "rank 1 is gone", 1};
  plain.send_post("/v1/completions", R"({"prompt":"a"})");
  engine_->deliver(engine_->wait_for_request().id, -1, FinishReason::kRankLost, &error);
  const ClientResponse plain_response = plain.read_response();
  EXPECT_EQ(plain_response.status, 503);
  EXPECT_EQ(error_code(plain_response), "rank_lost");
  EXPECT_EQ(plain_response.headers.at("retry-after"), "1");
  stream.send_post("/v1/completions", R"({"prompt":"a","stream":true})");
  engine_->deliver(engine_->wait_for_request().id, -1, FinishReason::kRankLost, &error);
  EXPECT_EQ(stream.read_response().status, 503);
}

TEST_F(Completions, LostRankEndsAStreamWithAnErrorEvent) {
  serve(false);
  HttpClient client(port_);
  client.send_post("/v1/completions", R"({"prompt":"a","stream":true})");
  const auto request = engine_->wait_for_request();
  const Error error{ErrorCode::kPeerLost, "rank 1 is gone", 1};
  engine_->deliver(request.id, 'h');
  engine_->deliver(request.id, -1, FinishReason::kRankLost, &error);
  const ClientResponse response = client.read_response();
  EXPECT_EQ(response.status, 200);
  EXPECT_NE(response.body.find(R"("code":"rank_lost")"), std::string::npos);
  EXPECT_EQ(response.body.find("[DONE]"), std::string::npos) << "a stream that failed must not look complete";
}

TEST_F(Completions, RefusalsOfTheEngineBecomeStatuses) {
  serve(false);
  HttpClient client(port_);
  const struct {
    ErrorCode code;
    int status;
  } cases[] = {{ErrorCode::kInvalidArgument, 400},
               {ErrorCode::kResourceExhausted, 429},
               {ErrorCode::kCancelled, 503},
               {ErrorCode::kPeerLost, 503},
               {ErrorCode::kInternal, 500}};
  for (const auto& [code, status] : cases) {
    engine_->refuse_with(Error{code, "a secret of ours"});
    const ClientResponse response = client.post("/v1/completions", R"({"prompt":"a"})");
    EXPECT_EQ(response.status, status);
    EXPECT_EQ(response.headers.contains("retry-after"), status == 429 || status == 503);
    if (status == 500) {
      EXPECT_EQ(response.body.find("secret"), std::string::npos);
    }
  }
}

TEST_F(Completions, ClosedGateAnswersNewRequestsAndLeavesOpenOnesAlone) {
  serve(false);
  HttpClient open(port_);
  open.send_post("/v1/completions", R"({"prompt":"a"})");
  const auto request = engine_->wait_for_request();
  on_asio([this] { service_->close_gate({.status = 503, .message = "draining", .code = "draining", .retry_after_seconds = 1}); });
  HttpClient late(port_);
  const ClientResponse refused = late.post("/v1/completions", R"({"prompt":"a"})");
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(error_code(refused), "draining");
  engine_->deliver(request.id, 'x', FinishReason::kLength);
  EXPECT_EQ(open.read_response().status, 200);
}

TEST_F(Completions, TextThatIsNotUtf8IsABadPrompt) {
  serve(true);
  HttpClient client(port_);
  const ClientResponse response = client.post("/v1/completions", "{\"prompt\":\"\xff\"}");
  EXPECT_EQ(response.status, 400);
}

// What a page of another origin can send without asking: see docs/security.md, "Browsers".
TEST_F(Completions, ABodyWithoutAContentTypeIsRefused) {
  serve(true);
  HttpClient client(port_);
  client.send("POST /v1/completions HTTP/1.1\r\nHost: test\r\nContent-Length: 14\r\n\r\n{\"prompt\":\"a\"}");
  EXPECT_EQ(client.read_response().status, 415);
}

TEST_F(Completions, OtherContentTypesAreRefused) {
  serve(true);
  HttpClient client(port_);
  EXPECT_EQ(client.post("/v1/completions", R"({"prompt":"a"})", "text/plain").status, 415);
  for (const char* other : {"application/jsonx", "application", "json", "application/json/", ""}) {
    EXPECT_EQ(client.post("/v1/completions", R"({"prompt":"a"})", other).status, 415) << other;
  }
  for (const char* json : {"application/json; charset=utf-8", "application/json;charset=utf-8", "Application/JSON"}) {
    EXPECT_EQ(client.post("/v1/completions", R"({"prompt":"a"})", json).status, 200) << json;
  }
}

}  // namespace
}  // namespace lockstep::daemon::testing
