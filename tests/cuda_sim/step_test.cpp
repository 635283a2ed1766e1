// Goal    A step on the CUDA backend gives the CPU's logits within bfloat16's rounding, the same bits however the rows are cut, on every schedule; it waits for
//         the device as often as is said and no more, and each of these waits is needed.
// Method  Teacher-forced texts through the stages and step program that serve requests, on the simulated runtime, whose hooks set schedules, count the host's
//         waits and take one away. A wait that is gone must end the process or change the logits.
#include <cmath>
#include <cstdint>
#include <memory>
#include <string>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/cuda_sim/step_fixture.hpp"
#include "tests/support/test_device.hpp"

namespace lockstep::tests {
namespace {

std::uint64_t algorithms_asked_for() {
  return hook<std::uint64_t()>("cuda_sim_blas_questions", "libcublasLt.so.13")();
}

TEST_F(Step, LogitsAreTheCpusWithinTheRoundingOfBfloat16) {
  const Logits expected = logits_of(*teacher({.device = "cpu"}));
  const Logits found = logits_of(*teacher({.device = "cuda"}));
  ASSERT_EQ(found.size(), expected.size());
  double error = 0;
  double scale = 0;
  for (std::size_t row = 0; row < expected.size(); ++row) {
    for (std::size_t i = 0; i < expected[row].size(); ++i) {
      error = std::max(error, std::abs(static_cast<double>(found[row][i]) - static_cast<double>(expected[row][i])));
      scale = std::max(scale, std::abs(static_cast<double>(expected[row][i])));
    }
  }
  RecordProperty("error", std::to_string(error));
  RecordProperty("scale", std::to_string(scale));
  // Both round what products read to bfloat16, 8 bits; sums differ in order, which now and then turns the last of these.
  EXPECT_LE(error, scale / 128) << "the largest logit is " << scale;
  EXPECT_GT(scale, 0);
}

TEST_F(Step, ARowHasTheSameBitsAloneInChunksAndInMicroBatches) {
  const Logits whole = logits_of(*teacher({}));
  for (const TeacherForcingOptions& options :
       {TeacherForcingOptions{.rows_per_step = 1}, TeacherForcingOptions{.rows_per_step = 5}, TeacherForcingOptions{.micro_batches = 2},
        TeacherForcingOptions{.micro_batches = 4}, TeacherForcingOptions{.rows_per_step = 5, .micro_batches = 2}}) {
    EXPECT_TRUE(same_bits(logits_of(*teacher(options)), whole)) << options.rows_per_step << " rows a step, " << options.micro_batches << " micro-batches";
  }
}

TEST_F(Step, EveryScheduleGivesTheSameBits) {
  const Logits expected = logits_of(*teacher({}));
  for (const std::int32_t micro_batches : {1, 2}) {
    const std::unique_ptr<TeacherForcing> teacher_of = teacher({.rows_per_step = 12, .micro_batches = micro_batches});
    set_schedule(kEarly);
    EXPECT_TRUE(same_bits(logits_of(*teacher_of), expected)) << "early, micro-batches " << micro_batches;
    for (std::uint64_t seed = 1; seed <= schedule_seeds(); ++seed) {
      set_schedule(kRandom, seed);
      EXPECT_TRUE(same_bits(logits_of(*teacher_of), expected)) << "seed " << seed << ", micro-batches " << micro_batches;
    }
    set_schedule(kLate);
  }
}

/// Which rows go where has to be known before a dispatch, and logits before they are sampled. Where rows pass through the host's memory, which they do when
/// they are summed on the way, the experts' outputs have to be there before a combine as well.
std::uint64_t waits_of_a_step(std::int32_t micro_batches, comm::CombineMode combine = comm::CombineMode::kPerExpert) {
  const int each = combine == comm::CombineMode::kPerExpert ? 1 : 2;
  return static_cast<std::uint64_t>(each * kSparseLayers * micro_batches + 1);
}
/// Between the stream that computes and that of the exchange: for the rows of a dispatch, the experts' outputs, and the rows of a combine.
std::uint64_t event_waits_of_a_step(std::int32_t micro_batches) {
  return static_cast<std::uint64_t>(3 * kSparseLayers * micro_batches);
}

TEST_F(Step, TheHostWaitsOnceForEachSparseLayerAndMicroBatchAndOnceForTheLogits) {
  for (const std::int32_t micro_batches : {1, 2, 4}) {
    const std::unique_ptr<TeacherForcing> taught = teacher({.micro_batches = micro_batches});
    static_cast<void>(logits_of(*taught));  // buffers have grown
    const std::uint64_t before = host_waits();
    const device::DeviceUsage used = taught->usage();
    static_cast<void>(logits_of(*taught));
    EXPECT_EQ(host_waits() - before, waits_of_a_step(micro_batches)) << micro_batches;
    // The backend's own count leaves out what the host asked for between other things to do.
    const std::uint64_t counted = taught->usage().host_waits - used.host_waits;
    EXPECT_LE(counted, waits_of_a_step(micro_batches)) << micro_batches;
    EXPECT_GE(counted, 1U) << micro_batches;
    if (micro_batches == 1) {
      EXPECT_EQ(counted, waits_of_a_step(1));
    }
    EXPECT_GT(taught->usage().launches, used.launches + 10);
    EXPECT_EQ(taught->usage().memory_used_bytes, used.memory_used_bytes) << "a warm step allocates nothing";
    EXPECT_GT(used.memory_used_bytes, 0);
    EXPECT_GE(used.memory_reserved_bytes, used.memory_used_bytes);
    EXPECT_LE(used.memory_used_bytes + used.memory_free_bytes, used.memory_total_bytes);
  }
}

TEST_F(Step, WithoutBatchInvarianceARowsBitsDependOnTheRowsBesideIt) {
  for (const bool batch_invariant : {false, true}) {
    const Logits whole = logits_of(*teacher({.batch_invariant = batch_invariant}));
    EXPECT_TRUE(same_bits(logits_of(*teacher({.batch_invariant = batch_invariant})), whole)) << "the same rows, the same bits";
    EXPECT_EQ(same_bits(logits_of(*teacher({.rows_per_step = 1, .batch_invariant = batch_invariant})), whole), batch_invariant);
    EXPECT_EQ(same_bits(logits_of(*teacher({.micro_batches = 4, .batch_invariant = batch_invariant})), whole), batch_invariant);
  }
}

TEST_F(Step, TheHostWaitsTwiceWhereRowsPassThroughItsMemory) {
  for (const std::int32_t micro_batches : {1, 2}) {
    const std::unique_ptr<TeacherForcing> taught = teacher({.micro_batches = micro_batches, .combine = comm::CombineMode::kPerRank});
    static_cast<void>(logits_of(*taught));
    const std::uint64_t before = host_waits();
    const std::uint64_t events_before = event_waits();
    static_cast<void>(logits_of(*taught));
    EXPECT_EQ(host_waits() - before, waits_of_a_step(micro_batches, comm::CombineMode::kPerRank)) << micro_batches;
    EXPECT_EQ(event_waits() - events_before, 0U) << micro_batches;
  }
}

TEST_F(Step, StreamsWaitForEachOtherThreeTimesForEachSparseLayerAndMicroBatch) {
  for (const std::int32_t micro_batches : {1, 2, 4}) {
    const std::unique_ptr<TeacherForcing> taught = teacher({.micro_batches = micro_batches});
    static_cast<void>(logits_of(*taught));
    const std::uint64_t before = event_waits();
    static_cast<void>(logits_of(*taught));
    EXPECT_EQ(event_waits() - before, event_waits_of_a_step(micro_batches)) << micro_batches;
  }
}

TEST_F(Step, NoAlgorithmIsAskedForOnceAStepHasBegun) {
  for (const bool batch_invariant : {false, true}) {
    const std::unique_ptr<TeacherForcing> taught = teacher({.rows_per_step = 5, .batch_invariant = batch_invariant});
    const std::uint64_t loaded = algorithms_asked_for();
    EXPECT_GT(loaded, 0U);
    static_cast<void>(logits_of(*taught));  // 5 rows a step, and 1 in the last
    EXPECT_EQ(algorithms_asked_for(), loaded);
  }
}

TEST_F(Step, EachOfTheseWaitsIsNeeded) {
  for (const std::int32_t micro_batches : {1, 2}) {
    for (std::uint64_t ordinal = 1; ordinal <= waits_of_a_step(micro_batches); ++ordinal) {
      SCOPED_TRACE(fmt::format("wait {} of a step with {} micro-batches", ordinal, micro_batches));
      EXPECT_EXIT(
          {
            const std::unique_ptr<TeacherForcing> taught = teacher({.micro_batches = micro_batches});
            const Logits expected = logits_of(*taught);
            skip_host_wait(ordinal);
            leave(!same_bits(logits_of(*taught), expected));
          },
          is_failure, kNoticed);
    }
  }
}

/// Each of them lets a stream whose wait is gone come too early with a fair chance.
constexpr std::uint64_t kSeedsForStreams = 100;

TEST_F(Step, EachWaitOfAStreamIsNeeded) {
  for (const std::int32_t micro_batches : {1, 2}) {
    for (std::uint64_t ordinal = 1; ordinal <= event_waits_of_a_step(micro_batches); ++ordinal) {
      SCOPED_TRACE(fmt::format("wait {} of the streams of a step with {} micro-batches", ordinal, micro_batches));
      EXPECT_EXIT(
          {
            const std::unique_ptr<TeacherForcing> taught = teacher({.micro_batches = micro_batches});
            const Logits expected = logits_of(*taught);
            // On some schedules the other stream is in time all the same: the late one holds back what nobody waits for, the random ones what somebody does.
            bool noticed = false;
            for (std::uint64_t seed = 0; seed <= kSeedsForStreams && !noticed; ++seed) {
              set_schedule(seed == 0 ? kLate : kRandom, seed);
              skip_event_wait(ordinal);
              noticed = !same_bits(logits_of(*taught), expected);
            }
            leave(noticed);
          },
          is_failure, kNoticed);
    }
  }
}

TEST_F(Step, LoadingHasToWaitForMemoryToBeThere) {
  // Every second wait of the first tensors; those between are for copies, which may be in time without. (Of memory that nobody uses before the next is
  // allocated, the next one's wait would do as well.)
  const Logits expected = logits_of(*teacher({.device = "cuda"}));
  for (const std::uint64_t ordinal : {1U, 3U, 5U, 7U}) {
    SCOPED_TRACE(fmt::format("wait {} of loading", ordinal));
    EXPECT_EXIT(
        {
          skip_host_wait(ordinal);
          leave(!same_bits(logits_of(*teacher({.device = "cuda"})), expected));
        },
        is_failure, kNoticed);
  }
}

TEST_F(Step, TheWaitForASlotOfSmallArraysIsNeeded) {
  constexpr std::int32_t kLaunches = 40;  // more than slots
  const auto embeds = [](device::Device& device, std::uint64_t skipped) -> Status {
    LOCKSTEP_ASSIGN_OR_RETURN(const std::unique_ptr<device::Ops> ops, device.make_ops());
    LOCKSTEP_ASSIGN_OR_RETURN(const std::unique_ptr<device::Stream> stream, device.make_stream("embeds"));
    LOCKSTEP_ASSIGN_OR_RETURN(const device::Buffer table, device.allocate(64 * sizeof(BFloat16)));
    LOCKSTEP_ASSIGN_OR_RETURN(const device::Buffer out, device.allocate(64 * sizeof(float)));
    std::int32_t token = 0;
    const auto launch = [&]() -> Status {
      ops->embed(*stream, std::span(&token, 1), table.as<BFloat16>(), 8, out.as<float>());
      return {};
    };
    stream->enqueue(launch);  // slots are made
    LOCKSTEP_RETURN_IF_ERROR(stream->synchronize(Deadline::after(std::chrono::seconds(60))));
    skip_host_wait(skipped);
    for (std::int32_t i = 0; i < kLaunches; ++i) {
      token = i % 7;  // another one in the same slot the next time
      stream->enqueue(launch);
    }
    return stream->synchronize(Deadline::after(std::chrono::seconds(60)));
  };
  EXPECT_TRUE(embeds(*make_test_device("cuda", 0), 0));
  EXPECT_EXIT({ leave(!embeds(*make_test_device("cuda", 0), 1)); }, is_failure, "cuda_sim: the host changed memory before the copy from it was done");
}

}  // namespace
}  // namespace lockstep::tests
