// Items per second through AsyncMicrobatcher from 64 submitters that each wait for their answer, and what a lone request pays for going through it.
// Prints JSON; bench/library/sections.py runs the Python form of the seed beside it.
#include "lockstep/microbatcher.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <vector>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <fmt/format.h>

namespace {

using Microbatcher = lockstep::AsyncMicrobatcher<std::int64_t, std::int64_t>;
using Clock = std::chrono::steady_clock;

constexpr int kSubmitters = 64;
constexpr int kItemsPerSubmitter = 4000;
constexpr int kLoneRequests = 20000;

double microseconds_since(Clock::time_point begin) {
  return std::chrono::duration<double, std::micro>(Clock::now() - begin).count();
}

double quantile(std::vector<double>& values, double q) {
  const auto at = values.begin() + static_cast<std::ptrdiff_t>(q * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

boost::asio::awaitable<std::vector<std::int64_t>> answers(std::vector<std::int64_t> items) {
  for (std::int64_t& item : items) {
    item = 3 * item + 1;
  }
  co_return items;
}

boost::asio::awaitable<void> submitter(Microbatcher& batcher) {
  for (std::int64_t i = 0; i < kItemsPerSubmitter; ++i) {
    co_await batcher.submit(i, boost::asio::use_awaitable);
  }
}

boost::asio::awaitable<void> timing_submitter(Microbatcher& batcher, std::vector<double>& waits) {
  for (std::int64_t i = 0; i < kItemsPerSubmitter; ++i) {
    const Clock::time_point begin = Clock::now();
    co_await batcher.submit(i, boost::asio::use_awaitable);
    waits.push_back(microseconds_since(begin));
  }
}

boost::asio::awaitable<void> lone(Microbatcher& batcher, std::vector<double>& direct, std::vector<double>& batched) {
  for (std::int64_t i = 0; i < kLoneRequests; ++i) {  // in turn, so that a noisy neighbour hits both
    Clock::time_point begin = Clock::now();
    co_await answers(std::vector<std::int64_t>(1, i));  // not {i}: GCC 12 fails on a list inside co_await
    direct.push_back(microseconds_since(begin));
    begin = Clock::now();
    co_await batcher.submit(i, boost::asio::use_awaitable);
    batched.push_back(microseconds_since(begin));
  }
}

}  // namespace

int main() {
  boost::asio::io_context io{1};
  Microbatcher batcher(io.get_executor(), answers, {.max_batch_size = 32, .batch_wait_timeout = std::chrono::milliseconds(2)});
  const Clock::time_point begin = Clock::now();
  for (int i = 0; i < kSubmitters; ++i) {
    boost::asio::co_spawn(io, submitter(batcher), boost::asio::detached);
  }
  io.run();
  const double items_per_s = double{kSubmitters} * kItemsPerSubmitter * 1e6 / microseconds_since(begin);

  std::vector<double> waits;  // in a run of their own: two looks at the clock are a sixth of an item
  waits.reserve(std::size_t{kSubmitters} * kItemsPerSubmitter);
  io.restart();
  for (int i = 0; i < kSubmitters; ++i) {
    boost::asio::co_spawn(io, timing_submitter(batcher, waits), boost::asio::detached);
  }
  io.run();

  std::vector<double> direct;
  std::vector<double> batched;
  io.restart();
  boost::asio::co_spawn(io, lone(batcher, direct, batched), boost::asio::detached);
  io.run();
  fmt::print("{{\"items_per_s\": {:.0f}, \"wait_p50_us\": {:.3f}, \"wait_p99_us\": {:.3f}, \"lone_added_us\": {:.3f}}}\n", items_per_s, quantile(waits, 0.5),
             quantile(waits, 0.99), quantile(batched, 0.5) - quantile(direct, 0.5));
  return 0;
}
