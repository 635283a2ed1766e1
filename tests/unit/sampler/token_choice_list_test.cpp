// Goal    A device's sampler is told all that the host's would be told, and no more than there is room for.
// Method  Inputs with and without changes of logits, and lists that are full.
#include "lockstep/model/token_choice_list.hpp"

#include <array>
#include <cstdint>
#include <vector>

#include <gtest/gtest.h>

namespace lockstep::model {
namespace {

TEST(TokenChoiceList, ChangesAreBiasesThenForbiddenTokensThenTokensOfTheText) {
  const std::array<std::int32_t, 2> prompt{4, 5};
  TokenCounts counts(prompt, 3, 10);
  counts.add_output(5);
  const std::array<LogitBias, 1> bias{LogitBias{.token = 1, .bias = 2.5F}};
  const std::array<std::int32_t, 1> forbidden{7};
  TokenChoiceList list(2, 8);
  ASSERT_TRUE(list.add({.temperature = 0.0F}, 3));
  ASSERT_TRUE(list.add({.temperature = 0.5F, .top_k = 9, .frequency_penalty = 1.0F, .counts = &counts, .logit_bias = bias, .forbidden = forbidden}, 1));
  ASSERT_EQ(list.choices().size(), 2U);
  const device::TokenChoice& greedy = list.choices()[0];
  EXPECT_EQ(greedy.logit_row, 3);
  EXPECT_EQ(greedy.inverse_temperature, 0.0F);
  EXPECT_EQ(greedy.biases + greedy.forbidden + greedy.counted, 0);
  const device::TokenChoice& drawn = list.choices()[1];
  EXPECT_EQ(drawn.inverse_temperature, 2.0F);
  EXPECT_EQ(drawn.top_k, 9);
  EXPECT_EQ(drawn.first_change, 0);
  EXPECT_EQ(drawn.biases, 1);
  EXPECT_EQ(drawn.forbidden, 1);
  EXPECT_EQ(drawn.counted, 2);
  ASSERT_EQ(list.changes().size(), 4U);
  EXPECT_EQ(list.changes()[0].token, 1);
  EXPECT_EQ(list.changes()[0].value, 2.5F);
  EXPECT_EQ(list.changes()[1].token, 7);
  EXPECT_EQ(list.changes()[2].token, 4);
  EXPECT_EQ(list.changes()[2].value, 0.0F);
  EXPECT_EQ(list.changes()[3].token, 5);
  EXPECT_EQ(list.changes()[3].value, 1.0F);
}

TEST(TokenChoiceList, TokensAreNotCountedWithoutAPenalty) {
  const std::array<std::int32_t, 2> prompt{4, 5};
  const TokenCounts counts(prompt, 0, 10);
  TokenChoiceList list(1, 0);
  EXPECT_TRUE(list.add({.counts = &counts}, 0));
}

TEST(TokenChoiceList, WhatDoesNotFitIsLeftOut) {
  const std::array<std::int32_t, 3> forbidden{1, 2, 3};
  TokenChoiceList list(2, 4);
  EXPECT_TRUE(list.add({.forbidden = forbidden}, 0));
  EXPECT_FALSE(list.add({.forbidden = forbidden}, 1)) << "one entry is left";
  EXPECT_EQ(list.choices().size(), 1U);
  EXPECT_EQ(list.changes().size(), 3U);
  EXPECT_TRUE(list.add({}, 1)) << "another row still fits";
  EXPECT_FALSE(list.add({}, 2)) << "two rows are all";
  list.clear();
  EXPECT_TRUE(list.add({.forbidden = forbidden}, 0));
}

}  // namespace
}  // namespace lockstep::model
