// Goal    Routing chooses the right experts, breaks ties by the lowest id, and gives valid ids whatever the logits.
// Method  Against a sort and a softmax in double precision; hand-made ties; logits that are not numbers.
#include <algorithm>
#include <limits>
#include <numeric>

#include "tests/unit/device/ops_fixture.hpp"

namespace lockstep::device {
namespace {

class Route : public OpsFixture {
 protected:
  struct Choice {
    std::vector<std::int32_t> ids;
    std::vector<float> weights;
  };
  Choice route(const Router& router, std::span<const float> logits) {
    const auto rows = static_cast<std::int64_t>(logits.size()) / router.expert_count;
    Choice choice{std::vector<std::int32_t>(static_cast<std::size_t>(rows * router.top_k), -1),
                  std::vector<float>(static_cast<std::size_t>(rows * router.top_k))};
    ops_->route(*stream_, router, logits.data(), rows, choice.ids.data(), choice.weights.data());
    return choice;
  }
};

TEST_F(Route, ChoosesTheLargestProbabilitiesInAscendingIds) {
  constexpr std::size_t kRows = 9;
  for (const bool normalize : {true, false}) {
    for (const auto& [experts, top_k] : {std::pair{8, 2}, {7, 3}, {128, 8}, {1, 1}, {5, 5}, {33, 4}, {500, 1}}) {
      const Router router{.expert_count = experts, .top_k = top_k, .normalize_top_k = normalize};
      const auto logits = random_floats(kRows * experts, 4.0F);
      const Choice choice = route(router, logits);
      for (std::size_t r = 0; r < kRows; ++r) {
        const auto row = std::span(logits).subspan(r * experts, experts);
        std::vector<std::int32_t> order(static_cast<std::size_t>(experts));
        std::iota(order.begin(), order.end(), 0);
        std::ranges::stable_sort(order, [&](int a, int b) { return row[a] > row[b]; });
        order.resize(top_k);
        double total = 0;
        for (int e = 0; e < experts; ++e) {
          total += (!normalize || std::ranges::count(order, e) == 1) ? std::exp(static_cast<double>(row[e])) : 0.0;
        }
        std::ranges::sort(order);
        for (int j = 0; j < top_k; ++j) {
          ASSERT_EQ(choice.ids[r * top_k + j], order[j]);
          ASSERT_NEAR(choice.weights[r * top_k + j], std::exp(static_cast<double>(row[order[j]])) / total, 2e-6);
        }
        const Choice alone = route(router, row);
        ASSERT_TRUE(same_bits(std::span<const float>(alone.weights), std::span<const float>(choice.weights).subspan(r * top_k, top_k)));
      }
    }
  }
}

TEST_F(Route, EqualLogitsGoToTheLowestIds) {
  const Choice all_equal = route({.expert_count = 6, .top_k = 3}, std::vector<float>(6, 1.5F));
  EXPECT_EQ(all_equal.ids, (std::vector<std::int32_t>{0, 1, 2}));
  for (const float weight : all_equal.weights) {
    EXPECT_NEAR(weight, 1.0 / 3, 1e-6);
  }
  const Choice tie_at_the_end = route({.expert_count = 6, .top_k = 3}, std::vector<float>{0, 2, 5, 2, 2, 5});
  EXPECT_EQ(tie_at_the_end.ids, (std::vector<std::int32_t>{1, 2, 5}));
}

TEST_F(Route, IdsAreValidAndDistinctWhenLogitsAreNotNumbers) {
  const float nan = std::nanf("");
  const float infinity = std::numeric_limits<float>::infinity();
  for (const auto& logits :
       {std::vector<float>{nan, nan, nan, nan}, {nan, 1, nan, 2}, {-infinity, -infinity, -infinity, -infinity}, {infinity, nan, infinity, 0}}) {
    const Choice choice = route({.expert_count = 4, .top_k = 2}, logits);
    EXPECT_GE(choice.ids[0], 0);
    EXPECT_LT(choice.ids[0], choice.ids[1]);
    EXPECT_LT(choice.ids[1], 4);
  }
  EXPECT_EQ(route({.expert_count = 4, .top_k = 2}, std::vector<float>{nan, 1, nan, 2}).ids, (std::vector<std::int32_t>{1, 3}));
}

}  // namespace
}  // namespace lockstep::device
