// Goal    Several texts in one answer: each in its place, all or none accepted, ended by stop strings, cancelled together.
// Method  A real server on a loopback port over a fake engine that the test drives.
#include <array>
#include <atomic>
#include <latch>
#include <thread>

#include <boost/json.hpp>
#include <gmock/gmock.h>

#include "daemon/api/completions/completion_format.hpp"
#include "tests/unit/daemon/support/server_fixture.hpp"

namespace lockstep::daemon::testing {
namespace {

namespace json = boost::json;
using scheduler::FinishReason;
using scheduler::GenerationRequest;

class Generation : public ServerFixture {
 protected:
  std::vector<GenerationRequest> wait_for_requests(std::size_t count) {
    std::vector<GenerationRequest> requests;
    while (requests.size() < count) {
      requests.push_back(engine_->wait_for_request());
    }
    return requests;
  }
  void deliver_text(const GenerationRequest& request, std::string_view text, std::optional<FinishReason> finish = {}) {
    for (std::size_t i = 0; i < text.size(); ++i) {
      const auto token = static_cast<std::int32_t>(static_cast<unsigned char>(text[i]));
      engine_->deliver(request.id, token, i + 1 == text.size() ? finish : std::nullopt);
    }
  }
  static std::vector<json::value> events_of(const std::string& body) {
    std::vector<json::value> events;
    for (std::size_t at = 0; at < body.size();) {
      const std::size_t end = body.find("\n\n", at);
      const std::string event = body.substr(at + 6, end - at - 6);
      if (event != "[DONE]") {
        events.push_back(json::parse(event));
      }
      at = end + 2;
    }
    return events;
  }
};

TEST_F(Generation, EachPromptTimesNIsOneRequestAndAnswersComeInOrder) {
  serve(false);
  HttpClient client(port_);
  client.send_post("/v1/completions", R"({"prompt":["ab","c"],"n":2,"seed":5,"max_tokens":4})");
  const auto requests = wait_for_requests(4);
  EXPECT_EQ(requests[0].prompt_token_ids, (std::vector<std::int32_t>{'a', 'b'}));
  EXPECT_EQ(requests[3].prompt_token_ids, std::vector<std::int32_t>{'c'});
  EXPECT_EQ(requests[0].sampling.seed, 5U);
  EXPECT_NE(requests[1].sampling.seed, 5U);
  deliver_text(requests[3], "last", FinishReason::kLength);  // in any order
  deliver_text(requests[1], "two", FinishReason::kLength);
  deliver_text(requests[0], "one.", FinishReason::kStop);
  deliver_text(requests[2], "three", FinishReason::kLength);
  const json::value body = json::parse(client.read_response().body);
  ASSERT_EQ(body.at("choices").as_array().size(), 4U);
  const std::vector<std::string> expected{"one", "two", "three", "last"};
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(body.at("choices").at(i).at("index"), i);
    EXPECT_EQ(std::string(body.at("choices").at(i).at("text").as_string()), expected[i]);
  }
  EXPECT_EQ(body.at("choices").at(0).at("finish_reason"), "stop");
  EXPECT_EQ(body.at("usage").at("prompt_tokens"), 3) << "each prompt once";
  EXPECT_EQ(body.at("usage").at("completion_tokens"), 16);
}

TEST_F(Generation, AStreamOfSeveralChoicesTellsThemApartAndEndsOnce) {
  serve(false);
  HttpClient client(port_);
  client.send_post("/v1/completions", R"({"prompt":"a","n":2,"stream":true,"stream_options":{"include_usage":true}})");
  const auto requests = wait_for_requests(2);
  deliver_text(requests[1], "y", {});
  deliver_text(requests[0], "xx", FinishReason::kLength);
  deliver_text(requests[1], "y", FinishReason::kLength);
  const std::string body = client.read_response().body;
  std::array<std::string, 2> texts;
  std::array<int, 2> ends{};
  const auto events = events_of(body);
  for (const json::value& event : events) {
    for (const json::value& choice : event.at("choices").as_array()) {
      const auto index = static_cast<std::size_t>(choice.at("index").as_int64());
      texts.at(index) += choice.at("text").as_string();
      ends.at(index) += choice.at("finish_reason").is_null() ? 0 : 1;
    }
  }
  EXPECT_THAT(texts, ::testing::ElementsAre("xx", "yy"));
  EXPECT_THAT(ends, ::testing::Each(1));
  EXPECT_EQ(events.back().at("usage").at("completion_tokens"), 4);
  EXPECT_EQ(body.find("[DONE]"), body.rfind("[DONE]"));
  EXPECT_TRUE(body.ends_with("data: [DONE]\n\n"));
}

TEST_F(Generation, AStopStringEndsTheChoiceAndTheEngineIsToldToCompleteIt) {
  for (const bool stream : {false, true}) {
    if (!server_) {
      serve(false);
    }
    HttpClient client(port_);
    client.send_post("/v1/completions", std::string(R"({"prompt":"a","stop":["END"],"max_tokens":50,"stream":)") + (stream ? "true}" : "false}"));
    const GenerationRequest request = engine_->wait_for_request();
    deliver_text(request, "good ENEND");
    EXPECT_TRUE(engine_->wait_for_completion(request.id));
    deliver_text(request, "late");  // the engine did not know yet
    engine_->deliver(request.id, -1, FinishReason::kStop);
    const std::string body = client.read_response().body;
    if (!stream) {
      EXPECT_EQ(json::parse(body).at("choices").at(0).at("text"), "good EN");
      EXPECT_EQ(json::parse(body).at("choices").at(0).at("finish_reason"), "stop");
      EXPECT_EQ(json::parse(body).at("usage").at("completion_tokens"), 10);
      continue;
    }
    std::string text;
    for (const json::value& event : events_of(body)) {
      text += event.at("choices").at(0).at("text").as_string();
    }
    EXPECT_EQ(text, "good EN");
    EXPECT_EQ(events_of(body).back().at("choices").at(0).at("finish_reason"), "stop");
    EXPECT_TRUE(body.ends_with("data: [DONE]\n\n"));
  }
  EXPECT_EQ(on_asio([this] { return service_->open_count(); }), 0U);
}

TEST_F(Generation, EchoComesFirstOncePerChoice) {
  serve(false);
  HttpClient client(port_);
  client.send_post("/v1/completions", R"({"prompt":"ab","echo":true,"n":2,"stream":true})");
  for (const GenerationRequest& request : wait_for_requests(2)) {
    deliver_text(request, "cd", FinishReason::kLength);
  }
  std::array<std::string, 2> texts;
  for (const json::value& event : events_of(client.read_response().body)) {
    const json::value& choice = event.at("choices").at(0);
    texts.at(static_cast<std::size_t>(choice.at("index").as_int64())) += choice.at("text").as_string();
  }
  EXPECT_THAT(texts, ::testing::Each("abcd"));
}

TEST_F(Generation, LogProbabilitiesTravelFromTheEngineToTheClient) {
  serve(false);
  HttpClient client(port_);
  client.send_post("/v1/completions", R"({"prompt":"a","logprobs":2})");
  const GenerationRequest request = engine_->wait_for_request();
  EXPECT_EQ(request.sampling.log_probabilities, 2);
  const std::vector<model::TokenLogProbability> likeliest{{'h', -0.5F}, {'j', -1.5F}};
  const std::vector<scheduler::TokenEvent> events{{.request = request.id, .token = 'h', .log_probability = -0.5F, .likeliest = likeliest},
                                                  {.request = request.id, .token = 'i', .log_probability = -2.5F, .finish = FinishReason::kLength}};
  engine_->deliver(events);
  const json::value body = json::parse(client.read_response().body);
  EXPECT_EQ(
      json::serialize(body.at("choices").at(0).at("logprobs")),
      json::serialize(json::parse(R"({"tokens":["h","i"],"token_logprobs":[-0.5,-2.5],"top_logprobs":[{"h":-0.5,"j":-1.5},{"i":-2.5}],"text_offset":[0,1]})")));
}

TEST_F(Generation, EchoWithLogprobsShowsThePromptsTokensWithWhatTheEngineSaysOfThem) {
  for (const bool stream : {false, true}) {
    if (!server_) {
      serve(false);
    }
    HttpClient client(port_);
    client.send_post("/v1/completions", std::string(R"({"prompt":"abc","echo":true,"logprobs":1,"max_tokens":2,"stream":)") + (stream ? "true}" : "false}"));
    const GenerationRequest request = engine_->wait_for_request();
    EXPECT_TRUE(request.scores_prompt);
    const std::vector<model::TokenLogProbability> likeliest{{'z', -0.5F}};
    const std::vector<scheduler::TokenEvent> events{{.request = request.id, .token = 'b', .of_prompt = true, .log_probability = -1.5F, .likeliest = likeliest},
                                                    {.request = request.id, .token = 'c', .of_prompt = true, .log_probability = -2.5F},
                                                    {.request = request.id, .token = 'd', .log_probability = -3.5F, .finish = FinishReason::kLength}};
    engine_->deliver(events);
    const std::string body = client.read_response().body;
    const json::value answer = stream ? events_of(body).at(0) : json::parse(body);
    EXPECT_EQ(answer.at("choices").at(0).at("text"), "abcd");
    EXPECT_EQ(json::serialize(answer.at("choices").at(0).at("logprobs")),
              json::serialize(json::parse(R"({"tokens":["a","b","c","d"],"token_logprobs":[null,-1.5,-2.5,-3.5],)"
                                          R"("top_logprobs":[null,{"b":-1.5,"z":-0.5},{"c":-2.5},{"d":-3.5}],"text_offset":[0,1,2,3]})")));
    if (!stream) {
      EXPECT_EQ(answer.at("usage").at("prompt_tokens"), 3);
      EXPECT_EQ(answer.at("usage").at("completion_tokens"), 1);
    }
  }
}

TEST_F(Generation, APromptIsScoredWithoutAToken) {
  serve(false);
  HttpClient client(port_);
  client.send_post("/v1/completions", R"({"prompt":"ab","echo":true,"logprobs":0,"max_tokens":0})");
  const GenerationRequest request = engine_->wait_for_request();
  EXPECT_EQ(request.max_tokens, 0);
  const std::vector<scheduler::TokenEvent> events{{.request = request.id, .token = 'b', .of_prompt = true, .log_probability = -1.5F},
                                                  {.request = request.id, .finish = FinishReason::kLength}};
  engine_->deliver(events);
  const json::value choice = json::parse(client.read_response().body).at("choices").at(0);
  EXPECT_EQ(choice.at("text"), "ab");
  EXPECT_EQ(choice.at("finish_reason"), "length");
  EXPECT_EQ(json::serialize(choice.at("logprobs").at("token_logprobs")), "[null,-1.5E0]");
}

TEST_F(Generation, AnEchoAloneIsAnsweredWithoutTheEngine) {
  serve(false);
  HttpClient client(port_);
  const json::value body = json::parse(client.post("/v1/completions", R"({"prompt":["ab","c"],"echo":true,"max_tokens":0})").body);
  EXPECT_EQ(body.at("choices").at(0).at("text"), "ab");
  EXPECT_EQ(body.at("choices").at(1).at("text"), "c");
  EXPECT_EQ(body.at("choices").at(1).at("finish_reason"), "length");
  EXPECT_EQ(body.at("usage").at("completion_tokens"), 0);
  const std::string stream = client.post("/v1/completions", R"({"prompt":"ab","echo":true,"max_tokens":0,"stream":true})").body;
  EXPECT_EQ(events_of(stream).at(0).at("choices").at(0).at("text"), "ab");
  EXPECT_TRUE(stream.ends_with("data: [DONE]\n\n"));
  EXPECT_EQ(on_asio([this] { return service_->open_count(); }), 0U);
}

TEST_F(Generation, AChatIsAnsweredWholeAndAsAStream) {
  serve(false);
  HttpClient client(port_);
  client.send_post("/v1/chat/completions", R"({"messages":[{"role":"user","content":"hi"}]})");
  const GenerationRequest request = engine_->wait_for_request();
  EXPECT_EQ(request.prompt_token_ids.size(), std::string_view("<user>hi</user><assistant>").size());
  EXPECT_EQ(request.max_tokens, engine_->max_request_tokens() - static_cast<std::int32_t>(request.prompt_token_ids.size()));
  deliver_text(request, "yes.", FinishReason::kStop);
  const ClientResponse response = client.read_response();
  const json::value body = json::parse(response.body);
  EXPECT_EQ(std::string(body.at("id").as_string()), "chatcmpl-" + response.headers.at("x-request-id"));
  EXPECT_EQ(body.at("choices").at(0).at("message").at("content"), "yes");

  client.send_post("/v1/chat/completions", R"({"messages":[{"role":"user","content":"hi"}],"stream":true})");
  deliver_text(engine_->wait_for_request(), "yes.", FinishReason::kStop);
  const auto events = events_of(client.read_response().body);
  ASSERT_EQ(events.size(), 5U);
  EXPECT_EQ(events[0].at("choices").at(0).at("delta").at("role"), "assistant");
  EXPECT_EQ(events[1].at("choices").at(0).at("delta").at("content"), "y");
  EXPECT_TRUE(events[4].at("choices").at(0).at("delta").as_object().empty());
  EXPECT_EQ(events[4].at("choices").at(0).at("finish_reason"), "stop");
}

TEST_F(Generation, AClientThatLeavesCancelsEveryChoiceThatStillRuns) {
  serve(false);
  HttpClient client(port_);
  client.send_post("/v1/completions", R"({"prompt":"a","n":3})");
  const auto requests = wait_for_requests(3);
  deliver_text(requests[1], "done", FinishReason::kLength);
  on_asio([] { return 0; });  // the engine's events are taken
  client.reset();
  EXPECT_TRUE(engine_->wait_for_cancel(requests[0].id));
  EXPECT_TRUE(engine_->wait_for_cancel(requests[2].id));
  EXPECT_FALSE(engine_->was_cancelled(requests[1].id)) << "it had ended";
}

/// Holds up the first text until it is let go; counts them all.
class GatedTokenizer final : public model::Tokenizer {
 public:
  Result<std::vector<std::int32_t>> encode(std::string_view text) const override {
    if (++count_ == 1) {
      begun_.count_down();
      open_.wait();
    }
    return bytes_.encode(text);
  }
  Result<std::string> decode(std::span<const std::int32_t> ids, bool skip) const override { return bytes_.decode(ids, skip); }
  std::string_view token_bytes(std::int32_t id) const override { return bytes_.token_bytes(id); }
  bool is_special(std::int32_t id) const override { return bytes_.is_special(id); }
  std::int32_t vocabulary_size() const override { return bytes_.vocabulary_size(); }
  void wait_until_begun() const { begun_.wait(); }
  void open() { open_.count_down(); }
  [[nodiscard]] int count() const { return count_; }

 private:
  ByteTokenizer bytes_;
  mutable std::latch begun_{1};
  mutable std::latch open_{1};
  mutable std::atomic<int> count_{0};
};

class GatedGeneration : public Generation {
 protected:
  void wait_until_open(std::size_t count) {
    while (on_asio([this] { return gated_->open_count(); }) != count) {
      std::this_thread::yield();
    }
  }
  GatedTokenizer gate_;
  std::unique_ptr<GenerationService> gated_ =
      GenerationService::create(io_, {.context = {.served_names = {"tiny"}, .tokenizer = &gate_}, .inline_body_bytes = 8});
};

TEST_F(GatedGeneration, ARequestWhoseClientLeftBeforeItsTurnIsNotEvenTokenized) {
  serve(false, {}, {Route{"/gated", "POST", [this](std::shared_ptr<Exchange> exchange) { gated_->handle(std::move(exchange), completion_format()); }}});
  on_asio([this] {
    gated_->open_gate(*engine_);
    engine_->set_sink(gated_->sink());
    return 0;
  });
  HttpClient first(port_);
  first.send_post("/gated", R"({"prompt":"first"})");
  gate_.wait_until_begun();
  HttpClient second(port_);
  second.send_post("/gated", R"({"prompt":"second"})");
  wait_until_open(2);
  second.reset();
  wait_until_open(1);
  HttpClient third(port_);
  third.send_post("/gated", R"({"prompt":"third"})");
  wait_until_open(2);
  gate_.open();
  for (const GenerationRequest& request : wait_for_requests(2)) {
    deliver_text(request, "ab", FinishReason::kLength);
  }
  EXPECT_EQ(first.read_response().status, 200);
  EXPECT_EQ(third.read_response().status, 200);
  EXPECT_EQ(gate_.count(), 2) << "the second was nobody's any more";
}

TEST_F(Generation, OneChoiceThatFailsFailsTheRequestAndCancelsTheOthers) {
  serve(false);
  HttpClient client(port_);
  client.send_post("/v1/completions", R"({"prompt":"a","n":2})");
  const auto requests = wait_for_requests(2);
  const Error error{ErrorCode::kInternal, "secret details"};
  engine_->deliver(requests[1].id, -1, FinishReason::kError, &error);
  const ClientResponse response = client.read_response();
  EXPECT_EQ(response.status, 500);
  EXPECT_EQ(response.body.find("secret"), std::string::npos);
  EXPECT_TRUE(engine_->wait_for_cancel(requests[0].id));
}

TEST_F(Generation, AnEngineWithoutRoomRefusesTheWholeRequest) {
  serve(false);
  engine_->refuse_with(Error{ErrorCode::kResourceExhausted, "5 requests are open, the limit is 5 (--max-pending): try again later"});
  HttpClient client(port_);
  const ClientResponse response = client.post("/v1/completions", R"({"prompt":["a","b"],"n":2})");
  EXPECT_EQ(response.status, 429);
  EXPECT_EQ(response.headers.at("retry-after"), "1");
  EXPECT_EQ(on_asio([this] { return service_->open_count(); }), 0U);
}

TEST_F(Generation, APromptBeyondTheContextIsRefusedBeforeItIsCopied) {
  serve(false);
  HttpClient client(port_);
  const ClientResponse response = client.post("/v1/completions", R"({"n":128,"prompt":")" + std::string(1 << 20, 'x') + "\"}");
  EXPECT_EQ(response.status, 400);
  EXPECT_NE(response.body.find("shorten the prompt"), std::string::npos);
}

}  // namespace
}  // namespace lockstep::daemon::testing
