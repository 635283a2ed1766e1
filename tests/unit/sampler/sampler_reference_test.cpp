// Goal    Each choice is the one that the definition gives: bias, forbidden tokens, penalties, temperature, top-k, top-p, min-p, then the inverse of the
//         distribution function at the noise of (seed, position).
// Method  Random rows and settings against a plain implementation in double, written from the definitions: it sorts, and keeps everything. Cases in which a cut
//         falls within rounding are drawn again; the noise may fall within rounding of a border, and then either neighbour will do.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <numeric>
#include <optional>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "lockstep/model/sampler.hpp"

namespace lockstep::model {
namespace {

constexpr double kRounding = 2e-6;  // relative, of a weight and of sums of them

/// SplitMix64 at state `gamma * index + start`, for the noise's two steps.
std::uint64_t split_mix(std::uint64_t state) {
  state = (state ^ (state >> 30U)) * 0xbf58476d1ce4e5b9ULL;
  state = (state ^ (state >> 27U)) * 0x94d049bb133111ebULL;
  return state ^ (state >> 31U);
}
double noise_of(std::uint64_t seed, std::int64_t position) {
  constexpr std::uint64_t kGamma = 0x9e3779b97f4a7c15ULL;
  return std::ldexp(static_cast<double>(split_mix(split_mix(seed + kGamma) + static_cast<std::uint64_t>(position + 1) * kGamma) >> 11U), -53);
}

struct Case {
  std::vector<float> logits;
  std::vector<std::int32_t> prompt;
  std::vector<std::int32_t> output;
  std::vector<LogitBias> bias;
  std::vector<std::int32_t> forbidden;
  SamplerInput input;
};

std::vector<double> adjusted_logits(const Case& one) {
  std::vector<double> logits(one.logits.begin(), one.logits.end());
  for (const LogitBias& change : one.bias) {
    logits[static_cast<std::size_t>(change.token)] += static_cast<double>(change.bias);
  }
  for (const std::int32_t token : one.forbidden) {
    logits[static_cast<std::size_t>(token)] = -INFINITY;
  }
  std::map<std::int32_t, int> output_counts;
  for (const std::int32_t token : one.prompt) {
    output_counts[token] += 0;
  }
  for (const std::int32_t token : one.output) {
    ++output_counts[token];
  }
  for (const auto& [token, count] : output_counts) {
    double& logit = logits[static_cast<std::size_t>(token)];
    const auto penalty = static_cast<double>(one.input.repetition_penalty);
    logit = logit > 0 ? logit / penalty : logit * penalty;
    logit -= count * static_cast<double>(one.input.frequency_penalty) + (count > 0 ? static_cast<double>(one.input.presence_penalty) : 0.0);
  }
  return logits;
}

struct Choice {
  std::int32_t id;
  double weight;
};

double sum_of(const std::vector<Choice>& choices) {
  return std::accumulate(choices.begin(), choices.end(), 0.0, [](double sum, const Choice& choice) { return sum + choice.weight; });
}

/// What the cuts leave, in the order of the draw; nothing where a cut falls within rounding of a token.
std::optional<std::vector<Choice>> candidates_of(const Case& one) {
  const std::vector<double> logits = adjusted_logits(one);
  const double largest = *std::ranges::max_element(logits);
  std::vector<Choice> all;
  for (std::size_t id = 0; id < logits.size(); ++id) {
    all.push_back({static_cast<std::int32_t>(id), std::exp((logits[id] - largest) / static_cast<double>(one.input.temperature))});
  }
  const bool sorted = (one.input.top_k > 0 && static_cast<std::size_t>(one.input.top_k) < all.size()) || one.input.top_p < 1.0F;
  if (sorted) {
    std::ranges::stable_sort(all, [](const Choice& a, const Choice& b) { return a.weight > b.weight; });
    for (std::size_t i = 1; i < all.size(); ++i) {
      if (all[i - 1].weight > 1e-30 && all[i].weight > all[i - 1].weight * (1 - kRounding)) {
        return {};  // their order is rounding's
      }
    }
  }
  if (one.input.top_k > 0 && static_cast<std::size_t>(one.input.top_k) < all.size()) {
    all.resize(static_cast<std::size_t>(one.input.top_k));
  }
  if (one.input.top_p < 1.0F) {
    const double wanted = static_cast<double>(one.input.top_p) * sum_of(all);
    double kept = 0;
    std::size_t count = 0;
    while (count < all.size() && (kept < wanted || count == 0)) {
      kept += all[count++].weight;
      if (std::abs(kept - wanted) < kRounding * wanted) {
        return {};
      }
    }
    all.resize(count);
  }
  if (one.input.min_p > 0.0F) {
    for (const Choice& choice : all) {
      if (std::abs(choice.weight - static_cast<double>(one.input.min_p)) < kRounding * choice.weight) {
        return {};
      }
    }
    std::erase_if(all, [&one](const Choice& choice) { return choice.weight < static_cast<double>(one.input.min_p); });
  }
  return all;
}

/// Whether the noise may give `id`.
bool may_give(const std::vector<Choice>& candidates, double noise, std::int32_t id) {
  const double total = sum_of(candidates);
  double below = 0;
  for (const Choice& choice : candidates) {
    const double slack = kRounding * total;
    if (choice.id == id && choice.weight > 0 && noise * total >= below - slack && noise * total <= below + choice.weight + slack) {
      return true;
    }
    below += choice.weight;
  }
  return false;
}

class RandomCases {
 public:
  explicit RandomCases(std::uint32_t seed) : random_(seed) {}

  Case next() {
    Case one;
    const std::int32_t vocabulary = 1 + static_cast<std::int32_t>(random_() % (random_() % 4 == 0 ? 3000 : 40));
    std::normal_distribution<float> logit(number(-5, 5), number(0.1F, 6));
    for (std::int32_t id = 0; id < vocabulary; ++id) {
      one.logits.push_back(logit(random_));
    }
    const auto token = [&] { return static_cast<std::int32_t>(random_() % static_cast<std::uint32_t>(vocabulary)); };
    if (chance(3)) {
      one.prompt.resize(random_() % 50);
      one.output.resize(random_() % 50);
      std::ranges::generate(one.prompt, token);
      std::ranges::generate(one.output, token);
      one.input.repetition_penalty = chance(2) ? number(0.5F, 2) : 1.0F;
      one.input.presence_penalty = chance(2) ? number(-2, 2) : 0.0F;
      one.input.frequency_penalty = chance(2) ? number(-2, 2) : 0.0F;
    }
    if (chance(4)) {
      for (std::int32_t id = 0; id < vocabulary; id += 1 + static_cast<std::int32_t>(random_() % 9)) {
        one.bias.push_back({id, number(-5, 5)});
      }
    }
    if (chance(5)) {
      one.forbidden = {token()};
    }
    one.input.temperature = number(0.05F, 2);
    one.input.top_k = chance(2) ? static_cast<std::int32_t>(random_() % 60) : 0;
    one.input.top_p = chance(2) ? number(0.01F, 1) : 1.0F;
    one.input.min_p = chance(2) ? number(0, 0.5F) : 0.0F;
    one.input.seed = (std::uint64_t{random_()} << 32) | random_();
    one.input.position = static_cast<std::int64_t>(random_() % 5000);
    return one;
  }

 private:
  bool chance(std::uint32_t one_in) { return random_() % one_in == 0; }
  float number(float low, float high) { return std::uniform_real_distribution<float>(low, high)(random_); }
  std::mt19937 random_;
};

TEST(SamplerReference, EveryChoiceIsTheOneThatTheDefinitionGives) {
  RandomCases cases(4242);
  Sampler sampler;  // one for all: nothing of an earlier case may show in a later one
  int compared = 0;
  for (int i = 0; i < 20000; ++i) {
    Case one = cases.next();
    if (one.forbidden.size() == one.logits.size()) {
      continue;
    }
    TokenCounts counts(one.prompt, static_cast<std::int32_t>(one.output.size()), static_cast<std::int32_t>(one.logits.size()));
    std::ranges::for_each(one.output, [&counts](std::int32_t token) { counts.add_output(token); });
    one.input.counts = &counts;
    one.input.logit_bias = one.bias;
    one.input.forbidden = one.forbidden;
    const auto candidates = candidates_of(one);
    if (!candidates) {
      continue;
    }
    ++compared;
    const SampledToken token = sampler.sample(one.logits, one.input);
    ASSERT_TRUE(token.valid);
    ASSERT_TRUE(may_give(*candidates, noise_of(one.input.seed, one.input.position), token.id))
        << "case " << i << ": token " << token.id << " of " << one.logits.size() << ", temperature " << one.input.temperature << ", top_k " << one.input.top_k
        << ", top_p " << one.input.top_p << ", min_p " << one.input.min_p;
  }
  EXPECT_GT(compared, 15000);
}

TEST(SamplerReference, GreedyIsTheLargestAfterBiasAndPenalties) {
  RandomCases cases(77);
  Sampler sampler;
  for (int i = 0; i < 5000; ++i) {
    Case one = cases.next();
    if (one.forbidden.size() == one.logits.size()) {
      continue;
    }
    TokenCounts counts(one.prompt, static_cast<std::int32_t>(one.output.size()), static_cast<std::int32_t>(one.logits.size()));
    std::ranges::for_each(one.output, [&counts](std::int32_t token) { counts.add_output(token); });
    one.input.counts = &counts;
    one.input.logit_bias = one.bias;
    one.input.forbidden = one.forbidden;
    one.input.temperature = 0.0F;
    const std::vector<double> logits = adjusted_logits(one);
    const SampledToken token = sampler.sample(one.logits, one.input);
    ASSERT_NEAR(logits[static_cast<std::size_t>(token.id)], *std::ranges::max_element(logits), 1e-5) << "case " << i;
  }
}

TEST(SamplerReference, TheLikeliestTokensAreThoseOfTheUnmodifiedRow) {
  RandomCases cases(3);
  Sampler sampler;
  for (int i = 0; i < 2000; ++i) {
    Case one = cases.next();
    if (one.forbidden.size() == one.logits.size()) {
      continue;
    }
    one.input.logit_bias = one.bias;
    one.input.forbidden = one.forbidden;
    std::vector<TokenLogProbability> top(static_cast<std::size_t>(i % 21));
    const SampledToken token = sampler.sample(one.logits, one.input, top);
    std::vector<std::int32_t> ids(one.logits.size());
    std::iota(ids.begin(), ids.end(), 0);
    const auto logit_of = [&one](std::int32_t id) { return one.logits[static_cast<std::size_t>(id)]; };
    std::ranges::stable_sort(ids, [&](std::int32_t a, std::int32_t b) { return logit_of(a) > logit_of(b); });
    double total = 0;
    for (const float logit : one.logits) {
      total += std::exp(static_cast<double>(logit));
    }
    ASSERT_NEAR(token.log_probability, static_cast<double>(logit_of(token.id)) - std::log(total), 1e-4);
    for (std::size_t rank = 0; rank < top.size(); ++rank) {
      ASSERT_EQ(top[rank].token, rank < ids.size() ? ids[rank] : -1) << "case " << i << ", rank " << rank;
      if (rank < ids.size()) {
        ASSERT_NEAR(top[rank].log_probability, static_cast<double>(logit_of(ids[rank])) - std::log(total), 1e-4);
      }
    }
  }
}

}  // namespace
}  // namespace lockstep::model
