// Goal    Penalties, bias, forbidden tokens and min-p do what OpenAI and vLLM document, at their edges too.
// Method  Rows small enough to work out by hand.
#include <cmath>
#include <cstdint>
#include <limits>
#include <set>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lockstep/model/sampler.hpp"

namespace lockstep::model {
namespace {

using ::testing::UnorderedElementsAre;

std::int32_t greedy(const std::vector<float>& logits, SamplerInput input) {
  input.temperature = 0.0F;
  return Sampler().sample(logits, input).id;
}

std::set<std::int32_t> ids_seen(const std::vector<float>& logits, SamplerInput input) {
  Sampler sampler;
  std::set<std::int32_t> ids;
  for (std::uint64_t seed = 0; seed < 2000; ++seed) {
    input.seed = seed;
    ids.insert(sampler.sample(logits, input).id);
  }
  return ids;
}

TEST(SamplerPenalty, RepetitionMultipliesBySignAndCountsThePrompt) {
  const TokenCounts prompt(std::vector<std::int32_t>{0}, 4, 3);
  EXPECT_EQ(greedy({2.0F, 1.1F, 0.0F}, {.counts = &prompt}), 0);
  EXPECT_EQ(greedy({2.0F, 1.1F, 0.0F}, {.repetition_penalty = 1.9F, .counts = &prompt}), 1) << "2 / 1.9 < 1.1";
  EXPECT_EQ(greedy({-1.0F, -1.5F, -9.0F}, {.repetition_penalty = 1.4F, .counts = &prompt}), 0) << "-1 * 1.4 > -1.5";
  EXPECT_EQ(greedy({-1.0F, -1.5F, -9.0F}, {.repetition_penalty = 1.6F, .counts = &prompt}), 1) << "-1 * 1.6 < -1.5";
  EXPECT_EQ(greedy({1.0F, 1.5F, 0.0F}, {.repetition_penalty = 0.5F, .counts = &prompt}), 0) << "below 1 it encourages";
}

TEST(SamplerPenalty, PresenceAndFrequencyCountTheOutputAlone) {
  TokenCounts counts(std::vector<std::int32_t>{0, 0, 0}, 4, 3);
  const std::vector<float> logits{2.0F, 1.0F, 0.0F};
  EXPECT_EQ(greedy(logits, {.presence_penalty = 2.0F, .frequency_penalty = 2.0F, .counts = &counts}), 0) << "it is in the prompt only";
  counts.add_output(0);
  EXPECT_EQ(greedy(logits, {.presence_penalty = 0.9F, .counts = &counts}), 0);
  EXPECT_EQ(greedy(logits, {.presence_penalty = 1.1F, .counts = &counts}), 1);
  EXPECT_EQ(greedy(logits, {.frequency_penalty = 0.9F, .counts = &counts}), 0);
  counts.add_output(0);
  EXPECT_EQ(greedy(logits, {.frequency_penalty = 0.6F, .counts = &counts}), 1) << "twice";
  EXPECT_EQ(greedy(logits, {.presence_penalty = 0.9F, .counts = &counts}), 0) << "presence counts once";
}

TEST(SamplerPenalty, BiasComesBeforeThePenalties) {
  const TokenCounts prompt(std::vector<std::int32_t>{0}, 4, 2);
  const std::vector<LogitBias> bias{{0, 4.0F}};
  // (-1 + 4) / 2 = 1.5; the other way round it would be -1 * 2 + 4 = 2.
  EXPECT_EQ(greedy({-1.0F, 1.7F}, {.repetition_penalty = 2.0F, .counts = &prompt, .logit_bias = bias}), 1);
}

TEST(SamplerPenalty, BiasOfAHundredDecides) {
  const std::vector<LogitBias> up{{2, 100.0F}};
  const std::vector<LogitBias> down{{0, -100.0F}};
  EXPECT_THAT(ids_seen({5.0F, 0.0F, -5.0F}, {.logit_bias = up}), UnorderedElementsAre(2));
  EXPECT_THAT(ids_seen({5.0F, 0.0F, 0.0F}, {.logit_bias = down}), UnorderedElementsAre(1, 2));
}

TEST(SamplerPenalty, AForbiddenTokenIsNeverChosenAndForbiddingAllIsInvalid) {
  const std::vector<std::int32_t> first{0};
  const std::vector<LogitBias> up{{0, 100.0F}};
  EXPECT_EQ(greedy({9.0F, 1.0F}, {.logit_bias = up, .forbidden = first}), 1);
  EXPECT_THAT(ids_seen({9.0F, 1.0F, 1.0F}, {.top_k = 2, .forbidden = first}), UnorderedElementsAre(1, 2));
  const std::vector<std::int32_t> all{0, 1};
  EXPECT_FALSE(Sampler().sample(std::vector<float>{1.0F, 2.0F}, {.forbidden = all}).valid);
}

TEST(SamplerPenalty, MinPIsRelativeToTheLikeliest) {
  const std::vector<float> logits{std::log(0.5F), std::log(0.26F), std::log(0.24F)};
  EXPECT_THAT(ids_seen(logits, {.min_p = 0.0F}), UnorderedElementsAre(0, 1, 2));
  EXPECT_THAT(ids_seen(logits, {.min_p = 0.5F}), UnorderedElementsAre(0, 1));
  EXPECT_THAT(ids_seen(logits, {.min_p = 1.0F}), UnorderedElementsAre(0));
  EXPECT_THAT(ids_seen(logits, {.temperature = 2.0F, .min_p = 0.65F}), UnorderedElementsAre(0, 1, 2)) << "of the flatter distribution";
  EXPECT_THAT(ids_seen(logits, {.top_k = 2, .min_p = 0.1F}), UnorderedElementsAre(0, 1));
  EXPECT_THAT(ids_seen(logits, {.top_p = 0.4F, .min_p = 0.1F}), UnorderedElementsAre(0));
}

TEST(SamplerPenalty, HugeLogitsStayNumbers) {
  constexpr float kHuge = std::numeric_limits<float>::max();
  const TokenCounts prompt(std::vector<std::int32_t>{0, 1}, 4, 3);
  const SampledToken token = Sampler().sample(std::vector<float>{kHuge, -kHuge, 0.0F}, {.repetition_penalty = 0.01F, .counts = &prompt, .seed = 1});
  EXPECT_TRUE(token.valid);
  EXPECT_EQ(token.id, 0);
  const SampledToken other = Sampler().sample(std::vector<float>{0.0F, -kHuge, 0.0F}, {.repetition_penalty = 10.0F, .counts = &prompt, .seed = 1});
  EXPECT_TRUE(other.valid);
  EXPECT_NE(other.id, 1);
}

TEST(SamplerPenalty, ATokenThatIsNoNumberStaysImpossible) {
  const TokenCounts prompt(std::vector<std::int32_t>{0}, 4, 3);
  const std::vector<LogitBias> bias{{0, 100.0F}};
  const std::vector<float> logits{std::numeric_limits<float>::quiet_NaN(), 1.0F, 1.0F};
  EXPECT_THAT(ids_seen(logits, {.repetition_penalty = 2.0F, .counts = &prompt, .logit_bias = bias}), UnorderedElementsAre(1, 2));
}

TEST(SamplerPenalty, TheLogProbabilityIsOfTheUnmodifiedRow) {
  const std::vector<LogitBias> bias{{1, 100.0F}};
  const SampledToken token = Sampler().sample(std::vector<float>{0.0F, 0.0F}, {.logit_bias = bias});
  EXPECT_EQ(token.id, 1);
  EXPECT_NEAR(token.log_probability, -std::log(2.0), 1e-6);
}

}  // namespace
}  // namespace lockstep::model
