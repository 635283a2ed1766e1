#include "daemon/http/encoding/compressor.hpp"

#include <utility>
#include <zlib.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>

namespace lockstep::daemon {
namespace {

constexpr int kGzipWindowBits = 15 + 16;  // zlib's largest window; the 16 asks for gzip's header and checksum
constexpr int kMemoryLevel = 8;           // zlib's default

}  // namespace

struct Compressor::Worker {
  boost::asio::thread_pool pool{1};
};

Compressor::Compressor(boost::asio::io_context& io, std::size_t inline_bytes) : io_(io), inline_bytes_(inline_bytes) {}

Compressor::~Compressor() {
  if (worker_) {
    worker_->pool.stop();
    worker_->pool.join();
  }
}

void Compressor::compress(std::string text, std::function<void(CompressedText)> done) {
  if (text.size() <= inline_bytes_) {
    done(gzip(std::move(text)));
    return;
  }
  if (!worker_) {
    worker_ = std::make_unique<Worker>();
  }
  boost::asio::post(worker_->pool, [this, text = std::move(text), done = std::move(done)]() mutable {
    CompressedText result = gzip(std::move(text));
    // `done` travels back: what it holds may belong to the Asio thread.
    boost::asio::post(io_, [result = std::move(result), done = std::move(done)]() mutable { done(std::move(result)); });
  });
}

CompressedText gzip(std::string text) {
  z_stream stream{};
  if (deflateInit2(&stream, Z_BEST_SPEED, Z_DEFLATED, kGzipWindowBits, kMemoryLevel, Z_DEFAULT_STRATEGY) != Z_OK) {
    return {.bytes = std::move(text)};
  }
  std::string bytes(text.size(), '\0');  // no more room than the text has: a longer result is of no use
  // zlib takes unsigned char, which may alias char; the input is not written to.
  stream.next_in = reinterpret_cast<Bytef*>(text.data());
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(bytes.data());
  stream.avail_out = static_cast<uInt>(bytes.size());
  const bool complete = deflate(&stream, Z_FINISH) == Z_STREAM_END;
  bytes.resize(stream.total_out);
  deflateEnd(&stream);
  if (!complete) {
    return {.bytes = std::move(text)};
  }
  return {.bytes = std::move(bytes), .compressed = true};
}

}  // namespace lockstep::daemon
