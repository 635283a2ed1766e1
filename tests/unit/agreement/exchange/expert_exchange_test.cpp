// Goal    Every (token, expert) pair is computed by the member that holds the expert, once, and its output comes back to its place, bit for bit, at every world
// size. Method  Members as threads over LocalGroup, which refuses exchanges that would hang or be truncated elsewhere. Rows and experts follow from a token's
// number in the
//         whole group, so results are compared with a direct computation that knows nothing of members.
#include "lockstep/comm/expert_exchange.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/agreement/exchange/allocation_count.hpp"
#include "tests/unit/agreement/exchange/exchange_case.hpp"
#include "tests/unit/agreement/exchange/uncounted_communicator.hpp"
#include "tests/unit/agreement/members.hpp"

namespace lockstep::comm {
namespace {

using testing::bits_of;
using testing::compute_experts;
using testing::ExchangeCase;
using testing::hang_limit;
using ::testing::HasSubstr;
using testing::run_members;
using testing::UncountedCommunicator;

constexpr std::int32_t kRowsMax = 40;
constexpr std::int32_t kAllGathered = 1 << 20;

ExpertExchangeOptions options_of(const ExchangeCase& c, std::int32_t gather_rows = 0, CombineMode combine = CombineMode::kPerExpert) {
  return {.hidden = c.hidden, .top_k = c.top_k, .rows_max = kRowsMax, .gather_rows = gather_rows, .combine = combine};
}

/// One dispatch, the experts, one combine. False when something failed; the failure is reported.
bool run_exchange(ExpertExchange& exchange, const ExchangeCase& c, int rank, const Placement& placement, const ExchangePosition& position) {
  const std::vector<BFloat16> rows = c.rows(rank);
  const std::vector<std::int32_t> ids = c.expert_ids(rank);
  const std::vector<float> weights = c.weights(rank);
  Status status = exchange.start_dispatch(position, c.metadata(rank), {.rows = rows, .expert_ids = ids, .weights = weights});
  if (status) {
    status = exchange.finish_dispatch(hang_limit());
  }
  if (status) {
    compute_experts(exchange, placement.experts_of(rank), c.hidden);
    status = exchange.start_combine();
  }
  if (status) {
    status = exchange.finish_combine(hang_limit());
  }
  EXPECT_TRUE(status) << status.error().message;
  return status.has_value();
}

/// Rows by expert, then source, then the source's order: by walking all members' routing.
std::vector<std::uint16_t> expected_received(const ExchangeCase& c, const Placement& placement, int member) {
  std::vector<std::uint16_t> result;
  for (const std::int32_t expert : placement.experts_of(member)) {
    for (int token = 0; token < c.first_token(c.world); ++token) {
      if (std::ranges::count(testing::experts_of_token(token, c.experts, c.top_k, c.salt), expert) == 1) {
        for (int column = 0; column < c.hidden; ++column) {
          result.push_back(testing::token_bits(token, column, c.salt));
        }
      }
    }
  }
  return result;
}

std::vector<std::vector<std::int32_t>> token_patterns(int world) {
  const auto members = static_cast<std::size_t>(world);
  std::vector<std::int32_t> even(members, 6);
  std::vector<std::int32_t> skewed(members, 3);
  skewed[members / 2] = 30;
  std::vector<std::int32_t> only_last(members, 0);
  only_last[members - 1] = 5;
  std::vector<std::int32_t> alternating(members, 0);
  for (std::size_t i = 0; i < members; i += 2) {
    alternating[i] = static_cast<std::int32_t>(1 + i);
  }
  std::vector<std::int32_t> full(members, kRowsMax);
  return {even, skewed, only_last, alternating, std::vector<std::int32_t>(members, 0), full};  // skewed: 10 to 1
}

struct Shape {
  int world;
  int experts;
  int top_k;
};

class ExpertExchangeShapes : public ::testing::TestWithParam<Shape> {};

TEST_P(ExpertExchangeShapes, CombinedEqualsTheDirectComputationBitForBitForEveryTokenPattern) {
  const Shape shape = GetParam();
  std::vector<ExchangeCase> cases;
  for (const auto& tokens : token_patterns(shape.world)) {
    cases.push_back({.world = shape.world, .experts = shape.experts, .top_k = shape.top_k, .tokens = tokens, .salt = static_cast<std::uint32_t>(cases.size())});
  }
  run_members(shape.world, [&](int rank, Communicator& communicator) {
    const GroupView view = GroupView::initial(shape.world, rank);
    const Placement placement = Placement::contiguous(shape.experts, view);
    // Routed, gathered, and by the number of rows: both in turn.
    for (const std::int32_t gather_rows : {0, kAllGathered, 12}) {
      auto exchange = ExpertExchange::create(communicator, view, placement, options_of(cases.front(), gather_rows));
      ASSERT_TRUE(exchange) << exchange.error().message;
      ExchangePosition position{.step = std::int64_t{1} << 33, .layer = 0, .micro_batch = 0};
      for (const ExchangeCase& c : cases) {  // one object for all: what a smaller exchange leaves behind must not show in the next
        ++position.layer;
        ASSERT_TRUE(run_exchange(**exchange, c, rank, placement, position));
        EXPECT_EQ(bits_of((*exchange)->combined()), c.expected_combined(rank)) << "rank " << rank << ", layer " << position.layer;
        EXPECT_EQ(bits_of((*exchange)->received().rows), expected_received(c, placement, rank)) << "rank " << rank << ", layer " << position.layer;
        EXPECT_EQ((*exchange)->received().offsets.size(), placement.experts_of(rank).size() + 1);
      }
    }
  });
}

/// NaNs may differ in their bits: the exchange carries any, and a sum of two may keep either's.
void expect_equal_sums(std::span<const BFloat16> found, std::span<const BFloat16> expected, const std::string& what) {
  ASSERT_EQ(found.size(), expected.size()) << what;
  for (std::size_t i = 0; i < found.size(); ++i) {
    const auto value = static_cast<float>(found[i]);
    const auto wanted = static_cast<float>(expected[i]);
    ASSERT_TRUE(found[i].bits == expected[i].bits || (std::isnan(value) && std::isnan(wanted)))
        << what << ", value " << i << ": " << value << ", expected " << wanted;
  }
}

TEST_P(ExpertExchangeShapes, EachMemberSumsItsExpertsOutputsWhenCombinedPerRank) {
  const Shape shape = GetParam();
  std::vector<ExchangeCase> cases;
  for (const auto& tokens : token_patterns(shape.world)) {
    cases.push_back({.world = shape.world, .experts = shape.experts, .top_k = shape.top_k, .tokens = tokens, .salt = static_cast<std::uint32_t>(cases.size())});
  }
  run_members(shape.world, [&](int rank, Communicator& communicator) {
    const GroupView view = GroupView::initial(shape.world, rank);
    const Placement placement = Placement::contiguous(shape.experts, view);
    for (const std::int32_t gather_rows : {0, kAllGathered, 12}) {
      auto exchange = ExpertExchange::create(communicator, view, placement, options_of(cases.front(), gather_rows, CombineMode::kPerRank));
      ASSERT_TRUE(exchange) << exchange.error().message;
      ExchangePosition position{.step = 5, .layer = 0, .micro_batch = 0};
      for (const ExchangeCase& c : cases) {  // one object for all: what a smaller exchange leaves behind must not show in the next
        ++position.layer;
        ASSERT_TRUE(run_exchange(**exchange, c, rank, placement, position));
        expect_equal_sums((*exchange)->combined(), c.expected_sums(rank, placement),
                          "rank " + std::to_string(rank) + ", layer " + std::to_string(position.layer));
      }
    }
  });
}

std::vector<Shape> all_shapes() {
  std::vector<Shape> shapes;
  for (const int world : {1, 2, 3, 4, 8}) {
    for (const int experts : {1, 3, 7, 8}) {
      for (const int top_k : {1, 2, 3, 8}) {
        if (top_k <= experts) {
          shapes.push_back({world, experts, top_k});
        }
      }
    }
  }
  return shapes;
}

INSTANTIATE_TEST_SUITE_P(All, ExpertExchangeShapes, ::testing::ValuesIn(all_shapes()), [](const ::testing::TestParamInfo<Shape>& shape) {
  return "World" + std::to_string(shape.param.world) + "Experts" + std::to_string(shape.param.experts) + "Top" + std::to_string(shape.param.top_k);
});

/// Output bits of every token of the group, by number: who owned it is not part of it.
std::vector<std::uint16_t> outputs_by_token(const ExchangeCase& c) {
  std::vector<std::vector<std::uint16_t>> parts(static_cast<std::size_t>(c.world));
  run_members(c.world, [&](int rank, Communicator& communicator) {
    const GroupView view = GroupView::initial(c.world, rank);
    const Placement placement = Placement::contiguous(c.experts, view);
    auto exchange = ExpertExchange::create(communicator, view, placement, options_of(c));
    ASSERT_TRUE(exchange);
    ASSERT_TRUE(run_exchange(**exchange, c, rank, placement, {.step = 1, .layer = 2, .micro_batch = 1}));
    parts[static_cast<std::size_t>(rank)] = bits_of((*exchange)->combined());
  });
  std::vector<std::uint16_t> all;
  for (const auto& part : parts) {
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

TEST(ExpertExchange, GivesATokenTheSameOutputsWhicheverMemberOwnsItAtEveryWorldSize) {
  const std::vector<std::uint16_t> alone = outputs_by_token({.world = 1, .experts = 7, .top_k = 3, .hidden = 9, .tokens = {24}});
  ASSERT_EQ(alone.size(), 24U * 3U * 9U);
  for (const std::vector<std::int32_t>& tokens : std::vector<std::vector<std::int32_t>>{
           {24, 0}, {0, 24}, {11, 13}, {8, 8, 8}, {1, 2, 21}, {0, 24, 0}, {3, 3, 3, 3, 3, 3, 3, 3}, {0, 0, 0, 1, 0, 0, 23, 0}}) {
    EXPECT_EQ(outputs_by_token({.world = static_cast<int>(tokens.size()), .experts = 7, .top_k = 3, .hidden = 9, .tokens = tokens}), alone);
  }
}

TEST(ExpertExchange, RunsTwoObjectsOfTwoMicroBatchesInterleaved) {
  const ExchangeCase a{.world = 3, .experts = 7, .top_k = 2, .tokens = {4, 0, 9}, .salt = 1};
  const ExchangeCase b{.world = 3, .experts = 7, .top_k = 2, .tokens = {2, 0, 0}, .salt = 2};
  run_members(3, [&](int rank, Communicator& communicator) {
    const GroupView view = GroupView::initial(3, rank);
    const Placement placement = Placement::contiguous(7, view);
    auto first = ExpertExchange::create(communicator, view, placement, options_of(a));
    auto second = ExpertExchange::create(communicator, view, placement, options_of(b));
    ASSERT_TRUE(first && second);
    const auto rows_a = a.rows(rank);
    const auto rows_b = b.rows(rank);
    const auto ids_a = a.expert_ids(rank);
    const auto ids_b = b.expert_ids(rank);
    ASSERT_TRUE((*first)->start_dispatch({.step = 3, .layer = 0, .micro_batch = 0}, a.metadata(rank), {.rows = rows_a, .expert_ids = ids_a}));
    ASSERT_TRUE((*second)->start_dispatch({.step = 3, .layer = 0, .micro_batch = 1}, b.metadata(rank), {.rows = rows_b, .expert_ids = ids_b}));
    ASSERT_TRUE((*first)->finish_dispatch(hang_limit()));
    compute_experts(**first, placement.experts_of(rank), a.hidden);
    ASSERT_TRUE((*first)->start_combine());
    ASSERT_TRUE((*second)->finish_dispatch(hang_limit()));
    compute_experts(**second, placement.experts_of(rank), b.hidden);
    ASSERT_TRUE((*second)->start_combine());
    ASSERT_TRUE((*first)->finish_combine(hang_limit()));
    ASSERT_TRUE((*second)->finish_combine(hang_limit()));
    EXPECT_EQ(bits_of((*first)->combined()), a.expected_combined(rank));
    EXPECT_EQ(bits_of((*second)->combined()), b.expected_combined(rank));
  });
}

struct Traffic {
  std::vector<std::uint64_t> rows;
  std::vector<std::uint64_t> bytes;
  friend bool operator==(const Traffic& a, const Traffic& b) = default;
};

/// What each member counts in one exchange.
Traffic counted_traffic(const ExchangeCase& c, std::int32_t gather_rows, CombineMode combine) {
  const auto members = static_cast<std::size_t>(c.world);
  Traffic traffic{.rows = std::vector<std::uint64_t>(members), .bytes = std::vector<std::uint64_t>(members)};
  run_members(c.world, [&](int rank, Communicator& communicator) {
    const GroupView view = GroupView::initial(c.world, rank);
    const Placement placement = Placement::contiguous(c.experts, view);
    auto exchange = ExpertExchange::create(communicator, view, placement, options_of(c, gather_rows, combine));
    ASSERT_TRUE(exchange);
    EXPECT_EQ((*exchange)->wire_bytes_total(), 0U);
    ASSERT_TRUE(run_exchange(**exchange, c, rank, placement, {.step = 1, .layer = 0, .micro_batch = 0}));
    traffic.rows[static_cast<std::size_t>(rank)] = (*exchange)->crossed_rows_total();
    traffic.bytes[static_cast<std::size_t>(rank)] = (*exchange)->wire_bytes_total();
  });
  return traffic;
}

/// By the formula of docs/collectives.md, from the routing of all tokens.
Traffic documented_traffic(const ExchangeCase& c, bool gathers, CombineMode combine) {
  const bool sums = combine == CombineMode::kPerRank;
  const auto members = static_cast<std::size_t>(c.world);
  const Placement placement = Placement::contiguous(c.experts, GroupView::initial(c.world, 0));
  const std::uint64_t row_bytes = 2 * static_cast<std::uint64_t>(c.hidden);
  Traffic traffic{.rows = std::vector<std::uint64_t>(members), .bytes = std::vector<std::uint64_t>(members)};
  for (int source = 0; source < c.world; ++source) {
    std::map<int, std::uint64_t> rows_to;
    std::map<int, std::uint64_t> pairs_to;
    for (int token = c.first_token(source); token < c.first_token(source) + c.tokens_of(source); ++token) {
      std::map<int, int> destinations;
      for (const std::int32_t expert : testing::experts_of_token(token, c.experts, c.top_k, c.salt)) {
        ++destinations[placement.holders(expert)[0]];
      }
      for (const auto& [destination, pairs] : destinations) {
        ++rows_to[destination];
        pairs_to[destination] += static_cast<std::uint64_t>(pairs);
      }
    }
    const auto tokens = static_cast<std::uint64_t>(c.tokens_of(source));
    for (int destination = 0; destination < c.world; ++destination) {
      if (destination == source || tokens == 0 || placement.experts_of(destination).empty()) {
        continue;
      }
      const std::uint64_t rows = gathers ? tokens : rows_to[destination];
      const std::uint64_t pairs = pairs_to[destination];
      const std::uint64_t listed = gathers ? (sums ? 8 : 4) * tokens * static_cast<std::uint64_t>(c.top_k) : (sums ? 12 : 8) * pairs;
      traffic.rows[static_cast<std::size_t>(source)] += rows;
      traffic.bytes[static_cast<std::size_t>(source)] += 32 + listed + row_bytes * rows;
      traffic.bytes[static_cast<std::size_t>(destination)] += gathers && pairs == 0 ? 0 : 32 + row_bytes * (sums ? rows_to[destination] : pairs);
    }
  }
  return traffic;
}

TEST(ExpertExchange, CountsRowsThatCrossMembersAndBytesByTheDocumentedFormula) {
  const std::vector<ExchangeCase> cases{
      {.world = 3, .experts = 7, .top_k = 3, .hidden = 6, .tokens = {10, 0, 3}},          // one idle
      {.world = 4, .experts = 8, .top_k = 2, .hidden = 4, .tokens = {3, 30, 3, 3}},       // 10 to 1
      {.world = 3, .experts = 1, .top_k = 1, .hidden = 5, .tokens = {4, 9, 2}},           // all to one member's expert
      {.world = 4, .experts = 8, .top_k = 1, .hidden = 3, .tokens = {1, 0, 1, 0}},        // one expert a token: most members compute nothing for one
      {.world = 2, .experts = 8, .top_k = 8, .hidden = 2, .tokens = {1, kRowsMax - 1}}};  // every expert
  for (const ExchangeCase& c : cases) {
    for (const std::int32_t gather_rows : {0, c.first_token(c.world) - 1, c.first_token(c.world), kAllGathered}) {
      const bool gathers = c.first_token(c.world) <= gather_rows;
      for (const CombineMode combine : {CombineMode::kPerExpert, CombineMode::kPerRank}) {
        const Traffic counted = counted_traffic(c, gather_rows, combine);
        EXPECT_EQ(counted, documented_traffic(c, gathers, combine))
            << c.world << " members, top " << c.top_k << ", at most " << gather_rows << " rows gathered, combined " << static_cast<int>(combine);
      }
    }
  }
}

TEST(ExpertExchange, PutsNothingOnTheWireWhenOneMemberIsTheWholeGroup) {
  const ExchangeCase c{.world = 1, .experts = 8, .top_k = 2, .tokens = {12}};
  run_members(1, [&](int rank, Communicator& communicator) {
    const GroupView view = GroupView::initial(1, rank);
    const Placement placement = Placement::contiguous(8, view);
    auto exchange = ExpertExchange::create(communicator, view, placement, options_of(c));
    ASSERT_TRUE(exchange);
    ASSERT_TRUE(run_exchange(**exchange, c, rank, placement, {}));
    EXPECT_EQ((*exchange)->wire_bytes_total(), 0U);
    EXPECT_EQ((*exchange)->crossed_rows_total(), 0U);
  });
}

TEST(ExpertExchange, AllocatesNothingAfterCreateWhateverTheTokenCountsAndTheMode) {
  std::vector<ExchangeCase> cases;
  for (const auto& tokens : token_patterns(3)) {
    cases.push_back({.world = 3, .experts = 7, .top_k = 3, .tokens = tokens, .salt = 5});
  }
  run_members(3, [&](int rank, Communicator& inner) {
    UncountedCommunicator communicator(inner);
    const GroupView view = GroupView::initial(3, rank);
    const Placement placement = Placement::contiguous(7, view);
    for (const CombineMode combine : {CombineMode::kPerExpert, CombineMode::kPerRank}) {
      const std::uint64_t before_create = testing::allocations_of_this_thread();
      auto exchange = ExpertExchange::create(communicator, view, placement, options_of(cases.front(), 12, combine));
      ASSERT_TRUE(exchange);
      EXPECT_GT(testing::allocations_of_this_thread(), before_create);  // the counter counts
      for (const ExchangeCase& c : cases) {
        const DPMetadata metadata = c.metadata(rank);
        const auto rows = c.rows(rank);
        const auto ids = c.expert_ids(rank);
        const auto weights = c.weights(rank);
        const Deadline deadline = hang_limit();
        const std::uint64_t before = testing::allocations_of_this_thread() - communicator.allocations();
        ASSERT_TRUE((*exchange)->start_dispatch({.step = 1}, metadata, {.rows = rows, .expert_ids = ids, .weights = weights}));
        ASSERT_TRUE((*exchange)->finish_dispatch(deadline));
        compute_experts(**exchange, placement.experts_of(rank), c.hidden);
        ASSERT_TRUE((*exchange)->start_combine());
        ASSERT_TRUE((*exchange)->finish_combine(deadline));
        EXPECT_EQ(testing::allocations_of_this_thread() - communicator.allocations(), before);
      }
    }
  });
}

TEST(ExpertExchange, CreateRefusesOptionsThatNoModelHas) {
  run_members(1, [](int /*rank*/, Communicator& communicator) {
    const GroupView view = GroupView::initial(1, 0);
    const Placement placement = Placement::contiguous(4, view);
    struct Case {
      ExpertExchangeOptions options;
      const char* expected;
    };
    for (const Case& c :
         {Case{{.hidden = 0, .top_k = 1, .rows_max = 1}, "rows of 0 values"}, Case{{.hidden = 1, .top_k = 0, .rows_max = 1}, "0 experts per token"},
          Case{{.hidden = 1, .top_k = 5, .rows_max = 1}, "5 experts per token, expected 1 to the model's 4"},
          Case{{.hidden = 1, .top_k = 1, .rows_max = 0}, "at most 0 rows"},
          Case{{.hidden = 1, .top_k = 4, .rows_max = 1 << 30}, "more than 2147483647 rows"}}) {
      const auto exchange = ExpertExchange::create(communicator, view, placement, c.options);
      ASSERT_FALSE(exchange) << c.expected;
      EXPECT_EQ(exchange.error().code, ErrorCode::kInvalidArgument);
      EXPECT_THAT(exchange.error().message, HasSubstr(c.expected));
    }
  });
}

}  // namespace
}  // namespace lockstep::comm
