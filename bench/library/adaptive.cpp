// The adaptive controller on synthetic cost models: the size that it chooses for each micro-batch. Prints JSON; sections.py draws it.
#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "lockstep/micro_batch.hpp"

namespace {

constexpr int kMicroBatches = 200;
constexpr double kTarget = 10;
constexpr double kThreshold = 0.8;

struct Model {
  std::string name;
  std::function<double(std::int32_t rows)> milliseconds;
  double noise = 0;
  std::function<double(std::int32_t rows, int index)> memory = [](std::int32_t, int) { return 0.0; };
};

/// The largest size whose time is within the band around the target and whose memory is below the threshold; where none is, the first.
std::int32_t best_size(const Model& model, const std::vector<std::int32_t>& ladder, std::int32_t initial) {
  std::int32_t best = model.milliseconds(1) > 1.5 * kTarget ? initial : ladder.front();  // a smaller one takes as long: staying is best
  for (const std::int32_t size : ladder) {
    if (model.milliseconds(size) <= 1.5 * kTarget && model.memory(size, kMicroBatches) < kThreshold) {
      best = size;
    }
  }
  return best;
}

std::string run(const Model& model) {
  lockstep::MicroBatchSizer sizer({.max_micro_batch = 1024, .target_time_ms = kTarget, .memory_threshold = kThreshold});
  const std::int32_t best = best_size(model, sizer.ladder(), sizer.size());
  std::mt19937 random(7);  // the same run each time
  std::uniform_real_distribution<double> factor(1 - model.noise, 1 + model.noise);
  std::vector<std::int32_t> sizes;
  for (int i = 0; i < kMicroBatches; ++i) {
    sizes.push_back(sizer.size());
    sizer.observe(sizer.size(), model.milliseconds(sizer.size()) * factor(random), model.memory(sizer.size(), i));
  }
  return fmt::format("{{\"name\": \"{}\", \"best\": {}, \"ladder\": [{}], \"sizes\": [{}]}}", model.name, best, fmt::join(sizer.ladder(), ", "),
                     fmt::join(sizes, ", "));
}

}  // namespace

int main() {
  const std::vector<Model> models = {
      {.name = "constant", .milliseconds = [](std::int32_t) { return 1.0; }},
      {.name = "linear", .milliseconds = [](std::int32_t rows) { return 0.1 * rows; }},
      {.name = "cache_step", .milliseconds = [](std::int32_t rows) { return 0.05 * rows * (rows <= 100 ? 1 : 5); }},
      {.name = "noisy", .milliseconds = [](std::int32_t rows) { return 0.3 * rows; }, .noise = 0.2},
      {.name = "memory_ramp",
       .milliseconds = [](std::int32_t rows) { return 0.01 * rows; },
       // Something else fills the memory meanwhile, up to half of it.
       .memory = [](std::int32_t rows, int index) { return rows / 1024.0 + std::min(0.5, 0.02 * index); }},
  };
  std::vector<std::string> runs;
  for (const Model& model : models) {
    runs.push_back(run(model));
  }
  fmt::print("[{}]\n", fmt::join(runs, ",\n"));
  return 0;
}
