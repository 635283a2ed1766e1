// Goal    Bodies and chunks have the very form of OpenAI's completions.
// Method  Golden texts.
#include "daemon/api/completions/completion_format.hpp"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/unit/daemon/support/fakes.hpp"

namespace lockstep::daemon {
namespace {

class CompletionFormatTest : public ::testing::Test {
 protected:
  testing::ByteTokenizer tokenizer_;
  AnswerHead head_{.id = "cmpl-1", .created = 1700000000, .model = "ti\"ny", .tokenizer = &tokenizer_};
};

TEST_F(CompletionFormatTest, ABodyHasEveryChoiceAndTheUsage) {
  const TextPiece first{.text = "a\n"};
  const TextPiece second{.text = ""};
  const std::vector<AnswerPiece> pieces{{.index = 0, .text = &first, .finish_reason = "stop", .first = true},
                                        {.index = 1, .text = &second, .finish_reason = "length", .first = true}};
  EXPECT_EQ(answer_body(completion_format(), head_, pieces, {.prompt_tokens = 3, .completion_tokens = 4}),
            R"({"id":"cmpl-1","object":"text_completion","created":1700000000,"model":"ti\"ny","choices":[)"
            R"({"index":0,"text":"a\n","logprobs":null,"finish_reason":"stop"},{"index":1,"text":"","logprobs":null,"finish_reason":"length"}],)"
            R"("usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}})");
}

TEST_F(CompletionFormatTest, ChunksCarryOnePieceAndNullUsageWhereUsageFollows) {
  const TextPiece piece{.text = "x"};
  std::string out;
  append_chunk(completion_format(), head_, {.index = 2, .text = &piece, .first = true}, false, out);
  append_chunk(completion_format(), head_, {.index = 2, .text = &piece, .finish_reason = "stop"}, true, out);
  append_usage_chunk(completion_format(), head_, {.prompt_tokens = 1, .completion_tokens = 2}, out);
  const std::string head = R"(data: {"id":"cmpl-1","object":"text_completion","created":1700000000,"model":"ti\"ny","choices":[)";
  EXPECT_EQ(out, head + R"({"index":2,"text":"x","logprobs":null,"finish_reason":null}]})" + "\n\n" + head +
                     R"({"index":2,"text":"x","logprobs":null,"finish_reason":"stop"}],"usage":null})" + "\n\n" + head +
                     R"(],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}})" + "\n\n");
}

TEST_F(CompletionFormatTest, LogProbabilitiesAreFourListsWithTheChosenTokenAmongTheLikeliest) {
  const TextPiece piece{.text = "hi",
                        .tokens = {{.token = 'h', .log_probability = -0.5F, .text_offset = 4, .likeliest = {{'h', -0.5F}, {'j', -1.5F}}},
                                   {.token = 'i', .log_probability = -2.0F, .text_offset = 5, .likeliest = {{'o', -0.25F}, {0xE2, -3.0F}, {-1, 0.0F}}}}};
  std::string out;
  completion_format().append_choice(head_, {.text = &piece, .log_probabilities = true, .finish_reason = "length"}, false, out);
  EXPECT_EQ(out, R"("index":0,"text":"hi","logprobs":{"tokens":["h","i"],"token_logprobs":[-0.5,-2],)"
                 R"("top_logprobs":[{"h":-0.5,"j":-1.5},{"i":-2,"o":-0.25,"bytes:\\xe2":-3}],"text_offset":[4,5]},"finish_reason":"length")");
}

TEST_F(CompletionFormatTest, APromptsFirstTokenHasNoLogProbability) {
  const TextPiece piece{.text = "hi", .tokens = {{.token = 'h'}, {.token = 'i', .log_probability = -2.0F, .text_offset = 1}}};
  std::string out;
  completion_format().append_choice(head_, {.text = &piece, .log_probabilities = true, .finish_reason = "length"}, false, out);
  EXPECT_EQ(out, R"("index":0,"text":"hi","logprobs":{"tokens":["h","i"],"token_logprobs":[null,-2],)"
                 R"("top_logprobs":[null,{"i":-2}],"text_offset":[0,1]},"finish_reason":"length")");
}

TEST_F(CompletionFormatTest, ABodyWithoutTokensHasEmptyListsAndAChunkNull) {
  const TextPiece piece{};
  std::string body;
  std::string chunk;
  completion_format().append_choice(head_, {.text = &piece, .log_probabilities = true, .finish_reason = "stop"}, false, body);
  completion_format().append_choice(head_, {.text = &piece, .log_probabilities = true, .finish_reason = "stop"}, true, chunk);
  EXPECT_NE(body.find(R"("logprobs":{"tokens":[],)"), std::string::npos) << body;
  EXPECT_NE(chunk.find(R"("logprobs":null)"), std::string::npos) << chunk;
}

}  // namespace
}  // namespace lockstep::daemon
