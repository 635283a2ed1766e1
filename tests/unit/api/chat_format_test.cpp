// Goal    Bodies and chunks have the very form of OpenAI's chat completions.
// Method  Golden texts.
#include "daemon/api/chat/chat_format.hpp"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/unit/daemon/support/fakes.hpp"

namespace lockstep::daemon {
namespace {

class ChatFormatTest : public ::testing::Test {
 protected:
  testing::ByteTokenizer tokenizer_;
  AnswerHead head_{.id = "chatcmpl-1", .created = 1700000000, .model = "tiny", .tokenizer = &tokenizer_};
};

TEST_F(ChatFormatTest, ABodyHasAMessageInEveryChoice) {
  const TextPiece first{.text = "a\n"};
  const TextPiece second{};
  const std::vector<AnswerPiece> pieces{{.index = 0, .text = &first, .finish_reason = "stop", .first = true},
                                        {.index = 1, .text = &second, .finish_reason = "length", .first = true}};
  EXPECT_EQ(answer_body(chat_format(), head_, pieces, {.prompt_tokens = 3, .completion_tokens = 4}),
            R"({"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"tiny","choices":[)"
            R"({"index":0,"message":{"role":"assistant","content":"a\n","refusal":null},"logprobs":null,"finish_reason":"stop"},)"
            R"({"index":1,"message":{"role":"assistant","content":"","refusal":null},"logprobs":null,"finish_reason":"length"}],)"
            R"("usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}})");
}

TEST_F(ChatFormatTest, AStreamBeginsWithTheRoleAndEndsWithAnEmptyDelta) {
  const TextPiece text{.text = "x"};
  const TextPiece nothing{};
  std::string out;
  append_chunk(chat_format(), head_, {.index = 1, .text = &text, .first = true}, true, out);
  append_chunk(chat_format(), head_, {.index = 1, .text = &nothing, .finish_reason = "stop"}, true, out);
  const std::string head = R"(data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"tiny","choices":[{"index":1,)";
  const std::string end = std::string(R"(}],"usage":null})") + "\n\n";
  EXPECT_EQ(out, head + R"("delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null)" + end + head +
                     R"("delta":{"content":"x"},"logprobs":null,"finish_reason":null)" + end + head + R"("delta":{},"logprobs":null,"finish_reason":"stop")" +
                     end);
}

TEST_F(ChatFormatTest, LogProbabilitiesNameTokensAndTheirBytes) {
  const TextPiece piece{
      .text = "h", .tokens = {{.token = 'h', .log_probability = -0.5F, .likeliest = {{'h', -0.5F}, {0xE2, -1.5F}}}, {.token = 'i', .log_probability = -2.0F}}};
  std::string out;
  chat_format().append_choice(head_, {.text = &piece, .log_probabilities = true}, true, out);
  EXPECT_EQ(out, R"("index":0,"delta":{"content":"h"},"logprobs":{"content":[)"
                 R"({"token":"h","logprob":-0.5,"bytes":[104],"top_logprobs":[{"token":"h","logprob":-0.5,"bytes":[104]},)"
                 "{\"token\":\"\xef\xbf\xbd\",\"logprob\":-1.5,\"bytes\":[226]}]},"
                 R"({"token":"i","logprob":-2,"bytes":[105],"top_logprobs":[]}],"refusal":null},"finish_reason":null)");
}

}  // namespace
}  // namespace lockstep::daemon
