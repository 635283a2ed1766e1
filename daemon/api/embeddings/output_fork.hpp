// OutputFork: the engine's events to whom they concern, embeddings or texts.
#pragma once

#include <cstddef>
#include <span>

#include "lockstep/scheduler/request.hpp"

namespace lockstep::daemon {

/// Set in the ids of requests for embeddings; generations count up from 1 and never come so far.
inline constexpr scheduler::RequestId kEmbeddingIdBit = scheduler::RequestId{1} << 63U;

/// Ownership  borrows both sinks.      Threads  the step thread's.      Cost  nothing where all events are of one kind.
class OutputFork final : public scheduler::OutputSink {
 public:
  OutputFork(scheduler::OutputSink& texts, scheduler::OutputSink& embeddings) : texts_(texts), embeddings_(embeddings) {}
  void deliver(std::span<const scheduler::TokenEvent> events) override {
    const auto is_embedding = [](const scheduler::TokenEvent& event) { return (event.request & kEmbeddingIdBit) != 0; };
    while (!events.empty()) {
      const bool embedding = is_embedding(events.front());
      std::size_t count = 1;
      while (count < events.size() && is_embedding(events[count]) == embedding) {
        ++count;
      }
      (embedding ? embeddings_ : texts_).deliver(events.first(count));
      events = events.subspan(count);
    }
  }

 private:
  scheduler::OutputSink& texts_;
  scheduler::OutputSink& embeddings_;
};

}  // namespace lockstep::daemon
