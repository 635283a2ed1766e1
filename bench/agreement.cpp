// Cost of one step agreement against a plain blocking MPI_Allreduce of the same matrix, in the same run. Run under mpirun; rank 0 prints JSON.
// Rounds of the two alternate, so that a noisy neighbour hits both; the figures are medians over rounds.
#define OMPI_SKIP_MPICXX 1
#include <algorithm>
#include <cstdio>
#include <vector>

#include <fmt/format.h>
#include <mpi.h>

#include "lockstep/comm/communicator.hpp"
#include "lockstep/comm/step_agreement.hpp"

namespace {

using namespace lockstep;

constexpr int kRounds = 25;
constexpr int kCallsPerRound = 4000;

double quantile(std::vector<double> values, double q) {
  std::sort(values.begin(), values.end());
  return values[static_cast<std::size_t>(q * static_cast<double>(values.size() - 1))];
}

double microseconds_since(TimePoint begin) {
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin).count();
}

/// Mean time of one blocking all-reduce over a round.
double plain_round(std::vector<std::int32_t>& in, std::vector<std::int32_t>& out) {
  MPI_Barrier(MPI_COMM_WORLD);
  const TimePoint begin = std::chrono::steady_clock::now();
  for (int i = 0; i < kCallsPerRound; ++i) {
    MPI_Allreduce(in.data(), out.data(), static_cast<int>(in.size()), MPI_INT, MPI_SUM, MPI_COMM_WORLD);
  }
  return microseconds_since(begin) / kCallsPerRound;
}

/// Mean time of one agreement, encode and decide included; single calls go to `samples`.
Result<double> agreement_round(comm::StepAgreement& agreement, std::int64_t& step, comm::StepPlan& plan, std::vector<double>& samples) {
  MPI_Barrier(MPI_COMM_WORLD);
  const TimePoint begin = std::chrono::steady_clock::now();
  for (int i = 0; i < kCallsPerRound; ++i) {
    const TimePoint call = std::chrono::steady_clock::now();
    LOCKSTEP_RETURN_IF_ERROR(agreement.start({.step = step++, .tokens = 4, .requests = 4, .padded_tokens = 4}));
    LOCKSTEP_RETURN_IF_ERROR(agreement.finish(plan, Deadline::after(std::chrono::seconds(20))));
    samples.push_back(microseconds_since(call));
  }
  return microseconds_since(begin) / kCallsPerRound;
}

Status run() {
  LOCKSTEP_ASSIGN_OR_RETURN(const comm::LaunchInfo launch, comm::read_launch_info(comm::process_environment()));
  LOCKSTEP_ASSIGN_OR_RETURN(const auto communicator, comm::make_communicator("mpi", {.launch = launch}));
  comm::StepAgreement agreement(*communicator, comm::GroupView::initial(communicator->size(), communicator->rank()));
  comm::StepPlan plan;
  std::vector<std::int32_t> in(comm::kStepFieldCount * static_cast<std::size_t>(communicator->size()), 1);
  std::vector<std::int32_t> out(in.size());
  std::vector<double> plain;
  std::vector<double> agreed;
  std::vector<double> ratios;
  std::vector<double> samples;
  std::int64_t step = 0;
  for (int round = 0; round < kRounds; ++round) {
    plain.push_back(plain_round(in, out));
    LOCKSTEP_ASSIGN_OR_RETURN(const double time, agreement_round(agreement, step, plan, samples));
    agreed.push_back(time);
    ratios.push_back(agreed.back() / plain.back());
  }
  if (communicator->rank() == 0) {
    fmt::print(
        "{{\"ratio_vs_mpi_allreduce\": {:.3f}, \"p50_us\": {:.3f}, \"p99_us\": {:.3f}, \"mean_us\": {:.3f}, \"mpi_allreduce_us\": {:.3f}, \"matrix_bytes\": "
        "{}}}\n",
        quantile(ratios, 0.5), quantile(samples, 0.5), quantile(samples, 0.99), quantile(agreed, 0.5), quantile(plain, 0.5), in.size() * 4);
  }
  return {};
}

}  // namespace

int main() {
  const Status status = run();
  if (!status) {
    fmt::print(stderr, "bench_agreement: {}\n", status.error().message);
    return 1;
  }
  return 0;
}
