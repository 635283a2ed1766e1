// Goal    Rotary embedding, cache store and paged attention are right for any head count and size; a row's result depends on its own sequence up to its own
//         position only, whatever the batch, the chunking and the stale contents of a block's tail.
// Method  A small paged cache with shuffled blocks, filled through the op itself; references in double precision read it; then the same rows in other company.
#include <algorithm>
#include <numeric>

#include <fmt/format.h>

#include "tests/unit/device/ops_fixture.hpp"

namespace lockstep::device {
namespace {

constexpr AttentionShape kShapes[]{
    {.query_heads = 6, .kv_heads = 2, .head_size = 32}, {.query_heads = 3, .kv_heads = 1, .head_size = 20},  {.query_heads = 5, .kv_heads = 5, .head_size = 6},
    {.query_heads = 7, .kv_heads = 7, .head_size = 64}, {.query_heads = 8, .kv_heads = 1, .head_size = 128}, {.query_heads = 2, .kv_heads = 2, .head_size = 2},
    {.query_heads = 4, .kv_heads = 2, .head_size = 18}, {.query_heads = 9, .kv_heads = 3, .head_size = 48},
};
constexpr std::int32_t kSequences = 3;
constexpr std::int32_t kBlocksPerTable = 6;
constexpr std::int32_t kPositions = kBlocksPerTable * kKvBlockTokens;

std::size_t size(std::int64_t count) {
  return static_cast<std::size_t>(count);
}

class Attention : public OpsFixture {
 protected:
  /// A cache whose unused slots hold NaN: a reader of one shows it.
  void make_cache(const AttentionShape& shape) {
    shape_ = shape;
    tables_.resize(size(kSequences * kBlocksPerTable));
    std::iota(tables_.begin(), tables_.end(), 0);
    std::ranges::shuffle(tables_, random_);
    keys_.assign(tables_.size() * size(shape.kv_heads * kKvBlockTokens * shape.head_size), BFloat16(std::nanf("")));
    values_ = keys_;
    cache_ = {.keys = keys_.data(), .values = values_.data(), .block_count = static_cast<std::int32_t>(tables_.size())};
    cos_sin_.resize(size(kPositions * shape.head_size));
    for (std::int64_t p = 0; p < kPositions; ++p) {
      for (std::int64_t i = 0; i < shape.head_size / 2; ++i) {
        const double angle = static_cast<double>(p) / std::pow(10000.0, 2.0 * static_cast<double>(i) / shape.head_size);
        cos_sin_[size(p * shape.head_size + i)] = static_cast<float>(std::cos(angle));
        cos_sin_[size(p * shape.head_size + shape.head_size / 2 + i)] = static_cast<float>(std::sin(angle));
      }
    }
    q_norm_ = random_floats(size(shape.head_size));
    k_norm_ = random_floats(size(shape.head_size));
  }
  [[nodiscard]] std::int64_t row_size() const { return std::int64_t{shape_.query_heads + 2 * shape_.kv_heads} * shape_.head_size; }
  [[nodiscard]] std::int64_t q_size() const { return std::int64_t{shape_.query_heads} * shape_.head_size; }
  [[nodiscard]] PagedRows paged(std::span<const std::int32_t> positions, std::span<const std::int32_t> sequences) const {
    return {.positions = positions, .sequences = sequences, .block_tables = tables_, .blocks_per_table = kBlocksPerTable};
  }
  /// Where dimension `i` of a token's key is: keys lie dimension by dimension in pairs, each for all tokens of a block.
  [[nodiscard]] std::size_t key_at(std::int32_t sequence, std::int32_t position, std::int64_t head, std::size_t i) const {
    const std::int64_t block = tables_[size(sequence * kBlocksPerTable + position / kKvBlockTokens)];
    const std::size_t begin = size((block * shape_.kv_heads + head) * kKvBlockTokens * shape_.head_size);
    return begin + (i / 2 * kKvBlockTokens + size(position % kKvBlockTokens)) * 2 + i % 2;
  }
  /// Where a token's value begins.
  [[nodiscard]] std::size_t slot(std::int32_t sequence, std::int32_t position, std::int64_t head) const {
    const std::int64_t block = tables_[size(sequence * kBlocksPerTable + position / kKvBlockTokens)];
    return size(((block * shape_.kv_heads + head) * kKvBlockTokens + position % kKvBlockTokens) * shape_.head_size);
  }
  std::vector<float> store(const PagedRows& rows, std::span<const float> qkv, bool norm = true) {
    std::vector<float> q(size(rows.rows() * q_size()), std::nanf(""));
    ops_->qk_norm_rope_store(*stream_, shape_, rows, qkv.data(), norm ? q_norm_.data() : nullptr, norm ? k_norm_.data() : nullptr, cos_sin_.data(), cache_,
                             q.data());
    return q;
  }
  std::vector<BFloat16> attend(const PagedRows& rows, std::span<const float> q) {
    std::vector<BFloat16> out(size(rows.rows() * q_size()), BFloat16(std::nanf("")));
    ops_->paged_attention(*stream_, shape_, rows, q.data(), cache_, out.data());
    return out;
  }
  /// Fills each sequence's positions [0, count).
  void fill(std::int32_t count) {
    for (std::int32_t s = 0; s < kSequences; ++s) {
      std::vector<std::int32_t> positions(size(count));
      std::iota(positions.begin(), positions.end(), 0);
      (void)store(paged(positions, std::vector<std::int32_t>(positions.size(), s)), random_floats(size(count * row_size())));
    }
  }

  AttentionShape shape_;
  std::vector<std::int32_t> tables_;
  std::vector<BFloat16> keys_;
  std::vector<BFloat16> values_;
  KvCacheLayer cache_;
  std::vector<float> cos_sin_;
  std::vector<float> q_norm_;
  std::vector<float> k_norm_;
};

/// One head normalized (`norm` empty: not) and rotated, in double precision.
std::vector<double> reference_head(std::span<const float> head, std::span<const float> norm, std::span<const float> cos_sin, double epsilon) {
  const std::size_t half = head.size() / 2;
  double squares = 0;
  for (const float value : head) {
    squares += static_cast<double>(value) * value;
  }
  std::vector<double> normed(head.begin(), head.end());
  for (std::size_t i = 0; i < head.size() && !norm.empty(); ++i) {
    normed[i] *= norm[i] / std::sqrt(squares / static_cast<double>(head.size()) + epsilon);
  }
  std::vector<double> rotated(head.size());
  for (std::size_t i = 0; i < half; ++i) {
    rotated[i] = normed[i] * cos_sin[i] - normed[half + i] * cos_sin[half + i];
    rotated[half + i] = normed[half + i] * cos_sin[i] + normed[i] * cos_sin[half + i];
  }
  return rotated;
}

TEST_F(Attention, NormsRotatesAndStoresEachHeadInItsSlot) {
  for (const AttentionShape& shape : kShapes) {
    for (const bool norm : {true, false}) {
      make_cache(shape);
      const std::vector<std::int32_t> positions{0, 17, 5, kPositions - 1};
      const std::vector<std::int32_t> sequences{0, 1, 2, 1};
      const auto qkv = random_floats(positions.size() * size(row_size()));
      const auto q = store(paged(positions, sequences), qkv, norm);
      const auto head_size = size(shape.head_size);
      for (std::size_t r = 0; r < positions.size(); ++r) {
        const auto table = std::span<const float>(cos_sin_).subspan(size(positions[r]) * head_size, head_size);
        for (std::int64_t h = 0; h < shape.query_heads + 2 * shape.kv_heads; ++h) {
          const auto head = std::span<const float>(qkv).subspan(r * size(row_size()) + size(h) * head_size, head_size);
          const std::int64_t kv_head = (h - shape.query_heads) % shape.kv_heads;
          const bool is_query = h < shape.query_heads;
          const bool is_value = h >= shape.query_heads + shape.kv_heads;
          const auto& weights = is_query ? q_norm_ : k_norm_;
          const auto expected = reference_head(head, norm ? std::span<const float>(weights) : std::span<const float>(), table, shape.rms_norm_epsilon);
          for (std::size_t i = 0; i < head_size; ++i) {
            if (is_query) {
              ASSERT_NEAR(q[r * size(q_size()) + size(h) * head_size + i], expected[i], 1e-5);
            } else if (is_value) {
              ASSERT_EQ(values_[slot(sequences[r], positions[r], kv_head) + i].bits, BFloat16(head[i]).bits);
            } else {
              ASSERT_NEAR(static_cast<float>(keys_[key_at(sequences[r], positions[r], kv_head, i)]), expected[i],
                          std::abs(expected[i]) * kBFloat16Error + 1e-5);
            }
          }
        }
      }
      // Nothing but the slots of these rows was written.
      const auto written = std::ranges::count_if(keys_, [](BFloat16 key) { return !std::isnan(static_cast<float>(key)); });
      EXPECT_EQ(written, static_cast<std::ptrdiff_t>(positions.size()) * shape.kv_heads * shape.head_size);
    }
  }
}

TEST_F(Attention, IsTheSoftmaxWeightedMeanOfTheValuesUpToTheRow) {
  for (const AttentionShape& shape : kShapes) {
    make_cache(shape);
    fill(kPositions);
    const std::vector<std::int32_t> positions{0, 15, 16, 40, kPositions - 1, 33, 1};
    const std::vector<std::int32_t> sequences{0, 0, 0, 1, 1, 2, 2};
    const auto q = random_floats(positions.size() * size(q_size()), 2.0F);
    const auto out = attend(paged(positions, sequences), q);
    const auto head_size = size(shape.head_size);
    for (std::size_t r = 0; r < positions.size(); ++r) {
      for (std::int64_t h = 0; h < shape.query_heads; ++h) {
        const std::int64_t kv_head = h / (shape.query_heads / shape.kv_heads);
        const float* query = &q[r * size(q_size()) + size(h) * head_size];
        std::vector<double> sums(head_size);
        double total = 0;
        for (std::int32_t p = 0; p <= positions[r]; ++p) {
          double score = 0;
          for (std::size_t i = 0; i < head_size; ++i) {
            score += static_cast<double>(query[i]) * static_cast<float>(keys_[key_at(sequences[r], p, kv_head, i)]);
          }
          const double weight = std::exp(score / std::sqrt(static_cast<double>(head_size)));
          total += weight;
          for (std::size_t i = 0; i < head_size; ++i) {
            sums[i] += weight * static_cast<float>(values_[slot(sequences[r], p, kv_head) + i]);
          }
        }
        for (std::size_t i = 0; i < head_size; ++i) {
          const double expected = sums[i] / total;
          ASSERT_NEAR(static_cast<float>(out[r * size(q_size()) + size(h) * head_size + i]), expected, std::abs(expected) * kBFloat16Error + 1e-5)
              << "row " << r << " head " << h << " of size " << head_size;
        }
      }
    }
  }
}

TEST_F(Attention, ARowIsTheSameBitsAloneInABatchAndAtAnotherPlace) {
  for (const AttentionShape& shape : kShapes) {
    make_cache(shape);
    fill(kPositions);
    // A prompt's rows, longer than rows are worked on together, then rows of others, some of one sequence in two places.
    std::vector<std::int32_t> positions(40);
    std::iota(positions.begin(), positions.end(), 20);
    std::vector<std::int32_t> sequences(positions.size(), 1);
    positions.insert(positions.end(), {90, 3, 59, 3});
    sequences.insert(sequences.end(), {0, 2, 1, 2});
    const auto q = random_floats(positions.size() * size(q_size()), 2.0F);
    const auto all = attend(paged(positions, sequences), q);
    const PagedRows rows = paged(positions, sequences);
    for (const auto& [begin, end] : {std::pair<std::size_t, std::size_t>{0, 1}, {17, 18}, {5, 25}, {39, 44}, {41, 42}, {1, 44}}) {
      const auto some = attend(rows.slice(begin, end), std::span(q).subspan(begin * size(q_size())));
      ASSERT_TRUE(same_bits(std::span<const BFloat16>(some), std::span<const BFloat16>(all).subspan(begin * size(q_size()), some.size())))
          << "rows " << begin << " to " << end << ", head size " << shape.head_size;
    }
  }
}

TEST_F(Attention, TokensAfterTheRowAreNotRead) {
  for (const AttentionShape& shape : kShapes) {
    make_cache(shape);
    fill(kPositions);
    const std::vector<std::int32_t> positions{37, 37, 38};
    const std::vector<std::int32_t> sequences{0, 1, 1};
    const auto q = random_floats(positions.size() * size(q_size()));
    const auto before = attend(paged(positions, sequences), q);
    // What an earlier owner of the block may have left: infinities and NaNs. The third row's token stays.
    for (std::int32_t s = 0; s < 2; ++s) {
      for (std::int32_t p = s == 0 ? 38 : 39; p < kPositions; ++p) {
        for (std::int64_t h = 0; h < shape.kv_heads; ++h) {
          for (std::size_t i = 0; i < size(shape.head_size); ++i) {
            keys_[key_at(s, p, h, i)] = BFloat16(p % 2 == 0 ? INFINITY : std::nanf(""));
          }
          std::fill_n(&values_[slot(s, p, h)], shape.head_size, BFloat16(p % 2 == 0 ? std::nanf("") : -INFINITY));
        }
      }
    }
    EXPECT_TRUE(same_bits(before, attend(paged(positions, sequences), q)));
  }
}

TEST_F(Attention, ScoresOfAnySizeGiveFiniteResults) {
  make_cache(kShapes[0]);
  fill(kPositions);
  const std::vector<std::int32_t> positions{50};
  const std::vector<std::int32_t> sequences{0};
  for (const float scale : {0.0F, 1e-20F, 1e4F}) {
    for (const BFloat16 value : attend(paged(positions, sequences), random_floats(size(q_size()), std::max(scale, 1e-30F)))) {
      EXPECT_TRUE(std::isfinite(static_cast<float>(value)));
    }
  }
}

}  // namespace
}  // namespace lockstep::device
