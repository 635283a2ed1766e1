// Goal    A body for embeddings is read in each of its forms, and each wrong one is refused with the field's name.
// Method  A table of bodies; the tokenizer's tokens are bytes.
#include "daemon/api/embeddings/embedding_request.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/daemon/support/fakes.hpp"

namespace lockstep::daemon::testing {
namespace {

using ::testing::HasSubstr;
using Inputs = std::vector<std::vector<std::int32_t>>;

class EmbeddingRequest : public ::testing::Test {
 protected:
  std::optional<ApiError> read(std::string_view body) {
    job_ = {};
    return read_embedding_request(body, {.api = {.served_names = {"tiny"}, .tokenizer = &tokenizer_}, .hidden_size = 4}, job_);
  }
  ByteTokenizer tokenizer_;
  EmbeddingJob job_;
};

TEST_F(EmbeddingRequest, TakesOneTextSeveralTextsTokenIdsAndListsOfThem) {
  const std::vector<std::pair<std::string, Inputs>> forms{{R"({"input":"ab"})", {{'a', 'b'}}},
                                                          {R"({"input":["a","bc"]})", {{'a'}, {'b', 'c'}}},
                                                          {R"({"input":[5,6,7]})", {{5, 6, 7}}},
                                                          {R"({"input":[[5],[6,7]]})", {{5}, {6, 7}}}};
  for (const auto& [body, inputs] : forms) {
    const std::optional<ApiError> error = read(body);
    ASSERT_FALSE(error) << body << ": " << error->message;
    EXPECT_EQ(job_.inputs, inputs) << body;
    EXPECT_FALSE(job_.base64);
  }
}

TEST_F(EmbeddingRequest, TakesWhatOpenAisClientsSend) {
  ASSERT_FALSE(read(R"({"input":["a"],"model":"tiny","encoding_format":"base64","user":"someone","dimensions":4})"));
  EXPECT_TRUE(job_.base64);
  ASSERT_FALSE(read(R"({"input":"a","encoding_format":"float","dimensions":null})"));
  EXPECT_FALSE(job_.base64);
}

TEST_F(EmbeddingRequest, RefusesEachWrongFieldByName) {
  const std::vector<std::array<std::string, 3>> wrong{{R"({})", "input", "missing"},
                                                      {R"({"input":""})", "input", "empty"},
                                                      {R"({"input":[]})", "input", "empty"},
                                                      {R"({"input":[[]]})", "input", "empty"},
                                                      {R"({"input":["a",""]})", "input", "empty"},
                                                      {R"({"input":{"a":1}})", "input", "an object"},
                                                      {R"({"input":["a",[1]]})", "input", "all strings"},
                                                      {R"({"input":[1,"a"]})", "input", "token ids"},
                                                      {R"({"input":[-1]})", "input", "token ids"},
                                                      {"{\"input\":\"\xFF\"}", "", "not JSON"},
                                                      {R"({"input":"a","encoding_format":"int8"})", "encoding_format", "base64"},
                                                      {R"({"input":"a","dimensions":2})", "dimensions", "4 dimensions"},
                                                      {R"({"input":"a","model":"big"})", "model", "tiny"},
                                                      {R"({"input":"a","model":7})", "model", "string"},
                                                      {R"({"input":"a","normalize":false})", "normalize", "true"},
                                                      {R"([])", "", "object"}};
  for (const auto& [body, field, message] : wrong) {
    const std::optional<ApiError> error = read(body);
    ASSERT_TRUE(error) << body;
    EXPECT_EQ(error->param.value_or(""), field) << body;
    EXPECT_THAT(error->message, HasSubstr(message)) << body;
    EXPECT_EQ(error->status, field == "model" && message == "tiny" ? 404 : 400) << body;
  }
}

TEST_F(EmbeddingRequest, RefusesMoreTextsThanOneCallMayHave) {
  std::string body = R"({"input":["a")";
  for (std::size_t i = 0; i < kEmbeddingInputsMax; ++i) {
    body += R"(,"a")";
  }
  const std::optional<ApiError> error = read(body + "]}");
  ASSERT_TRUE(error);
  EXPECT_THAT(error->message, HasSubstr("2049 texts, expected at most 2048"));
}

}  // namespace
}  // namespace lockstep::daemon::testing
