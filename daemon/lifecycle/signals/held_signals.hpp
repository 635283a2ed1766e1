// HeldSignals: what comes before somebody listens waits.
#pragma once

namespace lockstep::daemon {

/// Blocks the signals of SignalPolicy in the calling thread and those that it starts: one that came in the first milliseconds, from a launcher that was
/// stopped at once, would end the process without a drain.      Threads  one, and no other may run yet.
class HeldSignals {
 public:
  HeldSignals();
  HeldSignals(const HeldSignals&) = delete;
  HeldSignals& operator=(const HeldSignals&) = delete;
  ~HeldSignals() = default;
  /// Delivers those that have come. Threads that are there already leave the signals to the calling one.
  void release();
};

}  // namespace lockstep::daemon
