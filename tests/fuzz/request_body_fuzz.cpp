// Goal: no JSON body gets a number past its range, nests too deep, or makes more of the engine than one request may.
// Method: the first byte chooses the route; an accepted request keeps its bounds and becomes requests of the engine.
#include <cstdint>
#include <memory>
#include <string>

#include "daemon/api/chat/chat_format.hpp"
#include "daemon/api/completions/completion_format.hpp"
#include "daemon/api/request/engine_requests.hpp"
#include "daemon/api/tokenize/tokenize_answers.hpp"
#include "lockstep/core/check.hpp"
#include "tests/support/memory_file.hpp"

namespace {

using namespace lockstep;
using namespace lockstep::daemon;

constexpr std::int32_t kRequestTokens = 1024;

template <typename T>
std::unique_ptr<T> opened(Result<std::unique_ptr<T>> result) {
  LOCKSTEP_CHECK(result.has_value(), "{}", result.error().message);
  return std::move(*result);
}

void fuzz_format(const ApiFormat& format, std::string_view body, const ApiContext& context) {
  GenerationJob job;
  if (const auto error = format.read(body, context, job)) {
    LOCKSTEP_CHECK(error->status >= 400 && error->status < 500 && !error->message.empty() && !error->code.empty(), "status {}", error->status);
    return;
  }
  LOCKSTEP_CHECK(job.choice_count() >= 1 && job.choice_count() <= kChoicesMax, "{} choices", job.choice_count());
  LOCKSTEP_CHECK(job.stop_strings.size() <= kStopStringsMax && job.stop_token_ids.size() <= kStopTokensMax && job.min_tokens >= 0, "stops");
  LOCKSTEP_CHECK(!job.max_tokens || *job.max_tokens >= (job.may_generate_nothing ? 0 : 1), "max_tokens");
  if (!job_refusal(job, kRequestTokens)) {
    const auto requests = make_engine_requests(1, job, kRequestTokens);
    LOCKSTEP_CHECK(requests.size() == job.choice_count(), "{} requests for {} choices", requests.size(), job.choice_count());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const std::unique_ptr<model::Tokenizer> kTokenizer = opened(model::Tokenizer::open(LOCKSTEP_EMBEDDED_MODEL "/tokenizer.json"));
  static const std::unique_ptr<model::ChatTemplate> kTemplate = opened(model::ChatTemplate::parse(
      "{% for m in messages %}<{{ m.role }}>{{ m['content'] }}</{{ m.role }}>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}", "fuzz"));
  TokenizeContext context{
      .api = {.served_names = {"tiny"}, .tokenizer = kTokenizer.get(), .chat_template = kTemplate.get(), .vocabulary_size = kTokenizer->vocabulary_size()},
      .max_model_len = kRequestTokens};
  if (size == 0) {
    return 0;
  }
  context.api.refuses_special_tokens = data[0] % 8 >= 4;
  const std::string_view body = fuzz::text_of(data + 1, size - 1);
  if (data[0] % 4 < 2) {
    fuzz_format(data[0] % 4 == 0 ? completion_format() : chat_format(), body, context.api);
    return 0;
  }
  const HttpResponse response = data[0] % 4 == 2 ? tokenize_answer(body, context) : detokenize_answer(body, context);
  LOCKSTEP_CHECK(response.status == 200 || (response.status >= 400 && response.status < 500), "status {}", response.status);
  return 0;
}
