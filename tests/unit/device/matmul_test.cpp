// Goal    Matrix products are right, and each row of a product is the same bits whatever rows are computed with it ("One answer").
// Method  Against products in double precision; and by computing the same rows alone, in batches of many sizes, and at other places.
//         CMake runs this file also with DNNL_MAX_CPU_ISA set, so that each way of multiplying is tested where the machine has it.
#include <array>
#include <thread>

#include <fmt/format.h>

#include "tests/unit/device/allocation_counter.hpp"
#include "tests/unit/device/ops_fixture.hpp"

namespace lockstep::device {
namespace {

struct Shape {
  std::int64_t output;
  std::int64_t input;
};
/// Those of models, and odd ones: a router of 7 experts, sizes that no vector divides, odd inputs, inputs long enough for products to be cut in parts.
constexpr Shape kShapes[]{{320, 192}, {192, 192}, {256, 192}, {192, 128}, {8, 192}, {7, 56},     {72, 40},    {40, 72},    {1, 64},   {17, 33},
                          {65, 130},  {3, 1},     {384, 768}, {64, 64},   {128, 7}, {1024, 384}, {768, 4096}, {130, 4096}, {514, 500}};

class Matmul : public OpsFixture {
 protected:
  WeightHandle pack(std::span<const BFloat16> values, Shape shape) { return pack(DataType::kBFloat16, std::as_bytes(values).data(), shape); }
  WeightHandle pack(DataType type, const std::byte* data, Shape shape) {
    auto packed = ops_->pack_weight({.type = type, .data = data, .rows = shape.output, .columns = shape.input});
    EXPECT_TRUE(packed) << packed.error().message;
    return packed ? *packed : nullptr;
  }
  std::vector<float> multiply(std::span<const BFloat16> x, const WeightHandle& weight, std::int64_t rows) {
    std::vector<float> out(static_cast<std::size_t>(rows * weight->output_features()), std::nanf(""));
    ops_->matmul(*stream_, x.data(), weight, rows, out.data());
    return out;
  }
};

/// The largest error of `out` against a product in double precision, in units of the sum of the products' magnitudes.
double relative_error(std::span<const BFloat16> x, std::span<const float> weight, std::span<const float> out, Shape shape) {
  double largest = 0;
  for (std::size_t i = 0; i < out.size(); ++i) {
    const std::size_t row = i / shape.output;
    const std::size_t column = i % shape.output;
    double sum = 0;
    double magnitude = 0;
    for (std::int64_t k = 0; k < shape.input; ++k) {
      const double term = static_cast<double>(static_cast<float>(x[row * shape.input + k])) * weight[column * shape.input + k];
      sum += term;
      magnitude += std::abs(term);
    }
    largest = std::max(largest, std::abs(out[i] - sum) / magnitude);
  }
  return largest;
}

TEST_F(Matmul, EqualsAProductInDoublePrecisionWithinFloatError) {
  for (const Shape shape : kShapes) {
    const auto values = random_bfloat16(static_cast<std::size_t>(shape.output * shape.input), 0.1F);
    std::vector<float> exact;
    for (const BFloat16 value : values) {
      exact.push_back(static_cast<float>(value));
    }
    const WeightHandle weight = pack(values, shape);
    ASSERT_NE(weight, nullptr);
    EXPECT_EQ(weight->output_features(), shape.output);
    EXPECT_EQ(weight->input_features(), shape.input);
    EXPECT_GE(weight->bytes(), shape.output * shape.input * 3 / 2);  // 12 bits a value at the least
    const auto x = random_bfloat16(static_cast<std::size_t>(5 * shape.input));
    EXPECT_LT(relative_error(x, exact, multiply(x, weight, 5), shape), 2e-6) << shape.output << " x " << shape.input;
  }
}

TEST_F(Matmul, EachRowIsTheSameBitsWhateverTheNumberOfRowsAndItsPlace) {
  constexpr std::int64_t kRows = 160;
  for (const Shape shape : kShapes) {
    const WeightHandle weight = pack(random_bfloat16(static_cast<std::size_t>(shape.output * shape.input), 0.1F), shape);
    const auto x = random_bfloat16(static_cast<std::size_t>(kRows * shape.input));
    const auto all = multiply(x, weight, kRows);
    for (const std::int64_t rows : {1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 15, 16, 17, 24, 31, 32, 33, 47, 63, 64, 65, 100, 127, 128, 159}) {
      for (const std::int64_t first : {std::int64_t{0}, std::int64_t{1}, kRows - rows}) {
        const auto some = multiply(std::span(x).subspan(static_cast<std::size_t>(first * shape.input)), weight, rows);
        ASSERT_TRUE(same_bits(std::span<const float>(some), std::span<const float>(all).subspan(static_cast<std::size_t>(first * shape.output), some.size())))
            << rows << " rows from " << first << " by " << shape.output << " x " << shape.input << " on " << ops_->instruction_set();
      }
    }
  }
}

/// Large enough to be packed where the device packs; two outputs more than whole blocks and inputs that fill no whole tile.
constexpr Shape kPackedShape{514, 500};

TEST_F(Matmul, LargeWeightsLoseNothingByPacking) {
  auto values = random_bfloat16(static_cast<std::size_t>(kPackedShape.output * kPackedShape.input), 0.1F);
  // Exponents far from all others have no code: the least and the largest numbers, zeros of both signs; at a block's first and last places too.
  const std::array<std::uint16_t, 6> rare{0x0001, 0x8000, 0x7f7f, 0xff7f, 0x0000, 0x3f80};
  for (std::size_t i = 0; i < rare.size(); ++i) {
    values[i * 41'777].bits = rare[i];
  }
  values.back().bits = 0x7f00;
  const WeightHandle weight = pack(values, kPackedShape);
  if (ops_->instruction_set() == "avx512_core_amx") {
    EXPECT_LT(weight->bytes(), kPackedShape.output * kPackedShape.input * 17 / 10);
  }
  // One input at a time is 1, so that each result is one weight: at 1 and at many rows, which take different ways.
  for (const std::int64_t rows : {std::int64_t{1}, std::int64_t{20}, std::int64_t{40}}) {
    for (std::int64_t first = 0; first < kPackedShape.input; first += rows) {
      const std::int64_t count = std::min(rows, kPackedShape.input - first);
      std::vector<BFloat16> x(static_cast<std::size_t>(count * kPackedShape.input));
      for (std::int64_t r = 0; r < count; ++r) {
        x[static_cast<std::size_t>(r * kPackedShape.input + first + r)] = BFloat16(1.0F);
      }
      const auto out = multiply(x, weight, count);
      for (std::int64_t r = 0; r < count; ++r) {
        for (std::int64_t n = 0; n < kPackedShape.output; ++n) {
          const auto expected = static_cast<float>(values[static_cast<std::size_t>(n * kPackedShape.input + first + r)]);
          const float result = out[static_cast<std::size_t>(r * kPackedShape.output + n)];
          const bool flushed = std::abs(expected) < 0x1p-126F && result == 0.0F;  // products of bfloat16 count the least numbers as zero
          ASSERT_TRUE(result == expected || flushed) << result << ", expected " << expected << ": output " << n << ", input " << first + r;
        }
      }
    }
  }
}

TEST_F(Matmul, WeightsOfAllBitsAreRightToo) {
  // Signs and exponents without any order, so that packing does not pay: within a range whose products stay finite.
  std::vector<BFloat16> values(static_cast<std::size_t>(kPackedShape.output * kPackedShape.input));
  std::vector<float> exact;
  for (BFloat16& value : values) {
    const auto bits = static_cast<std::uint32_t>(random_());
    value.bits = static_cast<std::uint16_t>((bits & 0x807fU) | (64U + (bits >> 16U) % 100U) << 7U);
    exact.push_back(static_cast<float>(value));
  }
  const WeightHandle weight = pack(values, kPackedShape);
  const auto x = random_bfloat16(static_cast<std::size_t>(3 * kPackedShape.input));
  EXPECT_LT(relative_error(x, exact, multiply(x, weight, 3), kPackedShape), 2e-6);
}

TEST_F(Matmul, DoesNotWriteBeyondItsRows) {
  const Shape shape{72, 40};
  const WeightHandle weight = pack(random_bfloat16(72 * 40), shape);
  for (const std::int64_t rows : {1, 5, 17}) {
    const auto x = random_bfloat16(static_cast<std::size_t>(rows * shape.input));  // of exactly this size: reading on is seen by the address sanitizer
    std::vector<float> out(static_cast<std::size_t>((rows + 1) * shape.output), 12345.0F);
    ops_->matmul(*stream_, x.data(), weight, rows, out.data());
    for (std::int64_t i = 0; i < shape.output; ++i) {
      EXPECT_EQ(out[static_cast<std::size_t>(rows * shape.output + i)], 12345.0F);
    }
  }
}

TEST_F(Matmul, NeighboursThatAreNotNumbersDoNotSpread) {
  const Shape shape{64, 64};
  const WeightHandle weight = pack(random_bfloat16(64 * 64), shape);
  auto x = random_bfloat16(3 * 64);
  const auto clean = multiply(std::span(x).subspan(64), weight, 1);
  for (std::size_t i = 0; i < 64; ++i) {
    x[i] = BFloat16(std::nanf(""));
    x[128 + i] = BFloat16(INFINITY);
  }
  const auto among = multiply(x, weight, 3);
  EXPECT_TRUE(same_bits(std::span<const float>(clean), std::span<const float>(among).subspan(64, 64)));
}

TEST_F(Matmul, TakesHalfAndSinglePrecisionWeightsAlsoUnaligned) {
  const Shape shape{24, 36};
  // Halves: 1 + n / 1024, exact in half precision; also a subnormal and a negative one.
  std::vector<std::uint16_t> halves(24 * 36);
  std::vector<float> half_values(halves.size());
  for (std::size_t i = 0; i < halves.size(); ++i) {
    const auto fraction = static_cast<std::uint16_t>(i * 37 % 1024);
    halves[i] = static_cast<std::uint16_t>(0x3c00U + fraction);
    half_values[i] = 1.0F + static_cast<float>(fraction) / 1024.0F;
  }
  halves[5] = 0x0001;
  half_values[5] = 0x1p-24F;
  halves[6] = 0xc500;
  half_values[6] = -5.0F;
  const auto singles = random_floats(halves.size());
  const auto x = random_bfloat16(3 * 36);
  std::vector<std::byte> unaligned(singles.size() * 4 + 1);

  std::memcpy(unaligned.data() + 1, halves.data(), halves.size() * 2);
  const auto from_halves = multiply(x, pack(DataType::kFloat16, unaligned.data() + 1, shape), 3);
  EXPECT_LT(relative_error(x, half_values, from_halves, shape), kBFloat16Error);
  std::memcpy(unaligned.data() + 1, singles.data(), singles.size() * 4);
  const auto from_singles = multiply(x, pack(DataType::kFloat32, unaligned.data() + 1, shape), 3);
  EXPECT_LT(relative_error(x, singles, from_singles, shape), kBFloat16Error);

  // Where weights are bfloat16, rounding a float32 source gives the same product as a source that was rounded before.
  if (ops_->instruction_set() == "avx512_core_bf16" || ops_->instruction_set() == "avx512_core_amx") {
    const auto rounded = to_bfloat16(singles);
    EXPECT_TRUE(same_bits(from_singles, multiply(x, pack(rounded, shape), 3)));
  } else {
    EXPECT_LT(relative_error(x, singles, from_singles, shape), 2e-6);
    EXPECT_LT(relative_error(x, half_values, from_halves, shape), 2e-6);
  }
}

TEST_F(Matmul, RefusesAWeightWithoutRows) {
  const auto packed = ops_->pack_weight({.type = DataType::kFloat32, .data = nullptr, .rows = 0, .columns = 8});
  ASSERT_FALSE(packed);
  EXPECT_EQ(packed.error().code, ErrorCode::kInvalidArgument);
}

TEST_F(Matmul, GroupsAreTheirOwnProductsAndMayBeEmpty) {
  const Shape shape{48, 64};
  const std::vector<WeightHandle> weights{pack(random_bfloat16(48 * 64), shape), pack(random_bfloat16(48 * 64), shape), pack(random_bfloat16(48 * 64), shape)};
  const std::vector<std::int32_t> offsets{0, 3, 3, 20};
  const auto x = random_bfloat16(20 * 64);
  std::vector<float> out(20 * 48);
  ops_->grouped_matmul(*stream_, x.data(), {.offsets = offsets, .weights = weights}, out.data());
  EXPECT_TRUE(same_bits(std::span<const float>(out).first(3 * 48), std::span<const float>(multiply(x, weights[0], 3))));
  EXPECT_TRUE(same_bits(std::span<const float>(out).subspan(3 * 48), std::span<const float>(multiply(std::span(x).subspan(3 * 64), weights[2], 17))));
}

TEST_F(Matmul, NoRowsAreNoWork) {
  const Shape shape{48, 64};
  const WeightHandle weight = pack(random_bfloat16(48 * 64), shape);
  ASSERT_TRUE(ops_->prepare(weight, 0));
  ops_->matmul(*stream_, nullptr, weight, 0, nullptr);
  const std::vector<std::int32_t> offsets{0, 0};
  ops_->grouped_matmul(*stream_, nullptr, {.offsets = offsets, .weights = std::span(&weight, 1)}, nullptr);
}

TEST_F(Matmul, AllocatesNothingOfItsOwnOncePrepared) {
  const Shape shape{320, 192};
  const WeightHandle weight = pack(random_bfloat16(320 * 192), shape);
  ASSERT_TRUE(ops_->prepare(weight, 64));
  const auto x = random_bfloat16(64 * 192);
  std::vector<float> out(64 * 320);
  // The first call of a thread may set up its OpenMP state.
  ops_->matmul(*stream_, x.data(), weight, 1, out.data());
  for (const std::int64_t rows : {1, 2, 3, 4, 8, 16, 64}) {
    const std::int64_t before = allocation_count();
    ops_->matmul(*stream_, x.data(), weight, rows, out.data());
    // oneDNN builds a map of four arguments in each of its calls (6 allocations, measured), of which there are at most 4 for 64 rows. Nothing else.
    const std::string set = ops_->instruction_set();
    const bool by_onednn = set.starts_with("avx512") && set != "avx512_core_amx";
    EXPECT_LE(allocation_count() - before, by_onednn ? 6 * 4 : 0) << rows;
  }
}

TEST_F(Matmul, OneWeightServesSeveralOpsAtOnce) {
  const Shape shape{256, 192};
  const WeightHandle weight = pack(random_bfloat16(256 * 192), shape);
  const auto x = random_bfloat16(40 * 192);
  const auto expected = multiply(x, weight, 40);
  std::vector<std::vector<float>> results(3);
  {
    std::vector<std::jthread> threads;
    for (auto& result : results) {
      threads.emplace_back([&, this] {
        auto ops = device_->make_ops();
        const auto stream = device_->make_inline_stream("thread");
        result.assign(expected.size(), 0.0F);
        for (int repeat = 0; repeat < 20; ++repeat) {
          (*ops)->matmul(*stream, x.data(), weight, 40, result.data());
        }
      });
    }
  }
  for (const auto& result : results) {
    EXPECT_TRUE(same_bits(result, expected));
  }
}

}  // namespace
}  // namespace lockstep::device
