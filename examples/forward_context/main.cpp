// An engine sets the context of a forward pass; layers read from it what they need, without a parameter for each. Contexts nest.
#include <cstdint>
#include <cstdio>
#include <unordered_map>
#include <vector>

#include "lockstep/forward_context.hpp"

namespace {

using lockstep::BatchDescriptor;
using lockstep::DPMetadata;
using lockstep::ForwardContext;

/// What this model's attention layers need.
struct Positions : lockstep::AttentionMetadata {
  std::int32_t first = 0;
};

/// A layer: knows its name, and asks the context for the rest.
std::int32_t attention(const char* layer) {
  const ForwardContext& context = lockstep::get_forward_context();
  const auto& positions = static_cast<const Positions&>(context.get_attn_metadata(layer));
  return positions.first + context.get_num_tokens();
}

/// The seed's own example: a pass over 32 tokens, in which captured graphs may be used.
bool pass_over_32_tokens() {
  Positions positions;
  positions.first = 100;
  const lockstep::AttentionMetadataByLayer by_layer{{"layers.0", &positions}, {"layers.1", &positions}};
  const ForwardContext context =
      lockstep::create_forward_context({.attn_metadata = &by_layer, .num_tokens = 32, .cudagraph_runtime_mode = lockstep::GraphMode::kFull});
  const lockstep::set_forward_context scope(context);
  const std::int32_t last = attention("layers.0");
  std::printf("the first layer ends at position %d, graphs are %s\n", last, context.is_cudagraph_enabled() ? "on" : "off");
  return last == 132 && attention("layers.1") == 132;
}

/// Three ranks with 5, 0 and 3 tokens: each rank knows all counts, and a micro-batch has its share of each.
bool a_group_with_an_idle_rank() {
  const DPMetadata counts = DPMetadata::make(3, 0, 5, std::vector<std::int32_t>{5, 0, 3});
  const ForwardContext step = lockstep::create_forward_context({.dp_metadata = &counts});
  const lockstep::set_forward_context step_scope(step);
  const DPMetadata first_half = counts.chunk(0, 3);
  const ForwardContext micro_batch = lockstep::create_forward_context({.dp_metadata = &first_half});
  std::int32_t inside = 0;
  {
    const lockstep::set_forward_context micro_batch_scope(micro_batch);
    inside = lockstep::get_forward_context().get_num_tokens();
  }
  const std::int32_t outside = lockstep::get_forward_context().get_num_tokens();
  std::printf("%d tokens in the group, %d here, %d of them in the first micro-batch\n", counts.get_total_tokens(), outside, inside);
  return counts.get_total_tokens() == 8 && outside == 5 && inside == 3 && first_half.get_total_tokens() == 6;
}

/// Shapes as keys of a cache, and times by batch size.
bool prepared_shapes_and_times() {
  std::unordered_map<BatchDescriptor, int> prepared;
  prepared[BatchDescriptor{.num_tokens = 8, .uniform = true}.relaxed()] = 1;
  const auto found = prepared.find(BatchDescriptor{.num_tokens = 8, .num_reqs = 8, .uniform = true}.relaxed());
  lockstep::ForwardTimingTracker tracker;
  for (const double milliseconds : {1.0, 3.0}) {
    tracker.record(8, milliseconds);
  }
  const auto stats = tracker.get_stats();
  std::printf("%s: %.1f ms on average\n", found->first.key().c_str(), stats.front().mean_ms);
  return found != prepared.end() && stats.front().count == 2 && stats.front().mean_ms == 2.0;
}

}  // namespace

int main() {
  const bool shown = pass_over_32_tokens() && a_group_with_an_idle_rank() && prepared_shapes_and_times();
  return shown && !lockstep::is_forward_context_available() ? 0 : 1;
}
