// Goal: what clients may send is encoded or refused with its reason, long or adversarial text stays cheap, and streamed text never cuts a character.
// Method: the embedded model's tokenizer; what ids are right is shown by tokenizer_reference_test.cpp. Cost is shown by sizes at which anything quadratic would
// run into the test's time limit by a factor of a thousand.
#include "lockstep/model/tokenizer.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/tokenizer/text/normalizer.hpp"
#include "model/tokenizer/text/utf8.hpp"
#include "tests/unit/model/embedded_tokenizer.hpp"

namespace lockstep::model {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class TokenizerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    tokenizer_ = open_embedded_tokenizer();
    ASSERT_NE(tokenizer_, nullptr);
  }
  std::vector<std::int32_t> encode(std::string_view text) {
    const auto ids = tokenizer_->encode(text);
    EXPECT_TRUE(ids) << ids.error().message;
    return ids ? *ids : std::vector<std::int32_t>{};
  }
  std::string decode(std::span<const std::int32_t> ids) {
    const auto text = tokenizer_->decode(ids, false);
    EXPECT_TRUE(text) << text.error().message;
    return text ? *text : std::string();
  }
  std::unique_ptr<Tokenizer> tokenizer_;
};

TEST_F(TokenizerTest, EmptyTextHasNoTokens) {
  EXPECT_THAT(encode(""), IsEmpty());
  EXPECT_EQ(decode({}), "");
}

TEST_F(TokenizerTest, SpecialTokensAreKnownById) {
  EXPECT_EQ(tokenizer_->vocabulary_size(), 4096);
  EXPECT_TRUE(tokenizer_->is_special(0));
  EXPECT_TRUE(tokenizer_->is_special(2));
  EXPECT_FALSE(tokenizer_->is_special(3));
  EXPECT_FALSE(tokenizer_->is_special(-1));
  EXPECT_FALSE(tokenizer_->is_special(4096));
  EXPECT_EQ(tokenizer_->token_bytes(2), "<|im_end|>");
  EXPECT_EQ(tokenizer_->token_bytes(4096), "");
  EXPECT_EQ(tokenizer_->token_bytes(-1), "");
}

TEST_F(TokenizerTest, TokenBytesAddUpToTheText) {
  const std::string text = "naïve 漢字 <|im_end|>\r\n\x01\x7f";
  std::string bytes;
  for (const std::int32_t id : encode(text)) {
    bytes += tokenizer_->token_bytes(id);
  }
  EXPECT_EQ(bytes, text);
}

TEST_F(TokenizerTest, TextThatIsNotUtf8IsRefusedWithItsFirstWrongByte) {
  struct Invalid {
    std::string_view text;
    std::string_view place;
  };
  for (const auto& [text, place] : {Invalid{"abc\xff", "byte 3 of 4 is 0xff"},
                                    {"\x80", "byte 0 of 1 is 0x80"},
                                    {"caf\xc3", "byte 3 of 4 is 0xc3"},
                                    {"\xc0\x80", "byte 0 of 2 is 0xc0"},
                                    {"x\xed\xa0\x80y", "byte 1 of 5 is 0xed"},
                                    {"\xf4\x90\x80\x80", "byte 0 of 4 is 0xf4"},
                                    {"0123456789abcdef\xe2\x82", "byte 16 of 18 is 0xe2"}}) {
    const auto ids = tokenizer_->encode(text);
    ASSERT_FALSE(ids) << place;
    EXPECT_EQ(ids.error().code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(ids.error().message, AllOf(HasSubstr("not UTF-8"), HasSubstr(std::string(place))));
  }
}

TEST_F(TokenizerTest, IdsOutsideTheVocabularyAreRefused) {
  for (const std::int32_t id : {-1, 4096, std::numeric_limits<std::int32_t>::max(), std::numeric_limits<std::int32_t>::min()}) {
    const auto text = tokenizer_->decode(std::vector<std::int32_t>{67, id}, false);
    ASSERT_FALSE(text) << id;
    EXPECT_EQ(text.error().code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(text.error().message, AllOf(HasSubstr("token id " + std::to_string(id) + " at position 1"), HasSubstr("0 to 4095")));
  }
}

TEST_F(TokenizerTest, LongAdversarialTextsComeBackUnchanged) {
  constexpr std::size_t kLength = 1'000'000;
  std::string mixed;
  while (mixed.size() < kLength) {
    mixed += "the LORD said unto ";
  }
  std::string letters;  // one word that merges at many places and ranks
  while (letters.size() < kLength) {
    letters += "thereinandofnotshallthe";
  }
  std::string almost_special;
  while (almost_special.size() < kLength) {
    almost_special += "<|im_en";
  }
  for (const std::string& text : {std::string(kLength, 'a'), std::string(kLength, ' '), std::string(kLength, '\n'), std::string(kLength, '!'), mixed, letters,
                                  almost_special, std::string(kLength, ' ') + "x", std::string(kLength, '\0')}) {
    EXPECT_EQ(decode(encode(text)), text) << text.substr(0, 20);
  }
}

TEST_F(TokenizerTest, AMegabyteOfCombiningMarksIsOrderedAndEncoded) {
  // The worst order: all marks of a high class before all of a low one. U+0301 is of class 230, U+0323 of class 220.
  std::string text = "q";
  for (int i = 0; i < 250'000; ++i) {
    text += "\xCC\x81";
  }
  for (int i = 0; i < 250'000; ++i) {
    text += "\xCC\xA3";
  }
  const std::string decoded = decode(encode(text));
  EXPECT_EQ(decoded.size(), text.size());
  EXPECT_EQ(decoded.substr(0, 5), "q\xCC\xA3\xCC\xA3");
  EXPECT_EQ(decoded.substr(decoded.size() - 4), "\xCC\x81\xCC\x81");
}

TEST_F(TokenizerTest, StreamedTextWaitsForWholeCharacters) {
  const std::string text = "a漢👍🏽é";
  StreamDecoder stream(*tokenizer_);
  std::string streamed;
  bool waited = false;
  for (const std::int32_t id : encode(text)) {
    const std::string piece = stream.push(id);
    EXPECT_EQ(valid_utf8_prefix(piece), piece.size());
    EXPECT_THAT(piece, ::testing::Not(HasSubstr("\xEF\xBF\xBD")));
    waited = waited || piece.empty();
    streamed += piece;
  }
  EXPECT_TRUE(waited) << "every token was a whole character: nothing was tested";
  EXPECT_EQ(streamed, text);
  EXPECT_EQ(stream.finish(), "");
}

TEST_F(TokenizerTest, AStreamThatEndsWithinACharacterEndsWithAReplacement) {
  std::vector<std::int32_t> ids = encode("漢");
  ASSERT_GT(ids.size(), 1U);
  ids.pop_back();
  StreamDecoder stream(*tokenizer_);
  for (const std::int32_t id : ids) {
    EXPECT_EQ(stream.push(id), "");
  }
  EXPECT_EQ(stream.push(2), "") << "special tokens are skipped, and do not end a character";
  EXPECT_EQ(stream.push(-5), "") << "nor do ids that are none";
  EXPECT_EQ(stream.finish(), "\xEF\xBF\xBD");
  EXPECT_EQ(stream.finish(), "");
}

TEST_F(TokenizerTest, StreamedTextHasSpecialTokensWhereTheyAreNotSkipped) {
  ASSERT_TRUE(tokenizer_->is_special(2));
  std::string text = "a";
  text += tokenizer_->token_bytes(2);
  text += "b";
  StreamDecoder stream(*tokenizer_, false);
  std::string streamed;
  for (const std::int32_t id : encode(text)) {
    streamed += stream.push(id);
  }
  EXPECT_EQ(streamed + stream.finish(), text);
}

TEST(Utf8, EachMaximalInvalidPartBecomesOneReplacement) {
  const auto lossy = [](std::string_view bytes) {
    std::string out;
    EXPECT_EQ(append_lossy(bytes, false, out), bytes.size());
    return out;
  };
  const std::string r = "\xEF\xBF\xBD";
  EXPECT_EQ(lossy("plain"), "plain");
  EXPECT_EQ(lossy("\xff\xfe"), r + r);
  EXPECT_EQ(lossy("\xe2\x82z"), r + "z");
  EXPECT_EQ(lossy("\xe2\x28\xa1"), r + "(" + r);
  EXPECT_EQ(lossy("\xf0\x9f\x91"), r);
  EXPECT_EQ(lossy("\xf0\x80\x80\x80"), r + r + r + r) << "an overlong form: its second byte already belongs to nothing";
  EXPECT_EQ(lossy("\xed\xa0\x80"), r + r + r) << "a surrogate";
  EXPECT_EQ(lossy("\xc3\xa9\xc3"), "\xc3\xa9" + r);
  std::string out;
  EXPECT_EQ(append_lossy("ab\xf0\x9f", true, out), 2U) << "more bytes may complete it";
  EXPECT_EQ(out, "ab");
}

TEST(Nfc, ComposesReordersAndLeavesTheRest) {
  EXPECT_EQ(normalize_nfc("plain \xc3\xa9"), "plain \xc3\xa9");
  EXPECT_EQ(normalize_nfc("e\xcc\x81"), "\xc3\xa9");
  EXPECT_EQ(normalize_nfc("\xe1\x84\x80\xe1\x85\xa1\xe1\x86\xa8"), "\xea\xb0\x81") << "Hangul";
  EXPECT_EQ(normalize_nfc("a\xcc\x82\xcc\xa3"), "\xe1\xba\xad") << "the lower mark composes first";
  EXPECT_EQ(normalize_nfc("\xe2\x84\xab"), "\xc3\x85") << "the Angstrom sign is a singleton";
  EXPECT_EQ(normalize_nfc("\xe0\xa5\x98"), "\xe0\xa4\x95\xe0\xa4\xbc") << "excluded from composition";
}

}  // namespace
}  // namespace lockstep::model
