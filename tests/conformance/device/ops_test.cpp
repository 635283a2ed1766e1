// Goal    The ops of every device compute what the host's compute, and a row's result is the same bits whatever rows are beside it.
// Method  Seeded data through the device under test and through "cpu"; then rows alone. What the host's own ops owe, tests/unit/device shows against references
// in
//         double precision.
#include "lockstep/device/ops.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "tests/conformance/device/device_fixture.hpp"

namespace lockstep::device {
namespace {

/// Half a unit in the last of bfloat16's 8 bits, on either side.
constexpr double kBFloat16Error = 1.0 / 128;
constexpr double kFloatError = 1e-4;

class OpsConformance : public DeviceFixture, public ::testing::WithParamInterface<DeviceBackend> {
 protected:
  void SetUp() override {
    open(GetParam());
    auto reference = make_device("cpu", test_device_options());
    ASSERT_TRUE(reference) << reference.error().message;
    host_ = std::move(*reference);
    auto ops = host_->make_ops();
    ASSERT_TRUE(ops) << ops.error().message;
    host_ops_ = std::move(*ops);
    host_stream_ = host_->make_inline_stream("reference");
  }

  std::vector<float> floats(std::size_t count, float scale = 1.0F) {
    std::normal_distribution<float> normal(0.0F, scale);
    std::vector<float> values(count);
    std::ranges::generate(values, [&] { return normal(random_); });
    return values;
  }
  std::vector<BFloat16> halves(std::size_t count, float scale = 1.0F) {
    const std::vector<float> values = floats(count, scale);
    std::vector<BFloat16> rounded;
    std::ranges::transform(values, std::back_inserter(rounded), [](float value) { return BFloat16(value); });
    return rounded;
  }
  std::vector<std::int32_t> indices(std::size_t count, std::int32_t end) {
    std::uniform_int_distribution<std::int32_t> any(0, end - 1);
    std::vector<std::int32_t> values(count);
    std::ranges::generate(values, [&] { return any(random_); });
    return values;
  }

  std::unique_ptr<Device> host_;
  std::unique_ptr<Ops> host_ops_;
  std::unique_ptr<Stream> host_stream_;
  std::mt19937 random_{20251122};
};

void expect_near(const std::vector<float>& values, const std::vector<float>& expected, double error = kFloatError) {
  ASSERT_EQ(values.size(), expected.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    ASSERT_NEAR(values[i], expected[i], error * (1.0 + std::abs(expected[i]))) << "at " << i;
  }
}

std::vector<float> widened(const std::vector<BFloat16>& values) {
  std::vector<float> wide;
  std::ranges::transform(values, std::back_inserter(wide), [](BFloat16 value) { return static_cast<float>(value); });
  return wide;
}

void expect_near(const std::vector<BFloat16>& values, const std::vector<BFloat16>& expected) {
  expect_near(widened(values), widened(expected), kBFloat16Error);
}

template <typename T>
std::vector<T> part(const std::vector<T>& values, std::size_t first, std::size_t count) {
  return {values.begin() + static_cast<std::ptrdiff_t>(first), values.begin() + static_cast<std::ptrdiff_t>(first + count)};
}

template <typename T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

TEST_P(OpsConformance, EmbedAndGatherCopyTheRightRows) {
  for (const std::size_t width : {std::size_t{1}, std::size_t{48}, std::size_t{300}}) {
    const std::vector<BFloat16> table = halves(50 * width);
    const std::vector<float> wide = widened(table);
    const std::vector<std::int32_t> rows = indices(7, 50);
    const Buffer on_device = upload(table);
    const Buffer wide_on_device = upload(wide);
    const Buffer embedded = allocate(rows.size() * width * sizeof(float));
    const Buffer gathered = allocate(rows.size() * width * sizeof(BFloat16));
    const Buffer gathered_wide = allocate(rows.size() * width * sizeof(float));
    run([&] {
      const auto columns = static_cast<std::int64_t>(width);
      ops_->embed(*stream_, rows, on_device.as<BFloat16>(), columns, embedded.as<float>());
      ops_->gather_rows(*stream_, on_device.as<BFloat16>(), rows, columns, gathered.as<BFloat16>());
      ops_->gather_rows(*stream_, wide_on_device.as<float>(), rows, columns, gathered_wide.as<float>());
      ops_->embed(*stream_, {}, on_device.as<BFloat16>(), columns, embedded.as<float>());  // no rows: nothing happens
    });
    std::vector<float> expected;
    for (const std::int32_t row : rows) {
      const auto values = part(wide, static_cast<std::size_t>(row) * width, width);
      expected.insert(expected.end(), values.begin(), values.end());
    }
    EXPECT_EQ(download<float>(embedded, expected.size()), expected);
    EXPECT_EQ(widened(download<BFloat16>(gathered, expected.size())), expected);
    EXPECT_EQ(download<float>(gathered_wide, expected.size()), expected);
  }
}

TEST_P(OpsConformance, RmsNormIsTheHostsAndARowIsTheSameAlone) {
  for (const std::int64_t hidden : {1, 64, 130, 768}) {
    constexpr std::int64_t kRows = 5;
    const std::vector<float> x = floats(static_cast<std::size_t>(kRows * hidden), 3.0F);
    const std::vector<float> weight = floats(static_cast<std::size_t>(hidden));
    const Buffer x_device = upload(x);
    const Buffer weight_device = upload(weight);
    const Buffer out = allocate(x.size() * sizeof(BFloat16));
    const Buffer alone = allocate(static_cast<std::size_t>(hidden) * sizeof(BFloat16));
    run([&] {
      ops_->rms_norm(*stream_, x_device.as<float>(), weight_device.as<float>(), 1e-6F, kRows, hidden, out.as<BFloat16>());
      ops_->rms_norm(*stream_, x_device.as<float>() + 3 * hidden, weight_device.as<float>(), 1e-6F, 1, hidden, alone.as<BFloat16>());
    });
    std::vector<BFloat16> expected(x.size());
    host_ops_->rms_norm(*host_stream_, x.data(), weight.data(), 1e-6F, kRows, hidden, expected.data());
    const std::vector<BFloat16> all = download<BFloat16>(out, x.size());
    expect_near(all, expected);
    const auto columns = static_cast<std::size_t>(hidden);
    EXPECT_TRUE(same_bits(download<BFloat16>(alone, columns), part(all, 3 * columns, columns)));
  }
}

TEST_P(OpsConformance, ElementsAreAddedRoundedAndActivatedAsOnTheHost) {
  constexpr std::int64_t kRows = 3;
  for (const std::int64_t width : {1, 77, 512}) {
    const auto count = static_cast<std::size_t>(kRows * width);
    const std::vector<float> gate_up = floats(2 * count, 4.0F);
    const Buffer gate_up_device = upload(gate_up);
    const Buffer activated = allocate(count * sizeof(BFloat16));
    const Buffer rounded = allocate(count * sizeof(BFloat16));
    const Buffer sum = upload(part(gate_up, 0, count));
    run([&] {
      ops_->silu_mul(*stream_, gate_up_device.as<float>(), kRows, width, activated.as<BFloat16>());
      ops_->to_bfloat16(*stream_, gate_up_device.as<float>(), kRows * width, rounded.as<BFloat16>());
      ops_->add(*stream_, gate_up_device.as<float>() + count, kRows * width, sum.as<float>());
    });
    std::vector<BFloat16> expected(count);
    host_ops_->silu_mul(*host_stream_, gate_up.data(), kRows, width, expected.data());
    expect_near(download<BFloat16>(activated, count), expected);
    host_ops_->to_bfloat16(*host_stream_, gate_up.data(), kRows * width, expected.data());
    EXPECT_TRUE(same_bits(download<BFloat16>(rounded, count), expected));
    std::vector<float> expected_sum = part(gate_up, 0, count);
    host_ops_->add(*host_stream_, gate_up.data() + count, kRows * width, expected_sum.data());
    EXPECT_EQ(download<float>(sum, count), expected_sum);
  }
}

TEST_P(OpsConformance, RoundingKeepsInfinitiesNotANumberAndTies) {
  const std::vector<float> odd{0.0F, -0.0F, INFINITY, -INFINITY, std::nanf(""), 3.4e38F, 1.00390625F, 1.01171875F, 1e-40F};
  const Buffer x = upload(odd);
  const Buffer out = allocate(odd.size() * sizeof(BFloat16));
  run([&] { ops_->to_bfloat16(*stream_, x.as<float>(), static_cast<std::int64_t>(odd.size()), out.as<BFloat16>()); });
  const std::vector<BFloat16> rounded = download<BFloat16>(out, odd.size());
  for (std::size_t i = 0; i < odd.size(); ++i) {
    EXPECT_EQ(rounded[i].bits, BFloat16(odd[i]).bits) << odd[i];
  }
}

TEST_P(OpsConformance, RoutingChoosesTheHostsExpertsAndWeights) {
  for (const bool normalize : {true, false}) {
    for (const auto& [experts, top_k] : {std::pair{8, 2}, {7, 3}, {128, 8}, {1, 1}, {5, 5}, {33, 4}, {300, 32}}) {
      constexpr std::int64_t kRows = 6;
      std::vector<float> logits = floats(static_cast<std::size_t>(kRows * experts), 3.0F);
      std::ranges::fill(logits.begin(), logits.begin() + experts, 1.5F);  // the first row is all ties
      const Router router{.expert_count = experts, .top_k = top_k, .normalize_top_k = normalize};
      const auto chosen = static_cast<std::size_t>(kRows * top_k);
      const Buffer logits_device = upload(logits);
      const Buffer ids = allocate(chosen * sizeof(std::int32_t));
      const Buffer weights = allocate(chosen * sizeof(float));
      run([&] { ops_->route(*stream_, router, logits_device.as<float>(), kRows, ids.as<std::int32_t>(), weights.as<float>()); });
      std::vector<std::int32_t> expected_ids(chosen);
      std::vector<float> expected_weights(chosen);
      host_ops_->route(*host_stream_, router, logits.data(), kRows, expected_ids.data(), expected_weights.data());
      EXPECT_EQ(download<std::int32_t>(ids, chosen), expected_ids) << experts << " experts, top " << top_k;
      expect_near(download<float>(weights, chosen), expected_weights);
    }
  }
}

TEST_P(OpsConformance, WeighAndSumAddsInExpertOrder) {
  constexpr std::int64_t kRows = 4;
  constexpr int kTopK = 3;
  for (const std::int64_t hidden : {1, 100, 640}) {
    const auto count = static_cast<std::size_t>(kRows * hidden);
    const std::vector<BFloat16> expert_rows = halves(count * kTopK);
    const std::vector<float> weights = floats(kRows * kTopK);
    const std::vector<float> before = floats(count);
    const Buffer rows_device = upload(expert_rows);
    const Buffer weights_device = upload(weights);
    const Buffer out = upload(before);
    run([&] { ops_->weigh_and_sum(*stream_, rows_device.as<BFloat16>(), weights_device.as<float>(), kRows, kTopK, hidden, out.as<float>()); });
    std::vector<float> expected = before;
    host_ops_->weigh_and_sum(*host_stream_, expert_rows.data(), weights.data(), kRows, kTopK, hidden, expected.data());
    expect_near(download<float>(out, count), expected);
  }
}

TEST_P(OpsConformance, MatmulIsTheHostsAndARowIsTheSameAlone) {
  for (const auto& shape : {std::pair<std::int64_t, std::int64_t>{64, 64}, {1, 1}, {33, 7}, {100, 50}}) {
    const std::int64_t inputs = shape.first;
    const std::int64_t outputs = shape.second;
    constexpr std::int64_t kRows = 19;
    const std::vector<float> matrix = floats(static_cast<std::size_t>(inputs * outputs), 0.2F);
    const MatrixSource source{.type = DataType::kFloat32, .data = std::as_bytes(std::span(matrix)).data(), .rows = outputs, .columns = inputs};
    const std::vector<BFloat16> x = halves(static_cast<std::size_t>(kRows * inputs));
    auto weight = ops_->pack_weight(source);
    ASSERT_TRUE(weight) << weight.error().message;
    ASSERT_TRUE(ops_->prepare(*weight, kRows));
    EXPECT_EQ((*weight)->output_features(), outputs);
    EXPECT_EQ((*weight)->input_features(), inputs);
    const Buffer x_device = upload(x);
    const auto count = static_cast<std::size_t>(kRows * outputs);
    const Buffer out = allocate(count * sizeof(float));
    const Buffer alone = allocate(static_cast<std::size_t>(outputs) * sizeof(float));
    run([&] {
      ops_->matmul(*stream_, x_device.as<BFloat16>(), *weight, kRows, out.as<float>());
      ops_->matmul(*stream_, x_device.as<BFloat16>() + 17 * inputs, *weight, 1, alone.as<float>());
      ops_->matmul(*stream_, x_device.as<BFloat16>(), *weight, 0, out.as<float>());
    });
    auto host_weight = host_ops_->pack_weight(source);
    ASSERT_TRUE(host_weight && host_ops_->prepare(*host_weight, kRows));
    std::vector<float> expected(count);
    host_ops_->matmul(*host_stream_, x.data(), *host_weight, kRows, expected.data());
    const std::vector<float> all = download<float>(out, count);
    expect_near(all, expected, 2e-3);  // the host may keep the weights in float32
    const auto columns = static_cast<std::size_t>(outputs);
    EXPECT_TRUE(same_bits(download<float>(alone, columns), part(all, 17 * columns, columns)));
  }
}

TEST_P(OpsConformance, GroupedMatmulIsTheMatmulOfEachGroup) {
  constexpr std::int64_t kInputs = 40;
  constexpr std::int64_t kOutputs = 24;
  const std::vector<std::int32_t> offsets{0, 3, 3, 20, 21};
  const auto rows = static_cast<std::size_t>(offsets.back());
  const Buffer x = upload(halves(rows * kInputs));
  std::vector<WeightHandle> weights;
  for (std::size_t g = 0; g + 1 < offsets.size(); ++g) {
    const std::vector<BFloat16> matrix = halves(kInputs * kOutputs, 0.2F);
    auto weight = ops_->pack_weight({.type = DataType::kBFloat16, .data = std::as_bytes(std::span(matrix)).data(), .rows = kOutputs, .columns = kInputs});
    ASSERT_TRUE(weight && ops_->prepare(*weight, 32)) << "group " << g;
    weights.push_back(*weight);
  }
  const Buffer together = allocate(rows * kOutputs * sizeof(float));
  const Buffer one_by_one = allocate(rows * kOutputs * sizeof(float));
  run([&] {
    ops_->grouped_matmul(*stream_, x.as<BFloat16>(), {.offsets = offsets, .weights = weights}, together.as<float>());
    for (std::size_t g = 0; g < weights.size(); ++g) {
      ops_->matmul(*stream_, x.as<BFloat16>() + offsets[g] * kInputs, weights[g], offsets[g + 1] - offsets[g], one_by_one.as<float>() + offsets[g] * kOutputs);
    }
  });
  // Not the same bits: a device may compute groups by another kernel. But a row's are its own, whatever groups there are.
  expect_near(download<float>(together, rows * kOutputs), download<float>(one_by_one, rows * kOutputs));
  const std::vector<std::int32_t> alone_offsets{0, 1};
  const Buffer alone = allocate(kOutputs * sizeof(float));
  run([&] {
    ops_->grouped_matmul(*stream_, x.as<BFloat16>() + 19 * kInputs, {.offsets = alone_offsets, .weights = std::span(weights).subspan(2, 1)}, alone.as<float>());
  });
  EXPECT_TRUE(same_bits(download<float>(alone, kOutputs), part(download<float>(together, rows * kOutputs), 19 * kOutputs, kOutputs)));
}

TEST_P(OpsConformance, GroupedMatmulIsTheHostsAndARowIsTheSameInEveryGroup) {
  // Few rows and many a group, which a device may cut differently; inputs with and without a tail, and rows that are not aligned.
  const std::vector<std::vector<std::int32_t>> groups{{0, 1, 1, 3, 11, 20, 20, 37}, {0, 70, 70, 86, 87}};
  for (const auto& shape : {std::pair<std::int64_t, std::int64_t>{128, 72}, {72, 136}, {33, 7}}) {
    const auto [inputs, outputs] = shape;
    for (const std::vector<std::int32_t>& offsets : groups) {
      const std::int64_t rows = offsets.back();
      const std::vector<BFloat16> matrix = halves(static_cast<std::size_t>(inputs * outputs), 0.2F);
      const MatrixSource source{.type = DataType::kBFloat16, .data = std::as_bytes(std::span(matrix)).data(), .rows = outputs, .columns = inputs};
      auto weight = ops_->pack_weight(source);
      auto host_weight = host_ops_->pack_weight(source);
      ASSERT_TRUE(weight && ops_->prepare(*weight, rows) && host_weight && host_ops_->prepare(*host_weight, rows));
      const std::vector<WeightHandle> weights(offsets.size() - 1, *weight);
      const std::vector<WeightHandle> host_weights(offsets.size() - 1, *host_weight);
      // The same row again and again, so each place in each group has to give the same.
      const std::vector<BFloat16> row = halves(static_cast<std::size_t>(inputs));
      std::vector<BFloat16> x;
      for (std::int64_t r = 0; r < rows; ++r) {
        x.insert(x.end(), row.begin(), row.end());
      }
      const Buffer x_device = upload(x);
      const auto columns = static_cast<std::size_t>(outputs);
      const Buffer out = allocate(static_cast<std::size_t>(rows) * columns * sizeof(float));
      run([&] { ops_->grouped_matmul(*stream_, x_device.as<BFloat16>(), {.offsets = offsets, .weights = weights}, out.as<float>()); });
      const std::vector<float> all = download<float>(out, static_cast<std::size_t>(rows) * columns);
      std::vector<float> expected(all.size());
      host_ops_->grouped_matmul(*host_stream_, x.data(), {.offsets = offsets, .weights = host_weights}, expected.data());
      expect_near(all, expected, 2e-3);  // the host may keep the weights in float32
      for (std::size_t r = 1; r < static_cast<std::size_t>(rows); ++r) {
        EXPECT_TRUE(same_bits(part(all, 0, columns), part(all, r * columns, columns))) << "row " << r << " of " << rows;
      }
    }
  }
}

/// Attention over a cache of shuffled blocks, on one device.
struct Attention {
  AttentionShape shape;
  std::vector<std::int32_t> tables;
  std::vector<float> q_norm;
  std::vector<float> k_norm;
  std::vector<float> cos_sin;
  std::vector<float> qkv;
  std::vector<std::int32_t> positions;
  std::vector<std::int32_t> sequences;

  static constexpr std::int32_t kBlocksPerTable = 3;
  [[nodiscard]] PagedRows rows() const { return {.positions = positions, .sequences = sequences, .block_tables = tables, .blocks_per_table = kBlocksPerTable}; }
  [[nodiscard]] std::size_t cache_count() const { return tables.size() * static_cast<std::size_t>(shape.kv_heads * kKvBlockTokens * shape.head_size); }
  [[nodiscard]] std::size_t query_count() const { return positions.size() * static_cast<std::size_t>(shape.query_heads * shape.head_size); }
};

TEST_P(OpsConformance, AttentionOverTheCacheIsTheHostsAndARowIsTheSameAlone) {
  for (const AttentionShape& shape : {AttentionShape{.query_heads = 6, .kv_heads = 2, .head_size = 32},
                                      {.query_heads = 2, .kv_heads = 2, .head_size = 2},
                                      {.query_heads = 3, .kv_heads = 1, .head_size = 18},
                                      {.query_heads = 2, .kv_heads = 1, .head_size = 160}}) {
    Attention a{.shape = shape};
    a.tables.resize(2 * Attention::kBlocksPerTable);
    std::iota(a.tables.begin(), a.tables.end(), 0);
    std::ranges::shuffle(a.tables, random_);
    const auto head_size = static_cast<std::size_t>(shape.head_size);
    a.q_norm = floats(head_size);
    a.k_norm = floats(head_size);
    a.cos_sin = floats(kKvBlockTokens * Attention::kBlocksPerTable * head_size);
    for (std::int32_t position = 0; position < 40; ++position) {
      a.positions.push_back(position);
      a.sequences.push_back(0);
    }
    a.positions.insert(a.positions.end(), {0, 1});
    a.sequences.insert(a.sequences.end(), {1, 1});
    a.qkv = floats(a.positions.size() * static_cast<std::size_t>(shape.query_heads + 2 * shape.kv_heads) * head_size);

    const Buffer keys = allocate(a.cache_count() * sizeof(BFloat16));
    const Buffer values = allocate(a.cache_count() * sizeof(BFloat16));
    const KvCacheLayer cache{.keys = keys.as<BFloat16>(), .values = values.as<BFloat16>(), .block_count = static_cast<std::int32_t>(a.tables.size())};
    const Buffer q_norm = upload(a.q_norm);
    const Buffer k_norm = upload(a.k_norm);
    const Buffer cos_sin = upload(a.cos_sin);
    const Buffer qkv = upload(a.qkv);
    const Buffer query = allocate(a.query_count() * sizeof(float));
    const Buffer out = allocate(a.query_count() * sizeof(BFloat16));
    const Buffer alone = allocate(a.query_count() * sizeof(BFloat16));
    constexpr std::size_t kRow = 37;
    const std::size_t row_size = static_cast<std::size_t>(shape.query_heads) * head_size;
    run([&] {
      ops_->qk_norm_rope_store(*stream_, shape, a.rows(), qkv.as<float>(), q_norm.as<float>(), k_norm.as<float>(), cos_sin.as<float>(), cache,
                               query.as<float>());
      ops_->paged_attention(*stream_, shape, a.rows(), query.as<float>(), cache, out.as<BFloat16>());
      ops_->paged_attention(*stream_, shape, a.rows().slice(kRow, kRow + 1), query.as<float>() + kRow * row_size, cache, alone.as<BFloat16>());
    });

    std::vector<BFloat16> host_keys(a.cache_count());
    std::vector<BFloat16> host_values(a.cache_count());
    const KvCacheLayer host_cache{.keys = host_keys.data(), .values = host_values.data(), .block_count = cache.block_count};
    std::vector<float> host_query(a.query_count());
    std::vector<BFloat16> expected(a.query_count());
    host_ops_->qk_norm_rope_store(*host_stream_, shape, a.rows(), a.qkv.data(), a.q_norm.data(), a.k_norm.data(), a.cos_sin.data(), host_cache,
                                  host_query.data());
    host_ops_->paged_attention(*host_stream_, shape, a.rows(), host_query.data(), host_cache, expected.data());

    expect_near(download<float>(query, a.query_count()), host_query);
    expect_near(download<BFloat16>(keys, a.cache_count()), host_keys);
    EXPECT_TRUE(same_bits(download<BFloat16>(values, a.cache_count()), host_values));
    const std::vector<BFloat16> all = download<BFloat16>(out, a.query_count());
    expect_near(widened(all), widened(expected), 2 * kBFloat16Error);  // keys may differ in their last bit
    EXPECT_TRUE(same_bits(download<BFloat16>(alone, row_size), part(all, kRow * row_size, row_size)));
  }
}

INSTANTIATE_TEST_SUITE_P(AllBackends, OpsConformance, ::testing::ValuesIn(device_backends().begin(), device_backends().end()),
                         [](const auto& backend) { return std::string(backend.param.name); });

}  // namespace
}  // namespace lockstep::device
