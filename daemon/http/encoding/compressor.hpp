// Compressor: gzip for answers that are worth it.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>

namespace boost::asio {
class io_context;
}

namespace lockstep::daemon {

struct CompressedText {
  std::string bytes;
  bool compressed = false;  ///< false: zlib could not, or it would not have got shorter; `bytes` is the text as it was
};

/// Compresses small texts at once and long ones on a thread of its own, which is made for the first of them.
/// Ownership  borrows the io_context, which outlives it.      Threads  the Asio thread.
class Compressor {
 public:
  /// Texts of up to `inline_bytes` are compressed on the caller's thread: 32 KiB take about 0.3 ms.
  explicit Compressor(boost::asio::io_context& io, std::size_t inline_bytes = std::size_t{32} << 10);
  /// Waits for what runs; what waits is dropped with its callback. No callback runs any more, except those that are posted already.
  ~Compressor();
  Compressor(const Compressor&) = delete;
  Compressor& operator=(const Compressor&) = delete;

  /// `done` runs on the Asio thread: before this returns, or later.
  void compress(std::string text, std::function<void(CompressedText)> done);

 private:
  struct Worker;
  boost::asio::io_context& io_;
  std::size_t inline_bytes_;
  std::unique_ptr<Worker> worker_;
};

/// As one gzip member, at zlib's fastest level.
[[nodiscard]] CompressedText gzip(std::string text);

}  // namespace lockstep::daemon
