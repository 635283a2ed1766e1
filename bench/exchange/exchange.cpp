// What an expert exchange costs with few rows, gathered and routed: bench_exchange [HIDDEN [TOP_K [EXPERTS]]]; under mpirun; rank 0 prints JSON.
// Dispatch and combine without anything computed. Rounds of the two alternate, so that a noisy neighbour hits both; a ratio is the median over rounds.
#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "lockstep/comm/communicator.hpp"
#include "lockstep/comm/expert_exchange.hpp"

namespace {

using namespace lockstep;

constexpr int kRounds = 15;
constexpr int kCallsPerRound = 40;
constexpr std::int32_t kRowsMax = 64;  // of all ranks together
const Deadline kDeadline = Deadline::after(std::chrono::minutes(10));

struct Shape {
  std::int32_t hidden = 1024;
  std::int32_t top_k = 2;
  std::int32_t experts = 8;
};

/// Rows of one rank, with experts drawn from a seed.
struct Batch {
  Batch(const Shape& shape, std::int32_t rows, unsigned seed) : values(static_cast<std::size_t>(rows) * static_cast<std::size_t>(shape.hidden)) {
    std::mt19937 random(seed);
    std::vector<std::int32_t> all(static_cast<std::size_t>(shape.experts));
    for (std::int32_t expert = 0; expert < shape.experts; ++expert) {
      all[static_cast<std::size_t>(expert)] = expert;
    }
    for (std::int32_t row = 0; row < rows; ++row) {
      std::ranges::sample(all, std::back_inserter(experts), shape.top_k, random);  // in their order: ascending
    }
  }
  std::vector<BFloat16> values;
  std::vector<std::int32_t> experts;
};

/// Microseconds of one exchange, on the average of a round.
Result<double> time_round(comm::ExpertExchange& exchange, const DPMetadata& tokens, const Batch& batch) {
  TimePoint begin{};
  for (int call = -1; call < kCallsPerRound; ++call) {
    if (call == 0) {
      begin = SteadyClock::instance().now();  // after one that brings the ranks together
    }
    LOCKSTEP_RETURN_IF_ERROR(exchange.start_dispatch({.step = call + 1}, tokens, {.rows = batch.values, .expert_ids = batch.experts}));
    LOCKSTEP_RETURN_IF_ERROR(exchange.finish_dispatch(kDeadline));
    std::ranges::copy(exchange.received().rows, exchange.outputs().begin());
    LOCKSTEP_RETURN_IF_ERROR(exchange.start_combine());
    LOCKSTEP_RETURN_IF_ERROR(exchange.finish_combine(kDeadline));
  }
  return std::chrono::duration<double, std::micro>(SteadyClock::instance().now() - begin).count() / kCallsPerRound;
}

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

Result<std::unique_ptr<comm::ExpertExchange>> make_exchange(comm::Communicator& communicator, const Shape& shape, std::int32_t gather_rows) {
  const auto view = comm::GroupView::initial(communicator.size(), communicator.rank());
  return comm::ExpertExchange::create(communicator, view, comm::Placement::contiguous(shape.experts, view),
                                      {.hidden = shape.hidden, .top_k = shape.top_k, .rows_max = kRowsMax, .gather_rows = gather_rows});
}

Status run(const Shape& shape) {
  LOCKSTEP_ASSIGN_OR_RETURN(const comm::LaunchInfo launch, comm::read_launch_info(comm::process_environment()));
  LOCKSTEP_ASSIGN_OR_RETURN(const auto communicator, comm::make_communicator("mpi", {.launch = launch}));
  LOCKSTEP_ASSIGN_OR_RETURN(const auto gathered, make_exchange(*communicator, shape, kRowsMax));
  LOCKSTEP_ASSIGN_OR_RETURN(const auto routed, make_exchange(*communicator, shape, 0));
  std::string figures;
  for (std::int32_t rows = 1; rows <= kRowsMax; rows *= 2) {
    // As even as it goes: of a single row, the other ranks have none.
    std::vector<std::int32_t> tokens;
    for (std::int32_t rank = 0; rank < communicator->size(); ++rank) {
      tokens.push_back((rows + communicator->size() - 1 - rank) / communicator->size());
    }
    DPMetadata metadata;
    metadata.assign(communicator->rank(), tokens);
    const Batch batch(shape, tokens[static_cast<std::size_t>(communicator->rank())], static_cast<unsigned>(17 * rows + communicator->rank()));
    std::vector<double> gathered_us;
    std::vector<double> routed_us;
    std::vector<double> ratios;
    for (int round = 0; round < kRounds; ++round) {
      LOCKSTEP_ASSIGN_OR_RETURN(const double gather_time, time_round(*gathered, metadata, batch));
      LOCKSTEP_ASSIGN_OR_RETURN(const double route_time, time_round(*routed, metadata, batch));
      gathered_us.push_back(gather_time);
      routed_us.push_back(route_time);
      ratios.push_back(gather_time / route_time);
    }
    figures += fmt::format("{}\"gathered_us_{}\": {:.2f}, \"routed_us_{}\": {:.2f}, \"ratio_{}\": {:.4f}", figures.empty() ? "" : ", ", rows,
                           median(gathered_us), rows, median(routed_us), rows, median(ratios));
  }
  if (communicator->rank() == 0) {
    fmt::print("{{{}}}\n", figures);
  }
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  Shape shape;
  const std::array<std::int32_t*, 3> fields{&shape.hidden, &shape.top_k, &shape.experts};
  for (int i = 1; i < argc && i <= 3; ++i) {
    *fields[static_cast<std::size_t>(i - 1)] = std::atoi(argv[i]);
  }
  if (argc > 4 || shape.hidden < 1 || shape.top_k < 1 || shape.experts < shape.top_k) {
    fmt::print(stderr, "usage: bench_exchange [HIDDEN [TOP_K [EXPERTS]]], each at least 1, and no more experts for a row than there are\n");
    return 2;
  }
  if (const Status status = run(shape); !status) {
    fmt::print(stderr, "bench_exchange: {}\n", status.error().message);
    return 1;
  }
  return 0;
}
