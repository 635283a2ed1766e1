// Goal: ranks agree on a secret, learn each other's addresses, and know how many cores they have.
// Method: made-up files and environments; ranks as threads over the local communicator.
#include "daemon/group/group_start.hpp"

#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <optional>
#include <sched.h>
#include <string_view>
#include <thread>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "daemon/lifecycle/start_facts.hpp"
#include "daemon/served_model/id_tokenizer.hpp"
#include "lockstep/comm/local_group.hpp"

namespace lockstep::daemon {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

comm::EnvironmentReader secret_in_environment(std::optional<std::string> value) {
  return [value = std::move(value)](std::string_view name) { return name == "LOCKSTEP_GROUP_SECRET" ? value : std::nullopt; };
}
const comm::LaunchInfo kTwoRanks{.rank = 0, .world_size = 2, .local_size = 2, .launcher = "mpirun", .job_id = "job.7"};

TEST(GroupSecret, FileComesBeforeTheEnvironmentBeforeTheJob) {
  const auto path = std::filesystem::temp_directory_path() / ("lockstep_secret_" + std::to_string(::getpid()));
  std::ofstream(path) << "from the file\n";
  EXPECT_EQ(find_group_secret(path, kTwoRanks, secret_in_environment("e"))->value, "from the file");
  EXPECT_EQ(find_group_secret("", kTwoRanks, secret_in_environment("e"))->value, "e");
  const auto derived = find_group_secret("", kTwoRanks, secret_in_environment({}));
  ASSERT_TRUE(derived);
  EXPECT_THAT(derived->value, HasSubstr("job.7"));
  EXPECT_THAT(derived->warning, HasSubstr("LOCKSTEP_GROUP_SECRET"));
  std::filesystem::remove(path);
}

TEST(GroupSecret, EmptyOrMissingOnesAreRefused) {
  EXPECT_FALSE(find_group_secret("/nonexistent", kTwoRanks, secret_in_environment("e")));
  EXPECT_FALSE(find_group_secret("/dev/null", kTwoRanks, secret_in_environment("e")));
  comm::LaunchInfo nameless = kTwoRanks;
  nameless.job_id.clear();
  EXPECT_FALSE(find_group_secret("", nameless, secret_in_environment("")));
}

TEST(GroupSecret, OneRankNeedsNone) {
  const auto none = find_group_secret("", comm::LaunchInfo{}, secret_in_environment({}));
  ASSERT_TRUE(none);
  EXPECT_TRUE(none->value.empty());
  EXPECT_FALSE(find_group_secret("/nonexistent", comm::LaunchInfo{}, secret_in_environment({}))) << "a wrong option is wrong for one rank too";
}

TEST(StartCheck, WhatCannotWorkIsNamedBeforeAnyPortOpens) {
  constexpr std::int64_t kMemory = std::int64_t{8} << 30;
  const model::ModelConfig config{.layer_count = 4, .query_heads = 8, .kv_heads = 8, .head_size = 128, .context_length = 1024, .experts_per_token = 2};
  EXPECT_TRUE(check_start({}, kTwoRanks, config, kMemory));
  struct Bad {
    const char* name;
    std::function<void(DaemonOptions& options)> change;
  };
  const std::vector<Bad> bad{
      {"--port: 65535", [](DaemonOptions& options) { options.port = 65535; }},
      {"--shared-port: 8001", [](DaemonOptions& options) { options.shared_port = 8001; }},
      {"--peer-port: 65535", [](DaemonOptions& options) { options.peer_port = 65535; }},
      {"--peer-port: 7999 is among the ports 8000 to 8001", [](DaemonOptions& options) { options.peer_port = 7999; }},
      {"--device", [](DaemonOptions& options) { options.device = "abacus"; }},
      {"--cuda-graphs asks for graphs, but this rank computes on cpu", [](DaemonOptions& options) { options.cuda_graphs = GraphMode::kFull; }},
      {"--cuda-graph-max-tokens is 0", [](DaemonOptions& options) { options.cuda_graph_max_tokens = 0; }},
      {"--max-model-len is 1025", [](DaemonOptions& options) { options.max_model_len = 1025; }},
      {"--max-num-batched-tokens", [](DaemonOptions& options) { options.max_num_batched_tokens = 1'000'000'000; }},
      {"--kv-cache-memory is 1 ", [](DaemonOptions& options) { options.kv_cache_bytes = 1; }},
      {"--kv-cache-memory", [](DaemonOptions& options) {
         options.kv_cache_bytes = std::int64_t{100} << 40;
         options.max_num_seqs = 1'000'000;
       }}};
  for (const Bad& each : bad) {
    DaemonOptions options;
    each.change(options);
    const Status status = check_start(options, kTwoRanks, config, kMemory);
    ASSERT_FALSE(status) << each.name;
    EXPECT_EQ(status.error().code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(status.error().message, HasSubstr(each.name));
  }
}

TEST(StartCheck, TheAnswersToAStepFitAMessageOfMpi) {
  const model::ModelConfig config{.hidden_size = 4096,
                                  .layer_count = 4,
                                  .query_heads = 8,
                                  .kv_heads = 8,
                                  .head_size = 128,
                                  .context_length = 1024,
                                  .expert_count = 16,
                                  .experts_per_token = 8};
  constexpr std::int64_t kMemory = std::int64_t{8} << 30;
  DaemonOptions options;
  // 8 rows of 4096 values of 2 bytes and a pair of 8 bytes each, and the header: 2^31 - 1 bytes hold 32735.
  options.max_num_batched_tokens = 32735;
  EXPECT_TRUE(check_start(options, kTwoRanks, config, kMemory));
  options.max_num_batched_tokens = 32736;
  const Status refused = check_start(options, kTwoRanks, config, kMemory);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, AllOf(HasSubstr("--max-num-batched-tokens is 32736"), HasSubstr("give at most 32735")));
  comm::LaunchInfo alone = kTwoRanks;
  alone.world_size = alone.local_size = 1;
  EXPECT_TRUE(check_start(options, alone, config, kMemory)) << "sends no messages";
  options.device = "cuda";
  EXPECT_TRUE(check_start(options, kTwoRanks, config, kMemory)) << "rows may stay on devices";
  options.communicator = "mpi";
  EXPECT_FALSE(check_start(options, kTwoRanks, config, kMemory));
}

TEST(StartCheck, PortsAreOfNoConcernWhenTheKernelChoosesThem) {
  const model::ModelConfig config{.layer_count = 1, .query_heads = 1, .kv_heads = 1, .head_size = 32, .context_length = 64};
  DaemonOptions options;
  options.port = 0;
  options.shared_port = 1;
  EXPECT_TRUE(check_start(options, kTwoRanks, config, std::int64_t{1} << 40));
}

TEST(Endpoints, EveryRankLearnsAllAddresses) {
  constexpr int kRanks = 3;
  comm::LocalGroup group(kRanks);
  std::vector<std::vector<comm::PeerEndpoint>> learned(kRanks);
  {
    std::vector<std::jthread> ranks;
    for (int rank = 0; rank < kRanks; ++rank) {
      ranks.emplace_back([&, rank] {
        const auto communicator = group.communicator(rank);
        const comm::PeerEndpoint mine{.address = 0xFFFFFFF0U + static_cast<std::uint32_t>(rank), .port = static_cast<std::uint16_t>(65533 + rank)};
        auto all = exchange_endpoints(*communicator, mine, Deadline::after(std::chrono::seconds(20)));
        if (all) {
          learned[static_cast<std::size_t>(rank)] = std::move(*all);
        }
      });
    }
  }
  for (const auto& all : learned) {
    ASSERT_EQ(all.size(), 3U);
    for (std::uint32_t rank = 0; rank < kRanks; ++rank) {
      EXPECT_EQ(all[rank].address, 0xFFFFFFF0U + rank);
      EXPECT_EQ(all[rank].port, 65533 + rank);
    }
  }
}

TEST(StartFacts, WarnOnlyWhenRanksShareCores) {
  const comm::LaunchInfo launch{.world_size = 4, .local_size = 4};
  EXPECT_THAT(shared_core_warning({.cores_available = 2}, launch), HasSubstr("4 ranks share 2 cores"));
  EXPECT_EQ(shared_core_warning({.cores_available = 4}, launch), "");
  EXPECT_EQ(shared_core_warning({.cores_available = 1, .bound = true}, launch), "") << "each has a core of its own";
}

TEST(StartFacts, OnlyTheLaunchersWordMakesCoresARanksOwn) {
  const comm::LaunchInfo by_mpirun{.world_size = 2, .local_size = 2, .launcher = "mpirun"};
  const comm::LaunchInfo by_srun{.world_size = 2, .local_size = 2, .launcher = "srun"};
  const auto nothing = [](std::string_view) { return std::optional<std::string>{}; };
  const auto only = [](std::string_view name, std::string_view value) {
    return [=](std::string_view asked) { return asked == name ? std::optional<std::string>(value) : std::nullopt; };
  };
  EXPECT_FALSE(bound_by_launcher(by_mpirun, nothing));
  EXPECT_TRUE(bound_by_launcher(by_mpirun, only("OMPI_MCA_orte_bound_at_launch", "1")));
  EXPECT_FALSE(bound_by_launcher(by_srun, nothing));
  EXPECT_FALSE(bound_by_launcher(by_srun, only("SLURM_CPU_BIND_TYPE", "none")));
  EXPECT_TRUE(bound_by_launcher(by_srun, only("SLURM_CPU_BIND_TYPE", "mask_cpu:")));
  EXPECT_FALSE(bound_by_launcher({}, only("OMPI_MCA_orte_bound_at_launch", "1"))) << "one rank alone has whatever there is";
}

TEST(StartFacts, ACpuSetThatAllRanksOfAHostHaveInCommonIsShared) {
  // As in a container or under taskset: this thread's mask is narrowed, and no launcher has said a word.
  cpu_set_t before;
  ASSERT_EQ(::sched_getaffinity(0, sizeof before, &before), 0);
  int first = 0;
  while (!CPU_ISSET(first, &before)) {
    ++first;
  }
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(first, &one);
  ASSERT_EQ(::sched_setaffinity(0, sizeof one, &one), 0);
  const comm::LaunchInfo launch{.world_size = 2, .local_size = 2, .launcher = "mpirun"};
  const StartFacts facts = read_start_facts(launch, [](std::string_view) { return std::optional<std::string>{}; });
  ASSERT_EQ(::sched_setaffinity(0, sizeof before, &before), 0);
  EXPECT_FALSE(facts.bound);
  EXPECT_THAT(shared_core_warning(facts, launch), HasSubstr("2 ranks share 1 core:"));
}

TEST(IdTokenizer, ReadsAndWritesTokenIds) {
  const auto tokenizer = make_id_tokenizer(100);
  const auto ids = tokenizer->encode("  3 99 0 ");
  ASSERT_TRUE(ids);
  EXPECT_EQ(*ids, (std::vector<std::int32_t>{3, 99, 0}));
  EXPECT_EQ(*tokenizer->decode(*ids, true), "3 99 0 ");
  for (const char* bad : {"100", "-1", "x", "1x", "1,2", "99999999999"}) {
    EXPECT_FALSE(tokenizer->encode(bad)) << bad;
  }
  EXPECT_EQ(tokenizer->token_bytes(100), "");
}

}  // namespace
}  // namespace lockstep::daemon
