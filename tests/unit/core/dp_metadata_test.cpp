// Goal    Every rank derives the same counts, offsets and micro-batch chunks from the same token counts, and nonsense is refused by name.
// Method  Hand-made cases, then random groups (the seed is printed) against properties: shares and chunks add up, offsets are prefix sums.
#include <limits>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lockstep/forward_context.hpp"

namespace lockstep {
namespace {

using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;

std::string message_of(int world_size, int rank, std::int32_t tokens, std::optional<std::vector<std::int32_t>> across = std::nullopt) {
  try {
    static_cast<void>(DPMetadata::make(world_size, rank, tokens, std::move(across)));
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "accepted";
}

DPMetadata of(std::vector<std::int32_t> tokens, int rank = 0) {
  const std::int32_t own = tokens[static_cast<std::size_t>(rank)];
  const int world_size = static_cast<int>(tokens.size());
  return DPMetadata::make(world_size, rank, own, std::move(tokens));
}

TEST(DPMetadata, SplitsEvenlyWithTheRemainderToTheFirstRanksWhenNoCountsAreGiven) {
  const DPMetadata metadata = DPMetadata::make(4, 1, 10);
  EXPECT_THAT(metadata.tokens_per_rank(), ElementsAre(3, 3, 2, 2));
  EXPECT_EQ(metadata.get_local_tokens(), 3);
  EXPECT_EQ(metadata.get_total_tokens(), 10);
  EXPECT_EQ(metadata.world_size(), 4);
  EXPECT_EQ(metadata.rank(), 1);
}

TEST(DPMetadata, GivesLaterRanksNothingWhenThereAreFewerTokensThanRanks) {
  EXPECT_THAT(DPMetadata::make(4, 3, 2).tokens_per_rank(), ElementsAre(1, 1, 0, 0));
  EXPECT_THAT(DPMetadata::make(3, 0, 0).tokens_per_rank(), Each(0));
}

TEST(DPMetadata, KeepsTheGivenCounts) {
  const DPMetadata metadata = DPMetadata::make(3, 2, 7, std::vector<std::int32_t>{5, 0, 7});
  EXPECT_THAT(metadata.tokens_per_rank(), ElementsAre(5, 0, 7));
  EXPECT_EQ(metadata.get_local_tokens(), 7);
  EXPECT_EQ(metadata.get_total_tokens(), 12);
  EXPECT_EQ(metadata.max_tokens(), 7);
  EXPECT_THAT(metadata.offsets(), ElementsAre(0, 5, 5, 12));
}

TEST(DPMetadata, OfOneRankHoldsItsTokens) {
  const DPMetadata metadata = DPMetadata::single(9);
  EXPECT_EQ(metadata.world_size(), 1);
  EXPECT_EQ(metadata.get_local_tokens(), 9);
  EXPECT_EQ(metadata.get_total_tokens(), 9);
}

TEST(DPMetadata, HoldsNoRanksAndNoTokensBeforeItIsAssigned) {
  const DPMetadata metadata;
  EXPECT_EQ(metadata.world_size(), 0);
  EXPECT_EQ(metadata.get_local_tokens(), 0);
  EXPECT_EQ(metadata.get_total_tokens(), 0);
  EXPECT_EQ(metadata.max_tokens(), 0);
  EXPECT_THAT(metadata.offsets(), ElementsAre(0));
}

TEST(DPMetadata, RefusesBadInputNamingTheValueAndWhatWasExpected) {
  EXPECT_EQ(message_of(0, 0, 1), "world_size is 0, expected at least 1");
  EXPECT_EQ(message_of(-2, 0, 1), "world_size is -2, expected at least 1");
  EXPECT_EQ(message_of(2, 2, 1), "rank is 2, expected 0 to 1");
  EXPECT_EQ(message_of(2, -1, 1), "rank is -1, expected 0 to 1");
  EXPECT_EQ(message_of(2, 0, -5), "num_tokens is -5, expected at least 0");
  EXPECT_EQ(message_of(2, 0, 1, {{1}}), "num_tokens_across_dp has 1 entries, expected one for each of 2 ranks");
  EXPECT_EQ(message_of(2, 0, 1, {{1, 2, 3}}), "num_tokens_across_dp has 3 entries, expected one for each of 2 ranks");
  EXPECT_EQ(message_of(2, 0, 1, {{1, -3}}), "num_tokens_across_dp[1] is -3, expected at least 0");
  EXPECT_EQ(message_of(2, 0, 1, {{4, 2}}), "num_tokens is 1, but num_tokens_across_dp[0] is 4: they must be equal");
}

TEST(DPMetadata, RefusesCountsWhoseTotalWouldOverflow) {
  constexpr std::int32_t kMost = std::numeric_limits<std::int32_t>::max();
  EXPECT_EQ(of({kMost - 1, 1}).get_total_tokens(), kMost);
  EXPECT_THAT(message_of(2, 0, kMost, {{kMost, 1}}), HasSubstr("more than 2147483647 tokens"));
}

TEST(DPMetadata, CutsEveryRanksTokensIntoTheSameMicroBatches) {
  const DPMetadata metadata = of({5, 0, 8}, 2);
  EXPECT_THAT(metadata.chunk(0, 4).tokens_per_rank(), ElementsAre(4, 0, 4));
  EXPECT_THAT(metadata.chunk(1, 4).tokens_per_rank(), ElementsAre(1, 0, 4));
  EXPECT_THAT(metadata.chunk(2, 4).tokens_per_rank(), ElementsAre(0, 0, 0));
  EXPECT_EQ(metadata.chunk(1, 4).rank(), 2);
}

TEST(DPMetadata, RefusesAChunkOfANegativeIndexOrAnEmptySize) {
  const DPMetadata metadata = of({5, 3});
  EXPECT_THROW(static_cast<void>(metadata.chunk(-1, 4)), std::invalid_argument);
  EXPECT_THROW(static_cast<void>(metadata.chunk(0, 0)), std::invalid_argument);
}

TEST(DPMetadata, GivesAnEmptyChunkFarBeyondTheEndWithoutOverflow) {
  constexpr std::int32_t kMost = std::numeric_limits<std::int32_t>::max();
  EXPECT_THAT(of({5, 3}).chunk(kMost, kMost).tokens_per_rank(), Each(0));
}

TEST(DPMetadata, MayCutAChunkIntoItself) {
  DPMetadata metadata = of({5, 8}, 1);
  metadata.chunk_into(1, 4, metadata);
  EXPECT_THAT(metadata.tokens_per_rank(), ElementsAre(1, 4));
}

TEST(DPMetadata, TakesOverAgreedCountsWithoutMovingItsStorage) {
  DPMetadata metadata;
  const std::vector<std::int32_t> first{1, 2, 3};
  metadata.assign(2, first);
  EXPECT_EQ(metadata, DPMetadata::make(3, 2, 3, first));
  const std::int32_t* const storage = metadata.tokens_per_rank().data();
  const std::vector<std::int32_t> second{7, 0, 9};
  metadata.assign(0, second);
  EXPECT_EQ(metadata, DPMetadata::make(3, 0, 7, second));
  EXPECT_EQ(metadata.tokens_per_rank().data(), storage) << "the step path must not allocate";
}

TEST(DPMetadataDeathTest, AbortsWhenItIsAssignedARankOutsideTheGroup) {
  DPMetadata metadata;
  const std::vector<std::int32_t> tokens{1, 2};
  EXPECT_DEATH(metadata.assign(2, tokens), "rank 2 of 2");
  EXPECT_DEATH(metadata.assign(-1, tokens), "rank -1 of 2");
}

class RandomGroups : public testing::TestWithParam<std::uint32_t> {
 protected:
  std::mt19937 random_{GetParam()};

  std::int32_t draw(std::int32_t low, std::int32_t high) { return std::uniform_int_distribution<std::int32_t>(low, high)(random_); }
  std::vector<std::int32_t> draw_tokens() {
    std::vector<std::int32_t> tokens(static_cast<std::size_t>(draw(1, 64)));
    for (std::int32_t& count : tokens) {
      count = draw(0, 3) == 0 ? 0 : draw(0, 700);  // idle ranks are common
    }
    return tokens;
  }
};

TEST_P(RandomGroups, EvenSharesAddUpAndDifferByAtMostOneInDescendingOrder) {
  for (int round = 0; round < 200; ++round) {
    const int world_size = draw(1, 300);
    const std::int32_t total = draw(0, 100000);
    const DPMetadata metadata = DPMetadata::make(world_size, draw(0, world_size - 1), total);
    ASSERT_EQ(metadata.get_total_tokens(), total);
    const auto shares = metadata.tokens_per_rank();
    ASSERT_LE(shares.front() - shares.back(), 1);
    ASSERT_TRUE(std::is_sorted(shares.rbegin(), shares.rend()));
  }
}

TEST_P(RandomGroups, OffsetsArePrefixSumsThatEndInTheTotal) {
  for (int round = 0; round < 200; ++round) {
    const DPMetadata metadata = of(draw_tokens());
    const std::vector<std::int32_t> offsets = metadata.offsets();
    ASSERT_EQ(offsets.size(), static_cast<std::size_t>(metadata.world_size()) + 1);
    std::int32_t expected = 0;
    for (std::size_t rank = 0; rank + 1 < offsets.size(); ++rank) {
      ASSERT_EQ(offsets[rank], expected);
      expected += metadata.tokens_per_rank()[rank];
    }
    ASSERT_EQ(offsets.back(), expected);
    ASSERT_EQ(metadata.get_total_tokens(), expected);
  }
}

TEST_P(RandomGroups, ChunksAddUpToTheWholeOnEveryRankAndAreFullExceptTheLast) {
  for (int round = 0; round < 200; ++round) {
    const DPMetadata metadata = of(draw_tokens());
    const std::int32_t size = draw(1, 900);
    const std::int32_t chunk_count = (metadata.max_tokens() + size - 1) / size;
    std::vector<std::int32_t> sums(metadata.tokens_per_rank().size(), 0);
    for (std::int32_t index = 0; index < chunk_count; ++index) {
      const DPMetadata chunk = metadata.chunk(index, size);
      for (std::size_t rank = 0; rank < sums.size(); ++rank) {
        const std::int32_t tokens = chunk.tokens_per_rank()[rank];
        const std::int32_t left = metadata.tokens_per_rank()[rank] - sums[rank];
        ASSERT_EQ(tokens, std::min(left, size));
        sums[rank] += tokens;
      }
    }
    ASSERT_TRUE(std::equal(sums.begin(), sums.end(), metadata.tokens_per_rank().begin()));
    ASSERT_EQ(metadata.chunk(chunk_count, size).get_total_tokens(), 0);
  }
}

TEST_P(RandomGroups, EveryRankOfAGroupDerivesTheSameChunks) {
  const std::vector<std::int32_t> tokens = draw_tokens();
  const std::int32_t size = draw(1, 300);
  const DPMetadata first = of(tokens, 0).chunk(1, size);
  for (int rank = 1; rank < static_cast<int>(tokens.size()); ++rank) {
    const DPMetadata other = of(tokens, rank).chunk(1, size);
    EXPECT_TRUE(std::equal(first.tokens_per_rank().begin(), first.tokens_per_rank().end(), other.tokens_per_rank().begin(), other.tokens_per_rank().end()));
    EXPECT_EQ(other.get_local_tokens(), first.tokens_per_rank()[static_cast<std::size_t>(rank)]);
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, RandomGroups, testing::Range(1U, 9U), [](const auto& seed) { return "Seed" + std::to_string(seed.param); });

}  // namespace
}  // namespace lockstep
