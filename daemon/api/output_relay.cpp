#include "daemon/api/output_relay.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>

namespace lockstep::daemon {

void OutputRelay::deliver(std::span<const scheduler::TokenEvent> events) {
  bool wake = false;
  {
    const std::lock_guard lock(mutex_);
    for (const scheduler::TokenEvent& event : events) {
      filling_.push_back({.request = event.request,
                          .token = event.token,
                          .finish = event.finish,
                          .error = event.error != nullptr ? std::optional(*event.error) : std::nullopt});
    }
    wake = !wake_pending_ && !filling_.empty();
    wake_pending_ = wake_pending_ || wake;
  }
  if (wake) {
    boost::asio::post(io_, [this] { consume(); });
  }
}

void OutputRelay::consume() {
  {
    const std::lock_guard lock(mutex_);
    filling_.swap(draining_);
    wake_pending_ = false;
  }
  consumer_(draining_);
  draining_.clear();
}

}  // namespace lockstep::daemon
