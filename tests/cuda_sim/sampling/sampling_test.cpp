// Goal    A device chooses the very tokens that the CPU's sampler chooses: whatever the row holds, whatever the request asks for, in any order of threads.
// Method  Random rows and settings, drawn towards what is hard (ties, infinities, NaN, cuts at their ends, extremes of range), through both.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <optional>
#include <random>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "lockstep/core/check.hpp"
#include "lockstep/model/sampler.hpp"
#include "lockstep/model/token_choice_list.hpp"
#include "tests/support/test_device.hpp"

namespace lockstep::tests {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kMost = std::numeric_limits<float>::max();

/// One row and its request, with what the request points at.
struct Case {
  std::vector<float> logits;
  std::optional<model::TokenCounts> counts{};
  std::vector<model::LogitBias> bias{};
  std::vector<std::int32_t> forbidden{};
  model::SamplerInput settings{};

  [[nodiscard]] model::SamplerInput input() const {
    model::SamplerInput all = settings;
    all.counts = counts ? &*counts : nullptr;
    all.logit_bias = bias;
    all.forbidden = forbidden;
    all.wants_log_probability = false;
    return all;
  }
};

std::string describe(const Case& one) {
  const model::SamplerInput& input = one.settings;
  return fmt::format("{} tokens, temperature {}, top_k {}, top_p {}, min_p {}, penalties {} {} {} of {} tokens, {} biases, {} forbidden, seed {}, position {}",
                     one.logits.size(), input.temperature, input.top_k, input.top_p, input.min_p, input.repetition_penalty, input.presence_penalty,
                     input.frequency_penalty, one.counts ? one.counts->entries().size() : 0, one.bias.size(), one.forbidden.size(), input.seed, input.position);
}

class RandomCases {
 public:
  explicit RandomCases(std::uint32_t seed) : random_(seed) {}

  Case next(std::int32_t vocabulary) {
    vocabulary_ = vocabulary;
    Case one;
    one.logits = logits();
    if (chance(3)) {
      one.counts.emplace(tokens(1 + below(60)), 64, vocabulary);
      for (std::uint32_t i = below(60); i > 0; --i) {
        one.counts->add_output(token());
      }
      one.settings.repetition_penalty = chance(2) ? number(0.01F, 10) : 1.0F;
      one.settings.presence_penalty = chance(2) ? number(-2, 2) : 0.0F;
      one.settings.frequency_penalty = chance(2) ? number(-2, 2) : 0.0F;
    }
    if (chance(4)) {
      for (std::uint32_t i = 1 + below(40); i > 0; --i) {
        one.bias.push_back({token(), number(-100, 100)});  // a token may come twice
      }
    }
    if (chance(5)) {
      one.forbidden = tokens(1 + below(4));
    }
    one.settings.temperature = pick({0.0F, 0.001F, 2.0F, 1.0F, number(0.05F, 2), number(0.05F, 2), number(0.05F, 2)});
    one.settings.top_k = chance(2) ? pick({1, 2, 5, 40, vocabulary / 2, vocabulary - 1, vocabulary, vocabulary + 3}) : 0;
    one.settings.top_p = chance(2) ? pick({1e-6F, 0.5F, 0.9F, 0.999F, 0.99999994F, number(0.01F, 1), number(0.01F, 1)}) : 1.0F;
    one.settings.min_p = chance(3) ? pick({1e-9F, 0.05F, 0.5F, 1.0F, number(0, 0.5F)}) : 0.0F;
    one.settings.seed = (std::uint64_t{random_()} << 32U) | random_();
    one.settings.position = static_cast<std::int64_t>(below(5000));
    return one;
  }

 private:
  std::vector<float> logits() {
    const float scale = pick({0.0F, 1e-3F, 1.0F, 3.0F, 8.0F, 40.0F, 1e30F});
    std::normal_distribution<float> normal(number(-5, 5), scale + 1e-30F);
    const bool has_ties = chance(3);
    const std::uint32_t oddities = pick({0U, 0U, 0U, 3U, 50U});  // one in so many
    std::vector<float> row(static_cast<std::size_t>(vocabulary_));
    for (float& logit : row) {
      logit = normal(random_);
      logit = has_ties ? std::round(logit) : logit;
      if (oddities > 0 && chance(oddities)) {
        logit = pick({-kInfinity, -kInfinity, kNan, 0.0F, -0.0F, -kMost, 1e-42F, scale > 1 ? kMost : 0.0F});
      }
    }
    if (chance(40)) {
      row[static_cast<std::size_t>(token())] = kInfinity;
    }
    if (chance(60)) {
      std::ranges::fill(row, pick({-kInfinity, kNan, -kMost, 2.5F}));
    }
    return row;
  }
  std::uint32_t below(std::uint32_t limit) { return static_cast<std::uint32_t>(random_() % limit); }
  bool chance(std::uint32_t one_in) { return below(one_in) == 0; }
  float number(float low, float high) { return std::uniform_real_distribution<float>(low, high)(random_); }
  template <typename T>
  T pick(std::initializer_list<T> values) {
    return std::data(values)[below(static_cast<std::uint32_t>(values.size()))];
  }
  std::int32_t token() { return static_cast<std::int32_t>(below(static_cast<std::uint32_t>(vocabulary_))); }
  std::vector<std::int32_t> tokens(std::uint32_t count) {
    std::vector<std::int32_t> made(count);
    std::ranges::generate(made, [this] { return token(); });
    return made;
  }

  std::mt19937 random_;
  std::int32_t vocabulary_ = 1;
};

class Sampling : public ::testing::Test {
 protected:
  void SetUp() override {
    device_ = make_test_device(test_device_name(), 0);
    Result<std::unique_ptr<device::Ops>> ops = device_->make_ops();
    Result<std::unique_ptr<device::Stream>> stream = device_->make_stream("sampling");
    ASSERT_TRUE(ops && stream);
    ops_ = std::move(*ops);
    stream_ = std::move(*stream);
    ASSERT_NE(ops_->token_sampler(), nullptr) << "this device's host samples: set LOCKSTEP_TEST_DEVICE";
  }

  /// The device's tokens, of cases of one vocabulary; their rows lie in the opposite order.
  std::vector<std::int32_t> tokens_of(const std::vector<Case>& cases) {
    const std::size_t vocabulary = cases.front().logits.size();
    const auto count = static_cast<std::int32_t>(cases.size());
    model::TokenChoiceList list(count, std::size_t{1} << 16U);
    std::vector<float> rows(cases.size() * vocabulary);
    for (std::int32_t i = 0; i < count; ++i) {
      const Case& one = cases[static_cast<std::size_t>(i)];
      const std::int32_t row = count - 1 - i;
      std::ranges::copy(one.logits, rows.begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(row) * vocabulary));
      LOCKSTEP_CHECK(list.add(one.input(), row), "no room for case {}", i);
    }
    const device::Buffer logits = on_device(std::as_bytes(std::span(rows)));
    const device::Buffer choices = on_device(std::as_bytes(list.choices()));
    const device::Buffer changes = on_device(std::as_bytes(list.changes()));
    const std::size_t bytes = cases.size() * sizeof(std::int32_t);
    const device::Buffer tokens = taken(device_->allocate(bytes));
    const device::Buffer found = taken(device_->allocate_host(bytes));
    run([&] {
      ops_->token_sampler()->sample(*stream_,
                                    {.logits = logits.as<float>(),
                                     .vocabulary = static_cast<std::int64_t>(vocabulary),
                                     .choices = choices.as<device::TokenChoice>(),
                                     .count = count,
                                     .changes = changes.as<device::LogitChange>()},
                                    tokens.as<std::int32_t>());
      ops_->download(*stream_, tokens.as<std::int32_t>(), bytes, found.as<std::int32_t>());
    });
    return {found.as<std::int32_t>(), found.as<std::int32_t>() + count};
  }

  void expect_the_cpus_tokens(const std::vector<Case>& cases) {
    const std::vector<std::int32_t> found = tokens_of(cases);
    for (std::size_t i = 0; i < cases.size(); ++i) {
      const model::SampledToken expected = sampler_.sample(cases[i].logits, cases[i].input());
      ASSERT_EQ(found[i], expected.valid ? expected.id : device::kNoToken) << "case " << i << ": " << describe(cases[i]);
      valid_ += expected.valid ? 1 : 0;
      drawn_ += expected.valid && cases[i].settings.temperature > 0.0F ? 1 : 0;
    }
  }

  int valid_ = 0;
  int drawn_ = 0;

 private:
  static device::Buffer taken(Result<device::Buffer> buffer) {
    LOCKSTEP_CHECK(buffer.has_value(), "allocate: {}", buffer.error().message);
    return std::move(*buffer);
  }
  void run(const std::function<void()>& body) {
    stream_->enqueue([&body]() -> Status {
      body();
      return {};
    });
    const Status done = stream_->synchronize(Deadline::after(std::chrono::seconds(60)));
    LOCKSTEP_CHECK(done.has_value(), "sample: {}", done.error().message);
  }
  device::Buffer on_device(std::span<const std::byte> bytes) {
    device::Buffer pass = taken(device_->allocate_host(std::max<std::size_t>(bytes.size(), 1)));
    std::ranges::copy(bytes, pass.as<std::byte>());
    device::Buffer buffer = taken(device_->allocate(std::max<std::size_t>(bytes.size(), 1)));
    run([&] { ops_->upload(*stream_, pass.as<std::byte>(), bytes.size(), buffer.as<std::byte>()); });
    return buffer;
  }

  std::unique_ptr<device::Device> device_;
  std::unique_ptr<device::Ops> ops_;
  std::unique_ptr<device::Stream> stream_;
  model::Sampler sampler_;
};

TEST_F(Sampling, ADeviceChoosesTheCpusTokens) {
  RandomCases random(7);
  for (const std::int32_t vocabulary : {1, 2, 3, 31, 32, 33, 200, 255, 256, 257, 1000, 1000, 1000, 1024, 2049, 3000}) {
    for (int round = 0; round < 3; ++round) {
      std::vector<Case> cases;
      for (int row = 0; row < 64; ++row) {
        cases.push_back(random.next(vocabulary));
      }
      expect_the_cpus_tokens(cases);
    }
  }
  EXPECT_GT(valid_, 2500) << "most rows are distributions";
  EXPECT_GT(drawn_, 1800) << "and most tokens are drawn";
}

TEST_F(Sampling, ADeviceChoosesTheCpusTokensOfALargeVocabulary) {
  RandomCases random(8);
  for (const std::int32_t vocabulary : {16'384, 32'000, 151'936, 151'936, 262'144}) {
    std::vector<Case> cases;
    for (int row = 0; row < 16; ++row) {
      cases.push_back(random.next(vocabulary));
    }
    expect_the_cpus_tokens(cases);
  }
}

/// Thousands of weights of the same order: where sums of them differed in their last bits, some of these draws would give a neighbour.
TEST_F(Sampling, DrawsAtTheBordersOfTokensAreTheCpus) {
  std::vector<float> flat(3000);
  for (std::size_t id = 0; id < flat.size(); ++id) {
    flat[id] = std::sin(static_cast<float>(id)) * 2.0F;
  }
  std::vector<Case> cases;
  for (std::uint64_t seed = 0; seed < 500; ++seed) {
    Case one;
    one.logits = flat;
    one.settings.seed = seed;
    one.settings.top_p = seed % 3 == 1 ? 0.95F : 1.0F;
    one.settings.top_k = seed % 3 == 2 ? 2500 : 0;
    cases.push_back(one);
  }
  expect_the_cpus_tokens(cases);
}

}  // namespace
}  // namespace lockstep::tests
