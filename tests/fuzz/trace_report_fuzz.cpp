// Goal: no report of a peer's spans does harm: what is taken is what a rank could have sent, and a trace can be made of it.
// Method: bytes that are taken are written again, which must give the same bytes, and go into a merged trace beside spans of our own.
#include <cstdint>
#include <span>
#include <vector>

#include <boost/json.hpp>

#include "daemon/trace/merged_trace.hpp"
#include "daemon/trace/trace_report.hpp"
#include "lockstep/core/check.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace lockstep;
  using namespace lockstep::daemon;
  // A copy of its own length: a read past the end shows.
  const auto given = std::as_bytes(std::span(data, size));
  const std::vector<std::byte> bytes(given.begin(), given.end());
  const Result<std::vector<scheduler::SpanRecord>> spans = decode_spans(bytes);
  if (spans) {
    for (const scheduler::SpanRecord& span : *spans) {
      LOCKSTEP_CHECK(span.end >= span.begin && span.off_core >= Duration{} && span.off_core <= span.end - span.begin && span.step >= 0 && span.layer >= -1 &&
                         span.micro_batch >= -1,
                     "step {}, layer {}, micro-batch {}", span.step, span.layer, span.micro_batch);
      LOCKSTEP_CHECK(scheduler::span_kind_name(span.kind) != "unknown", "kind {}", static_cast<int>(span.kind));
    }
    LOCKSTEP_CHECK(encode_spans(*spans) == bytes, "{} spans come back as other bytes", spans->size());
  } else {
    LOCKSTEP_CHECK(spans.error().code == ErrorCode::kInvalidArgument, "{}", spans.error().message);
  }
  // Agreements of our own, for the peer's to be compared with.
  std::vector<scheduler::SpanRecord> own;
  for (std::int64_t step = 0; step < 4; ++step) {
    own.push_back({.kind = scheduler::SpanKind::kAgree, .step = step, .begin = TimePoint(Duration(step * 100)), .end = TimePoint(Duration(step * 100 + 50))});
  }
  boost::system::error_code error;
  const boost::json::value trace = boost::json::parse(merged_trace(0, own, {{.member = 1, .bytes = bytes}}), error);
  LOCKSTEP_CHECK(!error && trace.is_object(), "a trace that is no JSON object: {}", error.message());
  return 0;
}
