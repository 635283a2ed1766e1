#include "daemon/api/output_relay.hpp"

#include <sys/eventfd.h>
#include <unistd.h>
#include <utility>

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>

namespace lockstep::daemon {

OutputRelay::OutputRelay(boost::asio::io_context& io, Consumer consumer)
    : io_(io), consumer_(std::move(consumer)), bell_(io), bell_descriptor_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  boost::system::error_code failed;
  if (bell_descriptor_ >= 0 && bell_.assign(bell_descriptor_, failed)) {
    ::close(std::exchange(bell_descriptor_, -1));
  }
  if (bell_descriptor_ >= 0) {
    wait_for_bell();
  }
}

void OutputRelay::deliver(std::span<const scheduler::TokenEvent> events) {
  bool wake = false;
  {
    const std::lock_guard lock(mutex_);
    for (const scheduler::TokenEvent& event : events) {
      filling_.events.push_back({.request = event.request,
                                 .token = event.token,
                                 .of_prompt = event.of_prompt,
                                 .log_probability = event.log_probability,
                                 .finish = event.finish,
                                 .embedding = {event.embedding.begin(), event.embedding.end()},
                                 .error = event.error != nullptr ? std::optional(*event.error) : std::nullopt});
      filling_.likeliest_counts.push_back(event.likeliest.size());
      filling_.likeliest.insert(filling_.likeliest.end(), event.likeliest.begin(), event.likeliest.end());
    }
    wake = !wake_pending_ && !filling_.events.empty();
    wake_pending_ = wake_pending_ || wake;
  }
  if (wake) {
    ring();
  }
}

void OutputRelay::ring() {
  const std::uint64_t one = 1;
  if (bell_descriptor_ < 0 || ::write(bell_descriptor_, &one, sizeof one) != sizeof one) {
    boost::asio::post(io_, [this] { consume(); });
  }
}

void OutputRelay::wait_for_bell() {
  bell_.async_wait(boost::asio::posix::stream_descriptor::wait_read, [this](boost::system::error_code cancelled) {
    if (cancelled) {
      return;
    }
    std::uint64_t rings = 0;
    if (::read(bell_descriptor_, &rings, sizeof rings) == sizeof rings) {
      consume();
    }
    wait_for_bell();
  });
}

void OutputRelay::consume() {
  {
    const std::lock_guard lock(mutex_);
    std::swap(filling_, draining_);
    wake_pending_ = false;
  }
  std::span<const model::TokenLogProbability> likeliest = draining_.likeliest;
  for (std::size_t i = 0; i < draining_.events.size(); ++i) {
    draining_.events[i].likeliest = likeliest.first(draining_.likeliest_counts[i]);
    likeliest = likeliest.subspan(draining_.likeliest_counts[i]);
  }
  consumer_(draining_.events);
  draining_.events.clear();
  draining_.likeliest_counts.clear();
  draining_.likeliest.clear();
}

}  // namespace lockstep::daemon
