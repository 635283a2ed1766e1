// Goal: /metrics shows what was reported, in names that Prometheus's own checker accepts.
// Method: report made-up steps and requests, read the text; promtool checks it.
#include "daemon/metrics/metrics.hpp"

#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lockstep/comm/communicator.hpp"

namespace lockstep::daemon {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using std::chrono_literals::operator""us;
using std::chrono_literals::operator""ms;
using std::chrono_literals::operator""s;

std::unique_ptr<Metrics> make_metrics(int world_size = 2) {
  auto metrics = Metrics::create({.rank = 1,
                                  .world_size = world_size,
                                  .version = "1.2.3",
                                  .model = "tiny",
                                  .device = "cpu",
                                  .load_format = "dummy",
                                  .transport = "mpi",
                                  .micro_batches = "2"});
  const std::array routes{Route{"/health", "GET", {}}, Route{"/v1/completions", "POST", {}}};
  metrics->add_routes(routes);
  return metrics;
}

/// Nothing but what its metrics ask for.
class CountingCommunicator final : public comm::Communicator {
 public:
  int rank() const override { return 1; }
  int size() const override { return 2; }
  Result<comm::Ticket> start_all_reduce(std::span<const std::int32_t> /*values*/, comm::ReduceOp /*op*/) override { return comm::Ticket{}; }
  Result<comm::Ticket> start_all_to_all(const comm::AllToAll& /*exchange*/) override { return comm::Ticket{}; }
  Result<bool> test(comm::Ticket /*ticket*/) override { return true; }
  Status wait(comm::Ticket /*ticket*/, std::span<std::int32_t> /*result*/, const Deadline& /*deadline*/) override { return {}; }
  Status wait_all_to_all(comm::Ticket /*ticket*/, std::span<std::size_t> /*received_bytes*/, const Deadline& /*deadline*/) override { return {}; }
  std::string_view transport() const override { return "nccl"; }
  std::string_view agreement_transport() const override { return "pigeon"; }
  comm::DeviceTraffic device_traffic() const override { return {.sent_bytes = 17, .received_bytes = 42}; }
};

TEST(Metrics, TheCommunicatorIsAskedWhileItLives) {
  const auto metrics = make_metrics();
  EXPECT_THAT(metrics->text(), HasSubstr("lockstep_agreement_transport_info{rank=\"1\",transport=\"mpi\"} 1\n"));
  EXPECT_THAT(metrics->text(), HasSubstr("lockstep_nccl_bytes_total{rank=\"1\",direction=\"sent\"} 0\n"));
  {
    const CountingCommunicator communicator;
    metrics->set_communicator(&communicator);
    const std::string text = metrics->text();
    EXPECT_THAT(text, HasSubstr("lockstep_agreement_transport_info{rank=\"1\",transport=\"pigeon\"} 1\n"));
    EXPECT_THAT(text, HasSubstr("lockstep_coordination_duration_seconds_count{rank=\"1\",transport=\"pigeon\"} 0\n"));
    EXPECT_THAT(text, HasSubstr("lockstep_group_info{rank=\"1\",epoch=\"0\",transport=\"nccl\",world_size=\"2\"} 1\n"));
    EXPECT_THAT(text, Not(HasSubstr("transport=\"mpi\"")));
    metrics->set_communicator(nullptr);
  }
  EXPECT_THAT(metrics->text(), HasSubstr("lockstep_nccl_bytes_total{rank=\"1\",direction=\"sent\"} 17\n"));
  EXPECT_THAT(metrics->text(), HasSubstr("lockstep_nccl_bytes_total{rank=\"1\",direction=\"received\"} 42\n"));
  EXPECT_THAT(metrics->text(), HasSubstr("transport=\"pigeon\"} 1\n"));
}

TEST(Metrics, StepsAreCountedByKind) {
  const auto metrics = make_metrics();
  const std::array<std::int32_t, 2> tokens{10, 30};
  scheduler::StepRecord record{.action = comm::StepAction::kRun,
                               .kind = scheduler::StepKind::kMixed,
                               .tokens = 30,
                               .prefill_tokens = 25,
                               .padded_tokens = 32,
                               .generated_tokens = 5,
                               .dropped_rows = 2,
                               .micro_batches = 2,
                               .micro_batch_reason = scheduler::MicroBatchReason::kMeasured,
                               .tokens_per_member = tokens,
                               .agreement_time = 20us,
                               .agreement_wait = 500ms,
                               .kv_balance = 0.25,
                               .late_member = 0,
                               .dispatch_time = 500ms,
                               .combine_time = 250ms,
                               .dispatch_exposed_time = 100ms,
                               .combine_exposed_time = 250ms,
                               .exposed_core_lost_time = 50ms,
                               .step_time = 2ms,
                               .wire_bytes = 1000,
                               .crossed_rows = 7};
  metrics->step_observer().on_step(record);
  metrics->step_observer().on_step(record);
  record.micro_batches = 1;
  record.micro_batch_reason = scheduler::MicroBatchReason::kPeer;
  record.late_member = -1;
  record.kind = scheduler::StepKind::kDecode;
  record.graph_mode = GraphMode::kPiecewise;
  metrics->step_observer().on_step(record);
  metrics->step_observer().on_step({.action = comm::StepAction::kSleep});
  const std::string text = metrics->text();
  EXPECT_THAT(text, HasSubstr("lockstep_steps_total{rank=\"1\",kind=\"mixed\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("lockstep_steps_total{rank=\"1\",kind=\"prefill\"} 0\n")) << "absent must not mean zero";
  EXPECT_THAT(text, HasSubstr("lockstep_steps_total{rank=\"1\",kind=\"idle\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("lockstep_step_duration_seconds_count{rank=\"1\",kind=\"idle\"} 0\n")) << "asleep is no step of no duration";
  EXPECT_THAT(text, HasSubstr("lockstep_step_tokens_sum{rank=\"1\",kind=\"mixed\"} 60\n"));
  EXPECT_THAT(text, HasSubstr("lockstep_step_tokens_bucket{rank=\"1\",kind=\"mixed\",le=\"16\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("lockstep_step_tokens_bucket{rank=\"1\",kind=\"mixed\",le=\"32\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("lockstep_step_tokens_count{rank=\"1\",kind=\"mixed\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("lockstep_prompt_tokens_total{rank=\"1\"} 75\n"));
  EXPECT_THAT(text, HasSubstr("lockstep_generated_tokens_total{rank=\"1\"} 15\n"));
  EXPECT_THAT(text, HasSubstr("lockstep_microbatch_steps_total{rank=\"1\",decision=\"split\",reason=\"cost\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("lockstep_microbatch_steps_total{rank=\"1\",decision=\"whole\",reason=\"peer\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("lockstep_microbatch_steps_total{rank=\"1\",decision=\"whole\",reason=\"option\"} 0\n")) << "asleep is not whole";
  EXPECT_THAT(text, HasSubstr("lockstep_graph_steps_total{rank=\"1\",mode=\"none\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("lockstep_graph_steps_total{rank=\"1\",mode=\"piecewise\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("lockstep_graph_steps_total{rank=\"1\",mode=\"full\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("lockstep_coordination_wait_seconds_total{rank=\"1\"} 1.5\n"));
  EXPECT_THAT(text, HasSubstr("lockstep_last_arrival_total{rank=\"1\",peer=\"0\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("lockstep_last_arrival_total{rank=\"1\",peer=\"1\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("lockstep_load_balance_ratio{rank=\"1\",resource=\"kv\"} 0.25\n"));
  EXPECT_THAT(text, HasSubstr("lockstep_comm_seconds_total{rank=\"1\",exposed=\"true\",op=\"dispatch\"} 0.3"));
  EXPECT_THAT(text, HasSubstr("lockstep_comm_seconds_total{rank=\"1\",exposed=\"false\",op=\"dispatch\"} 1.2"));
  EXPECT_THAT(text, HasSubstr("lockstep_comm_seconds_total{rank=\"1\",exposed=\"true\",op=\"combine\"} 0.75\n"));
  EXPECT_THAT(text, HasSubstr("lockstep_comm_seconds_total{rank=\"1\",exposed=\"false\",op=\"combine\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("lockstep_comm_core_lost_seconds_total{rank=\"1\"} 0.15"));
  EXPECT_THAT(text, HasSubstr("lockstep_wire_bytes_total{rank=\"1\"} 3000\n"));
  EXPECT_THAT(text, HasSubstr("lockstep_crossed_rows_total{rank=\"1\"} 21\n"));
  EXPECT_THAT(text, HasSubstr("lockstep_dropped_rows_total{rank=\"1\"} 6\n"));
  EXPECT_THAT(text, HasSubstr("lockstep_coordination_duration_seconds_count{rank=\"1\",transport=\"mpi\"} 4\n"));
  EXPECT_THAT(text, HasSubstr("lockstep_load_balance_ratio{rank=\"1\",resource=\"tokens\"} 0.66"));
}

TEST(Metrics, RankThatHasHadNothingToDoDoesNotSeemToHaveStoodStillForDecades) {
  const auto seconds_since_1970 = [] { return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(); };
  const double before = seconds_since_1970();
  const std::string text = make_metrics()->text();
  const std::string name = "\nlockstep_last_step_timestamp_seconds{rank=\"1\"} ";
  const double value = std::stod(text.substr(text.find(name) + name.size()));
  EXPECT_GE(value, before - 0.001);
  EXPECT_LE(value, seconds_since_1970() + 0.001);
}

TEST(Metrics, SampleOnABucketsBoundIsInIt) {
  const auto metrics = make_metrics();
  metrics->step_observer().on_first_token(10ms);
  EXPECT_THAT(metrics->text(), HasSubstr("lockstep_time_to_first_token_seconds_bucket{rank=\"1\",le=\"0.01\"} 1\n"));
}

TEST(Metrics, RequestsAndQueuesShow) {
  const auto metrics = make_metrics();
  metrics->step_observer().on_request_finished({.reason = scheduler::FinishReason::kLength, .queue_time = 1ms, .total_time = 3s});
  metrics->step_observer().on_queue({.running = 3, .waiting = 4, .kv_blocks_used = 5, .kv_blocks_total = 20, .preemptions = 2});
  metrics->step_observer().on_inter_token(7ms);
  const std::string text = metrics->text();
  EXPECT_THAT(text, HasSubstr("lockstep_requests_finished_total{rank=\"1\",reason=\"length\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("lockstep_requests_finished_total{rank=\"1\",reason=\"rank_lost\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("lockstep_requests_running{rank=\"1\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("lockstep_requests_waiting{rank=\"1\"} 4\n"));
  EXPECT_THAT(text, HasSubstr("lockstep_kv_cache_usage_ratio{rank=\"1\"} 0.25\n"));
  EXPECT_THAT(text, HasSubstr("lockstep_kv_cache_blocks{rank=\"1\",state=\"free\"} 15\n"));
  EXPECT_THAT(text, HasSubstr("lockstep_preemptions_total{rank=\"1\"} 2\n"));
}

TEST(Metrics, MismatchesAreCountedByGuard) {
  const auto metrics = make_metrics();
  metrics->step_observer().on_divergence("epoch");
  metrics->step_observer().on_divergence("config_hash_high");
  metrics->step_observer().on_divergence("rows");
  const std::string text = metrics->text();
  EXPECT_THAT(text, HasSubstr("lockstep_vote_mismatch_total{rank=\"1\",field=\"epoch\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("lockstep_vote_mismatch_total{rank=\"1\",field=\"config_hash\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("lockstep_vote_mismatch_total{rank=\"1\",field=\"other\"} 1\n"));
}

TEST(Metrics, HttpLabelsNeverComeFromTheClient) {
  const auto metrics = make_metrics();
  metrics->http_observer().on_response({.route = "/health", .method = "GET", .status = 200, .duration = 1ms});
  metrics->http_observer().on_response({.route = kNoRoute, .method = "BREW", .status = 405, .duration = 1ms});
  const std::string text = metrics->text();
  EXPECT_THAT(text, HasSubstr(R"(lockstep_http_requests_total{rank="1",code="200",method="GET",route="/health"} 1)"));
  EXPECT_THAT(text, HasSubstr(R"(lockstep_http_requests_total{rank="1",code="405",method="other",route="none"} 1)"));
  EXPECT_THAT(text, Not(HasSubstr("BREW")));
}

TEST(Metrics, StateAndPeersShow) {
  const auto metrics = make_metrics(3);
  metrics->set_up_state("ready");
  metrics->set_peer({.member = 2, .connected = true, .heartbeat_age_seconds = 0.5});
  metrics->set_start_phase("load", 1500ms);
  metrics->count_watchdog_ping();
  metrics->set_drain_remaining(9);
  const std::string text = metrics->text();
  EXPECT_THAT(text, HasSubstr("lockstep_up_state{rank=\"1\",state=\"ready\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("lockstep_up_state{rank=\"1\",state=\"loading\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("lockstep_peer_up{rank=\"1\",peer=\"0\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("lockstep_peer_up{rank=\"1\",peer=\"2\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("lockstep_peer_heartbeat_age_seconds{rank=\"1\",peer=\"2\"} 0.5\n"));
  EXPECT_THAT(text, HasSubstr("lockstep_startup_phase_seconds{rank=\"1\",phase=\"load\"} 1.5\n"));
  EXPECT_THAT(text, HasSubstr("lockstep_watchdog_pings_total{rank=\"1\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("lockstep_drain_remaining_requests{rank=\"1\"} 9\n"));
}

TEST(Metrics, ProcessMetricsAreThoseOfThisProcess) {
  const auto metrics = make_metrics();
  const std::string text = metrics->text();
  const auto value = [&text](const std::string& name) {
    const std::size_t at = text.find("\n" + name + "{");
    return at == std::string::npos ? -1.0 : std::strtod(text.c_str() + text.find("} ", at) + 2, nullptr);
  };
  EXPECT_GT(value("process_resident_memory_bytes"), 1e6);
  EXPECT_GE(value("process_virtual_memory_bytes"), value("process_resident_memory_bytes"));
  EXPECT_GE(value("process_open_fds"), 3);
  EXPECT_GT(value("process_max_fds"), value("process_open_fds"));
  EXPECT_GT(value("process_start_time_seconds"), 1.6e9);
  EXPECT_GE(value("process_cpu_seconds_total"), 0);
}

TEST(Metrics, ScrapesWhileTheStepThreadWritesSeeNumbersThatOnlyGrow) {
  const auto metrics = make_metrics();
  constexpr int kSteps = 5000;
  std::jthread writer([&metrics] {
    for (int i = 0; i < kSteps; ++i) {
      metrics->step_observer().on_inter_token(1ms);
    }
  });
  const std::string name = "\nlockstep_inter_token_seconds_count{rank=\"1\"} ";
  double last = 0;
  while (last < kSteps) {
    const std::string text = metrics->text();
    const double count = std::strtod(text.c_str() + text.find(name) + name.size(), nullptr);
    ASSERT_GE(count, last);
    last = count;
  }
}

TEST(Metrics, PromtoolFindsNothingToSay) {
  const auto metrics = make_metrics();
  metrics->http_observer().on_response({.route = "/health", .method = "GET", .status = 200, .duration = 1ms});
  const auto path = std::filesystem::temp_directory_path() / ("lockstep_metrics_test_" + std::to_string(::getpid()));
  std::ofstream(path) << metrics->text();
  // prometheus is in packages.txt: where promtool is missing, this fails as it should.
  FILE* tool = ::popen(("promtool check metrics < " + path.string() + " 2>&1").c_str(), "r");
  ASSERT_NE(tool, nullptr);
  std::string said;
  std::array<char, 4096> piece{};
  for (std::size_t got = 0; (got = std::fread(piece.data(), 1, piece.size(), tool)) > 0;) {
    said.append(piece.data(), got);
  }
  EXPECT_EQ(::pclose(tool), 0) << said;
  EXPECT_EQ(said, "");
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace lockstep::daemon
