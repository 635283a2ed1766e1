#include "daemon/trace/trace_report.hpp"

#include <atomic>
#include <exception>
#include <utility>

#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#include <fmt/format.h>

#include "daemon/trace/trace_route.hpp"

namespace lockstep::daemon {
namespace {

using scheduler::SpanRecord;

constexpr std::uint64_t kMark = 0x32454341'52544b4cU;  // "LKTRACE2"
constexpr std::size_t kWordBytes = sizeof(std::uint64_t);
constexpr std::size_t kSpanWords = 5;
constexpr unsigned kTagBits = 16;
constexpr std::int64_t kTagMax = 0xffff;
constexpr std::int64_t kTimeMax = std::int64_t{1} << 61;  // nanoseconds
constexpr int kReportsAtOnceMax = 64;
static_assert(kWordBytes * (1 + kSpanWords * kTraceSpans) <= comm::kReportBytesMax);

void put_word(std::vector<std::byte>& out, std::uint64_t word) {
  for (std::size_t i = 0; i < kWordBytes; ++i) {
    out.push_back(static_cast<std::byte>(word >> (8 * i) & 0xffU));
  }
}

std::uint64_t word_at(std::span<const std::byte> bytes, std::size_t index) {
  std::uint64_t word = 0;
  for (std::size_t i = 0; i < kWordBytes; ++i) {
    word |= static_cast<std::uint64_t>(bytes[index * kWordBytes + i]) << (8 * i);
  }
  return word;
}

std::int64_t nanoseconds(TimePoint time) {
  return std::chrono::nanoseconds(time.time_since_epoch()).count();
}

TimePoint time_point(std::uint64_t ns) {
  return TimePoint(std::chrono::duration_cast<Duration>(std::chrono::nanoseconds(static_cast<std::int64_t>(ns))));
}

/// Layers and micro-batches begin at -1; both fit 16 bits.
std::uint64_t tags_of(const SpanRecord& span) {
  return static_cast<std::uint64_t>(span.kind) | static_cast<std::uint64_t>(span.lane) << kTagBits |
         static_cast<std::uint64_t>((span.layer + 1) & kTagMax) << (2 * kTagBits) |
         static_cast<std::uint64_t>((span.micro_batch + 1) & kTagMax) << (3 * kTagBits);
}

std::int32_t tag(std::uint64_t tags, unsigned index) {
  return static_cast<std::int32_t>(tags >> (index * kTagBits) & static_cast<std::uint64_t>(kTagMax));
}

}  // namespace

std::vector<std::byte> encode_spans(std::span<const SpanRecord> spans) {
  std::vector<std::byte> out;
  out.reserve(kWordBytes * (1 + kSpanWords * spans.size()));
  put_word(out, kMark);
  for (const SpanRecord& span : spans) {
    put_word(out, static_cast<std::uint64_t>(nanoseconds(span.begin)));
    put_word(out, static_cast<std::uint64_t>(nanoseconds(span.end)));
    put_word(out, static_cast<std::uint64_t>(span.step));
    put_word(out, tags_of(span));
    put_word(out, static_cast<std::uint64_t>(std::chrono::nanoseconds(span.off_core).count()));
  }
  return out;
}

Result<std::vector<SpanRecord>> decode_spans(std::span<const std::byte> bytes) {
  if (bytes.size() < kWordBytes || (bytes.size() - kWordBytes) % (kSpanWords * kWordBytes) != 0 || word_at(bytes, 0) != kMark) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("its {} bytes are no trace", bytes.size())};
  }
  const std::size_t count = (bytes.size() - kWordBytes) / (kSpanWords * kWordBytes);
  std::vector<SpanRecord> spans(count);
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t at = 1 + kSpanWords * i;
    const std::uint64_t tags = word_at(bytes, at + 3);
    SpanRecord& span = spans[i];
    span.begin = time_point(word_at(bytes, at));
    span.end = time_point(word_at(bytes, at + 1));
    span.step = static_cast<std::int64_t>(word_at(bytes, at + 2));
    span.off_core = std::chrono::nanoseconds(static_cast<std::int64_t>(word_at(bytes, at + 4)));
    // Clocks and steps are never negative, and no host runs for 73 years: so nothing overflows where clocks are compared.
    if (static_cast<std::size_t>(tag(tags, 0)) >= scheduler::kSpanKindCount || static_cast<std::size_t>(tag(tags, 1)) >= scheduler::kSpanLaneCount ||
        nanoseconds(span.begin) < 0 || span.end < span.begin || nanoseconds(span.end) > kTimeMax || span.step < 0 || span.off_core < Duration{} ||
        span.off_core > span.end - span.begin) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("span {} of its {} is none: kind {}, lane {}, from {} to {} ns, step {}, {} ns off its core", i, count, tag(tags, 0),
                               tag(tags, 1), nanoseconds(span.begin), nanoseconds(span.end), span.step, span.off_core.count())};
    }
    span.kind = static_cast<scheduler::SpanKind>(tag(tags, 0));
    span.lane = static_cast<scheduler::SpanLane>(tag(tags, 1));
    span.layer = tag(tags, 2) - 1;
    span.micro_batch = tag(tags, 3) - 1;
  }
  return spans;
}

struct TraceReportSource::Worker {
  std::atomic<int> open{0};
  boost::asio::thread_pool pool{1};
};

TraceReportSource::TraceReportSource(const TraceRing& ring) : ring_(ring) {}

TraceReportSource::~TraceReportSource() {
  if (worker_) {
    worker_->pool.stop();
    worker_->pool.join();
  }
}

void TraceReportSource::make_report(std::int64_t argument, std::function<void(std::vector<std::byte> bytes)> done) {
  if (!worker_) {
    worker_ = std::make_unique<Worker>();
  }
  if (argument < 1 || argument > kTraceStepsMax || worker_->open >= kReportsAtOnceMax) {
    done({});
    return;
  }
  ++worker_->open;
  boost::asio::post(worker_->pool, [this, argument, done = std::move(done)] {
    std::vector<std::byte> bytes;
    try {
      bytes = encode_spans(ring_.last_steps(argument));
    } catch (const std::exception&) {  // the standard library's word for "no memory"
      bytes = {};
    }
    --worker_->open;
    done(std::move(bytes));
  });
}

}  // namespace lockstep::daemon
