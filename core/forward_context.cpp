#include "lockstep/forward_context.hpp"

#include <stdexcept>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "lockstep/core/hash.hpp"

namespace lockstep {

namespace {
// The seed's contract: layers find the step's context on their thread. NOLINTNEXTLINE(cppcoreguidelines-avoid-non-const-global-variables)
thread_local const ForwardContext* current_context = nullptr;
}  // namespace

std::string BatchDescriptor::key() const {
  return fmt::format("tokens={},reqs={},uniform={},lora={}", num_tokens, num_reqs ? std::to_string(*num_reqs) : "any", uniform ? 1 : 0, has_lora ? 1 : 0);
}

std::uint64_t BatchDescriptor::hash_key() const {
  // No string: this is looked up every step.
  const std::array<std::int32_t, 4> words{num_tokens, num_reqs.value_or(-1), uniform ? 1 : 0, has_lora ? 1 : 0};
  std::uint64_t hash = fnv1a("");
  for (const std::int32_t word : words) {
    for (unsigned shift = 0; shift < 32; shift += 8) {
      const char byte = static_cast<char>(static_cast<std::uint32_t>(word) >> shift & 0xffU);
      hash = fnv1a(std::string_view(&byte, 1), hash);
    }
  }
  return hash;
}

const AttentionMetadata& ForwardContext::get_attn_metadata(std::string_view layer) const {
  if (attn_metadata != nullptr) {
    if (const auto found = attn_metadata->find(layer); found != attn_metadata->end() && found->second != nullptr) {
      return *found->second;
    }
  }
  std::vector<std::string_view> known;
  if (attn_metadata != nullptr) {
    for (const auto& [name, metadata] : *attn_metadata) {
      known.push_back(name);
    }
  }
  throw std::out_of_range(
      fmt::format("no attention metadata for layer \"{}\"; known layers: {}", layer, known.empty() ? "none" : fmt::format("{}", fmt::join(known, ", "))));
}

std::int32_t ForwardContext::get_num_tokens() const {
  if (num_tokens) {
    return *num_tokens;
  }
  if (batch_descriptor) {
    return batch_descriptor->num_tokens;
  }
  return dp_metadata != nullptr ? dp_metadata->get_local_tokens() : 0;
}

Duration ForwardContext::elapsed_time() const {
  return std::chrono::steady_clock::now() - start_time;
}

const ForwardContext& get_forward_context() {
  if (current_context == nullptr) {
    throw std::logic_error("no ForwardContext is set on this thread: enter a set_forward_context scope before running layers");
  }
  return *current_context;
}

bool is_forward_context_available() noexcept {
  return current_context != nullptr;
}

const ForwardContext* _set_forward_context(const ForwardContext* context) noexcept {
  return std::exchange(current_context, context);
}

ForwardContext create_forward_context(const ForwardContextOptions& options) {
  return {.attn_metadata = options.attn_metadata,
          .virtual_engine = options.virtual_engine,
          .num_tokens = options.num_tokens,
          .batch_descriptor = options.batch_descriptor,
          .dp_metadata = options.dp_metadata,
          .cudagraph_runtime_mode = options.cudagraph_runtime_mode,
          .additional_kwargs = options.additional_kwargs,
          .start_time = std::chrono::steady_clock::now(),
          .timing_tracker = options.timing_tracker};
}

}  // namespace lockstep
