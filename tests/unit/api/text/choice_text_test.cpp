// Goal    Tokens become text that is never cut inside a character, ends at stop strings, and carries each token's log probability with the text it begins in.
// Method  A tokenizer whose tokens are bytes; what each step shows is compared with what can be worked out by hand.
#include "daemon/api/text/choice_text.hpp"

#include <optional>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/daemon/support/fakes.hpp"

namespace lockstep::daemon {
namespace {

using ::testing::ElementsAre;

class ChoiceTextTest : public ::testing::Test {
 protected:
  /// Text of each `take` after each token, then after `finish`.
  std::vector<std::string> texts(ChoiceText& text, const std::string& bytes) {
    std::vector<std::string> result;
    for (const char byte : bytes) {
      push(text, byte);
      result.push_back(text.take().text);
    }
    text.finish();
    result.push_back(text.take().text);
    return result;
  }
  static void push(ChoiceText& text, char byte) {
    const auto token = static_cast<std::int32_t>(static_cast<unsigned char>(byte));
    const std::vector<model::TokenLogProbability> likeliest{{.token = token, .log_probability = -0.25F}};
    text.push(token, -static_cast<float>(token), likeliest);
  }
  static std::vector<std::int32_t> tokens_of(const TextPiece& piece) {
    std::vector<std::int32_t> result;
    for (const TokenRecord& record : piece.tokens) {
      result.push_back(record.token);
    }
    return result;
  }

  testing::ByteTokenizer tokenizer_;
};

TEST_F(ChoiceTextTest, ACharacterIsShownOnceItIsWhole) {
  ChoiceText text(tokenizer_, {}, "");
  EXPECT_THAT(texts(text, "a\xe2\x82\xac\xe2\x82"), ElementsAre("a", "", "", "\xe2\x82\xac", "", "", "\xef\xbf\xbd"));
}

TEST_F(ChoiceTextTest, AStopStringAcrossTokensEndsItAndWhatFollowsIsNotTaken) {
  ChoiceText text(tokenizer_, {.stop_strings = {"END"}}, "");
  EXPECT_THAT(texts(text, "aEEND tail"), ElementsAre("a", "", "E", "", "", "", "", "", "", "", ""));
  EXPECT_TRUE(text.stopped());
}

TEST_F(ChoiceTextTest, AStopStringInsideACharacterOfTheModelIsNone) {
  // The text is what counts: the stop string's bytes come one by one, as one character.
  ChoiceText text(tokenizer_, {.stop_strings = {"\xc3\xa9"}}, "");
  EXPECT_THAT(texts(text, "a\xc3\xa8\xc3\xa9z"), ElementsAre("a", "", "\xc3\xa8", "", "", "", ""));
}

TEST_F(ChoiceTextTest, StopStringsCountOnlyAfterMinTokens) {
  ChoiceText text(tokenizer_, {.stop_strings = {"x"}, .min_tokens = 3}, "");
  EXPECT_THAT(texts(text, "xaxbxc"), ElementsAre("x", "a", "x", "b", "", "", ""));
}

TEST_F(ChoiceTextTest, TheEchoStandsBeforeTheFirstPieceAndIsNotSearched) {
  ChoiceText text(tokenizer_, {.stop_strings = {"x"}, .log_probabilities = true}, "e\xc3\xa9x");
  push(text, 'a');
  const TextPiece piece = text.take();
  EXPECT_EQ(piece.text, "e\xc3\xa9xa");
  ASSERT_EQ(piece.tokens.size(), 1U);
  EXPECT_EQ(piece.tokens[0].text_offset, 3) << "characters, not bytes";
}

TEST_F(ChoiceTextTest, AScoredPromptStandsBeforeTheTextAndIsNotSearched) {
  ChoiceText text(tokenizer_, {.stop_strings = {"x"}, .log_probabilities = true}, "");
  text.push_prompt('x', std::nullopt, {});
  const std::vector<model::TokenLogProbability> likeliest{{.token = 'q', .log_probability = -0.5F}};
  text.push_prompt(0xc3, -1.0F, likeliest);
  text.push_prompt(0xa9, -2.0F, {});
  text.push_prompt(testing::kEndToken, -3.0F, {});
  text.push_prompt(0xe2, -4.0F, {});  // a character that the prompt does not end
  push(text, 'a');
  const TextPiece piece = text.take();
  EXPECT_EQ(piece.text,
            "x\xc3\xa9\xef\xbf\xbd"
            "a");
  EXPECT_THAT(tokens_of(piece), ElementsAre('x', 0xc3, 0xa9, testing::kEndToken, 0xe2, 'a'));
  const std::vector<std::int64_t> offsets{0, 1, 1, 2, 2, 3};
  for (std::size_t i = 0; i < offsets.size(); ++i) {
    EXPECT_EQ(piece.tokens[i].text_offset, offsets[i]) << i;
  }
  EXPECT_FALSE(piece.tokens[0].log_probability);
  EXPECT_EQ(piece.tokens[1].log_probability, -1.0F);
  ASSERT_EQ(piece.tokens[1].likeliest.size(), 1U);
  EXPECT_EQ(piece.tokens[1].likeliest[0].token, 'q');
  EXPECT_FALSE(text.stopped());
}

TEST_F(ChoiceTextTest, AScoredPromptIsShownAlsoWhereNothingIsGeneratedOrTheFirstTextIsHeldBack) {
  ChoiceText alone(tokenizer_, {.log_probabilities = true}, "");
  alone.push_prompt('a', std::nullopt, {});
  alone.push_prompt('b', -1.0F, {});
  alone.finish();
  const TextPiece whole = alone.take();
  EXPECT_EQ(whole.text, "ab");
  EXPECT_THAT(tokens_of(whole), ElementsAre('a', 'b'));

  ChoiceText held(tokenizer_, {.stop_strings = {"xy"}, .log_probabilities = true}, "");
  held.push_prompt('a', std::nullopt, {});
  push(held, 'x');
  EXPECT_TRUE(held.has_text());
  const TextPiece first = held.take();
  EXPECT_EQ(first.text, "a");
  EXPECT_THAT(tokens_of(first), ElementsAre('a'));
}

TEST_F(ChoiceTextTest, OffsetsCountTheReplacementOfACharacterThatIsNotContinued) {
  ChoiceText text(tokenizer_, {.log_probabilities = true}, "");
  // A whole character, one that breaks off before 'b', one that breaks off before another one's beginning.
  for (const char byte : std::string("\xe2\x82\xac\xe2\x82"
                                     "b\xc3\xc3"
                                     "c")) {
    push(text, byte);
  }
  text.finish();
  const TextPiece piece = text.take();
  EXPECT_EQ(piece.text,
            "\xe2\x82\xac\xef\xbf\xbd"
            "b\xef\xbf\xbd\xef\xbf\xbd"
            "c");
  std::vector<std::int64_t> offsets;
  for (const TokenRecord& record : piece.tokens) {
    offsets.push_back(record.text_offset);
  }
  EXPECT_THAT(offsets, ElementsAre(0, 0, 0, 1, 1, 2, 3, 4, 5));
}

TEST_F(ChoiceTextTest, RecordsComeWithTheTextTheyBeginIn) {
  ChoiceText text(tokenizer_, {.stop_strings = {"bcd"}, .log_probabilities = true}, "");
  push(text, 'a');
  EXPECT_THAT(tokens_of(text.take()), ElementsAre('a'));
  push(text, 'b');
  push(text, 'c');
  EXPECT_THAT(tokens_of(text.take()), ElementsAre()) << "held back";
  push(text, 'x');
  const TextPiece piece = text.take();
  EXPECT_EQ(piece.text, "bcx");
  EXPECT_THAT(tokens_of(piece), ElementsAre('b', 'c', 'x'));
  EXPECT_EQ(piece.tokens[2].text_offset, 3);
  EXPECT_EQ(piece.tokens[2].log_probability, -120.0F);
  ASSERT_EQ(piece.tokens[2].likeliest.size(), 1U);
  EXPECT_EQ(piece.tokens[2].likeliest[0].token, 'x');
}

TEST_F(ChoiceTextTest, RecordsOfACutStopStringAreNotShownAndOfAnIncludedOneAre) {
  for (const bool include : {false, true}) {
    ChoiceText text(tokenizer_, {.stop_strings = {"bc"}, .includes_stop_string = include, .log_probabilities = true}, "");
    for (const char byte : std::string("abc")) {
      push(text, byte);
    }
    text.finish();
    const TextPiece piece = text.take();
    EXPECT_EQ(piece.text, include ? "abc" : "a");
    EXPECT_EQ(tokens_of(piece).size(), include ? 3U : 1U);
  }
}

TEST_F(ChoiceTextTest, BytesOfOneCharacterShareItsOffset) {
  ChoiceText text(tokenizer_, {.log_probabilities = true}, "");
  for (const char byte : std::string("a\xc3\xa9z")) {
    push(text, byte);
  }
  std::vector<std::int64_t> offsets;
  for (const TokenRecord& record : text.take().tokens) {
    offsets.push_back(record.text_offset);
  }
  EXPECT_THAT(offsets, ElementsAre(0, 1, 1, 2));
}

TEST_F(ChoiceTextTest, ATokenWithoutTextAtTheEndKeepsItsRecord) {
  ChoiceText text(tokenizer_, {.log_probabilities = true}, "");
  push(text, 'a');
  text.push(testing::kEndToken, -1.0F, {});  // special: it has no text
  EXPECT_THAT(tokens_of(text.take()), ElementsAre('a'));
  text.finish();
  EXPECT_THAT(tokens_of(text.take()), ElementsAre(testing::kEndToken));
}

}  // namespace
}  // namespace lockstep::daemon
