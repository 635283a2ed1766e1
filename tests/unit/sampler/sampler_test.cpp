// Goal    A token is chosen as the request says, from exactly the candidates that top-k and top-p leave, with the right probabilities, reproducibly.
// Method  Small distributions whose candidate sets can be written down, sampled with many seeds: seeds are fixed, so every run sees the same tokens and the
//         chi-square limits cannot flake. Log probabilities against a naive sum in double.
#include "lockstep/model/sampler.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <set>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lockstep::model {
namespace {

using ::testing::UnorderedElementsAre;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::vector<float> logits_of(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (const double probability : probabilities) {
    logits.push_back(static_cast<float>(std::log(probability)) + 3.0F);  // an offset changes nothing
  }
  return logits;
}

std::set<std::int32_t> ids_seen(const std::vector<float>& logits, SamplerInput input, int seeds = 2000) {
  Sampler sampler;
  std::set<std::int32_t> ids;
  for (int seed = 0; seed < seeds; ++seed) {
    input.seed = static_cast<std::uint64_t>(seed);
    ids.insert(sampler.sample(logits, input).id);
  }
  return ids;
}

/// Sum of (observed - expected)^2 / expected.
double chi_square(const std::vector<int>& observed, const std::vector<double>& probabilities, int draws) {
  double sum = 0;
  for (std::size_t i = 0; i < observed.size(); ++i) {
    const double expected = probabilities[i] * draws;
    sum += (observed[i] - expected) * (observed[i] - expected) / expected;
  }
  return sum;
}

TEST(Sampler, GreedyTakesTheLargestAndTheLowestIdOfEquals) {
  Sampler sampler;
  EXPECT_EQ(sampler.sample(std::vector<float>{0.0F, 2.0F, 1.0F}, {.temperature = 0.0F}).id, 1);
  EXPECT_EQ(sampler.sample(std::vector<float>{0.0F, 2.0F, 2.0F, 2.0F}, {.temperature = 0.0F}).id, 1);
  EXPECT_EQ(sampler.sample(std::vector<float>{-5.0F}, {.temperature = 0.0F}).id, 0);
  EXPECT_EQ(sampler.sample(std::vector<float>(5, -kInfinity), {.temperature = 0.0F}).id, 0);
}

TEST(Sampler, GreedyIgnoresSeedPositionAndCuts) {
  Sampler sampler;
  const std::vector<float> logits = logits_of({0.3, 0.4, 0.3});
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    EXPECT_EQ(sampler.sample(logits, {.temperature = 0.0F, .top_k = 3, .top_p = 0.9F, .seed = seed, .position = static_cast<std::int64_t>(seed)}).id, 1);
  }
}

TEST(Sampler, TopKLeavesExactlyTheKMostProbable) {
  const std::vector<float> logits = logits_of({0.1, 0.3, 0.2, 0.25, 0.15});
  EXPECT_THAT(ids_seen(logits, {.top_k = 1}), UnorderedElementsAre(1));
  EXPECT_THAT(ids_seen(logits, {.top_k = 2}), UnorderedElementsAre(1, 3));
  EXPECT_THAT(ids_seen(logits, {.top_k = 3}), UnorderedElementsAre(1, 2, 3));
  EXPECT_THAT(ids_seen(logits, {.top_k = 5}), UnorderedElementsAre(0, 1, 2, 3, 4));
  EXPECT_THAT(ids_seen(logits, {.top_k = 1000}), UnorderedElementsAre(0, 1, 2, 3, 4));
  EXPECT_THAT(ids_seen(logits, {.top_k = 0}), UnorderedElementsAre(0, 1, 2, 3, 4));
}

TEST(Sampler, TopKTakesTheLowestIdsOfEquals) {
  EXPECT_THAT(ids_seen(std::vector<float>(40, 1.0F), {.top_k = 3}), UnorderedElementsAre(0, 1, 2));
}

TEST(Sampler, TopPLeavesTheSmallestSetThatReachesIt) {
  const std::vector<float> logits = logits_of({0.1, 0.4, 0.2, 0.3});
  EXPECT_THAT(ids_seen(logits, {.top_p = 1e-6F}), UnorderedElementsAre(1));
  EXPECT_THAT(ids_seen(logits, {.top_p = 0.39F}), UnorderedElementsAre(1));
  EXPECT_THAT(ids_seen(logits, {.top_p = 0.41F}), UnorderedElementsAre(1, 3));
  EXPECT_THAT(ids_seen(logits, {.top_p = 0.69F}), UnorderedElementsAre(1, 3));
  EXPECT_THAT(ids_seen(logits, {.top_p = 0.71F}), UnorderedElementsAre(1, 2, 3));
  EXPECT_THAT(ids_seen(logits, {.top_p = 0.99F}), UnorderedElementsAre(0, 1, 2, 3));
}

TEST(Sampler, TopPIsTakenOfWhatTopKLeft) {
  const std::vector<float> logits = logits_of({0.1, 0.4, 0.2, 0.3});
  // Of 0.4 and 0.3 the first alone is 0.57 of their sum.
  EXPECT_THAT(ids_seen(logits, {.top_k = 2, .top_p = 0.5F}), UnorderedElementsAre(1));
  EXPECT_THAT(ids_seen(logits, {.top_k = 2, .top_p = 0.6F}), UnorderedElementsAre(1, 3));
}

TEST(Sampler, AppliesTheTemperatureBeforeTopP) {
  const std::vector<float> logits = logits_of({0.5, 0.3, 0.2});
  EXPECT_THAT(ids_seen(logits, {.temperature = 1.0F, .top_p = 0.6F}), UnorderedElementsAre(0, 1));
  EXPECT_THAT(ids_seen(logits, {.temperature = 0.25F, .top_p = 0.6F}), UnorderedElementsAre(0)) << "sharper: the first alone has 0.87";
}

TEST(Sampler, TheSameSeedAndPositionGiveTheSameTokenInAnySampler) {
  std::vector<float> logits(1000);
  for (std::size_t i = 0; i < logits.size(); ++i) {
    logits[i] = static_cast<float>(std::sin(static_cast<double>(i)));
  }
  Sampler fresh;
  Sampler used;
  for (std::int64_t position = 0; position < 200; ++position) {
    const SamplerInput input{.temperature = 0.8F, .top_k = 50, .top_p = 0.95F, .seed = 42, .position = position};
    static_cast<void>(used.sample(logits, {.temperature = 2.0F, .seed = 7}));  // whatever it did before
    const SampledToken first = fresh.sample(logits, input);
    const SampledToken second = used.sample(logits, input);
    EXPECT_EQ(first.id, second.id);
    EXPECT_EQ(first.log_probability, second.log_probability);
  }
}

TEST(Sampler, TheLikeliestTokenIsLeftByEveryCutInEveryVocabulary) {
  Sampler sampler;
  for (std::size_t size = 1; size < 300; ++size) {
    std::vector<float> logits(size, 1.0F);
    logits[size / 2] = 1.5F;
    EXPECT_EQ(sampler.sample(logits, {.min_p = 1.0F, .seed = size}).id, static_cast<std::int32_t>(size / 2)) << size;
    EXPECT_EQ(sampler.sample(logits, {.top_p = 1e-6F, .min_p = 1.0F, .seed = size}).id, static_cast<std::int32_t>(size / 2)) << size;
  }
}

TEST(Sampler, NeighbouringSeedsAndPositionsAreUnrelated) {
  const std::vector<float> logits(16, 0.0F);
  Sampler sampler;
  constexpr int kSide = 200;
  // Pairs of neighbours must agree as often as chance says: 1 of 16.
  int same_as_next_seed = 0;
  int same_as_next_position = 0;
  int same_on_the_diagonal = 0;
  const auto id_at = [&](int seed, int position) { return sampler.sample(logits, {.seed = static_cast<std::uint64_t>(seed), .position = position}).id; };
  for (int seed = 0; seed < kSide; ++seed) {
    for (int position = 0; position < kSide; ++position) {
      const std::int32_t id = id_at(seed, position);
      same_as_next_seed += id == id_at(seed + 1, position) ? 1 : 0;
      same_as_next_position += id == id_at(seed, position + 1) ? 1 : 0;
      same_on_the_diagonal += id == id_at(seed + 1, position - 1) ? 1 : 0;
    }
  }
  const double expected = kSide * kSide / 16.0;
  const double limit = 5 * std::sqrt(expected);
  EXPECT_NEAR(same_as_next_seed, expected, limit);
  EXPECT_NEAR(same_as_next_position, expected, limit);
  EXPECT_NEAR(same_on_the_diagonal, expected, limit);
}

TEST(Sampler, TokensComeAsOftenAsTheirProbabilitiesSayOverSeedsAndOverPositions) {
  const std::vector<double> probabilities{0.02, 0.08, 0.1, 0.3, 0.05, 0.15, 0.2, 0.1};
  const std::vector<float> logits = logits_of(probabilities);
  constexpr int kDraws = 40000;
  Sampler sampler;
  std::vector<int> by_seed(probabilities.size());
  std::vector<int> by_position(probabilities.size());
  std::vector<int> by_seed_ordered(probabilities.size());
  for (int i = 0; i < kDraws; ++i) {
    ++by_seed[static_cast<std::size_t>(sampler.sample(logits, {.seed = static_cast<std::uint64_t>(i)}).id)];
    ++by_position[static_cast<std::size_t>(sampler.sample(logits, {.seed = 5, .position = i}).id)];
    ++by_seed_ordered[static_cast<std::size_t>(sampler.sample(logits, {.top_k = 8, .seed = static_cast<std::uint64_t>(i)}).id)];
  }
  // 7 degrees of freedom: 24.3 is passed once in a thousand; a sampler that is off by a tenth in one token gives hundreds.
  EXPECT_LT(chi_square(by_seed, probabilities, kDraws), 24.3);
  EXPECT_LT(chi_square(by_position, probabilities, kDraws), 24.3);
  EXPECT_LT(chi_square(by_seed_ordered, probabilities, kDraws), 24.3);
}

TEST(Sampler, TheTemperatureSharpensAndFlattensAsItsDefinitionSays) {
  const std::vector<double> probabilities{0.5, 0.3, 0.2};
  const std::vector<float> logits = logits_of(probabilities);
  for (const float temperature : {0.5F, 2.0F}) {
    std::vector<double> expected;
    double sum = 0;
    for (const double probability : probabilities) {
      expected.push_back(std::pow(probability, 1.0 / static_cast<double>(temperature)));
      sum += expected.back();
    }
    std::ranges::for_each(expected, [sum](double& value) { value /= sum; });
    std::vector<int> observed(probabilities.size());
    Sampler sampler;
    for (int i = 0; i < 40000; ++i) {
      ++observed[static_cast<std::size_t>(sampler.sample(logits, {.temperature = temperature, .seed = static_cast<std::uint64_t>(i)}).id)];
    }
    EXPECT_LT(chi_square(observed, expected, 40000), 13.8) << temperature;  // 2 degrees of freedom, once in a thousand
  }
}

TEST(Sampler, CandidatesThatTopPLeftKeepTheirProportions) {
  const std::vector<float> logits = logits_of({0.1, 0.4, 0.2, 0.3});
  std::vector<int> observed(2);
  Sampler sampler;
  for (int i = 0; i < 40000; ++i) {
    const std::int32_t id = sampler.sample(logits, {.top_p = 0.65F, .seed = static_cast<std::uint64_t>(i)}).id;
    ++observed.at(id == 1 ? 0 : 1);
  }
  EXPECT_LT(chi_square(observed, {4.0 / 7, 3.0 / 7}, 40000), 10.8);
}

TEST(Sampler, TheLogProbabilityIsThatOfTheUnmodifiedDistribution) {
  std::vector<float> logits(4096);
  for (std::size_t i = 0; i < logits.size(); ++i) {
    logits[i] = 30.0F * static_cast<float>(std::sin(0.37 * static_cast<double>(i))) + 50.0F;
  }
  double sum = 0;
  for (const float logit : logits) {
    sum += std::exp(static_cast<double>(logit));  // naive: nothing overflows a double here
  }
  Sampler sampler;
  for (const SamplerInput& input : {SamplerInput{.temperature = 0.0F}, SamplerInput{.temperature = 2.0F, .seed = 3},
                                    SamplerInput{.temperature = 0.5F, .top_k = 3, .top_p = 0.5F, .seed = 4}}) {
    const SampledToken token = sampler.sample(logits, input);
    const double expected = static_cast<double>(logits[static_cast<std::size_t>(token.id)]) - std::log(sum);
    EXPECT_NEAR(token.log_probability, expected, 1e-5 * std::max(1.0, std::abs(expected)));
  }
}

TEST(Sampler, ALogProbabilityNeverExceedsZeroAndHugeLogitsDoNotOverflow) {
  Sampler sampler;
  const std::vector<float> logits{3e38F, 3e38F, -3e38F};
  const SampledToken token = sampler.sample(logits, {.temperature = 1e-3F, .seed = 1});
  EXPECT_TRUE(token.id == 0 || token.id == 1);
  EXPECT_NEAR(token.log_probability, -std::log(2.0), 1e-6);
  EXPECT_EQ(sampler.sample(std::vector<float>{5.0F}, {}).log_probability, 0.0F);
}

TEST(Sampler, AnImpossibleTokenIsNeverChosen) {
  std::vector<float> logits(64, -kInfinity);
  logits[7] = 0.0F;
  logits[9] = 0.0F;
  EXPECT_THAT(ids_seen(logits, {}), UnorderedElementsAre(7, 9));
  EXPECT_THAT(ids_seen(logits, {.top_k = 5}), UnorderedElementsAre(7, 9));
  EXPECT_THAT(ids_seen(logits, {.top_p = 0.999F}), UnorderedElementsAre(7, 9));
}

TEST(Sampler, LogitsThatAreNotNumbersGiveATokenAndNeverDisturbTheOthers) {
  // Weights of a bad file can make them; sorting them by comparison is undefined behaviour.
  std::vector<float> mixed(100, kNan);
  mixed[40] = 1.0F;
  mixed[60] = 1.0F;
  for (const SamplerInput& input : {SamplerInput{}, SamplerInput{.top_k = 50}, SamplerInput{.top_p = 0.9F}, SamplerInput{.top_k = 3, .top_p = 0.99F}}) {
    EXPECT_THAT(ids_seen(mixed, input, 300), UnorderedElementsAre(40, 60));
    for (const float all : {kNan, kInfinity, -kInfinity}) {
      for (const std::int32_t id : ids_seen(std::vector<float>(100, all), input, 50)) {
        EXPECT_TRUE(id >= 0 && id < 100) << all;
      }
      EXPECT_FALSE(Sampler().sample(std::vector<float>(100, all), input).valid) << "so that the engine can end the request";
    }
  }
  Sampler sampler;
  EXPECT_EQ(sampler.sample(mixed, {.temperature = 0.0F}).id, 40);
  EXPECT_NEAR(sampler.sample(mixed, {.temperature = 0.0F}).log_probability, -std::log(2.0), 1e-6);
}

}  // namespace
}  // namespace lockstep::model
