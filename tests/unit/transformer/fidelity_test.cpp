// Goal    The model gives what the reference implementation gives, within the reference's own bfloat16 error.
// Method  Recorded outputs of the reference, in float32 over the same weights. Log probabilities are teacher-forced: the recorded text is computed, whole, in
//         chunks and in two micro-batches, and each recorded entry compared. Then an engine serves the prompts and its text must begin like the reference's.
//         The same tests run a second time where oneDNN is held to AVX2, which takes the float32 weights.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

#include <boost/json.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lockstep/model/tokenizer.hpp"
#include "tests/support/group_harness.hpp"
#include "tests/support/teacher_forcing.hpp"
#include "tests/support/test_device.hpp"

namespace lockstep::model {
namespace {

using ::testing::StartsWith;
using tests::log_softmax;
using tests::TeacherForcing;
using tests::TeacherForcingOptions;

/// A greedy gap of the reference below this may fall either way in bfloat16.
constexpr double kSafeMargin = 0.25;
/// Our error may be this much of the reference's own bfloat16 error.
constexpr double kErrorFactor = 1.2;

struct ModelUnderTest {
  std::string name;
  std::filesystem::path folder;
  std::filesystem::path golden;
};

std::vector<ModelUnderTest> models() {
  const std::filesystem::path data = LOCKSTEP_TEST_DATA;
  return {{.name = "TinyMoe", .folder = LOCKSTEP_EMBEDDED_MODEL, .golden = data / "tiny_moe_golden.json"},
          {.name = "SecondModel", .folder = data / "second_model", .golden = data / "second_model_golden.json"}};
}

struct GoldenCase {
  std::string prompt;  ///< empty: a model without a tokenizer
  std::vector<std::int32_t> prompt_tokens;
  std::vector<std::int32_t> greedy_tokens;
  std::vector<double> greedy_margin;
  std::int64_t confident_tokens = 0;  ///< of greedy_tokens, before the first gap that is not safe
  std::string confident_text;
  std::vector<std::vector<std::int32_t>> top_ids;
  std::vector<std::vector<double>> top_log_probabilities;
  double reference_mean_abs = 0;
};

/// LOCKSTEP_TEST_MICRO_BATCHES, or 1.
std::int32_t wanted_micro_batches() {
  const std::string wanted = tests::test_variable("LOCKSTEP_TEST_MICRO_BATCHES", "1");
  EXPECT_TRUE(wanted == "1" || wanted == "2") << wanted;
  return wanted == "2" ? 2 : 1;
}

std::string text_of(const boost::json::value& item, std::string_view key) {
  const boost::json::value* found = item.as_object().if_contains(key);
  return found == nullptr ? std::string{} : std::string(found->as_string());
}

std::vector<GoldenCase> read_golden(const std::filesystem::path& path) {
  std::ifstream file(path);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const boost::json::value root = boost::json::parse(text);
  std::vector<GoldenCase> cases;
  for (const boost::json::value& item : root.at("cases").as_array()) {
    cases.push_back({.prompt = text_of(item, "prompt"),
                     .prompt_tokens = boost::json::value_to<std::vector<std::int32_t>>(item.at("prompt_token_ids")),
                     .greedy_tokens = boost::json::value_to<std::vector<std::int32_t>>(item.at("greedy_token_ids")),
                     .greedy_margin = boost::json::value_to<std::vector<double>>(item.at("greedy_margin")),
                     .confident_tokens = item.at("confident_tokens").to_number<std::int64_t>(),
                     .confident_text = text_of(item, "confident_text"),
                     .top_ids = boost::json::value_to<std::vector<std::vector<std::int32_t>>>(item.at("top10_ids")),
                     .top_log_probabilities = boost::json::value_to<std::vector<std::vector<double>>>(item.at("top10_logprobs")),
                     .reference_mean_abs = item.at("reference_bf16_error").at("mean_abs").to_number<double>()});
  }
  return cases;
}

/// Mean |difference| of the recorded log probabilities, and how many safe first choices differ.
struct Comparison {
  double mean_abs = 0;
  double max_abs = 0;
  int wrong_choices = 0;
};

Comparison compare(const GoldenCase& golden, const std::vector<std::vector<float>>& logits) {
  Comparison result;
  double sum = 0;
  std::size_t count = 0;
  for (std::size_t t = 0; t < golden.greedy_tokens.size(); ++t) {
    const std::vector<float>& row = logits.at(golden.prompt_tokens.size() - 1 + t);
    const std::vector<double> ours = log_softmax(row);
    for (std::size_t i = 0; i < golden.top_ids[t].size(); ++i, ++count) {
      const double difference = std::abs(ours[static_cast<std::size_t>(golden.top_ids[t][i])] - golden.top_log_probabilities[t][i]);
      sum += difference;
      result.max_abs = std::max(result.max_abs, difference);
    }
    const auto choice = static_cast<std::int32_t>(std::ranges::max_element(row) - row.begin());
    result.wrong_choices += golden.greedy_margin[t] > kSafeMargin && choice != golden.greedy_tokens[t] ? 1 : 0;
  }
  result.mean_abs = sum / static_cast<double>(count);
  return result;
}

class Fidelity : public ::testing::TestWithParam<ModelUnderTest> {
 protected:
  void SetUp() override {
    Result<ModelConfig> config = read_model_config(GetParam().folder);
    ASSERT_TRUE(config) << config.error().message;
    config_ = std::move(*config);
    golden_ = read_golden(GetParam().golden);
    ASSERT_FALSE(golden_.empty());
  }
  std::unique_ptr<WeightSource> open_weights() {
    Result<std::unique_ptr<WeightSource>> source = open_safetensors(GetParam().folder);
    EXPECT_TRUE(source) << source.error().message;
    return std::move(*source);
  }
  std::unique_ptr<TeacherForcing> make_teacher(const TeacherForcingOptions& options) {
    const std::unique_ptr<WeightSource> source = open_weights();
    Result<std::unique_ptr<TeacherForcing>> teacher = TeacherForcing::create(config_, *source, options);
    EXPECT_TRUE(teacher) << teacher.error().message;
    return std::move(*teacher);
  }
  /// By our tokenizer: the prompt's ids, and how the answer begins.
  void expect_same_text(const GoldenCase& golden, const std::vector<std::int32_t>& answer) {
    const Result<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::open(GetParam().folder / "tokenizer.json");
    ASSERT_TRUE(tokenizer) << tokenizer.error().message;
    const Result<std::vector<std::int32_t>> prompt = (*tokenizer)->encode(golden.prompt);
    ASSERT_TRUE(prompt) << prompt.error().message;
    EXPECT_EQ(*prompt, golden.prompt_tokens) << golden.prompt;
    const Result<std::string> text = (*tokenizer)->decode(answer, false);
    ASSERT_TRUE(text) << text.error().message;
    EXPECT_THAT(*text, StartsWith(golden.confident_text)) << golden.prompt;
  }
  static std::vector<std::int32_t> whole_text(const GoldenCase& golden) {
    std::vector<std::int32_t> tokens = golden.prompt_tokens;
    tokens.insert(tokens.end(), golden.greedy_tokens.begin(), golden.greedy_tokens.end() - 1);  // the last is only predicted
    return tokens;
  }

  ModelConfig config_;
  std::vector<GoldenCase> golden_;
};

TEST_P(Fidelity, TeacherForcedLogProbabilitiesAreWithinTheReferencesOwnError) {
  TeacherForcingOptions options{.micro_batches = wanted_micro_batches(), .graphs = tests::test_graph_mode()};
  if (options.graphs != GraphMode::kNone) {
    options.rows_per_step = 8;  // as that many decodes
  }
  const std::unique_ptr<TeacherForcing> teacher = make_teacher(options);
  if (const char* isa = std::getenv("DNNL_MAX_CPU_ISA"); isa != nullptr && std::string_view(isa) == "AVX2") {
    EXPECT_EQ(teacher->instruction_set(), "avx2") << "the float32 path was asked for";
  }
  double sum = 0;
  double reference_sum = 0;
  for (const GoldenCase& golden : golden_) {
    SCOPED_TRACE(golden.prompt);
    const Result<std::vector<std::vector<float>>> logits = teacher->logits(whole_text(golden));
    ASSERT_TRUE(logits) << logits.error().message;
    const Comparison comparison = compare(golden, *logits);
    EXPECT_LE(comparison.mean_abs, kErrorFactor * golden.reference_mean_abs);
    EXPECT_EQ(comparison.wrong_choices, 0);
    sum += comparison.mean_abs;
    reference_sum += golden.reference_mean_abs;
  }
  RecordProperty("mean_abs", std::to_string(sum / static_cast<double>(golden_.size())));
  RecordProperty("reference_mean_abs", std::to_string(reference_sum / static_cast<double>(golden_.size())));
  RecordProperty("instruction_set", teacher->instruction_set());
}

TEST_P(Fidelity, ChunksAndMicroBatchesGiveTheSameBitsAsTheWholeText) {
  const std::unique_ptr<TeacherForcing> whole = make_teacher({});
  for (const TeacherForcingOptions& options : {TeacherForcingOptions{.rows_per_step = 1}, TeacherForcingOptions{.rows_per_step = 7},
                                               TeacherForcingOptions{.micro_batches = 2}, TeacherForcingOptions{.rows_per_step = 5, .micro_batches = 2}}) {
    const std::unique_ptr<TeacherForcing> other = make_teacher(options);
    for (const GoldenCase& golden : golden_) {
      const std::vector<std::int32_t> text = whole_text(golden);
      const Result<std::vector<std::vector<float>>> expected = whole->logits(text);
      const Result<std::vector<std::vector<float>>> logits = other->logits(text);
      ASSERT_TRUE(expected && logits);
      ASSERT_EQ(*expected, *logits) << golden.prompt << ": " << options.rows_per_step << " rows a step, " << options.micro_batches << " micro-batches";
    }
  }
}

TEST_P(Fidelity, TheEnginesGreedyTokensBeginLikeTheReferences) {
  scheduler::EngineOptions engine;
  engine.max_num_batched_tokens = 64;  // the longest prompts are chunked
  engine.micro_batches = wanted_micro_batches();
  engine.kv_cache_bytes = std::int64_t{16} << 20;
  tests::GroupHarness group({.world_size = 1, .config = config_, .make_weights = [this] { return open_weights(); }, .engine = engine});
  group.wait_until_running();
  for (std::size_t i = 0; i < golden_.size(); ++i) {  // all at once: they share steps
    const GoldenCase& golden = golden_[i];
    scheduler::GenerationRequest request =
        tests::greedy_request(static_cast<scheduler::RequestId>(i + 1), golden.prompt_tokens, static_cast<std::int32_t>(golden.greedy_tokens.size()));
    request.ignore_eos = true;
    ASSERT_TRUE(group.submit(0, request));
  }
  for (std::size_t i = 0; i < golden_.size(); ++i) {
    const GoldenCase& golden = golden_[i];
    const tests::Completion completion = group.wait(static_cast<scheduler::RequestId>(i + 1));
    EXPECT_EQ(completion.finish, scheduler::FinishReason::kLength);
    ASSERT_EQ(completion.tokens.size(), golden.greedy_tokens.size());
    EXPECT_TRUE(std::equal(completion.tokens.begin(), completion.tokens.begin() + golden.confident_tokens, golden.greedy_tokens.begin())) << "case " << i;
    if (!golden.prompt.empty()) {
      expect_same_text(golden, completion.tokens);
    }
  }
}

TEST_P(Fidelity, AnEmbeddingIsTheDirectionFromWhichTheReferencesLogProbabilitiesFollow) {
  // The head's product with the last hidden state h is the logits; so the recorded log probabilities are |h| times the head's product with the embedding, plus
  // a constant: a straight line through the recorded entries, found by least squares.
  const std::unique_ptr<WeightSource> source = open_weights();
  const char* const name = config_.tied_embeddings ? "model.embed_tokens.weight" : "lm_head.weight";
  const std::vector<std::int64_t> shape{config_.vocabulary_size, config_.hidden_size};
  const Result<TensorView> head = source->tensor(name, shape);
  ASSERT_TRUE(head) << head.error().message;
  ASSERT_EQ(head->type, device::DataType::kBFloat16);
  scheduler::EngineOptions engine;
  engine.kv_cache_bytes = std::int64_t{16} << 20;
  tests::GroupHarness group({.world_size = 1, .config = config_, .make_weights = [this] { return open_weights(); }, .engine = engine});
  group.wait_until_running();
  for (std::size_t i = 0; i < golden_.size(); ++i) {
    const GoldenCase& golden = golden_[i];
    const std::size_t generated = i % golden.greedy_tokens.size();
    scheduler::GenerationRequest request{.id = i + 1, .prompt_token_ids = golden.prompt_tokens, .max_tokens = 0, .pooling = scheduler::Pooling::kLast};
    request.prompt_token_ids.insert(request.prompt_token_ids.end(), golden.greedy_tokens.begin(), golden.greedy_tokens.begin() + static_cast<int>(generated));
    ASSERT_TRUE(group.submit(0, request));
    const std::vector<float> embedding = group.wait(request.id).embedding;
    ASSERT_EQ(embedding.size(), static_cast<std::size_t>(config_.hidden_size));
    const std::vector<double>& recorded = golden.top_log_probabilities[generated];
    std::vector<double> products;
    for (const std::int32_t id : golden.top_ids[generated]) {
      double product = 0;
      for (std::size_t k = 0; k < embedding.size(); ++k) {
        BFloat16 weight;
        std::memcpy(&weight.bits, head->data.data() + (static_cast<std::size_t>(id) * embedding.size() + k) * sizeof(weight.bits), sizeof(weight.bits));
        product += static_cast<double>(static_cast<float>(weight)) * static_cast<double>(embedding[k]);
      }
      products.push_back(product);
    }
    const double mean_x = std::accumulate(products.begin(), products.end(), 0.0) / static_cast<double>(products.size());
    const double mean_y = std::accumulate(recorded.begin(), recorded.end(), 0.0) / static_cast<double>(recorded.size());
    double xy = 0;
    double xx = 0;
    for (std::size_t k = 0; k < products.size(); ++k) {
      xy += (products[k] - mean_x) * (recorded[k] - mean_y);
      xx += (products[k] - mean_x) * (products[k] - mean_x);
    }
    EXPECT_GT(xy / xx, 0) << "it is the length of a vector";
    double error = 0;
    for (std::size_t k = 0; k < products.size(); ++k) {
      error += std::abs(mean_y + xy / xx * (products[k] - mean_x) - recorded[k]) / static_cast<double>(products.size());
    }
    EXPECT_LE(error, 2 * golden.reference_mean_abs) << "case " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, Fidelity, ::testing::ValuesIn(models()), [](const auto& each) { return each.param.name; });

}  // namespace
}  // namespace lockstep::model
