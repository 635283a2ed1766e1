#include "daemon/lifecycle/life_monitor.hpp"

#include <algorithm>
#include <chrono>
#include <utility>

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <fmt/format.h>
#include <fmt/ranges.h>

namespace lockstep::daemon {
namespace {

constexpr Duration kWarmTick = std::chrono::milliseconds(2);  // until the first step, which comes within milliseconds: a start is timed to the first token
constexpr auto kExtendInterval = std::chrono::seconds(1);
constexpr auto kExtendBy = std::chrono::seconds(30);

TimePoint now() {
  return std::chrono::steady_clock::now();
}

class AsioLifeMonitor final : public LifeMonitor {
 public:
  AsioLifeMonitor(const LifeMonitorOptions& options, LifeMonitorParts parts)
      : options_(options), parts_(std::move(parts)), tick_timer_(*parts_.io), ping_timer_(*parts_.io) {
    options_.tick_interval = std::min(options_.tick_interval, options_.stall_timeout / 4);
  }

  void start() override {
    enter(state_);
    schedule_tick();
    schedule_ping();
  }

  void stop() override {
    stopped_ = true;
    tick_timer_.cancel();
    ping_timer_.cancel();
  }

  void set_state(LifeState state) override {
    if (state != state_) {
      enter(state);
      if (state == LifeState::kWarming) {
        schedule_tick();
      }
    }
  }
  [[nodiscard]] LifeState state() const override { return state_; }
  void set_peers(const comm::PeerChannel* peers) override { peers_ = peers; }
  void set_engine(const scheduler::Engine* engine) override { engine_ = engine; }

  HttpResponse health_response() override {
    const HealthInput input = look();
    const Health health = judge_health(input);
    return {.status = health.alive ? 200 : 503, .body = health_body(health, input, options_.rank)};
  }

  HttpResponse ready_response() override {
    const HealthInput input = look();
    const Health health = judge_health(input);
    HttpResponse response{.status = health.ready ? 200 : 503, .body = health_body(health, input, options_.rank)};
    if (!health.ready) {
      response.headers.push_back({"Retry-After", "1"});
    }
    return response;
  }

  void update_metrics() override {
    const HealthInput input = look();
    for (const comm::PeerState& peer : input.peers) {
      parts_.metrics->set_peer(peer);
    }
    parts_.metrics->set_drain_remaining(state_ == LifeState::kDraining && engine_ != nullptr ? static_cast<std::size_t>(engine_->open_requests()) : 0);
  }

 private:
  /// The present moment, with the transitions that the engine makes by itself.
  HealthInput look() {
    const TimePoint at = now();
    watch_.update(parts_.progress->report(), at);
    if (engine_ != nullptr && state_ == LifeState::kWarming && engine_->running()) {
      enter(LifeState::kReady);
      parts_.on_ready();
    }
    if (engine_ != nullptr && state_ == LifeState::kReady && engine_->draining()) {
      enter(LifeState::kDraining);
    }
    return {.state = state_,
            .progress = watch_.report(),
            .since_progress = watch_.since_progress(at),
            .stall_timeout = options_.stall_timeout,
            .peers = peers_ != nullptr ? peers_->states() : std::vector<comm::PeerState>{}};
  }

  void enter(LifeState state) {
    state_ = state;
    parts_.metrics->set_up_state(life_state_name(state));
    if (state == LifeState::kReady) {
      notify("READY=1\nSTATUS=serving");
    } else if (state == LifeState::kDraining) {
      notify("STOPPING=1\nSTATUS=draining: accepted requests finish");
    } else {
      notify(fmt::format("STATUS={}", life_state_name(state)));
    }
  }

  void notify(std::string_view message) const {
    if (options_.rank == 0) {
      parts_.notifier->send(message);
    }
  }

  void tick() {
    const HealthInput input = look();
    const Health health = judge_health(input);
    const bool stalled = health.status == "stalled";
    if (stalled && !stalled_) {
      parts_.logger->warn("no progress for {:.1f} s in step {}, {}, layer {}; ranks that have not arrived: [{}]",
                          std::chrono::duration<double>(input.since_progress).count(), input.progress.step, comm::step_phase_name(input.progress.phase),
                          input.progress.layer, fmt::join(health.not_arrived, ", "));
    }
    stalled_ = stalled;
    const bool starting = state_ == LifeState::kInit || state_ == LifeState::kLoading || state_ == LifeState::kWarming;
    if (starting && now() >= next_extension_) {
      next_extension_ = now() + kExtendInterval;
      notify(fmt::format("EXTEND_TIMEOUT_USEC={}", std::chrono::microseconds(kExtendBy).count()));
    }
    schedule_tick();
  }

  void schedule_tick() {
    if (stopped_) {
      return;
    }
    tick_timer_.expires_after(state_ == LifeState::kWarming ? kWarmTick : options_.tick_interval);
    tick_timer_.async_wait([this](boost::system::error_code cancelled) {
      if (!cancelled) {
        tick();
      }
    });
  }

  void schedule_ping() {
    if (stopped_ || options_.rank != 0 || !parts_.notifier->ping_interval()) {
      return;
    }
    ping_timer_.expires_after(*parts_.notifier->ping_interval());
    ping_timer_.async_wait([this](boost::system::error_code cancelled) {
      if (cancelled) {
        return;
      }
      if (judge_health(look()).alive) {
        notify("WATCHDOG=1");
        parts_.metrics->count_watchdog_ping();
      }
      schedule_ping();
    });
  }

  LifeMonitorOptions options_;
  LifeMonitorParts parts_;
  boost::asio::steady_timer tick_timer_;
  boost::asio::steady_timer ping_timer_;
  ProgressWatch watch_;
  LifeState state_ = LifeState::kInit;
  const comm::PeerChannel* peers_ = nullptr;
  const scheduler::Engine* engine_ = nullptr;
  TimePoint next_extension_{};
  bool stalled_ = false;
  bool stopped_ = false;
};

}  // namespace

std::unique_ptr<LifeMonitor> LifeMonitor::create(const LifeMonitorOptions& options, LifeMonitorParts parts) {
  return std::make_unique<AsioLifeMonitor>(options, std::move(parts));
}

}  // namespace lockstep::daemon
