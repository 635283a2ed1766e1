// Goal    A body that nobody waits for any more costs nothing, wherever it is in the queue, and what it holds goes at once.
// Method  The worker thread is held up by one body; others are cancelled behind it.
#include "daemon/api/request/body_reader.hpp"

#include <atomic>
#include <latch>
#include <vector>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lockstep::daemon {
namespace {

TEST(BodyReader, ACancelledBodyIsNeverReadAndOneThatIsBeingReadIsReadToItsEnd) {
  boost::asio::io_context io;
  auto open = boost::asio::make_work_guard(io);
  const auto reader = BodyReader::create(io);
  std::latch begun(1);
  std::latch go_on(1);
  std::atomic<int> worked = 0;
  std::vector<int> ends;               // 0: read; 1: cancelled; 2: failed otherwise
  constexpr std::size_t kBodies = 12;  // more than are read together
  const auto done = [&](const std::optional<Error>& error) {
    ends.push_back(!error ? 0 : error->code == ErrorCode::kCancelled ? 1 : 2);
    if (ends.size() == kBodies) {
      open.reset();
    }
  };
  const BodyRead first = reader->read(
      [&] {
        begun.count_down();
        go_on.wait();
        ++worked;
      },
      done);
  std::vector<BodyRead> others;
  for (std::size_t i = 1; i < kBodies; ++i) {
    others.push_back(reader->read([&worked] { ++worked; }, done));
  }
  begun.wait();
  EXPECT_FALSE(first.cancel()) << "it is being read: what it uses must stay";
  for (std::size_t i = 0; i + 1 < others.size(); ++i) {
    EXPECT_TRUE(others[i].cancel());
    EXPECT_FALSE(others[i].cancel()) << "once";
  }
  go_on.count_down();
  io.run();
  EXPECT_EQ(worked, 2) << "the first, and the one that was not cancelled";
  EXPECT_THAT(ends, ::testing::UnorderedElementsAre(0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1));
}

}  // namespace
}  // namespace lockstep::daemon
