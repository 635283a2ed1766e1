// Goal: at level trace each step, request and collective is a line of the log, and the metrics still hear of it.
// Method: one record of each kind into a logger that writes to a string.
#include "daemon/metrics/step_log.hpp"

#include <array>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/sinks/ostream_sink.h>

namespace lockstep::daemon {
namespace {

using ::testing::HasSubstr;

class CountingObserver final : public scheduler::StepObserver {
 public:
  void on_step(const scheduler::StepRecord&) override { ++calls; }
  void on_queue(const scheduler::QueueRecord&) override { ++calls; }
  void on_first_token(Duration) override { ++calls; }
  void on_inter_token(Duration) override { ++calls; }
  void on_request_finished(const scheduler::RequestRecord&) override { ++calls; }
  void on_collective(const scheduler::CollectiveRecord&) override { ++calls; }
  void on_divergence(std::string_view) override { ++calls; }
  int calls = 0;
};

TEST(StepLog, EveryEventIsALineAndIsPassedOn) {
  std::ostringstream text;
  spdlog::logger logger("test", std::make_shared<spdlog::sinks::ostream_sink_st>(text));
  logger.set_level(spdlog::level::trace);
  logger.set_pattern("%v");
  CountingObserver next;
  StepLog log(next, logger);
  const std::array<std::int32_t, 2> tokens{3, 0};
  log.on_step({.step = 7, .action = comm::StepAction::kRun, .kind = scheduler::StepKind::kPrefill, .tokens = 3, .tokens_per_member = tokens});
  log.on_queue({.running = 1, .kv_blocks_used = 2, .kv_blocks_total = 9});
  log.on_queue({.running = 1, .kv_blocks_used = 2, .kv_blocks_total = 9});  // unchanged: no line
  log.on_request_finished({.reason = scheduler::FinishReason::kLength, .prompt_tokens = 3, .generated_tokens = 5});
  log.on_collective({.kind = scheduler::CollectiveKind::kDispatch, .step = 7, .layer = 2, .micro_batch = 1});
  log.on_first_token({});
  log.on_inter_token({});
  log.on_divergence("step");
  EXPECT_EQ(next.calls, 8);
  EXPECT_THAT(text.str(), HasSubstr("step 7: run, prefill, 0 requests, 3 tokens of 3 0 by member"));
  EXPECT_THAT(text.str(), HasSubstr("queue: 1 running, 0 waiting, 2 of 9 KV blocks\nrequest finished: length, 3 prompt tokens"));
  EXPECT_THAT(text.str(), HasSubstr("dispatch of step 7, layer 2, micro-batch 1"));
}

}  // namespace
}  // namespace lockstep::daemon
