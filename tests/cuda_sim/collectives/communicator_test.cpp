// Goal    What the NCCL communicator does besides the suite of all communicators: who carries agreements, how errors read, what happens without a device.
// Method  Ranks as threads on the simulated device and NCCL, with a local group beside them for what the hosts' communicator does.
#include <barrier>
#include <cstdint>
#include <cstdlib>
#include <dlfcn.h>
#include <filesystem>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include <gmock/gmock.h>

#include "comm/nccl/nccl_backend.hpp"
#include "comm/nccl/plugin/nccl_channel.hpp"
#include "lockstep/comm/communicator_choice.hpp"
#include "lockstep/comm/device_collectives.hpp"
#include "lockstep/comm/device_messages.hpp"
#include "lockstep/comm/local_group.hpp"
#include "lockstep/device/device.hpp"
#include "lockstep/device/graph.hpp"
#include "tests/cuda_sim/collectives/ranks.hpp"

namespace lockstep::comm {
namespace {

using nccl_sim::set_schedule;
using ::testing::AllOf;
using ::testing::HasSubstr;

using Made = Result<std::unique_ptr<Communicator>>;

Deadline patient() {
  return Deadline::after(std::chrono::seconds(60));
}

/// `options` of each rank; `body` gets what was made of them.
void run_group(int size, const std::function<void(int rank, CommOptions& options)>& adjust, const std::function<void(int rank, Made& made)>& body) {
  LocalGroup local(size);
  std::barrier all_done(size);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      CommOptions options{.launch = {.rank = rank, .world_size = size, .local_rank = rank, .local_size = size}, .plugin_folder = LOCKSTEP_TEST_PLUGINS};
      adjust(rank, options);
      Made made = make_nccl_over_control(local.communicator(rank), options);
      body(rank, made);
      all_done.arrive_and_wait();
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

std::int32_t sum_of(Communicator& communicator, std::int32_t value) {
  const Result<Ticket> ticket = communicator.start_all_reduce(std::span(&value, 1), ReduceOp::kSum);
  EXPECT_TRUE(ticket) << ticket.error().message;
  std::int32_t result = -1;
  const Status done = communicator.wait(*ticket, std::span(&result, 1), patient());
  EXPECT_TRUE(done) << done.error().message;
  return result;
}

TEST(NcclAgreement, TheMeasuredTransportIsTheSameOnAllRanksAndSaysWhy) {
  set_schedule(nccl_sim::kRandom, 5);
  std::vector<std::string> chosen(3);
  run_group(
      3, [](int, CommOptions&) {},
      [&](int rank, Made& made) {
        ASSERT_TRUE(made) << made.error().message;
        chosen[static_cast<std::size_t>(rank)] = (*made)->agreement_transport();
        EXPECT_THAT((*made)->agreement_reason(), AllOf(HasSubstr("us by local"), HasSubstr("us by nccl")));
        EXPECT_EQ((*made)->transport(), "nccl");
        EXPECT_EQ(sum_of(**made, 2), 6);
      });
  EXPECT_THAT(chosen, ::testing::Each(chosen.front()));
}

TEST(NcclAgreement, AnAgreementOfTheHostsGoesOnBesideExchangesInEveryOrderOfWaiting) {
  set_schedule(nccl_sim::kLate);
  run_group(
      2, [](int, CommOptions& options) { options.agreement = AgreementTransport::kHost; },
      [](int rank, Made& made) {
        ASSERT_TRUE(made) << made.error().message;
        Communicator& communicator = **made;
        EXPECT_EQ(communicator.agreement_transport(), "local");
        EXPECT_EQ(communicator.agreement_reason(), "");
        const std::vector<std::byte> outgoing(40000, std::byte{static_cast<unsigned char>(rank + 1)});
        std::vector<std::byte> incoming(40000);
        std::vector<std::span<const std::byte>> send(2);
        std::vector<std::span<std::byte>> receive(2);
        send[static_cast<std::size_t>(1 - rank)] = outgoing;
        receive[static_cast<std::size_t>(1 - rank)] = incoming;
        const Result<Ticket> exchange = communicator.start_all_to_all({.send = send, .receive = receive});
        ASSERT_TRUE(exchange) << exchange.error().message;
        if (rank == 0) {
          EXPECT_EQ(sum_of(communicator, 1), 2);  // while rank 1 waits for the exchange first: this wait has to launch it
        }
        std::vector<std::size_t> received(2);
        const Status done = communicator.wait_all_to_all(*exchange, received, patient());
        ASSERT_TRUE(done) << done.error().message;
        EXPECT_EQ(received[static_cast<std::size_t>(1 - rank)], 40000U);
        EXPECT_EQ(incoming.back(), std::byte{static_cast<unsigned char>(2 - rank)});
        if (rank == 1) {
          EXPECT_EQ(sum_of(communicator, 1), 2);
        }
      });
}

/// Three ranks that choose, of which the last one may lack the plugin.
std::vector<Result<CommunicatorChoice>> choose(std::string_view name, bool last_has_it) {
  constexpr int kRanks = 3;
  LocalGroup local(kRanks);
  std::vector<Result<CommunicatorChoice>> choices;
  for (int rank = 0; rank < kRanks; ++rank) {
    choices.emplace_back(Error{ErrorCode::kInternal, "not chosen"});
  }
  std::vector<std::thread> threads;
  for (int rank = 0; rank < kRanks; ++rank) {
    threads.emplace_back([&, rank] {
      const CommOptions options{.launch = {.rank = rank, .world_size = kRanks, .local_rank = rank, .local_size = kRanks},
                                .plugin_folder = last_has_it || rank + 1 < kRanks ? LOCKSTEP_TEST_PLUGINS : "/nonexistent"};
      choices[static_cast<std::size_t>(rank)] = choose_communicator(local.communicator(rank), {.name = name, .computes_on_device = true}, options);
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  threads.clear();
  for (Result<CommunicatorChoice>& choice : choices) {  // together, as they end: NCCL's ranks do
    threads.emplace_back([&choice] {
      if (choice) {
        choice->note += "; " + std::string(choice->communicator->transport());
        choice->communicator.reset();
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  return choices;
}

TEST(CommunicatorChoice, IsNcclWhereAllRanksCanUseIt) {
  set_schedule(nccl_sim::kRandom, 8);
  for (const Result<CommunicatorChoice>& choice : choose("auto", true)) {
    ASSERT_TRUE(choice) << choice.error().message;
    EXPECT_THAT(choice->note, AllOf(HasSubstr("communicator nccl, which all ranks can use"), HasSubstr("the agreement by "), HasSubstr("us by local"),
                                    ::testing::EndsWith("; nccl")));
  }
}

TEST(CommunicatorChoice, IsTheHostsWhereOneRankCannotUseNcclAndNamesIt) {
  set_schedule(nccl_sim::kRandom, 9);
  const std::vector<Result<CommunicatorChoice>> choices = choose("auto", false);
  for (std::size_t rank = 0; rank < choices.size(); ++rank) {
    ASSERT_TRUE(choices[rank]) << choices[rank].error().message;
    EXPECT_THAT(choices[rank]->note, AllOf(HasSubstr("communicator local: "), HasSubstr(rank == 2 ? "/nonexistent" : "rank 2 cannot use nccl")));
  }
}

TEST(CommunicatorChoice, IsAnErrorByNameWhereOneRankCannotUseNccl) {
  set_schedule(nccl_sim::kRandom, 10);
  for (const Result<CommunicatorChoice>& choice : choose("nccl", false)) {
    ASSERT_FALSE(choice);
    EXPECT_EQ(choice.error().code, ErrorCode::kUnsupported);
    EXPECT_EQ(choice.error().rank, 2);
  }
}

TEST(NcclError, NamesCallRankDeviceAndStep) {
  set_schedule(nccl_sim::kRandom, 6);
  run_group(
      2,
      [](int, CommOptions& options) {
        options.agreement = AgreementTransport::kDevice;
        options.current_step = [] { return std::int64_t{41}; };
      },
      [](int rank, Made& made) {
        ASSERT_TRUE(made) << made.error().message;
        const std::int32_t one = 1;
        std::int32_t result = -7;
        const Result<Ticket> ticket = (*made)->start_all_reduce(std::span(&one, 1), rank == 0 ? ReduceOp::kSum : ReduceOp::kMax);
        ASSERT_TRUE(ticket) << ticket.error().message;
        const Status done = (*made)->wait(*ticket, std::span(&result, 1), patient());
        ASSERT_FALSE(done);
        EXPECT_EQ(result, -7);
        EXPECT_THAT(done.error().message, AllOf(HasSubstr("rank " + std::to_string(rank) + ": "), HasSubstr("failed on communicator \"agreement\""),
                                                HasSubstr("device " + std::to_string(rank) + " (simulated device"), HasSubstr("step 41"),
                                                HasSubstr("rank 0 calls ncclAllReduce"), HasSubstr("ncclMax")));
      });
}

/// A device runs one kernel of NCCL at a time here: one that was not ended would keep it for ever.
void expect_free_device() {
  const ncclUniqueId id = nccl_sim::unique_id();
  ncclComm_t alone = nullptr;
  ASSERT_EQ(ncclCommInitRank(&alone, 1, id, 0), ncclSuccess);
  cudaStream_t stream = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  cudaMemPoolProps properties{};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.location.type = cudaMemLocationTypeDevice;
  cudaMemPool_t pool = nullptr;
  ASSERT_EQ(cudaMemPoolCreate(&pool, &properties), cudaSuccess);
  const nccl_sim::Ints value(pool, stream, {8});
  ASSERT_EQ(ncclAllReduce(value.device(), value.device(), 1, ncclInt32, ncclSum, alone, stream), ncclSuccess);
  const Deadline deadline = Deadline::after(std::chrono::seconds(20));
  while (cudaStreamQuery(stream) == cudaErrorNotReady && deadline.check()) {
    std::this_thread::yield();
  }
  EXPECT_EQ(cudaStreamQuery(stream), cudaSuccess) << "what failed still runs on the device";
  ncclCommAbort(alone);
}

TEST(NcclError, EndsWhatRunsOnTheDevice) {
  set_schedule(nccl_sim::kEarly);
  run_group(
      2, [](int, CommOptions& options) { options.agreement = AgreementTransport::kDevice; },
      [](int rank, Made& made) {
        ASSERT_TRUE(made) << made.error().message;
        if (rank == 1) {
          return;  // silent
        }
        const std::int32_t one = 1;
        std::int32_t result = -7;
        const Result<Ticket> ticket = (*made)->start_all_reduce(std::span(&one, 1), ReduceOp::kSum);
        ASSERT_TRUE(ticket) << ticket.error().message;
        const Status done = (*made)->wait(*ticket, std::span(&result, 1), Deadline::after(std::chrono::milliseconds(20)));
        ASSERT_FALSE(done);
        EXPECT_EQ(done.error().code, ErrorCode::kTimeout) << done.error().message;
        expect_free_device();
      });
}

/// A rank's blocks in the device's memory, and an all-gather of them as a graph.
class Gather {
 public:
  Gather(Communicator& communicator, DeviceCollectives& collectives) : collectives_(collectives) {
    const device::DeviceOptions options{
        .local_rank = communicator.rank(), .local_size = communicator.size(), .share_device = true, .plugin_folder = LOCKSTEP_TEST_PLUGINS};
    device_ = std::move(*device::make_device("cuda", options));
    stream_ = device_->make_inline_stream("gather");
    send_ = std::move(*device_->allocate(kBytes));
    receive_ = std::move(*device_->allocate(kBytes * static_cast<std::size_t>(communicator.size())));
    EXPECT_TRUE(gather());
    EXPECT_TRUE(synchronize(patient()));
  }
  Status gather() {
    return collectives_.all_gather({.stream = stream_.get(), .send = send_.as<std::byte>(), .receive = receive_.as<std::byte>(), .bytes = kBytes}, patient());
  }
  Result<std::unique_ptr<device::Graph>> capture(const std::function<void(device::Stream&)>& before = {}) {
    return device_->graphs()->capture(*stream_, [this, &before]() -> Status {
      if (before) {
        before(*stream_);
      }
      return gather();
    });
  }
  Status launch(device::Graph& graph) { return collectives_.launch(graph, collectives_.take_captured(), *stream_, patient()); }
  Status synchronize(const Deadline& deadline) { return stream_->synchronize(deadline); }
  [[nodiscard]] cudaStream_t native() const { return static_cast<cudaStream_t>(stream_->native_handle()); }

 private:
  static constexpr std::size_t kBytes = 64;
  DeviceCollectives& collectives_;
  std::unique_ptr<device::Device> device_;
  std::unique_ptr<device::Stream> stream_;
  device::Buffer send_;
  device::Buffer receive_;
};

DeviceCollectives& open_collectives(Communicator& communicator) {
  return **communicator.device_messages()->open_collectives(patient());
}

void skip_event_wait(std::uint64_t ordinal) {
  const auto skip = reinterpret_cast<void (*)(std::uint64_t)>(dlsym(RTLD_DEFAULT, "cuda_sim_skip_event_wait"));
  ASSERT_NE(skip, nullptr);
  skip(ordinal);
}

/// Rank 0 loses the wait by which the agreement is chained to the graph that was launched before it.
TEST(NcclGraph, WithoutItsPlaceInTheChainAGraphDeadlocksWithTheAgreementAndBothAreNamed) {
  ::setenv("LOCKSTEP_SIM_NCCL_VERSION", "22500", 1);  // one that keeps no order by itself
  std::barrier turns(2);
  run_group(
      2, [](int, CommOptions& options) { options.agreement = AgreementTransport::kDevice; },
      [&](int rank, Made& made) {
        ASSERT_TRUE(made) << made.error().message;
        Gather gather(**made, open_collectives(**made));
        const auto graph = gather.capture();
        ASSERT_TRUE(graph) << graph.error().message;
        turns.arrive_and_wait();
        set_schedule(nccl_sim::kLate);
        turns.arrive_and_wait();
        const std::int32_t one = 1;
        Result<Ticket> ticket = Error{ErrorCode::kInternal, "not started"};
        for (int turn = 0; turn < 2; ++turn) {  // one after the other: waits are counted for all together
          if (turn == rank) {
            EXPECT_TRUE(gather.launch(**graph));
            skip_event_wait(rank == 0 ? 1 : 0);
            ticket = (*made)->start_all_reduce(std::span(&one, 1), ReduceOp::kSum);
            skip_event_wait(0);
          }
          turns.arrive_and_wait();
        }
        ASSERT_TRUE(ticket) << ticket.error().message;
        std::int32_t result = 0;
        const Status done = (*made)->wait(*ticket, std::span(&result, 1), patient());
        ASSERT_FALSE(done);
        EXPECT_THAT(done.error().message, AllOf(HasSubstr("deadlock"), HasSubstr("ncclAllGather"), HasSubstr("in the graph of capture 1")));
        EXPECT_TRUE(gather.synchronize(patient()));  // the failure has ended it
      });
  ::unsetenv("LOCKSTEP_SIM_NCCL_VERSION");
}

TEST(NcclGraph, ACaptureThatFailsLeavesTheRestOfTheCommunicatorWell) {
  set_schedule(nccl_sim::kRandom, 12);
  run_group(
      2, [](int, CommOptions& options) { options.agreement = AgreementTransport::kDevice; },
      [&](int, Made& made) {
        ASSERT_TRUE(made) << made.error().message;
        Gather gather(**made, open_collectives(**made));
        const auto graph = gather.capture([&](device::Stream&) { static_cast<void>(cudaStreamQuery(gather.native())); });
        ASSERT_FALSE(graph);
        EXPECT_THAT(graph.error().message, HasSubstr("capture"));
        EXPECT_EQ(sum_of(**made, 2), 4);
        EXPECT_TRUE(gather.gather());
        EXPECT_TRUE(gather.synchronize(patient()));
      });
}

TEST(NcclGraph, TheEndOfACommunicatorThatGraphsOutliveIsBounded) {
  set_schedule(nccl_sim::kRandom, 13);
  run_group(
      2, [](int, CommOptions&) {},
      [&](int, Made& made) {
        ASSERT_TRUE(made) << made.error().message;
        Gather gather(**made, open_collectives(**made));
        const auto graph = gather.capture();
        ASSERT_TRUE(graph) << graph.error().message;
        EXPECT_TRUE(gather.launch(**graph));
        EXPECT_TRUE(gather.synchronize(patient()));
        made->reset();  // against its documentation
      });
}

TEST(NcclStart, ARankWithoutADeviceEndsTheStartOfAllAtOnce) {
  run_group(
      2, [](int rank, CommOptions& options) { options.launch.local_rank = rank == 0 ? 0 : 99; },
      [](int rank, Made& made) {
        ASSERT_FALSE(made);
        EXPECT_EQ(made.error().code, ErrorCode::kUnsupported);
        EXPECT_THAT(made.error().message, rank == 0 ? HasSubstr("rank 1 cannot use NCCL") : HasSubstr("rank 1 is rank 99 of 2 on this host, and CUDA shows 8"));
      });
}

TEST(NcclStart, AMissingPluginIsNamedWithTheFolder) {
  const std::string nowhere = (std::filesystem::temp_directory_path() / "no-plugins-here").string();
  const Made made = make_nccl_communicator({.launch = {}, .plugin_folder = nowhere});
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code, ErrorCode::kUnsupported);
  EXPECT_THAT(made.error().message, AllOf(HasSubstr("liblockstep_nccl.so"), HasSubstr(nowhere), HasSubstr("docs/gpu.md")));
}

TEST(NcclChannel, ShrinksToTheRanksThatStayWhileAnOperationHangs) {
  set_schedule(nccl_sim::kLate);
  const ncclUniqueId id = nccl_sim::unique_id();
  nccl_sim::run_ranks(3, [&](nccl_sim::Rank& rank) {
    const LaunchInfo launch{.rank = rank.rank, .world_size = 3, .local_rank = rank.rank, .local_size = 3};
    const auto context = nccl::NcclContext::create({.launch = launch});
    ASSERT_TRUE(context) << context.error().message;
    auto channel = nccl::NcclChannel::start(*context, {.name = "agreement", .id = id, .rank = rank.rank, .size = 3, .urgent = true});
    ASSERT_TRUE(channel) << channel.error().message;
    ASSERT_TRUE((*channel)->wait_until_idle("start", patient()));
    if (rank.rank == 0) {
      rank.all->arrive_and_wait();
      return;
    }
    const nccl_sim::Ints value(rank.pool, rank.stream, {1});
    ASSERT_TRUE((*channel)->all_reduce(value.device(), 1, ReduceOp::kSum));
    ASSERT_TRUE((*channel)->wait_until_idle("all-reduce", patient()));
    const int excluded = 0;
    const auto shrunk = (*channel)->shrink(std::span(&excluded, 1), patient());
    ASSERT_TRUE(shrunk) << shrunk.error().message;
    EXPECT_EQ((*shrunk)->rank(), rank.rank - 1);
    EXPECT_EQ((*shrunk)->size(), 2);
    const nccl_sim::Ints again(rank.pool, rank.stream, {rank.rank});
    ASSERT_TRUE((*shrunk)->all_reduce(again.device(), 1, ReduceOp::kSum));
    ASSERT_TRUE((*shrunk)->wait_until_idle("all-reduce", patient()));
    EXPECT_TRUE((*shrunk)->drain(patient()));
    EXPECT_EQ(again.read(), std::vector<std::int32_t>{3});
    rank.all->arrive_and_wait();
  });
}

}  // namespace
}  // namespace lockstep::comm
