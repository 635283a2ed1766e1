// Goal    All ranks take the same communicator: the devices' where every one of them can use it, else the hosts', or none with an error that says why.
// Method  Ranks as threads over a local group, with a folder for plugins that has none. (Where there is one: tests/cuda_sim/collectives/choice_test.cpp.)
#include "lockstep/comm/communicator_choice.hpp"

#include <functional>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lockstep/comm/local_group.hpp"

namespace lockstep::comm {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr int kRanks = 3;

std::vector<Result<CommunicatorChoice>> choose(const std::function<CommunicatorWish(int rank)>& wish_of) {
  LocalGroup group(kRanks);
  std::vector<Result<CommunicatorChoice>> choices;
  for (int rank = 0; rank < kRanks; ++rank) {
    choices.emplace_back(Error{ErrorCode::kInternal, "not chosen"});
  }
  std::vector<std::thread> threads;
  for (int rank = 0; rank < kRanks; ++rank) {
    threads.emplace_back([&, rank] {
      const CommOptions options{.launch = {.rank = rank, .world_size = kRanks, .local_rank = rank, .local_size = kRanks}, .plugin_folder = "/nonexistent"};
      choices[static_cast<std::size_t>(rank)] = choose_communicator(group.communicator(rank), wish_of(rank), options);
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  return choices;
}

TEST(CommunicatorChoice, AutoOnHostsIsTheHostsAndHasNothingToSay) {
  for (const Result<CommunicatorChoice>& choice : choose([](int) { return CommunicatorWish{}; })) {
    ASSERT_TRUE(choice) << choice.error().message;
    EXPECT_EQ(choice->communicator->transport(), "local");
    EXPECT_EQ(choice->note, "");
  }
}

TEST(CommunicatorChoice, AutoOnDevicesWithoutThePluginIsTheHostsAndSaysWhy) {
  for (const Result<CommunicatorChoice>& choice : choose([](int) { return CommunicatorWish{.computes_on_device = true}; })) {
    ASSERT_TRUE(choice) << choice.error().message;
    EXPECT_EQ(choice->communicator->transport(), "local");
    EXPECT_THAT(choice->note, AllOf(HasSubstr("communicator local"), HasSubstr("liblockstep_nccl.so"), HasSubstr("/nonexistent")));
  }
}

TEST(CommunicatorChoice, TheHostsByNameIsAskedForAndNotExplained) {
  for (const Result<CommunicatorChoice>& choice : choose([](int) { return CommunicatorWish{.name = "mpi", .computes_on_device = true}; })) {
    ASSERT_TRUE(choice) << choice.error().message;
    EXPECT_EQ(choice->note, "");
  }
}

TEST(CommunicatorChoice, TheDevicesByNameIsAnErrorWhereItCannotBeUsed) {
  const std::vector<Result<CommunicatorChoice>> choices = choose([](int rank) { return CommunicatorWish{.name = "nccl", .computes_on_device = rank > 0}; });
  for (const Result<CommunicatorChoice>& choice : choices) {
    ASSERT_FALSE(choice);
    EXPECT_EQ(choice.error().code, ErrorCode::kUnsupported);
    EXPECT_THAT(choice.error().message, HasSubstr("--communicator nccl: "));
  }
  EXPECT_THAT(choices.front().error().message, HasSubstr("--device cuda"));
}

TEST(CommunicatorChoice, ARankKnowsAloneWhatItCannotUse) {
  const CommOptions options{.plugin_folder = "/nonexistent"};
  for (const bool on_device : {false, true}) {
    EXPECT_TRUE(check_communicator({.name = "auto", .computes_on_device = on_device}, options));
    EXPECT_TRUE(check_communicator({.name = "mpi", .computes_on_device = on_device}, options));
    const Status refused = check_communicator({.name = "nccl", .computes_on_device = on_device}, options);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::kUnsupported);
    EXPECT_THAT(refused.error().message, HasSubstr(on_device ? "--communicator nccl: the NCCL communicator (liblockstep_nccl.so) is not in /nonexistent"
                                                             : "--communicator nccl: this rank does not compute on a GPU: give --device cuda"));
  }
}

TEST(CommunicatorChoice, RanksWithDifferentWishesRefuseEachOther) {
  for (const Result<CommunicatorChoice>& choice : choose([](int rank) { return CommunicatorWish{.name = rank == 1 ? "mpi" : "auto"}; })) {
    ASSERT_FALSE(choice);
    EXPECT_EQ(choice.error().code, ErrorCode::kDiverged);
    EXPECT_THAT(choice.error().message, HasSubstr("the ranks have auto and mpi"));
  }
}

TEST(CommunicatorChoice, AnUnknownNameIsRefusedWithTheKnownOnes) {
  LocalGroup group(1);
  const Result<CommunicatorChoice> choice = choose_communicator(group.communicator(0), {.name = "pigeon"}, {});
  ASSERT_FALSE(choice);
  EXPECT_EQ(choice.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(choice.error().message, HasSubstr("auto, mpi, nccl"));
}

}  // namespace
}  // namespace lockstep::comm
