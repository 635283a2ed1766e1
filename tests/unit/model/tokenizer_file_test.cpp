// Goal: a tokenizer.json that is damaged, hostile or asks for what is not handled is refused with its place; nothing of it is silently ignored.
// Method: the embedded file with one value replaced at a time; patterns of the dialect one by one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/tokenizer/pattern_dialect.hpp"
#include "model/tokenizer/splitter.hpp"
#include "tests/unit/model/embedded_tokenizer.hpp"

namespace lockstep::model {
namespace {

namespace json = boost::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Refusal {
  std::string_view pointer;  ///< what is replaced, as a JSON pointer
  std::string_view value;    ///< the new value
  ErrorCode code;
  std::string_view message;
};

/// The message of opening the embedded file with the value at `pointer` replaced; the object that holds it must exist.
Result<std::unique_ptr<Tokenizer>> open_changed(std::string_view pointer, std::string_view value) {
  json::value document = embedded_tokenizer_json();
  const std::size_t slash = pointer.rfind('/');
  json::value& parent = document.at_pointer(pointer.substr(0, slash));
  const std::string_view key = pointer.substr(slash + 1);
  if (parent.is_object()) {
    parent.get_object()[key] = json::parse(value);
  } else {
    parent.get_array()[static_cast<std::size_t>(std::stoul(std::string(key)))] = json::parse(value);
  }
  return open_tokenizer(json::serialize(document));
}

constexpr ErrorCode kInvalid = ErrorCode::kInvalidArgument;
constexpr ErrorCode kUnsupported = ErrorCode::kUnsupported;

TEST(TokenizerFile, WrongOrUnhandledValuesAreRefusedWithTheirPlace) {
  const std::vector<Refusal> refusals{
      {"/normalizer", R"({"type":"NFKC"})", kUnsupported, "normalizer.type is \"NFKC\", expected \"NFC\""},
      {"/normalizer", R"({"type":"Sequence","normalizers":[{"type":"NFC"},{"type":"Lowercase"}]})", kUnsupported, "normalizer.normalizers[1].type"},
      {"/normalizer", "7", kInvalid, "normalizer is 7"},
      {"/pre_tokenizer", "null", kUnsupported, "pre_tokenizer ends with ByteLevel"},
      {"/pre_tokenizer", R"({"type":"Metaspace"})", kUnsupported, "pre_tokenizer.type is \"Metaspace\""},
      {"/pre_tokenizer/pretokenizers", "[]", kUnsupported, "pre_tokenizer ends with ByteLevel"},
      {"/pre_tokenizer/pretokenizers", "{}", kInvalid, "pre_tokenizer.pretokenizers is an object of 0, expected an array"},
      {"/pre_tokenizer/pretokenizers/0/behavior", "\"Removed\"", kUnsupported, "pre_tokenizer.pretokenizers[0].behavior is \"Removed\", expected \"Isolated\""},
      {"/pre_tokenizer/pretokenizers/0/invert", "true", kUnsupported, "pretokenizers[0].invert is true"},
      {"/pre_tokenizer/pretokenizers/0/pattern", R"({"String":"x"})", kUnsupported, "pretokenizers[0].pattern"},
      {"/pre_tokenizer/pretokenizers/0/pattern/Regex", "\"a*\"", kUnsupported, "can match the empty text"},
      {"/pre_tokenizer/pretokenizers/0/pattern/Regex", "\"(a\"", kInvalid, "not a regular expression"},
      {"/pre_tokenizer/pretokenizers/0/pattern/Regex", "\"\\\\w+\"", kUnsupported, "supported escapes"},
      {"/pre_tokenizer/pretokenizers/0/pattern/Regex", "7", kInvalid, "Regex is 7, expected a string"},
      {"/pre_tokenizer/pretokenizers/1/add_prefix_space", "true", kUnsupported, "pretokenizers[1].add_prefix_space is true, expected false"},
      {"/pre_tokenizer/pretokenizers/1/use_regex", "3", kInvalid, "pretokenizers[1].use_regex is 3"},
      {"/decoder", "null", kUnsupported, "decoder is ByteLevel"},
      {"/decoder/type", "\"WordPiece\"", kUnsupported, "decoder.type is \"WordPiece\""},
      {"/post_processor", R"({"type":"BertProcessing"})", kUnsupported, "post_processor.type"},
      {"/post_processor/single", R"([{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}])", kUnsupported, "post_processor.single"},
      {"/model", "null", kInvalid, "model is null"},
      {"/model/type", "\"WordPiece\"", kUnsupported, "model.type is \"WordPiece\", expected \"BPE\""},
      {"/model/dropout", "0.1", kUnsupported, "model.dropout is 0.1"},
      {"/model/unk_token", "\"<unk>\"", kUnsupported, "model.unk_token is \"<unk>\""},
      {"/model/byte_fallback", "true", kUnsupported, "model.byte_fallback is true"},
      {"/model/fuse_unk", "true", kUnsupported, "model.fuse_unk is true"},
      {"/model/continuing_subword_prefix", "\"##\"", kUnsupported, "model.continuing_subword_prefix is \"##\""},
      {"/model/end_of_word_suffix", "\"</w>\"", kUnsupported, "model.end_of_word_suffix is \"</w>\""},
      {"/model/ignore_merges", "\"yes\"", kInvalid, "model.ignore_merges is \"yes\""},
      {"/model/vocab", "[]", kInvalid, "model.vocab is an array of 0"},
      {"/model/vocab", "{}", kUnsupported, "the token of byte 0"},
      {"/model/vocab/a", "-1", kInvalid, "model.vocab[\"a\"] is -1, expected an integer from 0 to 4194303"},
      {"/model/vocab/a", "4194304", kInvalid, "model.vocab[\"a\"] is 4194304"},
      {"/model/vocab/a", "18446744073709551615", kInvalid, "model.vocab[\"a\"] is 18446744073709551615"},
      {"/model/vocab/a", "67.5", kInvalid, "model.vocab[\"a\"] is 67.5"},
      {"/model/vocab/a", "\"67\"", kInvalid, "model.vocab[\"a\"] is \"67\""},
      {"/model/vocab/new", "300", kInvalid, "is 300, expected an id that no other token has"},
      {"/model/merges", "{}", kInvalid, "model.merges is an object of 0"},
      {"/model/merges/5", "[\"a\",\"\\u6f22\"]", kInvalid, "model.merges[5] is an array of 2, expected tokens of model.vocab: it lacks \"\xE6\xBC\xA2\""},
      {"/model/merges/5", "[\"z\",\"q\"]", kInvalid, "it lacks \"zq\""},
      {"/model/merges/5", "[\"a\"]", kInvalid, "model.merges[5]"},
      {"/model/merges/5", "[\"a\",\"b\",\"c\"]", kInvalid, "model.merges[5]"},
      {"/model/merges/5", "[1,2]", kInvalid, "model.merges[5]"},
      {"/model/merges/5", "\"a\"", kInvalid, "model.merges[5] is \"a\", expected two tokens"},
      {"/model/merges/5", "\"a b c\"", kInvalid, "model.merges[5]"},
      {"/model/merges/5", "5", kInvalid, "model.merges[5] is 5"},
      {"/added_tokens", "7", kInvalid, "added_tokens is 7"},
      {"/added_tokens/1/id", "5", kInvalid, "added_tokens[1].id is 5, expected 1, the id of \"<|im_start|>\" in model.vocab"},
      {"/added_tokens/1/content", "\"<|new|>\"", kInvalid, "added_tokens[1].id is 1, expected an id that no other token has"},
      {"/added_tokens/1/content", "\"\"", kInvalid, "added_tokens[1].content is \"\""},
      {"/added_tokens/1/content", "null", kInvalid, "added_tokens[1].content is null"},
      {"/added_tokens/1/lstrip", "true", kUnsupported, "added_tokens[1].lstrip is true"},
      {"/added_tokens/1/rstrip", "true", kUnsupported, "added_tokens[1].rstrip is true"},
      {"/added_tokens/1/single_word", "true", kUnsupported, "added_tokens[1].single_word is true"},
      {"/added_tokens/1/special", "1", kInvalid, "added_tokens[1].special is 1"},
      {"/added_tokens/1", R"({"id":1099511627776,"content":"x","special":true,"normalized":false})", kInvalid, "added_tokens[1].id is 1099511627776"},
      {"/added_tokens/1", "[]", kInvalid, "added_tokens[1] is an array of 0"},
  };
  for (const Refusal& refusal : refusals) {
    const auto tokenizer = open_changed(refusal.pointer, refusal.value);
    ASSERT_FALSE(tokenizer) << refusal.pointer << " " << refusal.value;
    EXPECT_EQ(tokenizer.error().code, refusal.code) << tokenizer.error().message;
    EXPECT_THAT(tokenizer.error().message, AllOf(HasSubstr("tokenizer.json: "), HasSubstr(std::string(refusal.message)))) << refusal.pointer;
  }
}

TEST(TokenizerFile, FilesThatAreNoTokenizerAreRefused) {
  for (const std::string_view text : {"", "[]", "{}", "{\"model\":{}}", "\xff\xfe", "{\"model\":{\"type\":\"BPE\"}"}) {
    EXPECT_FALSE(open_tokenizer(text)) << text;
  }
  EXPECT_FALSE(Tokenizer::open("/nonexistent/tokenizer.json"));
}

TEST(TokenizerFile, GapsInTheIdsAreNoTokens) {
  const auto tokenizer = open_changed("/model/vocab/zqzq", "5000");
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  EXPECT_EQ((*tokenizer)->vocabulary_size(), 5001);
  EXPECT_EQ((*tokenizer)->token_bytes(5000), "zqzq");
  EXPECT_EQ((*tokenizer)->token_bytes(4999), "");
  EXPECT_FALSE((*tokenizer)->decode(std::vector<std::int32_t>{4999}, false));
}

TEST(TokenizerFile, OptionsThatChangeNothingAreAccepted) {
  EXPECT_TRUE(open_changed("/model/dropout", "0.0"));
  EXPECT_TRUE(open_changed("/model/end_of_word_suffix", "\"\""));
  EXPECT_TRUE(open_changed("/post_processor", "null"));
  EXPECT_TRUE(open_changed("/post_processor", R"({"type":"ByteLevel","trim_offsets":false})"));
  EXPECT_TRUE(open_changed("/normalizer", R"({"type":"Sequence","normalizers":[{"type":"NFC"}]})"));
  EXPECT_TRUE(open_changed("/truncation", R"({"max_length":8})"));
}

TEST(PatternDialect, WhatTheTwoDialectsReadDifferentlyIsRefused) {
  for (const std::string_view pattern :
       {R"(\w+)",    R"(\h)",  R"(\bx)",      R"(\x41)", R"(x\1)",  "^x",   "x$",    ".",     "(?m:x)", "(?i)x", "(?<name>x)", "(*ACCEPT)", R"(\p{Han})",
        R"(\p{^L})", R"(\pL)", "[[:alpha:]]", "[a&&b]",  R"([\S])", "[]x]", "x{,3}", "x{2}+", "x{2}?",  "x{",    R"(\p{L)",    "\\"}) {
    const auto translated = translate_pattern(pattern);
    ASSERT_FALSE(translated) << pattern << " became " << *translated;
    EXPECT_EQ(translated.error().code, kUnsupported) << pattern;
    EXPECT_THAT(translated.error().message, HasSubstr("at byte")) << pattern;
  }
}

std::vector<std::string_view> split(std::string_view pattern, std::string_view text) {
  const auto splitter = Splitter::create(pattern);
  EXPECT_TRUE(splitter) << splitter.error().message;
  std::vector<std::string_view> pieces;
  if (splitter) {
    const Status status = splitter->split(text, pieces);
    EXPECT_TRUE(status) << status.error().message;
  }
  return pieces;
}

TEST(Splitter, MatchesAndWhatLiesBetweenThemAreThePieces) {
  EXPECT_THAT(split("[0-9]+", "ab12cd3"), ElementsAre("ab", "12", "cd", "3"));
  EXPECT_THAT(split("[0-9]+", "ab"), ElementsAre("ab"));
  EXPECT_THAT(split("(?<=a)b", "abb"), ElementsAre("a", "b", "b"));
  EXPECT_THAT(split(R"(\s+)",
                    "a\xC2\xA0\xE3\x80\x80 b\xE1\xA0\x8E"
                    "c"),
              ElementsAre("a", "\xC2\xA0\xE3\x80\x80 ",
                          "b\xE1\xA0\x8E"
                          "c"))
      << "U+180E is no space";
  EXPECT_THAT(split(R"([^\s]+)",
                    "a\xC2\x85"
                    "b"),
              ElementsAre("a", "\xC2\x85", "b"));
  EXPECT_THAT(split(R"((?i:'s))", "'\xC5\xBF'S"), ElementsAre("'\xC5\xBF", "'S")) << "the long s folds to s";
}

TEST(Splitter, APatternThatBacktracksWithoutEndGivesAnError) {
  const auto splitter = Splitter::create("(?:a+)+[bc]");
  ASSERT_TRUE(splitter) << splitter.error().message;
  std::vector<std::string_view> pieces;
  const std::string text(5000, 'a');
  const Status status = splitter->split(text, pieces);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kResourceExhausted);
  EXPECT_THAT(status.error().message, HasSubstr("at byte 0 of 5000"));
}

}  // namespace
}  // namespace lockstep::model
