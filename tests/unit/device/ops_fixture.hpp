// What the tests of ops share: a host device with its ops, seeded data, and comparison by bits.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <span>
#include <vector>

#include <gtest/gtest.h>

#include "lockstep/core/bfloat16.hpp"
#include "lockstep/device/device.hpp"

namespace lockstep::device {

class OpsFixture : public ::testing::Test {
 protected:
  void SetUp() override {
    auto device = make_device("cpu", {});
    ASSERT_TRUE(device) << device.error().message;
    device_ = std::move(*device);
    auto ops = device_->make_ops();
    ASSERT_TRUE(ops) << ops.error().message;
    ops_ = std::move(*ops);
    stream_ = device_->make_inline_stream("test");
  }

  std::vector<float> random_floats(std::size_t count, float scale = 1.0F) {
    std::normal_distribution<float> normal(0.0F, scale);
    std::vector<float> values(count);
    for (float& value : values) {
      value = normal(random_);
    }
    return values;
  }
  std::vector<BFloat16> random_bfloat16(std::size_t count, float scale = 1.0F) { return to_bfloat16(random_floats(count, scale)); }

  static std::vector<BFloat16> to_bfloat16(std::span<const float> values) {
    std::vector<BFloat16> rounded;
    rounded.reserve(values.size());
    for (const float value : values) {
      rounded.emplace_back(value);
    }
    return rounded;
  }

  std::unique_ptr<Device> device_;
  std::unique_ptr<Ops> ops_;
  std::unique_ptr<Stream> stream_;
  std::mt19937 random_{20231117};
};

/// The same values, bit for bit (a NaN equals itself, -0 is not 0).
template <typename T>
bool same_bits(std::span<const T> a, std::span<const T> b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size_bytes()) == 0);
}
template <typename T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return same_bits(std::span<const T>(a), std::span<const T>(b));
}

/// A value rounded to bfloat16 is within half a unit in the last of 8 bits.
inline constexpr double kBFloat16Error = 1.0 / 256;

}  // namespace lockstep::device
