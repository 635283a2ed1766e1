// Goal    The ops between the matrix products are right, and a row's result does not depend on other rows.
// Method  Against plain loops in double precision, over widths that no vector divides; and row by row against the whole batch, bit for bit.
#include <fmt/format.h>

#include "tests/unit/device/ops_fixture.hpp"

namespace lockstep::device {
namespace {

constexpr std::int64_t kWidths[]{1, 3, 8, 15, 16, 17, 20, 31, 33, 64, 100, 192, 1000};
constexpr std::int64_t kRows = 5;

class RowOps : public OpsFixture {};

TEST_F(RowOps, EmbedTakesTheTokensRowsExactly) {
  for (const std::int64_t width : kWidths) {
    const auto table = random_bfloat16(static_cast<std::size_t>(7 * width));
    const std::vector<std::int32_t> tokens{6, 0, 3, 3};
    std::vector<float> out(static_cast<std::size_t>(4 * width), std::nanf(""));
    ops_->embed(*stream_, tokens, table.data(), width, out.data());
    for (std::size_t i = 0; i < out.size(); ++i) {
      ASSERT_EQ(out[i], static_cast<float>(table[static_cast<std::size_t>(tokens[i / width] * width) + i % width]));
    }
  }
}

TEST_F(RowOps, RmsNormDividesByTheRootOfTheMeanSquare) {
  for (const std::int64_t width : kWidths) {
    const auto x = random_floats(static_cast<std::size_t>(kRows * width), 3.0F);
    const auto weight = random_floats(static_cast<std::size_t>(width));
    std::vector<BFloat16> out(x.size());
    ops_->rms_norm(*stream_, x.data(), weight.data(), 1e-6F, kRows, width, out.data());
    for (std::int64_t r = 0; r < kRows; ++r) {
      double squares = 0;
      for (std::int64_t i = 0; i < width; ++i) {
        squares += std::pow(x[static_cast<std::size_t>(r * width + i)], 2);
      }
      for (std::int64_t i = 0; i < width; ++i) {
        const auto at = static_cast<std::size_t>(r * width + i);
        const double expected = x[at] / std::sqrt(squares / static_cast<double>(width) + 1e-6) * weight[static_cast<std::size_t>(i)];
        ASSERT_NEAR(static_cast<float>(out[at]), expected, std::abs(expected) * kBFloat16Error);
      }
      std::vector<BFloat16> alone(static_cast<std::size_t>(width));
      ops_->rms_norm(*stream_, &x[static_cast<std::size_t>(r * width)], weight.data(), 1e-6F, 1, width, alone.data());
      ASSERT_TRUE(same_bits(std::span<const BFloat16>(alone), std::span<const BFloat16>(out).subspan(static_cast<std::size_t>(r * width), alone.size())));
    }
  }
}

TEST_F(RowOps, AddIsTheExactSumOfFloats) {
  for (const std::int64_t width : kWidths) {
    const auto y = random_floats(static_cast<std::size_t>(width));
    auto x = random_floats(static_cast<std::size_t>(width));
    auto expected = x;
    for (std::size_t i = 0; i < x.size(); ++i) {
      expected[i] += y[i];
    }
    ops_->add(*stream_, y.data(), width, x.data());
    ASSERT_TRUE(same_bits(x, expected));
  }
}

TEST_F(RowOps, SiluMulIsGateTimesSigmoidTimesUp) {
  for (const std::int64_t width : kWidths) {
    auto gate_up = random_floats(static_cast<std::size_t>(kRows * 2 * width), 8.0F);
    gate_up[0] = -200.0F;  // vanishes, without a NaN on the way
    gate_up[static_cast<std::size_t>(2 * width)] = 200.0F;
    std::vector<BFloat16> out(static_cast<std::size_t>(kRows * width));
    ops_->silu_mul(*stream_, gate_up.data(), kRows, width, out.data());
    for (std::int64_t r = 0; r < kRows; ++r) {
      for (std::int64_t i = 0; i < width; ++i) {
        const double gate = gate_up[static_cast<std::size_t>(r * 2 * width + i)];
        const double expected = gate / (1 + std::exp(-gate)) * gate_up[static_cast<std::size_t>((r * 2 + 1) * width + i)];
        ASSERT_NEAR(static_cast<float>(out[static_cast<std::size_t>(r * width + i)]), expected, std::abs(expected) * kBFloat16Error + 1e-30) << gate;
      }
      std::vector<BFloat16> alone(static_cast<std::size_t>(width));
      ops_->silu_mul(*stream_, &gate_up[static_cast<std::size_t>(r * 2 * width)], 1, width, alone.data());
      ASSERT_TRUE(same_bits(std::span<const BFloat16>(alone), std::span<const BFloat16>(out).subspan(static_cast<std::size_t>(r * width), alone.size())));
    }
  }
}

TEST_F(RowOps, ToBFloat16RoundsLikeTheTypeForAllKindsOfFloats) {
  std::vector<float> values = random_floats(1000, 1e3F);
  // Each pattern of the bits around the rounding place, on normal numbers, subnormals, the largest, infinities and NaNs.
  for (const std::uint32_t upper : {0x3f80U, 0x3f81U, 0x0000U, 0x0001U, 0x7f7fU, 0x7f80U, 0x7fffU, 0xff80U, 0xffc1U, 0x8000U}) {
    for (const std::uint32_t lower : {0x0000U, 0x0001U, 0x7fffU, 0x8000U, 0x8001U, 0xffffU}) {
      values.push_back(std::bit_cast<float>(upper << 16U | lower));
    }
  }
  std::vector<BFloat16> out(values.size());
  ops_->to_bfloat16(*stream_, values.data(), static_cast<std::int64_t>(values.size()), out.data());
  EXPECT_TRUE(same_bits(out, to_bfloat16(values)));
}

TEST_F(RowOps, GatherCopiesTheRowsOfTheIndexExactly) {
  const std::vector<std::int32_t> index{2, 2, 0, 4, 1};
  for (const std::int64_t width : kWidths) {
    const auto halves = random_bfloat16(static_cast<std::size_t>(5 * width));
    const auto floats = random_floats(static_cast<std::size_t>(5 * width));
    std::vector<BFloat16> gathered_halves(halves.size());
    std::vector<float> gathered_floats(floats.size());
    ops_->gather_rows(*stream_, halves.data(), index, width, gathered_halves.data());
    ops_->gather_rows(*stream_, floats.data(), index, width, gathered_floats.data());
    for (std::size_t i = 0; i < floats.size(); ++i) {
      const auto from = static_cast<std::size_t>(index[i / width] * width) + i % width;
      ASSERT_EQ(gathered_halves[i].bits, halves[from].bits);
      ASSERT_EQ(gathered_floats[i], floats[from]);
    }
  }
}

TEST_F(RowOps, WeighAndSumAddsTheWeightedExpertRows) {
  constexpr int kTopK = 3;
  for (const std::int64_t width : kWidths) {
    const auto expert_rows = random_bfloat16(static_cast<std::size_t>(kRows * kTopK * width));
    const auto weights = random_floats(kRows * kTopK);
    const auto before = random_floats(static_cast<std::size_t>(kRows * width));
    auto out = before;
    ops_->weigh_and_sum(*stream_, expert_rows.data(), weights.data(), kRows, kTopK, width, out.data());
    for (std::int64_t r = 0; r < kRows; ++r) {
      for (std::int64_t i = 0; i < width; ++i) {
        const auto at = static_cast<std::size_t>(r * width + i);
        double expected = before[at];
        for (int j = 0; j < kTopK; ++j) {
          expected += static_cast<double>(weights[static_cast<std::size_t>(r * kTopK + j)]) *
                      static_cast<float>(expert_rows[static_cast<std::size_t>((r * kTopK + j) * width + i)]);
        }
        ASSERT_NEAR(out[at], expected, 2e-6 * 10);
      }
      std::vector<float> alone(before.begin() + r * width, before.begin() + (r + 1) * width);
      ops_->weigh_and_sum(*stream_, &expert_rows[static_cast<std::size_t>(r * kTopK * width)], &weights[static_cast<std::size_t>(r * kTopK)], 1, kTopK, width,
                          alone.data());
      ASSERT_TRUE(same_bits(std::span<const float>(alone), std::span<const float>(out).subspan(static_cast<std::size_t>(r * width), alone.size())));
    }
  }
}

TEST_F(RowOps, NoRowsAreNoWork) {
  ops_->embed(*stream_, {}, nullptr, 8, nullptr);
  ops_->rms_norm(*stream_, nullptr, nullptr, 1e-6F, 0, 8, nullptr);
  ops_->add(*stream_, nullptr, 0, nullptr);
  ops_->route(*stream_, {.expert_count = 4, .top_k = 2}, nullptr, 0, nullptr, nullptr);
  ops_->silu_mul(*stream_, nullptr, 0, 8, nullptr);
  ops_->to_bfloat16(*stream_, nullptr, 0, nullptr);
  ops_->gather_rows(*stream_, static_cast<const float*>(nullptr), {}, 8, nullptr);
  ops_->gather_rows(*stream_, static_cast<const BFloat16*>(nullptr), {}, 8, nullptr);
  ops_->weigh_and_sum(*stream_, nullptr, nullptr, 0, 2, 8, nullptr);
  ops_->qk_norm_rope_store(*stream_, {.query_heads = 2, .kv_heads = 1, .head_size = 4}, {}, nullptr, nullptr, nullptr, nullptr, {}, nullptr);
  ops_->paged_attention(*stream_, {.query_heads = 2, .kv_heads = 1, .head_size = 4}, {}, nullptr, {}, nullptr);
}

TEST_F(RowOps, TheInstructionSetIsNamed) {
  EXPECT_FALSE(ops_->instruction_set().empty());
  if (const char* limit = std::getenv("DNNL_MAX_CPU_ISA"); limit != nullptr && std::string_view(limit) == "AVX2") {
    EXPECT_EQ(ops_->instruction_set(), "avx2");
  }
}

}  // namespace
}  // namespace lockstep::device
