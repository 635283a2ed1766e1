// Stand-ins for what is below the daemon: an engine that echoes, a tokenizer whose tokens are bytes.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "lockstep/model/chat_template.hpp"
#include "lockstep/model/tokenizer.hpp"
#include "lockstep/scheduler/engine.hpp"

namespace lockstep::daemon::testing {

inline constexpr std::int32_t kEndToken = 256;

/// Token id = byte; 256 is a special end token.
class ByteTokenizer final : public model::Tokenizer {
 public:
  ByteTokenizer();
  Result<std::vector<std::int32_t>> encode(std::string_view text) const override;
  Result<std::string> decode(std::span<const std::int32_t> ids, bool skip_special_tokens) const override;
  std::string_view token_bytes(std::int32_t id) const override;
  bool is_special(std::int32_t id) const override { return id == kEndToken; }
  std::int32_t vocabulary_size() const override { return kEndToken + 1; }

 private:
  std::string bytes_;
};

/// Writes each message as "<role>content</role>", then, where an answer is asked for, "<assistant>". Keeps its input.
class FakeChatTemplate final : public model::ChatTemplate {
 public:
  Result<std::string> render(const model::ChatInput& input) const override;
  mutable model::ChatInput last_input;  ///< of tests that render on one thread
};

/// Accepts requests; answers at once with the prompt's tokens over and over (`echo`), or leaves the answer to the test.
class FakeEngine final : public scheduler::Engine {
 public:
  explicit FakeEngine(bool echo) : echo_(echo) {}
  void set_sink(scheduler::OutputSink& sink) { sink_ = &sink; }
  /// What submit answers from now on.
  void refuse_with(std::optional<Error> error);
  /// Refuses, with kInvalidArgument, whatever has a request with this prompt among others.
  void refuse_those_with_prompt(std::vector<std::int32_t> prompt);
  /// Blocks until a request was submitted, and returns it.
  scheduler::GenerationRequest wait_for_request();
  /// Blocks until `id` was cancelled, or completed; false after twenty seconds.
  bool wait_for_cancel(scheduler::RequestId id);
  bool wait_for_completion(scheduler::RequestId id);
  bool was_cancelled(scheduler::RequestId id);
  void deliver(std::span<const scheduler::TokenEvent> events) { sink_->deliver(events); }
  void deliver(scheduler::RequestId id, std::int32_t token, std::optional<scheduler::FinishReason> finish = {}, const Error* error = nullptr);

  Status load_weights() override { return {}; }
  Status warm_up() override { return {}; }
  Status run() override { return {}; }
  Status submit_all(std::span<scheduler::GenerationRequest> requests) override;
  void cancel(scheduler::RequestId id) override;
  void complete(scheduler::RequestId id) override;
  void request_drain() override { draining_ = true; }
  void request_stop() override { draining_ = true; }
  bool draining() const override { return draining_; }
  bool running() const override { return true; }
  std::int32_t open_requests() const override { return 0; }
  std::int32_t max_model_len() const override { return 4096; }
  std::int32_t max_request_tokens() const override { return 1 << 20; }
  std::uint64_t config_hash() const override { return 1; }
  const std::string& graph_report() const override { return graph_report_; }
  const std::string& config_identity() const override { return identity_; }
  void on_wake(std::int32_t, std::int32_t, std::int64_t) override {}

 private:
  std::string identity_ = "fake";
  std::string graph_report_;
  bool echo_;
  scheduler::OutputSink* sink_ = nullptr;
  std::atomic<bool> draining_{false};
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<Error> refusal_;
  std::vector<std::int32_t> refused_prompt_;
  std::vector<scheduler::GenerationRequest> submitted_;
  std::set<scheduler::RequestId> cancelled_;
  std::set<scheduler::RequestId> completed_;
};

}  // namespace lockstep::daemon::testing
