// Goal: /health and /ready say what the documentation's table says, in every state.
// Method: judge_health over made-up progress and peers; LifeMonitor over a fake engine and a StepProgress that the test moves.
#include "daemon/lifecycle/health.hpp"

#include <gtest/gtest.h>

namespace lockstep::daemon {
namespace {

using comm::PeerState;
using comm::StepPhase;
using std::chrono_literals::operator""s;

HealthInput moving(LifeState state, StepPhase phase = StepPhase::kComputing) {
  return {.state = state, .progress = {.ticks = 5, .step = 7, .phase = phase}, .since_progress = 1s, .stall_timeout = 10s};
}
HealthInput standing(LifeState state, StepPhase phase) {
  HealthInput input = moving(state, phase);
  input.since_progress = 11s;
  return input;
}
PeerState peer_at(std::int32_t member, std::int64_t step, StepPhase phase) {
  return {.member = member, .connected = true, .heartbeat_age_seconds = 0.1, .progress = {.step = step, .phase = phase}};
}

struct Row {
  HealthInput input;
  bool alive;
  bool ready;
  std::string_view status;
};

TEST(Health, FollowsTheTruthTable) {
  HealthInput lost = moving(LifeState::kReady);
  lost.peers = {peer_at(1, 7, StepPhase::kComputing)};
  lost.peers[0].connected = false;
  HealthInput silent = moving(LifeState::kReady);
  silent.peers = {peer_at(1, 7, StepPhase::kComputing)};
  silent.peers[0].heartbeat_age_seconds = 11;
  HealthInput faulted_by_peer = lost;
  faulted_by_peer.state = LifeState::kFaulted;
  const Row rows[] = {
      {moving(LifeState::kInit, StepPhase::kStarting), true, false, "loading"},
      {moving(LifeState::kLoading, StepPhase::kStarting), true, false, "loading"},
      {standing(LifeState::kLoading, StepPhase::kStarting), true, false, "loading"},
      {moving(LifeState::kWarming), true, false, "loading"},
      {moving(LifeState::kReady), true, true, "ok"},
      {standing(LifeState::kReady, StepPhase::kSleeping), true, true, "ok"},
      {standing(LifeState::kReady, StepPhase::kComputing), false, false, "stalled"},
      {standing(LifeState::kReady, StepPhase::kAgreeing), false, false, "stalled"},
      {standing(LifeState::kReady, StepPhase::kDispatching), false, false, "stalled"},
      {moving(LifeState::kDraining), true, false, "draining"},
      {standing(LifeState::kDraining, StepPhase::kStopped), true, false, "draining"},
      {standing(LifeState::kDraining, StepPhase::kCombining), false, false, "stalled"},
      {lost, false, false, "peer_lost"},
      {silent, false, false, "peer_lost"},
      {moving(LifeState::kFaulted), false, false, "faulted"},
      {faulted_by_peer, false, false, "peer_lost"},
  };
  for (const Row& row : rows) {
    const Health health = judge_health(row.input);
    const std::string name = std::string(life_state_name(row.input.state)) + " " + std::string(row.status);
    EXPECT_EQ(health.alive, row.alive) << name;
    EXPECT_EQ(health.ready, row.ready) << name;
    EXPECT_EQ(health.status, row.status) << name;
  }
}

TEST(Health, NamesTheRanksThatHaveNotArrived) {
  HealthInput input = moving(LifeState::kReady, StepPhase::kAgreeing);
  input.peers = {peer_at(1, 6, StepPhase::kCombining), peer_at(2, 7, StepPhase::kAgreeing), peer_at(3, 7, StepPhase::kComputing)};
  EXPECT_EQ(judge_health(input).not_arrived, (std::vector<int>{1, 3}));
  input.progress.phase = StepPhase::kComputing;
  EXPECT_TRUE(judge_health(input).not_arrived.empty()) << "who computes waits for nobody";
}

TEST(Health, BodyTellsWhereTheStepThreadIs) {
  HealthInput input = moving(LifeState::kReady, StepPhase::kDispatching);
  input.progress.layer = 3;
  const std::string body = health_body(judge_health(input), input, 2);
  EXPECT_NE(body.find(R"("status":"ok","rank":2,"state":"ready","step":7)"), std::string::npos) << body;
  EXPECT_NE(body.find(R"("layer":3)"), std::string::npos) << body;
}

TEST(ProgressWatch, CountsFromTheLastTickThatMoved) {
  ProgressWatch watch;
  const TimePoint start{};
  watch.update({.ticks = 1}, start);
  watch.update({.ticks = 1}, start + 5s);
  EXPECT_EQ(watch.since_progress(start + 5s), 5s);
  watch.update({.ticks = 2}, start + 6s);
  EXPECT_EQ(watch.since_progress(start + 8s), 2s);
}

}  // namespace
}  // namespace lockstep::daemon
