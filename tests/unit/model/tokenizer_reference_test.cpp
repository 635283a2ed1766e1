// Goal: text becomes exactly the ids that the reference library gives, and ids exactly its text.
// Method: recorded outputs of the reference (tests/reference/): the embedded model's golden file, and random text over the embedded tokenizer.json and changed
// forms of it (other pre-tokenizers, added tokens, merges).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/model/embedded_tokenizer.hpp"

namespace lockstep::model {
namespace {

namespace json = boost::json;

json::value test_data(std::string_view name) {
  return read_json(std::filesystem::path(LOCKSTEP_TEST_DATA) / name);
}

void expect_encodes(const Tokenizer& tokenizer, const json::array& cases, std::string_view ids_key = "ids", std::string_view text_key = "text") {
  EXPECT_FALSE(cases.empty());
  for (const json::value& entry : cases) {
    const std::string text = text_of(entry.at(text_key));
    const auto ids = tokenizer.encode(text);
    ASSERT_TRUE(ids) << ids.error().message << "\ntext: " << text;
    EXPECT_EQ(*ids, ids_of(entry.at(ids_key))) << "text: " << json::serialize(entry.at(text_key));
    if (entry.as_object().contains("decoded")) {
      const auto decoded = tokenizer.decode(*ids, true);
      ASSERT_TRUE(decoded) << decoded.error().message;
      EXPECT_EQ(*decoded, text_of(entry.at("decoded")));
    }
  }
}

TEST(TokenizerReference, GoldenTextsAndPromptsGiveTheRecordedIds) {
  const auto tokenizer = open_embedded_tokenizer();
  ASSERT_NE(tokenizer, nullptr);
  const json::value golden = test_data("tiny_moe_golden.json");
  json::array texts = golden.at("tokenizer").as_array();
  for (json::value& entry : texts) {
    // The golden file decodes with special tokens kept.
    const auto decoded = tokenizer->decode(ids_of(entry.at("ids")), false);
    ASSERT_TRUE(decoded) << decoded.error().message;
    EXPECT_EQ(*decoded, text_of(entry.at("decoded")));
    entry.as_object().erase("decoded");
  }
  expect_encodes(*tokenizer, texts);
  expect_encodes(*tokenizer, golden.at("cases").as_array(), "prompt_token_ids", "prompt");
  for (const json::value& entry : golden.at("cases").as_array()) {
    const auto text = tokenizer->decode(ids_of(entry.at("greedy_token_ids")), false);
    ASSERT_TRUE(text) << text.error().message;
    EXPECT_EQ(*text, text_of(entry.at("greedy_text")));
  }
}

TEST(TokenizerReference, RandomTextGivesTheRecordedIds) {
  const auto tokenizer = open_embedded_tokenizer();
  ASSERT_NE(tokenizer, nullptr);
  expect_encodes(*tokenizer, test_data("tokenizer_cases.json").at("encode").as_array());
}

TEST(TokenizerReference, RandomIdsGiveTheRecordedTextWholeAndPieceByPiece) {
  const auto tokenizer = open_embedded_tokenizer();
  ASSERT_NE(tokenizer, nullptr);
  const json::value data = test_data("tokenizer_cases.json");
  for (const json::value& entry : data.at("decode").as_array()) {
    const std::vector<std::int32_t> ids = ids_of(entry.at("ids"));
    const auto kept = tokenizer->decode(ids, false);
    ASSERT_TRUE(kept) << kept.error().message;
    EXPECT_EQ(*kept, text_of(entry.at("kept"))) << json::serialize(entry.at("ids"));
    const auto skipped = tokenizer->decode(ids, true);
    ASSERT_TRUE(skipped) << skipped.error().message;
    EXPECT_EQ(*skipped, text_of(entry.at("skipped"))) << json::serialize(entry.at("ids"));
    StreamDecoder stream(*tokenizer);
    std::string streamed;
    for (const std::int32_t id : ids) {
      streamed += stream.push(id);
    }
    streamed += stream.finish();
    EXPECT_EQ(streamed, *skipped) << json::serialize(entry.at("ids"));
  }
}

/// The embedded tokenizer.json with one entry of "variants" applied: the same steps as tests/reference/make_tokenizer_cases.py takes.
std::string changed_tokenizer(const json::object& change) {
  json::object result = embedded_tokenizer_json();
  for (const std::string_view key : {"normalizer", "pre_tokenizer", "added_tokens"}) {
    if (const json::value* section = change.if_contains(key)) {
      result[key] = *section;
    }
  }
  json::object& model = result["model"].as_object();
  json::array& merges = model["merges"].as_array();
  if (const json::value* step = change.if_contains("drop_merges_every")) {
    json::array kept;
    for (std::size_t i = 0; i < merges.size(); ++i) {
      if (i % step->to_number<std::size_t>() != 0) {
        kept.push_back(merges[i]);
      }
    }
    merges = kept;
  }
  if (const json::value* options = change.if_contains("model")) {
    if (options->as_object().contains("ignore_merges")) {
      model["ignore_merges"] = true;
    }
    if (options->as_object().contains("merges_as_text")) {
      json::array lines{"#version: 0.2"};
      for (const json::value& merge : merges) {
        lines.emplace_back(text_of(merge.at(0)) + " " + text_of(merge.at(1)));
      }
      merges = lines;
    }
  }
  return json::serialize(result);
}

TEST(TokenizerReference, ChangedFormsOfTheFileGiveTheRecordedIds) {
  const json::value data = test_data("tokenizer_cases.json");
  EXPECT_GE(data.at("variants").as_array().size(), 7U);
  for (const json::value& variant : data.at("variants").as_array()) {
    SCOPED_TRACE(text_of(variant.at("name")));
    const auto tokenizer = open_tokenizer(changed_tokenizer(variant.at("change").as_object()));
    ASSERT_TRUE(tokenizer) << tokenizer.error().message;
    expect_encodes(**tokenizer, variant.at("encode").as_array());
  }
}

}  // namespace
}  // namespace lockstep::model
