// What a step's agreement costs an engine, agreed on after the step before it and under it: bench_pipelined CONFIG_FOLDER [REQUESTS]; under mpirun, dummy
// weights; rank 0 prints JSON. Rounds of the two modes alternate in one process, so that a noisy neighbour hits both; figures are medians over decode steps.
#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include <fmt/format.h>

#include "lockstep/comm/communicator.hpp"
#include "lockstep/model/weights.hpp"
#include "lockstep/scheduler/engine.hpp"

namespace {

using namespace lockstep;
using scheduler::AgreementMode;

constexpr int kRounds = 9;
constexpr int kRequestsMax = 64;
constexpr std::int32_t kPromptTokens = 8;
constexpr std::int32_t kGeneratedTokens = 400;
constexpr std::int64_t kWarmSteps = 20;

double microseconds(Duration duration) {
  return std::chrono::duration<double, std::micro>(duration).count();
}

double median(std::vector<double>& values) {
  std::ranges::sort(values);
  return values.empty() ? 0.0 : values[values.size() / 2];
}

/// Of one mode: the times of decode steps in which every request has a row.
struct Meter final : scheduler::OutputSink, scheduler::StepObserver {
  void deliver(std::span<const scheduler::TokenEvent>) override {}
  void on_step(const scheduler::StepRecord& record) override {
    const TimePoint now = std::chrono::steady_clock::now();
    const bool counts = record.kind == scheduler::StepKind::kDecode && record.tokens == requests;
    if (counts && record.step >= kWarmSteps) {
      exposed_us.push_back(microseconds(record.agreement_time));
      step_us.push_back(microseconds(now - last));
    }
    last = now;
  }

  std::int32_t requests = 0;
  TimePoint last{};
  std::vector<double> exposed_us;
  std::vector<double> step_us;  ///< from the end of the step before to its own
};

Status run_round(const model::ModelConfig& config, device::Device& device, comm::Communicator& communicator, AgreementMode mode, Meter& meter) {
  const auto weights = model::make_dummy_weights(1);
  comm::StepProgress progress;
  LOCKSTEP_ASSIGN_OR_RETURN(const auto engine,
                            scheduler::Engine::create({.agreement = mode}, {.config = &config,
                                                                            .weights = weights.get(),
                                                                            .device = &device,
                                                                            .communicator = &communicator,
                                                                            .view = comm::GroupView::initial(communicator.size(), communicator.rank()),
                                                                            .progress = &progress,
                                                                            .sink = &meter,
                                                                            .observer = &meter}));
  LOCKSTEP_RETURN_IF_ERROR(engine->load());
  for (std::int32_t i = 0; i < meter.requests; ++i) {
    scheduler::GenerationRequest request;
    request.id = static_cast<scheduler::RequestId>(i + 1);
    for (std::int32_t t = 0; t < kPromptTokens; ++t) {
      request.prompt_token_ids.push_back((7 * i + 31 * t + 11 * communicator.rank()) % config.vocabulary_size);
    }
    request.sampling.temperature = 0.0F;
    request.max_tokens = std::min(kGeneratedTokens, config.context_length - kPromptTokens);
    request.ignore_eos = true;
    LOCKSTEP_RETURN_IF_ERROR(engine->submit(std::move(request)));
  }
  engine->request_drain();  // the run ends with the requests; every rank has some from the first step on, so that none has to be woken
  return engine->run();
}

Status run(const char* folder, int requests) {
  LOCKSTEP_ASSIGN_OR_RETURN(const model::ModelConfig config, model::read_model_config(folder));
  LOCKSTEP_ASSIGN_OR_RETURN(const comm::LaunchInfo launch, comm::read_launch_info(comm::process_environment()));
  LOCKSTEP_ASSIGN_OR_RETURN(const auto communicator, comm::make_communicator("mpi", {.launch = launch}));
  LOCKSTEP_ASSIGN_OR_RETURN(const auto device, device::make_device("cpu", {.local_rank = launch.local_rank, .core_count = 1}));
  std::array<Meter, 2> meters;
  for (int round = 0; round < kRounds; ++round) {
    for (const AgreementMode mode : {AgreementMode::kSync, AgreementMode::kPipelined}) {
      Meter& meter = meters[static_cast<std::size_t>(mode)];
      meter.requests = requests;
      LOCKSTEP_RETURN_IF_ERROR(run_round(config, *device, *communicator, mode, meter));
    }
  }
  if (communicator->rank() == 0) {
    Meter& sync = meters[0];
    Meter& pipelined = meters[1];
    const double sync_step_us = median(sync.step_us);
    const double step_us = median(pipelined.step_us);
    fmt::print("{{\"exposed_us\": {:.3f}, \"sync_exposed_us\": {:.3f}, \"step_us\": {:.2f}, \"sync_step_us\": {:.2f}, \"step_ratio\": {:.4f}}}\n",
               median(pipelined.exposed_us), median(sync.exposed_us), step_us, sync_step_us, step_us / sync_step_us);
  }
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  const int requests = argc > 2 ? std::atoi(argv[2]) : 4;
  if (argc < 2 || argc > 3 || requests < 1 || requests > kRequestsMax) {
    fmt::print(stderr, "usage: bench_pipelined CONFIG_FOLDER [REQUESTS, 1 to {}]\n", kRequestsMax);
    return 2;
  }
  if (const Status status = run(argv[1], requests); !status) {
    fmt::print(stderr, "bench_pipelined: {}\n", status.error().message);
    return 1;
  }
  return 0;
}
