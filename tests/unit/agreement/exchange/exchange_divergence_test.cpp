// Goal    A peer that disagrees, or lies, about an exchange is refused by name before anything of its message is used; so is a wait that a failure ends.
// Method  Member 1 of 2 is a sound one whose messages are changed on the way out, a field at a time. Member 0 must say which field, from whom, and both values.
#include <cstddef>
#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/agreement/exchange/exchange_case.hpp"
#include "tests/unit/agreement/members.hpp"

namespace lockstep::comm {
namespace {

using ::testing::AllOf;
using testing::compute_experts;
using testing::ExchangeCase;
using testing::hang_limit;
using ::testing::HasSubstr;

constexpr ExchangePosition kPosition{.step = 0x500000007, .layer = 3, .micro_batch = 1};

// The message in words, as documented, written down a second time: a change of the format that forgets the protocol version shows here.
enum Word : std::size_t { kMagic, kSender, kStepLow, kStepHigh, kLayer, kMicroBatch, kRows, kPairs, kFirstPair };

struct Message {
  std::vector<std::byte> bytes;
  [[nodiscard]] std::int32_t word(std::size_t index) const {
    std::int32_t value = 0;
    std::memcpy(&value, bytes.data() + index * 4, 4);
    return value;
  }
  void set(std::size_t index, std::int32_t value) { std::memcpy(bytes.data() + index * 4, &value, 4); }
};

using Change = std::function<void(Message&)>;

/// Changes what its member sends to others in its n-th all-to-all.
class TamperingCommunicator final : public Communicator {
 public:
  TamperingCommunicator(Communicator& inner, int operation, Change change) : inner_(inner), operation_(operation), change_(std::move(change)) {}
  [[nodiscard]] int rank() const override { return inner_.rank(); }
  [[nodiscard]] int size() const override { return inner_.size(); }
  [[nodiscard]] Result<Ticket> start_all_reduce(std::span<const std::int32_t> values, ReduceOp op) override { return inner_.start_all_reduce(values, op); }
  [[nodiscard]] Result<Ticket> start_all_to_all(const AllToAll& exchange) override {
    messages_.clear();
    for (const std::span<const std::byte> message : exchange.send) {
      messages_.push_back({{message.begin(), message.end()}});
    }
    if (count_++ == operation_) {
      for (int destination = 0; destination < size(); ++destination) {
        if (destination != rank()) {
          change_(messages_[static_cast<std::size_t>(destination)]);
        }
      }
    }
    std::vector<std::span<const std::byte>> sends;
    for (const Message& message : messages_) {
      sends.emplace_back(message.bytes);
    }
    return inner_.start_all_to_all({.send = sends, .receive = exchange.receive});  // LocalGroup copies what is sent
  }
  [[nodiscard]] Result<bool> test(Ticket ticket) override { return inner_.test(ticket); }
  [[nodiscard]] Status wait(Ticket ticket, std::span<std::int32_t> result, const Deadline& deadline) override { return inner_.wait(ticket, result, deadline); }
  [[nodiscard]] Status wait_all_to_all(Ticket ticket, std::span<std::size_t> received_bytes, const Deadline& deadline) override {
    return inner_.wait_all_to_all(ticket, received_bytes, deadline);
  }
  [[nodiscard]] std::string_view transport() const override { return inner_.transport(); }

 private:
  Communicator& inner_;
  int operation_;
  Change change_;
  int count_ = 0;
  std::vector<Message> messages_;
};

const ExchangeCase& sound_case() {
  static const ExchangeCase result{.world = 2, .experts = 5, .top_k = 3, .hidden = 4, .tokens = {2, 6}, .salt = 3};
  return result;
}

Status exchange_once(Communicator& communicator, const ExchangePosition& position, const DPMetadata& metadata, const ExchangeCase& c, int rank,
                     std::int32_t gather_rows = 0, CombineMode combine = CombineMode::kPerExpert) {
  const GroupView view = GroupView::initial(c.world, rank);
  const Placement placement = Placement::contiguous(c.experts, view);
  LOCKSTEP_ASSIGN_OR_RETURN(auto exchange,
                            ExpertExchange::create(communicator, view, placement,
                                                   {.hidden = c.hidden, .top_k = c.top_k, .rows_max = 16, .gather_rows = gather_rows, .combine = combine}));
  const auto rows = c.rows(rank);
  const auto ids = c.expert_ids(rank);
  const auto weights = c.weights(rank);
  LOCKSTEP_RETURN_IF_ERROR(exchange->start_dispatch(position, metadata, {.rows = rows, .expert_ids = ids, .weights = weights}));
  LOCKSTEP_RETURN_IF_ERROR(exchange->finish_dispatch(hang_limit()));
  compute_experts(*exchange, placement.experts_of(rank), c.hidden);
  LOCKSTEP_RETURN_IF_ERROR(exchange->start_combine());
  return exchange->finish_combine(hang_limit());
}

/// What member 0 says when member 1's messages of the n-th all-to-all are changed; success where it noticed nothing.
Status member_zero_after(int operation, const Change& change, std::int32_t gather_rows = 0, CombineMode combine = CombineMode::kPerExpert) {
  const ExchangeCase& c = sound_case();
  Status seen;
  LocalGroup group(2);
  testing::run_members(group, 2, [&](int rank, Communicator& communicator) {
    if (rank == 0) {
      seen = exchange_once(communicator, kPosition, c.metadata(0), c, 0, gather_rows, combine);
      if (!seen) {
        group.mark_lost(0);  // as leaving does: member 1 must not wait for us
      }
    } else {
      TamperingCommunicator tampering(communicator, operation, change);
      const Status status = exchange_once(tampering, kPosition, c.metadata(1), c, 1, gather_rows, combine);
      if (!status) {
        EXPECT_EQ(status.error().code, ErrorCode::kPeerLost);
      }
    }
  });
  return seen;
}

void expect_refused(const Status& status, const std::string& expected) {
  ASSERT_FALSE(status) << expected;
  EXPECT_EQ(status.error().code, ErrorCode::kDiverged);
  EXPECT_EQ(status.error().rank, 1);
  EXPECT_THAT(status.error().message, HasSubstr(expected));
}

Change set_word(std::size_t index, std::int32_t value) {
  return [=](Message& message) { message.set(index, value); };
}

TEST(ExchangeDivergence, NothingIsRefusedWhenNothingIsChanged) {
  int messages = 0;
  const Status status = member_zero_after(0, [&](Message& message) {
    ++messages;
    EXPECT_EQ(message.word(kRows), 6) << "the cases below rely on these numbers";
    EXPECT_GE(message.word(kPairs), 8);
    EXPECT_LT(message.word(kPairs), 18);
  });
  EXPECT_TRUE(status) << status.error().message;
  EXPECT_EQ(messages, 1);
}

TEST(ExchangeDivergence, EveryHeaderFieldOfADispatchIsRefusedWithBothValues) {
  const std::string where = "dispatch from member 1 to member 0 at step 21474836487, layer 3, micro-batch 1: ";
  expect_refused(member_zero_after(0, set_word(kMagic, 0x4C434D42)), where + "magic is 0x4c434d42, ours is 0x4c445350");
  expect_refused(member_zero_after(0, set_word(kSender, 0)), where + "sender is 0, ours is 1");
  expect_refused(member_zero_after(0, set_word(kStepLow, 8)), where + "step is 21474836488, ours is 21474836487");
  expect_refused(member_zero_after(0, set_word(kStepHigh, 6)), where + "step is 25769803783, ours is 21474836487");
  expect_refused(member_zero_after(0, set_word(kLayer, 4)), where + "layer is 4, ours is 3");
  expect_refused(member_zero_after(0, set_word(kMicroBatch, 0)), where + "micro_batch is 0, ours is 1");
  expect_refused(member_zero_after(0, set_word(kRows, 7)), where + "rows is 7, agreed are 0 to 6");
  expect_refused(member_zero_after(0, set_word(kRows, -1)), where + "rows is -1, agreed are 0 to 6");
  expect_refused(member_zero_after(0, set_word(kRows, 0x7fffffff)), where + "rows is 2147483647, agreed are 0 to 6");
  expect_refused(member_zero_after(0, set_word(kPairs, 19)), where + "pairs is 19, agreed are 0 to 18");
  expect_refused(member_zero_after(0, set_word(kPairs, -1)), where + "pairs is -1, agreed are 0 to 18");
  expect_refused(member_zero_after(0, set_word(kRows, 5)), where + "the message has ");
  expect_refused(member_zero_after(0, set_word(kPairs, 1)), where + "the message has ");
}

TEST(ExchangeDivergence, EveryHeaderFieldOfACombineIsRefusedWithBothValues) {
  const std::string where = "combine from member 1 to member 0 at step 21474836487, layer 3, micro-batch 1: ";
  std::int32_t pairs = -1;
  ASSERT_TRUE(member_zero_after(1, [&](Message& message) { pairs = message.word(kPairs); }));
  ASSERT_GT(pairs, 0);
  expect_refused(member_zero_after(1, set_word(kMagic, 0x4C445350)), where + "magic is 0x4c445350, ours is 0x4c434d42");
  expect_refused(member_zero_after(1, set_word(kSender, 5)), where + "sender is 5, ours is 1");
  expect_refused(member_zero_after(1, set_word(kStepLow, 0)), where + "step is 21474836480, ours is 21474836487");
  expect_refused(member_zero_after(1, set_word(kLayer, -1)), where + "layer is -1, ours is 3");
  expect_refused(member_zero_after(1, set_word(kMicroBatch, 2)), where + "micro_batch is 2, ours is 1");
  expect_refused(member_zero_after(1, set_word(kPairs, pairs - 1)), where + "pairs is " + std::to_string(pairs - 1) + ", ours is " + std::to_string(pairs));
  expect_refused(member_zero_after(1, set_word(kRows, pairs + 1)), where + "rows is " + std::to_string(pairs + 1) + ", ours is " + std::to_string(pairs));
  expect_refused(member_zero_after(1, [](Message& message) { message.bytes.pop_back(); }), where + "the message has ");
}

TEST(ExchangeDivergence, CutMessagesAreRefusedAtEveryLength) {
  std::size_t whole = 0;
  ASSERT_TRUE(member_zero_after(0, [&](Message& message) { whole = message.bytes.size(); }));
  for (std::size_t length = 1; length < whole; length += 7) {
    expect_refused(member_zero_after(0, [&](Message& message) { message.bytes.resize(length); }), "the message has " + std::to_string(length) + " bytes");
  }
}

TEST(ExchangeDivergence, PairsThatAreNotOursOrNotInOrderAreRefused) {
  // Member 0 of 2 holds experts 0, 1, 2 of 5.
  expect_refused(member_zero_after(0, set_word(kFirstPair + 1, 3)), "pair 0 is for expert 3, which member 0 does not compute for member 1");
  expect_refused(member_zero_after(0, set_word(kFirstPair + 1, -1)), "pair 0 is for expert -1");
  expect_refused(member_zero_after(0, set_word(kFirstPair + 1, 0x40000000)), "pair 0 is for expert 1073741824");
  expect_refused(member_zero_after(0, set_word(kFirstPair, 1)), "pair 0 is (row 1, ");
  expect_refused(member_zero_after(0, set_word(kFirstPair, -1)), "pair 0 is (row -1, ");
  expect_refused(member_zero_after(0, set_word(kFirstPair, 0x7fffffff)), "pair 0 is (row 2147483647, ");
  expect_refused(member_zero_after(0, set_word(kFirstPair, std::numeric_limits<std::int32_t>::min())), "pair 0 is (row -2147483648, ");
  expect_refused(member_zero_after(0,
                                   [](Message& message) {  // a row before the first, for an expert of ours that is not the lowest
                                     message.set(kFirstPair, -1);
                                     message.set(kFirstPair + 1, 2);
                                     message.set(kFirstPair + 2, 0);
                                   }),
                 "pair 0 is (row -1, ");
  expect_refused(member_zero_after(0,
                                   [](Message& message) {
                                     const std::size_t last = kFirstPair + 2 * static_cast<std::size_t>(message.word(kPairs) - 1);
                                     message.set(last, message.word(kRows));  // one past the message's rows
                                   }),
                 "(row 6, ");
  expect_refused(member_zero_after(0,
                                   [](Message& message) {  // the second pair repeats the first
                                     message.set(kFirstPair + 2, message.word(kFirstPair));
                                     message.set(kFirstPair + 3, message.word(kFirstPair + 1));
                                   }),
                 "pair 1 is (row 0, ");
}

TEST(ExchangeDivergence, RowsThatNoPairUsesAreRefused) {
  expect_refused(member_zero_after(0,
                                   [](Message& message) {  // the last pair, or all pairs of the last row, go; their bytes too
                                     std::int32_t pairs = message.word(kPairs);
                                     const std::int32_t last_row = message.word(kRows) - 1;
                                     while (message.word(kFirstPair + 2 * static_cast<std::size_t>(pairs - 1)) == last_row) {
                                       --pairs;
                                     }
                                     const auto removed = static_cast<std::ptrdiff_t>(8 * (message.word(kPairs) - pairs));
                                     const auto end = message.bytes.begin() + 32 + 8 * message.word(kPairs);
                                     message.set(kPairs, pairs);
                                     message.bytes.erase(end - removed, end);
                                   }),
                 "rows is 6, ours is 5");
}

TEST(ExchangeDivergence, AWeightedMessageAndASumAreRefusedUnlessTheyAreOfTheAgreedKindAndSize) {
  const std::string where = " from member 1 to member 0 at step 21474836487, layer 3, micro-batch 1: ";
  const auto seen = [](int operation, const Change& change, std::int32_t gather_rows = 0) {
    return member_zero_after(operation, change, gather_rows, CombineMode::kPerRank);
  };
  std::int32_t sums = -1;
  EXPECT_TRUE(seen(0, [](Message& message) { EXPECT_EQ(message.word(kMagic), 0x4C575344); }));
  EXPECT_TRUE(seen(1, [&](Message& message) {
    sums = message.word(kRows);
    EXPECT_LT(sums, message.word(kPairs)) << "the cases below rely on a row with several experts there";
  }));
  expect_refused(seen(0, set_word(kMagic, 0x4C445350)), "dispatch" + where + "magic is 0x4c445350, ours is 0x4c575344");
  expect_refused(seen(0, [](Message& message) { message.bytes.pop_back(); }), "dispatch" + where + "the message has ");
  expect_refused(seen(0, set_word(kMagic, 0x4C475448), 8), "dispatch" + where + "magic is 0x4c475448, ours is 0x4c575448");
  expect_refused(seen(1, set_word(kRows, sums + 1)), "combine" + where + "rows is " + std::to_string(sums + 1) + ", ours is " + std::to_string(sums));
  expect_refused(seen(1, [](Message& message) { message.bytes.pop_back(); }), "combine" + where + "the message has ");
}

TEST(ExchangeDivergence, AGatheredMessageIsRefusedUnlessItIsExactlyTheAgreedRowsWithAscendingExperts) {
  constexpr std::int32_t kGathered = 8;  // all rows of the case
  const std::string where = "dispatch from member 1 to member 0 at step 21474836487, layer 3, micro-batch 1: ";
  const auto seen = [](const Change& change) { return member_zero_after(0, change, kGathered); };
  const Status sound = seen([](Message& message) {
    EXPECT_EQ(message.word(kMagic), 0x4C475448);
    EXPECT_EQ(message.word(kPairs), 18) << "the cases below rely on these numbers";
  });
  EXPECT_TRUE(sound) << sound.error().message;
  expect_refused(seen(set_word(kMagic, 0x4C445350)), where + "magic is 0x4c445350, ours is 0x4c475448");
  expect_refused(seen(set_word(kRows, 5)), where + "rows is 5, ours is 6");
  expect_refused(seen(set_word(kPairs, 19)), where + "pairs is 19, ours is 18");
  expect_refused(seen(set_word(kPairs, -1)), where + "pairs is -1, ours is 18");
  expect_refused(seen([](Message& message) { message.bytes.pop_back(); }), where + "the message has ");
  expect_refused(seen(set_word(kFirstPair, -1)), where + "row 0 has expert -1 after -1");
  expect_refused(seen(set_word(kFirstPair + 2, 5)), where + "row 0 has expert 5 after ");
  expect_refused(seen(set_word(kFirstPair + 2, std::numeric_limits<std::int32_t>::max())), where + "row 0 has expert 2147483647 after ");
  expect_refused(seen([](Message& message) { message.set(kFirstPair + 4, message.word(kFirstPair + 3)); }), where + "row 1 has expert ");
}

TEST(ExchangeDivergence, AMemberThatRoutesWhatTheOthersGatherIsRefused) {
  LocalGroup group(2);
  const ExchangeCase& c = sound_case();
  testing::run_members(group, 2, [&](int rank, Communicator& communicator) {
    const Status status = exchange_once(communicator, kPosition, c.metadata(rank), c, rank, rank == 0 ? 8 : 7);
    EXPECT_FALSE(status);
    group.mark_lost(rank);
  });
}

TEST(ExchangeDivergence, APeerThatBelievesInMoreRowsThanAgreedIsRefusedByName) {
  ExchangeCase more = sound_case();
  more.tokens[1] = 14;
  LocalGroup group(2);
  testing::run_members(group, 2, [&](int rank, Communicator& communicator) {
    if (rank == 0) {
      const Status status = exchange_once(communicator, kPosition, sound_case().metadata(0), sound_case(), 0);
      EXPECT_FALSE(status);
      if (!status) {
        EXPECT_EQ(status.error().code, ErrorCode::kDiverged);
        EXPECT_EQ(status.error().rank, 1);
        EXPECT_THAT(status.error().message, HasSubstr("dispatch of step 21474836487, layer 3, micro-batch 1: "));
        EXPECT_THAT(status.error().message, HasSubstr("member 1 may send at most 6 rows and 18 pairs"));
      }
      group.mark_lost(0);
    } else {
      EXPECT_FALSE(exchange_once(communicator, kPosition, more.metadata(1), more, 1));
    }
  });
}

TEST(ExchangeDivergence, ATokenCountBeyondTheBuffersIsRefusedBeforeAnythingIsSent) {
  LocalGroup group(2);
  ExchangeCase c = sound_case();
  const auto rank_zero = group.communicator(0);
  const Status status = exchange_once(*rank_zero, kPosition, DPMetadata::make(2, 0, 2, std::vector<std::int32_t>{2, 17}), c, 0);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kDiverged);
  EXPECT_EQ(status.error().rank, 1);
  EXPECT_THAT(status.error().message, AllOf(HasSubstr("layer 3, micro-batch 1"), HasSubstr("member 1 has 17 rows, member 0's buffers are for 0 to 16")));
}

/// Knows at once that member 1 is gone.
class LostPeer final : public Watch {
 public:
  [[nodiscard]] Status failure() const override { return Error{ErrorCode::kPeerLost, "member 1 closed its connection", 1}; }
  [[nodiscard]] TimePoint last_progress() const override { return {}; }
};

TEST(ExchangeDivergence, AWaitThatAFailureEndsSaysWhereInTheModelItStood) {
  LocalGroup group(2);
  const auto communicator = group.communicator(0);
  const ExchangeCase& c = sound_case();
  const GroupView view = GroupView::initial(2, 0);
  auto exchange = ExpertExchange::create(*communicator, view, Placement::contiguous(c.experts, view), {.hidden = c.hidden, .top_k = c.top_k, .rows_max = 16});
  ASSERT_TRUE(exchange);
  const auto rows = c.rows(0);
  const auto ids = c.expert_ids(0);
  ASSERT_TRUE((*exchange)->start_dispatch(kPosition, c.metadata(0), {.rows = rows, .expert_ids = ids}));
  const LostPeer lost;
  const Status status = (*exchange)->finish_dispatch(Deadline::after(std::chrono::hours(1), &lost));
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kPeerLost);
  EXPECT_THAT(status.error().message, AllOf(HasSubstr("dispatch of step 21474836487, layer 3, micro-batch 1: "), HasSubstr("member 1 closed its connection")));
}

}  // namespace
}  // namespace lockstep::comm
