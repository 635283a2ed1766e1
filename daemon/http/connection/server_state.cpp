#include "daemon/http/connection/server_state.hpp"

#include <utility>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/post.hpp>

#include "daemon/http/connection/connection.hpp"

namespace lockstep::daemon {

void ServerState::count_exchange(int change) {
  exchanges += static_cast<std::size_t>(change);
  for (HttpObserver* observer : options.observers) {
    observer->on_inflight(exchanges);
  }
}

bool ServerState::take_answer_place(std::size_t bytes, std::shared_ptr<void>& place) {
  if (bytes <= options.limits.large_body_bytes) {
    return true;
  }
  if (answer_bytes + bytes > options.limits.answer_bytes) {
    return false;
  }
  answer_bytes += bytes;
  place = std::shared_ptr<void>(nullptr, [state = shared_from_this(), bytes](void*) { state->answer_bytes -= bytes; });
  return true;
}

void ServerState::count_connections() const {
  for (HttpObserver* observer : options.observers) {
    observer->on_connections(connections.size());
  }
}

void ServerState::count_sent(std::size_t bytes) const {
  for (HttpObserver* observer : options.observers) {
    observer->on_sent(bytes);
  }
}

void ServerState::reject(std::string_view reason) const {
  for (HttpObserver* observer : options.observers) {
    observer->on_rejected(reason);
  }
}

void ServerState::report(const ResponseFacts& facts) const {
  for (HttpObserver* observer : options.observers) {
    observer->on_response(facts);
  }
}

void ServerState::flush_later(std::shared_ptr<Connection> connection, const boost::asio::any_io_executor& executor) {
  to_flush.push_back(std::move(connection));
  if (to_flush.size() > 1) {
    return;
  }
  boost::asio::post(executor, [self = shared_from_this()] {
    const std::vector<std::shared_ptr<Connection>> waiting = std::exchange(self->to_flush, {});
    for (const std::shared_ptr<Connection>& each : waiting) {
      each->flush();
    }
  });
}

}  // namespace lockstep::daemon
