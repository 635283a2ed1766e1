#include "tests/unit/daemon/support/fakes.hpp"

#include <algorithm>
#include <chrono>

namespace lockstep::daemon::testing {

namespace {
constexpr auto kPatience = std::chrono::seconds(20);
}

ByteTokenizer::ByteTokenizer() {
  for (int byte = 0; byte < 256; ++byte) {
    bytes_.push_back(static_cast<char>(byte));
  }
}

Result<std::vector<std::int32_t>> ByteTokenizer::encode(std::string_view text) const {
  std::vector<std::int32_t> ids;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte == 0xFF) {
      return Error{ErrorCode::kInvalidArgument, "not UTF-8 at offset " + std::to_string(i)};
    }
    ids.push_back(byte);
  }
  return ids;
}

Result<std::string> ByteTokenizer::decode(std::span<const std::int32_t> ids, bool /*skip_special_tokens*/) const {
  model::StreamDecoder decoder(*this);
  std::string text;
  for (const std::int32_t id : ids) {
    text += decoder.push(id);
  }
  return text + decoder.finish();
}

std::string_view ByteTokenizer::token_bytes(std::int32_t id) const {
  return id >= 0 && id < 256 ? std::string_view(bytes_).substr(static_cast<std::size_t>(id), 1) : std::string_view();
}

Result<std::string> FakeChatTemplate::render(const model::ChatInput& input) const {
  last_input = input;
  std::string text;
  for (const model::TemplateValue& message : input.messages.elements()) {
    const std::string& role = message.find("role")->as_string();
    if (role == "nobody") {
      return Error{ErrorCode::kInvalidArgument, "the chat template does not know the role nobody"};
    }
    text += "<" + role + ">" + message.find("content")->as_string() + "</" + role + ">";
  }
  return text + (input.add_generation_prompt ? "<assistant>" : "");
}

void FakeEngine::refuse_with(std::optional<Error> error) {
  const std::lock_guard lock(mutex_);
  refusal_ = std::move(error);
}

Status FakeEngine::submit_all(std::span<scheduler::GenerationRequest> requests) {
  std::vector<scheduler::TokenEvent> events;
  {
    const std::lock_guard lock(mutex_);
    if (refusal_) {
      return *refusal_;
    }
    const auto refused = [this](const scheduler::GenerationRequest& request) { return request.prompt_token_ids == refused_prompt_; };
    if (std::ranges::any_of(requests, refused)) {
      return Error{ErrorCode::kInvalidArgument, "a prompt that the test refuses"};
    }
    for (scheduler::GenerationRequest& request : requests) {
      for (std::int32_t i = 0; echo_ && i < request.max_tokens; ++i) {
        events.push_back({.request = request.id, .token = request.prompt_token_ids[static_cast<std::size_t>(i) % request.prompt_token_ids.size()]});
      }
      if (echo_) {
        events.back().finish = scheduler::FinishReason::kLength;
      }
      submitted_.push_back(std::move(request));
    }
  }
  if (!events.empty()) {
    sink_->deliver(events);
  }
  changed_.notify_all();
  return {};
}

void FakeEngine::cancel(scheduler::RequestId id) {
  const std::lock_guard lock(mutex_);
  cancelled_.insert(id);
  changed_.notify_all();
}

void FakeEngine::complete(scheduler::RequestId id) {
  const std::lock_guard lock(mutex_);
  completed_.insert(id);
  changed_.notify_all();
}

bool FakeEngine::was_cancelled(scheduler::RequestId id) {
  const std::lock_guard lock(mutex_);
  return cancelled_.contains(id);
}

bool FakeEngine::wait_for_completion(scheduler::RequestId id) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, kPatience, [this, id] { return completed_.contains(id); });
}

void FakeEngine::refuse_those_with_prompt(std::vector<std::int32_t> prompt) {
  const std::lock_guard lock(mutex_);
  refused_prompt_ = std::move(prompt);
}

scheduler::GenerationRequest FakeEngine::wait_for_request() {
  std::unique_lock lock(mutex_);
  if (!changed_.wait_for(lock, kPatience, [this] { return !submitted_.empty(); })) {
    return {};
  }
  scheduler::GenerationRequest request = std::move(submitted_.front());
  submitted_.erase(submitted_.begin());
  return request;
}

bool FakeEngine::wait_for_cancel(scheduler::RequestId id) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, kPatience, [this, id] { return cancelled_.contains(id); });
}

void FakeEngine::deliver(scheduler::RequestId id, std::int32_t token, std::optional<scheduler::FinishReason> finish, const Error* error) {
  const scheduler::TokenEvent event{.request = id, .token = token, .finish = finish, .error = error};
  sink_->deliver({&event, 1});
}

}  // namespace lockstep::daemon::testing
