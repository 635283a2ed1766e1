// TraceReportSource: this rank's spans for a peer that asks, and the bytes in which they travel.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "daemon/trace/trace_ring.hpp"
#include "lockstep/comm/peer_channel.hpp"
#include "lockstep/core/result.hpp"
#include "lockstep/scheduler/step_observer.hpp"

namespace lockstep::daemon {

/// 8 bytes of mark, then 40 bytes a span, little endian. A full ring fits into kReportBytesMax.
[[nodiscard]] std::vector<std::byte> encode_spans(std::span<const scheduler::SpanRecord> spans);
/// Errors  kInvalidArgument: what encode_spans does not make: another mark or size, a kind, lane, layer or micro-batch that there is not, an end before the
/// begin, more time off its core than it lasted, or decades after a host's start.
[[nodiscard]] Result<std::vector<scheduler::SpanRecord>> decode_spans(std::span<const std::byte> bytes);

/// Answers "the newest N steps". Reads the ring on a thread of its own, as that takes milliseconds.
/// Ownership  borrows the ring. The destructor waits for the report that is being made, and drops the rest.      Threads  as ReportSource.
class TraceReportSource final : public comm::ReportSource {
 public:
  explicit TraceReportSource(const TraceRing& ring);
  ~TraceReportSource() override;
  TraceReportSource(const TraceReportSource&) = delete;
  TraceReportSource& operator=(const TraceReportSource&) = delete;

  /// `argument`: steps. One that no rank asks for, or more than a few at a time, is answered with nothing.
  void make_report(std::int64_t argument, std::function<void(std::vector<std::byte> bytes)> done) override;

 private:
  struct Worker;
  const TraceRing& ring_;
  std::unique_ptr<Worker> worker_;  ///< null before the first report
};

}  // namespace lockstep::daemon
