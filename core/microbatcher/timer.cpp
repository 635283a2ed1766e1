#include <utility>

#include <boost/asio/steady_timer.hpp>

#include "lockstep/microbatcher/core.hpp"

namespace lockstep::detail {

namespace {

class AsioBatchTimer final : public BatchTimer {
 public:
  explicit AsioBatchTimer(const boost::asio::any_io_executor& executor) : timer_(executor) {}

  [[nodiscard]] TimePoint now() const override { return std::chrono::steady_clock::now(); }
  void arm(TimePoint when, std::function<void()> on_expiry) override {
    timer_.expires_at(when);
    timer_.async_wait([on_expiry = std::move(on_expiry)](const boost::system::error_code& error) {
      if (!error) {
        on_expiry();
      }
    });
  }
  void cancel() override { timer_.cancel(); }

 private:
  boost::asio::steady_timer timer_;
};

}  // namespace

std::shared_ptr<BatchTimer> make_asio_batch_timer(const boost::asio::any_io_executor& executor) {
  return std::make_shared<AsioBatchTimer>(executor);
}

}  // namespace lockstep::detail
