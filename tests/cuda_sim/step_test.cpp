// Goal    A step on the CUDA backend gives the CPU's logits within bfloat16's rounding, the same bits however the rows are cut, on every schedule; it waits for
//         the device as often as is said and no more, and each of these waits is needed.
// Method  Teacher-forced texts through the stages and step program that serve requests, on the simulated runtime, whose hooks set schedules, count the host's
//         waits and take one away. A wait that is gone must end the process or change the logits.
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <dlfcn.h>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lockstep/core/check.hpp"
#include "lockstep/model/weights.hpp"
#include "tests/support/group_harness.hpp"
#include "tests/support/teacher_forcing.hpp"
#include "tests/support/test_device.hpp"

namespace lockstep::tests {
namespace {

enum Schedule { kEarly = 0, kLate = 1, kRandom = 2 };
using Logits = std::vector<std::vector<float>>;

/// A function of the double, which the plugin has loaded.
template <typename Function>
Function* hook(const char* name) {
  void* const runtime = dlopen("libcudart.so.13", RTLD_NOW | RTLD_NOLOAD);
  void* const found = runtime == nullptr ? nullptr : dlsym(runtime, name);
  LOCKSTEP_CHECK(found != nullptr, "no {}: this is not the simulated runtime; set LD_LIBRARY_PATH", name);
  return reinterpret_cast<Function*>(found);
}
void set_schedule(Schedule schedule, std::uint64_t seed = 1) {
  hook<void(int, std::uint64_t)>("cuda_sim_set_schedule")(schedule, seed);
}
std::uint64_t host_waits() {
  return hook<std::uint64_t()>("cuda_sim_host_waits")();
}
void skip_host_wait(std::uint64_t ordinal) {
  hook<void(std::uint64_t)>("cuda_sim_skip_host_wait")(ordinal);
}

/// Two sparse layers around a dense one.
model::ModelConfig test_config() {
  model::ModelConfig config = small_config();
  config.layer_count = 3;
  config.layer_is_sparse = {1, 0, 1};
  config.tied_embeddings = false;
  return config;
}
constexpr std::int32_t kSparseLayers = 2;

std::vector<std::int32_t> text() {
  std::vector<std::int32_t> tokens;
  for (std::int32_t i = 0; i < 21; ++i) {  // into a second KV block
    tokens.push_back(3 + i * 7 % 90);
  }
  return tokens;
}

class Step : public ::testing::Test {
 protected:
  void SetUp() override {
    // The process that dies is started anew: a fork would have no threads, and streams are threads.
    GTEST_FLAG_SET(death_test_style, "threadsafe");
  }
  std::unique_ptr<TeacherForcing> teacher(TeacherForcingOptions options) const {
    options.tokens_max = 32;
    options.rows_per_step = std::min(options.rows_per_step, options.tokens_max);
    const std::unique_ptr<model::WeightSource> source = model::make_dummy_weights(5);
    Result<std::unique_ptr<TeacherForcing>> made = TeacherForcing::create(config_, *source, options);
    LOCKSTEP_CHECK(made.has_value(), "teacher: {}", made.error().message);
    return std::move(*made);
  }
  static Logits logits_of(TeacherForcing& teacher) {
    Result<Logits> logits = teacher.logits(text());
    LOCKSTEP_CHECK(logits.has_value(), "step: {}", logits.error().message);
    return std::move(*logits);
  }
  static bool same_bits(const Logits& a, const Logits& b) {
    return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](const std::vector<float>& x, const std::vector<float>& y) {
             return std::equal(x.begin(), x.end(), y.begin(), y.end(),
                               [](float p, float q) { return std::bit_cast<std::uint32_t>(p) == std::bit_cast<std::uint32_t>(q); });
           });
  }

  const model::ModelConfig config_ = test_config();
};

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
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
      set_schedule(kRandom, seed);
      EXPECT_TRUE(same_bits(logits_of(*teacher_of), expected)) << "seed " << seed << ", micro-batches " << micro_batches;
    }
    set_schedule(kLate);
  }
}

/// By staging through the host's memory: routing has to be known before a dispatch, the experts' outputs before a combine, logits before they are sampled.
std::uint64_t waits_of_a_step(std::int32_t micro_batches) {
  return static_cast<std::uint64_t>(2 * kSparseLayers * micro_batches + 1);
}

TEST_F(Step, TheHostWaitsTwiceForEachSparseLayerAndMicroBatchAndOnceForTheLogits) {
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

/// How a process ends that noticed a wait taken away: by the simulated runtime, by a check of ours, or by leave_noticed.
constexpr const char* kNoticed = "cuda_sim: |expert -1|noticed: the logits differ";
bool is_failure(int status) {
  return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}
[[noreturn]] void leave(bool noticed) {
  fmt::print(stderr, "{}\n", noticed ? "noticed: the logits differ" : "nobody noticed");
  std::_Exit(noticed ? 1 : 0);
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
