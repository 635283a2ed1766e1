// What the tests of whole steps on the simulated runtime share: its hooks, a model, a text, and how a test ends a process that noticed something.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstdlib>
#include <dlfcn.h>
#include <memory>
#include <string>
#include <sys/wait.h>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "lockstep/core/check.hpp"
#include "lockstep/model/weights.hpp"
#include "tests/support/group_harness.hpp"
#include "tests/support/teacher_forcing.hpp"

namespace lockstep::tests {
enum Schedule { kEarly = 0, kLate = 1, kRandom = 2 };
using Logits = std::vector<std::vector<float>>;

/// A function of a double, which the plugin has loaded.
template <typename Function>
Function* hook(const char* name, const char* library = "libcudart.so.13") {
  void* const runtime = dlopen(library, RTLD_NOW | RTLD_NOLOAD);
  void* const found = runtime == nullptr ? nullptr : dlsym(runtime, name);
  LOCKSTEP_CHECK(found != nullptr, "no {}: this is not the simulated runtime; set LD_LIBRARY_PATH", name);
  return reinterpret_cast<Function*>(found);
}
inline void set_schedule(Schedule schedule, std::uint64_t seed = 1) {
  hook<void(int, std::uint64_t)>("cuda_sim_set_schedule")(schedule, seed);
}
inline std::uint64_t host_waits() {
  return hook<std::uint64_t()>("cuda_sim_host_waits")();
}
inline void skip_host_wait(std::uint64_t ordinal) {
  hook<void(std::uint64_t)>("cuda_sim_skip_host_wait")(ordinal);
}
inline std::uint64_t event_waits() {
  return hook<std::uint64_t()>("cuda_sim_event_waits")();
}
inline void skip_event_wait(std::uint64_t ordinal) {
  hook<void(std::uint64_t)>("cuda_sim_skip_event_wait")(ordinal);
}

/// Two sparse layers around a dense one.
inline model::ModelConfig test_config() {
  model::ModelConfig config = small_config();
  config.layer_count = 3;
  config.layer_is_sparse = {1, 0, 1};
  config.tied_embeddings = false;
  return config;
}
inline constexpr std::int32_t kSparseLayers = 2;

inline std::vector<std::int32_t> text() {
  std::vector<std::int32_t> tokens;
  for (std::int32_t i = 0; i < 21; ++i) {  // into a second KV block
    tokens.push_back(3 + i * 7 % 90);
  }
  return tokens;
}

/// Random schedules that a test runs: LOCKSTEP_SIM_SEEDS, or 20.
inline std::uint64_t schedule_seeds() {
  const char* const wanted = std::getenv("LOCKSTEP_SIM_SEEDS");
  const std::uint64_t seeds = wanted == nullptr ? 20 : std::strtoull(wanted, nullptr, 10);
  LOCKSTEP_CHECK(seeds > 0, "LOCKSTEP_SIM_SEEDS is \"{}\", expected a number from 1 on", wanted == nullptr ? "" : wanted);
  return seeds;
}

class Step : public ::testing::Test {
 protected:
  void SetUp() override {
    // The process that dies is started anew: a fork would have no threads, and streams are threads.
    GTEST_FLAG_SET(death_test_style, "threadsafe");
  }
  std::unique_ptr<TeacherForcing> teacher(TeacherForcingOptions options) const { return teacher(config_, options); }
  /// The config outlives it.
  static std::unique_ptr<TeacherForcing> teacher(const model::ModelConfig& config, TeacherForcingOptions options) {
    options.tokens_max = 32;
    options.rows_per_step = std::min(options.rows_per_step, options.tokens_max);
    const std::unique_ptr<model::WeightSource> source = model::make_dummy_weights(5);
    Result<std::unique_ptr<TeacherForcing>> made = TeacherForcing::create(config, *source, options);
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

/// How a process ends that noticed a wait taken away: by the simulated runtime, by a check of ours, or by leave_noticed.
inline constexpr const char* kNoticed = "cuda_sim: |expert -1|noticed: the logits differ";
inline bool is_failure(int status) {
  return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}
[[noreturn]] inline void leave(bool noticed) {
  fmt::print(stderr, "{}\n", noticed ? "noticed: the logits differ" : "nobody noticed");
  std::_Exit(noticed ? 1 : 0);
}

}  // namespace lockstep::tests
