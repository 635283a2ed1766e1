// Cost of the engine's steps alone, world 1 in one process, without HTTP: bench_step CONFIG_FOLDER REQUESTS [CORES [ROUNDS [DEVICE
// [GRAPHS [PLUGIN_FOLDER]]]]]; dummy weights; prints JSON. GRAPHS is none (default), piecewise or full.
// Times are the best of several rounds, since a neighbour can only add to them. CPU time is that of the whole process.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <limits>
#include <random>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "lockstep/comm/local_group.hpp"
#include "lockstep/model/weights.hpp"
#include "lockstep/scheduler/engine.hpp"

namespace {

using namespace lockstep;

constexpr std::int32_t kPromptTokens = 30;
constexpr std::int32_t kGeneratedTokens = 128;

double cpu_seconds() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

/// Ends the engine's run once all requests have ended, and keeps the times of decode steps.
struct Meter final : scheduler::OutputSink, scheduler::StepObserver {
  void deliver(std::span<const scheduler::TokenEvent> events) override {
    for (const scheduler::TokenEvent& event : events) {
      tokens += event.token >= 0 ? 1 : 0;
      left -= event.finish ? 1 : 0;
    }
    if (left == 0) {
      begin_round();
    }
  }
  void on_step(const scheduler::StepRecord& record) override {
    if (record.kind == scheduler::StepKind::kDecode && record.tokens == requests) {
      decode_us.push_back(std::chrono::duration<double, std::micro>(record.step_time).count());
    }
  }
  void begin_round() {
    const TimePoint now = std::chrono::steady_clock::now();
    const double cpu = cpu_seconds();
    if (tokens > 0) {
      best_s = std::min(best_s, std::chrono::duration<double>(now - begin).count() / static_cast<double>(tokens));
      best_cpu_s = std::min(best_cpu_s, (cpu - cpu_begin) / static_cast<double>(tokens));
    }
    tokens = 0;
    begin = now;
    cpu_begin = cpu;
    if (rounds-- == 0) {
      engine->request_drain();
      return;
    }
    left = requests;
    for (std::int32_t i = 0; i < requests; ++i) {
      scheduler::GenerationRequest request;
      request.id = next_id++;
      for (std::int32_t t = 0; t < kPromptTokens; ++t) {
        request.prompt_token_ids.push_back(static_cast<std::int32_t>(random() % static_cast<unsigned>(vocabulary)));
      }
      request.sampling.temperature = 0.0F;
      request.max_tokens = kGeneratedTokens;
      request.ignore_eos = true;
      if (const Status accepted = engine->submit(std::move(request)); !accepted) {
        fmt::print(stderr, "bench_step: {}\n", accepted.error().message);
        std::exit(1);
      }
    }
  }

  scheduler::Engine* engine = nullptr;
  std::int32_t requests = 0;
  std::int32_t vocabulary = 0;
  int rounds = 0;
  std::int32_t left = 0;
  scheduler::RequestId next_id = 1;
  std::mt19937 random{7};
  std::int64_t tokens = 0;
  TimePoint begin{};
  double cpu_begin = 0;
  double best_s = std::numeric_limits<double>::infinity();
  double best_cpu_s = std::numeric_limits<double>::infinity();
  std::vector<double> decode_us;
};

struct Arguments {
  const char* folder = nullptr;
  int requests = 0;
  int cores = 1;
  int rounds = 5;
  const char* device = "cpu";
  const char* graphs = "none";
  const char* plugin_folder = "";  ///< where they are installed
};

Result<GraphMode> graph_mode(std::string_view name) {
  for (const auto& [known, mode] : {std::pair{"none", GraphMode::kNone}, std::pair{"piecewise", GraphMode::kPiecewise}, std::pair{"full", GraphMode::kFull}}) {
    if (name == known) {
      return mode;
    }
  }
  return Error{ErrorCode::kInvalidArgument, fmt::format("graphs are \"{}\", expected none, piecewise or full", name)};
}

Status run(const Arguments& arguments) {
  const int requests = arguments.requests;
  const int cores = arguments.cores;
  LOCKSTEP_ASSIGN_OR_RETURN(const GraphMode graphs, graph_mode(arguments.graphs));
  LOCKSTEP_ASSIGN_OR_RETURN(const model::ModelConfig config, model::read_model_config(arguments.folder));
  LOCKSTEP_ASSIGN_OR_RETURN(const auto device, device::make_device(arguments.device, {.core_count = cores, .plugin_folder = arguments.plugin_folder}));
  const auto communicator = comm::LocalGroup(1).communicator(0);
  const auto weights = model::make_dummy_weights(1);
  comm::StepProgress progress;
  Meter meter;
  LOCKSTEP_ASSIGN_OR_RETURN(const auto engine, scheduler::Engine::create({.graphs = graphs}, {.config = &config,
                                                                                              .weights = weights.get(),
                                                                                              .device = device.get(),
                                                                                              .communicator = communicator.get(),
                                                                                              .view = comm::GroupView::initial(1, 0),
                                                                                              .progress = &progress,
                                                                                              .sink = &meter,
                                                                                              .observer = &meter}));
  LOCKSTEP_RETURN_IF_ERROR(engine->load());
  meter.engine = engine.get();
  meter.requests = requests;
  meter.vocabulary = config.vocabulary_size;
  meter.rounds = arguments.rounds + 1;  // the first warms up
  meter.begin_round();
  LOCKSTEP_RETURN_IF_ERROR(engine->run());
  std::ranges::sort(meter.decode_us);
  fmt::print(
      "{{\"requests\": {}, \"cores\": {}, \"device\": \"{}\", \"graph_launches\": {}, \"tokens_per_s\": {:.1f}, \"cpu_us_per_token\": {:.2f}, "
      "\"decode_step_min_us\": {:.1f}, \"decode_step_p50_us\": "
      "{:.1f}}}\n",
      requests, cores, arguments.device, device->usage().graph_launches, 1.0 / meter.best_s, 1e6 * meter.best_cpu_s,
      meter.decode_us.empty() ? 0.0 : meter.decode_us.front(), meter.decode_us.empty() ? 0.0 : meter.decode_us[meter.decode_us.size() / 2]);
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3 || argc > 8) {
    fmt::print(stderr, "usage: bench_step CONFIG_FOLDER REQUESTS [CORES [ROUNDS [DEVICE [GRAPHS [PLUGIN_FOLDER]]]]]\n");
    return 2;
  }
  Arguments arguments{.folder = argv[1], .requests = std::atoi(argv[2])};
  arguments.cores = argc > 3 ? std::atoi(argv[3]) : arguments.cores;
  arguments.rounds = argc > 4 ? std::atoi(argv[4]) : arguments.rounds;
  arguments.device = argc > 5 ? argv[5] : arguments.device;
  arguments.graphs = argc > 6 ? argv[6] : arguments.graphs;
  arguments.plugin_folder = argc > 7 ? argv[7] : arguments.plugin_folder;
  const Status status = run(arguments);
  if (!status) {
    fmt::print(stderr, "bench_step: {}\n", status.error().message);
    return 1;
  }
  return 0;
}
