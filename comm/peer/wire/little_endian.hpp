// Integers as little-endian bytes: the one form in which the peer channel puts numbers on the wire.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <span>
#include <type_traits>

#include "lockstep/core/check.hpp"

namespace lockstep::comm::peer {

/// Writes numbers one after the other into a buffer that the caller made large enough.
class ByteWriter {
 public:
  explicit ByteWriter(std::span<std::byte> buffer) : buffer_(buffer) {}

  template <std::integral T>
  void put(T value) {
    LOCKSTEP_CHECK(sizeof(T) <= buffer_.size() - used_, "{} bytes at {} of {}", sizeof(T), used_, buffer_.size());
    auto bits = static_cast<std::make_unsigned_t<T>>(value);
    for (std::size_t i = 0; i < sizeof(T); ++i) {
      buffer_[used_++] = static_cast<std::byte>(bits & 0xffU);
      bits = static_cast<std::make_unsigned_t<T>>(sizeof(T) > 1 ? bits >> 8U : 0U);
    }
  }
  void put_bytes(std::span<const std::byte> bytes) {
    LOCKSTEP_CHECK(bytes.size() <= buffer_.size() - used_, "{} bytes at {} of {}", bytes.size(), used_, buffer_.size());
    std::ranges::copy(bytes, buffer_.begin() + static_cast<std::ptrdiff_t>(used_));
    used_ += bytes.size();
  }
  void put_zeros(std::size_t count) {
    LOCKSTEP_CHECK(count <= buffer_.size() - used_, "{} zeros at {} of {}", count, used_, buffer_.size());
    std::ranges::fill(buffer_.subspan(used_, count), std::byte{0});
    used_ += count;
  }
  [[nodiscard]] std::size_t used() const { return used_; }

 private:
  std::span<std::byte> buffer_;
  std::size_t used_ = 0;
};

/// Reads them back. The buffer's size was checked before by its owner: reading past its end is our bug.
class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> buffer) : buffer_(buffer) {}

  template <std::integral T>
  [[nodiscard]] T get() {
    LOCKSTEP_CHECK(sizeof(T) <= buffer_.size() - used_, "{} bytes at {} of {}", sizeof(T), used_, buffer_.size());
    std::make_unsigned_t<T> bits = 0;
    for (std::size_t i = 0; i < sizeof(T); ++i) {
      bits = static_cast<std::make_unsigned_t<T>>(bits | (static_cast<std::make_unsigned_t<T>>(buffer_[used_++]) << (8U * i)));
    }
    return static_cast<T>(bits);
  }
  [[nodiscard]] std::span<const std::byte> get_bytes(std::size_t count) {
    LOCKSTEP_CHECK(count <= buffer_.size() - used_, "{} bytes at {} of {}", count, used_, buffer_.size());
    const std::span<const std::byte> bytes = buffer_.subspan(used_, count);
    used_ += count;
    return bytes;
  }

 private:
  std::span<const std::byte> buffer_;
  std::size_t used_ = 0;
};

}  // namespace lockstep::comm::peer
