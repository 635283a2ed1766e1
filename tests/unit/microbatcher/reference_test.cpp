// Goal    With idle dispatch off, both microbatchers do what the reference of the seed's does: the same batches at the same times, the same outcomes.
// Method  Recorded random traces (tests/reference/microbatcher_reference.py) replayed on a timer that jumps to the next event.
#include <algorithm>
#include <deque>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

#include "tests/unit/microbatcher/fixture.hpp"

namespace lockstep::test {
namespace {

namespace json = boost::json;

constexpr int kBadItem = 41;  // as in the reference: a batch with a multiple of it fails

json::value read_traces() {
  std::ifstream file(std::filesystem::path(LOCKSTEP_TEST_DATA) / "microbatcher_traces.json");
  return json::parse(std::string(std::istreambuf_iterator<char>(file), {}));
}

std::vector<int> answers(std::vector<int> items) {
  for (int& item : items) {
    if (item % kBadItem == 0) {
      throw std::domain_error("bad batch");
    }
    item = 3 * item + 1;
  }
  return items;
}

int to_int(const json::value& value) {
  return value.to_number<int>();
}

/// One trace on virtual time, in microseconds from its begin.
class Replay {
 public:
  explicit Replay(const json::object& trace)
      : trace_(trace),
        batch_us_(to_int(trace.at("batch_us"))),
        gate_(io_, TimePoint::max()),
        timer_(std::make_shared<ManualTimer>()),
        begin_(timer_->now()),
        endings_(trace.at("submits").as_array().size()),
        batcher_(io_.get_executor(), [this](std::vector<int> items) { return batch(std::move(items)); },
                 {.max_batch_size = trace.at("max_batch_size").to_number<std::size_t>(),
                  .batch_wait_timeout = std::chrono::microseconds(to_int(trace.at("timeout_us"))),
                  .dispatch_when_idle = false,
                  .timer = timer_}) {}

  void run() {
    const json::array& submits = trace_.at("submits").as_array();
    std::optional<int> stop_us = to_int(trace_.at("stop_us"));
    std::size_t next = 0;
    for (io_.poll();; io_.restart(), io_.poll()) {
      const std::optional<int> submit_us = next < submits.size() ? std::optional(to_int(submits[next].at(0))) : std::nullopt;
      const std::optional<int> timer_us = timer_->is_armed() ? std::optional(since_begin(timer_->when())) : std::nullopt;
      const std::optional<int> at_us = earliest({submit_us, stop_us, timer_us, batch_ends_us_});
      if (!at_us) {
        return;
      }
      timer_->advance(begin_ + std::chrono::microseconds(*at_us) - timer_->now());
      if (batch_ends_us_ == at_us) {
        batch_ends_us_.reset();
        gate_.cancel();
      } else if (submit_us == at_us) {
        batcher_.submit(to_int(submits[next].at(1)), endings_[next].handler());
        ++next;
      } else if (stop_us == at_us) {
        stop_us.reset();
        batcher_.stop([] {});
      }
    }
  }

  [[nodiscard]] json::array outcomes() const {
    json::array result;
    for (const Ending& ending : endings_) {
      EXPECT_EQ(ending.calls, 1);
      if (!ending.error) {
        result.emplace_back(ending.value);
      } else {
        result.emplace_back(is_microbatcher_error(ending.error, ErrorCode::kCancelled) ? "stopped" : what_of(ending.error));
      }
    }
    return result;
  }
  [[nodiscard]] const json::array& batches() const { return batches_; }

 private:
  [[nodiscard]] int since_begin(TimePoint time) const { return static_cast<int>(std::chrono::duration_cast<std::chrono::microseconds>(time - begin_).count()); }

  static std::optional<int> earliest(std::initializer_list<std::optional<int>> times) {
    std::optional<int> result;
    for (const std::optional<int>& time : times) {
      if (time && (!result || *time < *result)) {
        result = time;
      }
    }
    return result;
  }

  boost::asio::awaitable<std::vector<int>> batch(std::vector<int> items) {
    const int now_us = since_begin(timer_->now());
    batches_.push_back({now_us, json::array(items.begin(), items.end())});
    batch_ends_us_ = now_us + batch_us_;
    co_await gate_.async_wait(boost::asio::as_tuple(boost::asio::use_awaitable));
    co_return answers(std::move(items));
  }

  const json::object& trace_;
  const int batch_us_;
  boost::asio::io_context io_;
  boost::asio::steady_timer gate_;
  std::shared_ptr<ManualTimer> timer_;  // shared with the microbatcher
  const TimePoint begin_;
  std::deque<Ending> endings_;
  json::array batches_;
  std::optional<int> batch_ends_us_;
  IntMicrobatcher batcher_;
};

TEST(MicrobatcherReference, RecordedTracesGiveTheSameBatchesAtTheSameTimesAndTheSameOutcomes) {
  const json::value traces = read_traces();
  ASSERT_GE(traces.at("async").as_array().size(), 50U);
  for (const json::value& trace : traces.at("async").as_array()) {
    SCOPED_TRACE(json::serialize(trace));
    Replay replay(trace.as_object());
    replay.run();
    EXPECT_EQ(json::serialize(replay.batches()), json::serialize(trace.at("batches")));
    EXPECT_EQ(json::serialize(replay.outcomes()), json::serialize(trace.at("outcomes")));
  }
}

TEST(MicrobatcherReference, RecordedCallsOfTheSynchronousFormGiveTheSameOutcomes) {
  const json::value traces = read_traces();
  ASSERT_FALSE(traces.at("sync").as_array().empty());
  for (const json::value& trace : traces.at("sync").as_array()) {
    SyncMicrobatcher<int, int> batcher(answers, {.max_batch_size = 4, .batch_wait_timeout = std::chrono::microseconds(100), .dispatch_when_idle = false});
    batcher.start();
    json::array outcomes;
    for (const json::value& item : trace.at("items").as_array()) {
      try {
        outcomes.emplace_back(batcher.submit(to_int(item)));
      } catch (const std::domain_error& error) {
        outcomes.emplace_back(error.what());
      }
    }
    EXPECT_EQ(json::serialize(outcomes), json::serialize(trace.at("outcomes")));
  }
}

}  // namespace
}  // namespace lockstep::test
