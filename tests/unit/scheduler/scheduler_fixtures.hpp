// What the scheduler's tests share: a device that only allocates, a cache of a given number of blocks, sequences.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <string_view>
#include <vector>

#include "lockstep/core/check.hpp"
#include "lockstep/device/device.hpp"
#include "scheduler/batch/kv_cache.hpp"
#include "scheduler/batch/sequence.hpp"

namespace lockstep::scheduler::testing {

/// Zeroed memory from the heap, and nothing else: the scheduler's data structures need no more. Fails the allocation `failing` (counted from 0).
class HeapDevice final : public device::Device {
 public:
  explicit HeapDevice(int failing = -1) : failing_(failing) {}
  Result<device::Buffer> allocate(std::size_t bytes) override {
    if (allocations_++ == failing_) {
      return Error{ErrorCode::kResourceExhausted, "the heap device was told to fail"};
    }
    return device::Buffer(std::calloc(1, bytes), bytes, [](void*, void* data, std::size_t) { std::free(data); });
  }
  Result<device::Buffer> allocate_host(std::size_t bytes) override { return allocate(bytes); }
  Result<std::unique_ptr<device::Stream>> make_stream(std::string_view, device::StreamPriority) override { return unsupported(); }
  std::unique_ptr<device::Stream> make_inline_stream(std::string_view) override { return nullptr; }
  std::unique_ptr<device::Event> make_event() override { return nullptr; }
  std::unique_ptr<device::Signal> make_signal() override { return nullptr; }
  Result<std::unique_ptr<device::Ops>> make_ops() override { return unsupported(); }
  std::string_view name() const override { return "heap"; }

 private:
  static Error unsupported() { return Error{ErrorCode::kUnsupported, "the heap device only allocates"}; }
  int failing_;
  int allocations_ = 0;
};

/// One layer, one head of size 2: a block takes 128 bytes.
inline constexpr device::KvCacheSpec kTinySpec{.kv_heads = 1, .head_size = 2};
inline constexpr std::int64_t kTinyBlockBytes = kTinySpec.bytes_per_token() * device::kKvBlockTokens;

inline KvCache make_cache(HeapDevice& device, std::int32_t blocks) {
  const std::vector<device::KvCacheSpec> specs{kTinySpec};
  Result<KvCache> cache = KvCache::create(device, specs, kTinyBlockBytes * blocks, blocks);
  LOCKSTEP_CHECK(cache.has_value(), "a cache of {} blocks: {}", blocks, cache.error().message);
  return std::move(*cache);
}

/// A prompt of tokens 100, 101, …: a token's id tells its position.
inline std::unique_ptr<Sequence> make_sequence(RequestId id, std::int32_t prompt_tokens, std::int32_t max_tokens) {
  auto sequence = std::make_unique<Sequence>();
  sequence->request.id = id;
  sequence->request.max_tokens = max_tokens;
  sequence->prompt_tokens = prompt_tokens;
  sequence->prefill_tokens = prompt_tokens;
  sequence->tokens.resize(static_cast<std::size_t>(prompt_tokens));
  std::iota(sequence->tokens.begin(), sequence->tokens.end(), 100);
  return sequence;
}

}  // namespace lockstep::scheduler::testing
