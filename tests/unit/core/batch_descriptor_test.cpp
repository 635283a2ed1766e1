// Goal    A BatchDescriptor is a key: equal exactly when all fields are, with a stable text and hash.
// Method  All combinations of a few values per field, compared pairwise.
#include <set>
#include <unordered_set>
#include <vector>

#include <gtest/gtest.h>

#include "lockstep/forward_context.hpp"

namespace lockstep {
namespace {

std::vector<BatchDescriptor> many_descriptors() {
  std::vector<BatchDescriptor> result;
  for (const std::int32_t tokens : {0, 1, 8, 256, 65536}) {
    for (const std::optional<std::int32_t> requests : {std::optional<std::int32_t>{}, std::optional{0}, std::optional{1}, std::optional{8}}) {
      for (const bool uniform : {false, true}) {
        for (const bool lora : {false, true}) {
          result.push_back({tokens, requests, uniform, lora});
        }
      }
    }
  }
  return result;
}

TEST(BatchDescriptor, IsOfAnyRequestsNotUniformAndWithoutLoraUnlessToldOtherwise) {
  const BatchDescriptor descriptor{.num_tokens = 8};
  EXPECT_EQ(descriptor.num_reqs, std::nullopt);
  EXPECT_FALSE(descriptor.uniform);
  EXPECT_FALSE(descriptor.has_lora);
}

TEST(BatchDescriptor, ForgetsRequestsAndUniformityWhenRelaxed) {
  for (const BatchDescriptor& descriptor : many_descriptors()) {
    const BatchDescriptor relaxed = descriptor.relaxed();
    EXPECT_EQ(relaxed, (BatchDescriptor{descriptor.num_tokens, std::nullopt, false, descriptor.has_lora}));
    EXPECT_EQ(relaxed.relaxed(), relaxed);
  }
}

TEST(BatchDescriptor, ChangesOnlyTheTokensInWithNumTokens) {
  const BatchDescriptor descriptor{8, 3, true, true};
  EXPECT_EQ(descriptor.with_num_tokens(16), (BatchDescriptor{16, 3, true, true}));
}

TEST(BatchDescriptor, HasAKeyThatNamesEveryField) {
  EXPECT_EQ((BatchDescriptor{8}).key(), "tokens=8,reqs=any,uniform=0,lora=0");
  EXPECT_EQ((BatchDescriptor{8, 3, true, true}).key(), "tokens=8,reqs=3,uniform=1,lora=1");
}

TEST(BatchDescriptor, HasDifferentKeysAndHashesExactlyWhenItDiffers) {
  const std::vector<BatchDescriptor> all = many_descriptors();
  std::set<std::string> keys;
  std::set<std::uint64_t> hashes;
  for (const BatchDescriptor& descriptor : all) {
    keys.insert(descriptor.key());
    hashes.insert(descriptor.hash_key());
    const BatchDescriptor copy = descriptor;
    EXPECT_EQ(copy.hash_key(), descriptor.hash_key());
  }
  EXPECT_EQ(keys.size(), all.size());
  EXPECT_EQ(hashes.size(), all.size());
}

TEST(BatchDescriptor, HashesAlikeOnEveryBuild) {
  // Recorded once; a change would make ranks of different builds disagree.
  EXPECT_EQ((BatchDescriptor{8}).hash_key(), 0xf3856e2f99029549ULL);
}

TEST(BatchDescriptor, OrdersByTokensFirst) {
  EXPECT_LT((BatchDescriptor{8, 5, true, true}), (BatchDescriptor{9}));
  EXPECT_LT((BatchDescriptor{8}), (BatchDescriptor{8, 0})) << "any number of requests comes before a given one";
  const std::vector<BatchDescriptor> all = many_descriptors();
  EXPECT_EQ(std::set<BatchDescriptor>(all.begin(), all.end()).size(), all.size());
}

TEST(BatchDescriptor, IsAKeyOfUnorderedContainers) {
  std::unordered_set<BatchDescriptor> cache;
  for (const BatchDescriptor& descriptor : many_descriptors()) {
    EXPECT_TRUE(cache.insert(descriptor).second);
    EXPECT_FALSE(cache.insert(descriptor).second);
  }
}

}  // namespace
}  // namespace lockstep
