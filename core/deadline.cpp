#include "lockstep/core/deadline.hpp"

#include <algorithm>

#include <fmt/format.h>

namespace lockstep {

namespace {
/// How often a wait that a watch can end looks again: well under the 0.5 s in which a dead peer must be known.
constexpr Duration kWatchInterval = std::chrono::milliseconds(5);
}  // namespace

const SteadyClock& SteadyClock::instance() {
  static const SteadyClock clock;
  return clock;
}

Deadline Deadline::after(Duration limit, const Watch* watch, const Clock& clock) {
  return {limit, clock.now(), watch, clock};
}

TimePoint Deadline::expiry() const {
  const TimePoint counted_from = watch_ == nullptr ? start_ : std::max(start_, watch_->last_progress());
  // A limit of "for ever" must not overflow the clock.
  return limit_ >= TimePoint::max() - counted_from ? TimePoint::max() : counted_from + limit_;
}

Status Deadline::check() const {
  if (watch_ != nullptr) {
    LOCKSTEP_RETURN_IF_ERROR(watch_->failure());
  }
  if (clock_->now() < expiry()) {
    return {};
  }
  return Error{ErrorCode::kTimeout, fmt::format("no progress within {:.3f} s", std::chrono::duration<double>(limit_).count())};
}

TimePoint Deadline::next_check() const {
  return watch_ == nullptr ? expiry() : std::min(expiry(), clock_->now() + kWatchInterval);
}

}  // namespace lockstep
