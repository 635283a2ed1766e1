// Goal    A trace shows when the device ran each stage and exchange: in the order in which they wait for each other, one after the other on each stream, within
//         the step. It costs no wait, and while nobody looks no event takes the time.
// Method  Whole steps on the simulated runtime, with an observer that wants the device's times or does not; the double counts waits and events.
#include <cstdint>
#include <map>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lockstep/scheduler/step_observer.hpp"
#include "tests/cuda_sim/step_fixture.hpp"

namespace lockstep::tests {
namespace {

using scheduler::SpanKind;
using scheduler::SpanLane;
using scheduler::SpanRecord;
using ::testing::ElementsAre;

std::uint64_t timed_events() {
  return hook<std::uint64_t()>("cuda_sim_timed_events")();
}

struct Watcher final : scheduler::StepObserver {
  void on_span(const SpanRecord& record) override {
    const bool of_device = record.lane == SpanLane::kDeviceCompute || record.lane == SpanLane::kDeviceComm;
    (of_device ? device : host).push_back(record);
  }
  [[nodiscard]] bool wants_device_times() const override { return watches; }

  bool watches = true;
  std::vector<SpanRecord> host;
  std::vector<SpanRecord> device;
};

class DeviceTimes : public Step {
 protected:
  /// The spans of a step that takes the whole text at once.
  void take_step(TeacherForcing& taught) {
    watcher_.host.clear();
    watcher_.device.clear();
    step_begin_ = SteadyClock::instance().now();
    static_cast<void>(logits_of(taught));
    step_end_ = SteadyClock::instance().now();
  }
  void expect_order() const;

  Watcher watcher_;
  TimePoint step_begin_{};
  TimePoint step_end_{};
};

void DeviceTimes::expect_order() const {
  std::map<std::pair<SpanLane, std::int32_t>, TimePoint> stream_ends;
  std::map<std::tuple<std::int32_t, std::int32_t, SpanKind>, SpanRecord> found;
  for (const SpanRecord& span : watcher_.device) {
    SCOPED_TRACE(fmt::format("{} of layer {}, micro-batch {}", scheduler::span_kind_name(span.kind), span.layer, span.micro_batch));
    EXPECT_GE(span.begin, step_begin_);
    EXPECT_LE(span.begin, span.end);
    EXPECT_LE(span.end, step_end_);
    TimePoint& stream_end = stream_ends[{span.lane, span.lane == SpanLane::kDeviceComm ? span.micro_batch : 0}];
    EXPECT_GE(span.begin, stream_end) << "two at once on one stream";
    stream_end = span.end;
    found[{span.layer, span.micro_batch, span.kind}] = span;
  }
  for (const auto& [key, span] : found) {
    const auto [layer, micro_batch, kind] = key;
    if (kind != SpanKind::kDispatch) {
      continue;
    }
    constexpr std::array kWaiting{SpanKind::kAttention, SpanKind::kDispatch, SpanKind::kExperts, SpanKind::kCombine, SpanKind::kWeigh};
    for (std::size_t i = 1; i < kWaiting.size(); ++i) {
      ASSERT_TRUE(found.contains({layer, micro_batch, kWaiting[i]}));
      EXPECT_LE((found[{layer, micro_batch, kWaiting[i - 1]}].end), (found[{layer, micro_batch, kWaiting[i]}].begin))
          << scheduler::span_kind_name(kWaiting[i]) << " of layer " << layer << ", micro-batch " << micro_batch;
    }
  }
}

TEST_F(DeviceTimes, AreThoseOfEachStageAndExchangeInTheOrderOfTheirWaits) {
  for (const std::int32_t micro_batches : {1, 2, 4}) {
    const std::unique_ptr<TeacherForcing> taught = teacher({.micro_batches = micro_batches, .observer = &watcher_});
    for (std::uint64_t seed = 0; seed <= schedule_seeds() + 1; ++seed) {
      SCOPED_TRACE(fmt::format("schedule {} (0 early, 1 late), {} micro-batches", seed, micro_batches));
      set_schedule(seed == 0 ? kEarly : (seed == 1 ? kLate : kRandom), seed);
      take_step(*taught);
      // The tokens' sampling is a span on the device, and none of the step executor's on the host.
      ASSERT_EQ(watcher_.device.size(), watcher_.host.size() + 1);
      EXPECT_EQ(watcher_.device.back().kind, SpanKind::kSample);
      for (std::size_t i = 0; i < watcher_.host.size(); ++i) {
        EXPECT_EQ(watcher_.device[i].kind, watcher_.host[i].kind);
        EXPECT_EQ(watcher_.device[i].layer, watcher_.host[i].layer);
        EXPECT_EQ(watcher_.device[i].micro_batch, watcher_.host[i].micro_batch);
        const bool exchange = watcher_.host[i].kind == SpanKind::kDispatch || watcher_.host[i].kind == SpanKind::kCombine;
        EXPECT_EQ(watcher_.device[i].lane, exchange ? SpanLane::kDeviceComm : SpanLane::kDeviceCompute);
      }
      expect_order();
    }
    set_schedule(kLate);
  }
}

TEST_F(DeviceTimes, CostNoWaitAndNoBit) {
  for (const std::int32_t micro_batches : {1, 2}) {
    const std::unique_ptr<TeacherForcing> taught = teacher({.micro_batches = micro_batches, .observer = &watcher_});
    std::vector<std::uint64_t> host;
    std::vector<std::uint64_t> streams;
    std::vector<Logits> logits;
    for (const bool watches : {false, false, true, true}) {  // the first of each makes buffers and events
      watcher_.watches = watches;
      const std::uint64_t host_before = host_waits();
      const std::uint64_t streams_before = event_waits();
      logits.push_back(logits_of(*taught));
      host.push_back(host_waits() - host_before);
      streams.push_back(event_waits() - streams_before);
    }
    EXPECT_EQ(host[3], host[1]) << micro_batches;
    EXPECT_EQ(streams[3], streams[1]) << micro_batches;
    EXPECT_TRUE(same_bits(logits[3], logits[1])) << micro_batches;
  }
}

TEST_F(DeviceTimes, NoEventTakesTheTimeWhileNobodyLooks) {
  watcher_.watches = false;
  const std::unique_ptr<TeacherForcing> taught = teacher({.micro_batches = 2, .observer = &watcher_});
  take_step(*taught);
  EXPECT_EQ(timed_events(), 0U);
  EXPECT_TRUE(watcher_.device.empty());
  watcher_.watches = true;
  take_step(*taught);
  const std::uint64_t made = timed_events();
  EXPECT_GE(made, 2 * watcher_.device.size());
  take_step(*taught);
  EXPECT_EQ(timed_events(), made) << "they are made once";
  watcher_.watches = false;
  take_step(*taught);
  EXPECT_EQ(timed_events(), 0U);
  EXPECT_TRUE(watcher_.device.empty());
}

TEST_F(DeviceTimes, RowsThatPassThroughTheHostsMemoryAreNoSpanOfTheDevice) {
  const std::unique_ptr<TeacherForcing> taught = teacher({.micro_batches = 2, .combine = comm::CombineMode::kPerRank, .observer = &watcher_});
  take_step(*taught);
  EXPECT_FALSE(watcher_.device.empty());
  for (const SpanRecord& span : watcher_.device) {
    EXPECT_EQ(span.lane, SpanLane::kDeviceCompute);
  }
  expect_order();
}

TEST_F(DeviceTimes, AGraphIsOneSpan) {
  model::ModelConfig dense = test_config();
  dense.layer_is_sparse = {0, 0, 0};
  for (const model::ModelConfig& config : {config_, dense}) {
    const std::unique_ptr<model::WeightSource> source = model::make_dummy_weights(5);
    Result<std::unique_ptr<TeacherForcing>> taught =
        TeacherForcing::create(config, *source, {.tokens_max = 32, .rows_per_step = 21, .device = "cuda", .graphs = GraphMode::kFull, .observer = &watcher_});
    ASSERT_TRUE(taught.has_value()) << taught.error().message;
    take_step(**taught);
    std::vector<SpanKind> kinds;
    for (const SpanRecord& span : watcher_.device) {
      kinds.push_back(span.kind);
    }
    if (config.layer_is_sparse == dense.layer_is_sparse) {
      EXPECT_THAT(kinds, ElementsAre(SpanKind::kGraph, SpanKind::kSample));
    } else {
      EXPECT_THAT(kinds, ElementsAre(SpanKind::kGraph, SpanKind::kDispatch, SpanKind::kExperts, SpanKind::kCombine, SpanKind::kWeigh, SpanKind::kGraph,
                                     SpanKind::kDispatch, SpanKind::kExperts, SpanKind::kCombine, SpanKind::kWeigh, SpanKind::kGraph, SpanKind::kSample));
    }
    expect_order();
  }
}

}  // namespace
}  // namespace lockstep::tests
