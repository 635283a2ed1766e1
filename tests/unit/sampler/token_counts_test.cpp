// Goal    Every token of prompt and output is counted once and exactly.
// Method  Random sequences against a std::map, ids that collide in the table among them.
#include "lockstep/model/token_counts.hpp"

#include <cstdint>
#include <map>
#include <random>
#include <vector>

#include <gtest/gtest.h>

namespace lockstep::model {
namespace {

std::map<std::int32_t, std::int32_t> as_map(const TokenCounts& counts) {
  std::map<std::int32_t, std::int32_t> result;
  for (const TokenCounts::Entry& entry : counts.entries()) {
    EXPECT_TRUE(result.emplace(entry.token, entry.output_count).second) << "token " << entry.token << " is there twice";
  }
  return result;
}

TEST(TokenCounts, AreThoseOfAMapForRandomSequences) {
  std::mt19937 random(20);
  for (int round = 0; round < 200; ++round) {
    const std::int32_t vocabulary = 1 + static_cast<std::int32_t>(random() % 300);
    const std::int32_t stride = round % 3 == 0 ? 1024 : 1;  // ids far apart meet in the same slots
    const auto token = [&] { return static_cast<std::int32_t>(random() % static_cast<std::uint32_t>(vocabulary)) * stride; };
    std::vector<std::int32_t> prompt(random() % 100);
    std::map<std::int32_t, std::int32_t> expected;
    for (std::int32_t& id : prompt) {
      id = token();
      expected.emplace(id, 0);
    }
    const auto output = static_cast<std::int32_t>(random() % 100);
    TokenCounts counts(prompt, output, vocabulary * stride);
    for (std::int32_t i = 0; i < output; ++i) {
      const std::int32_t id = token();
      counts.add_output(id);
      ++expected[id];
    }
    EXPECT_EQ(as_map(counts), expected) << "round " << round;
  }
}

TEST(TokenCounts, HoldAWholeVocabulary) {
  std::vector<std::int32_t> prompt;
  for (std::int32_t id = 0; id < 1000; ++id) {
    prompt.push_back(id);
  }
  TokenCounts counts(prompt, 5000, 1000);
  for (std::int32_t i = 0; i < 5000; ++i) {
    counts.add_output(i % 1000);
  }
  EXPECT_EQ(counts.entries().size(), 1000U);
  for (const TokenCounts::Entry& entry : counts.entries()) {
    EXPECT_EQ(entry.output_count, 5);
  }
}

}  // namespace
}  // namespace lockstep::model
