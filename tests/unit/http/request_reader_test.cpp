// Goal: the reader takes one request's bytes and leaves the next one's alone.
// Method: bytes given whole and in pieces, without a socket.
#include "daemon/http/connection/request_reader.hpp"

#include <algorithm>
#include <string>

#include <gtest/gtest.h>

namespace lockstep::daemon {
namespace {

constexpr std::string_view kGet = "GET /health HTTP/1.1\r\nHost: x\r\n\r\n";

TEST(RequestReader, AHeadWithoutABodyIsCompleteAndTheNextRequestIsNotTouched) {
  const HttpLimits limits;
  RequestReader reader(limits);
  std::size_t taken = 0;
  const std::string two = std::string(kGet) + "GET /ready HTTP/1.1\r\n";
  ASSERT_EQ(reader.read(two, taken), RequestReader::Progress::kHead);
  EXPECT_EQ(taken, kGet.size());
  ASSERT_EQ(reader.read(std::string_view(two).substr(taken), taken), RequestReader::Progress::kComplete);
  EXPECT_EQ(taken, 0U);
  EXPECT_EQ(reader.take_request().path, "/health");
}

/// What the reader says of `text`, given in pieces of `piece` bytes as a connection would: what is not taken is shown again.
RequestReader::Progress read_in_pieces(RequestReader& reader, std::string_view text, std::size_t piece) {
  std::size_t begin = 0;
  RequestReader::Progress progress = RequestReader::Progress::kNeedsMore;
  for (std::size_t end = std::min(piece, text.size()); progress == RequestReader::Progress::kNeedsMore; end = std::min(end + piece, text.size())) {
    std::size_t taken = 0;
    progress = reader.read(text.substr(begin, end - begin), taken);
    begin += taken;
    if (end == text.size()) {
      break;
    }
  }
  return progress;
}

/// A head of exactly `bytes`, in `fields` fields beside Host.
std::string head_of(std::size_t bytes, int fields) {
  std::string head = "GET /health HTTP/1.1\r\nHost: x\r\n";
  for (int i = 1; i < fields; ++i) {
    head += "x-field: value\r\n";
  }
  head += "x-last: ";
  head.append(bytes - head.size() - 4, 'v');
  return head + "\r\n\r\n";
}

TEST(RequestReader, AHeadOfExactlyTheLimitIsReadAndOneByteMoreIsNotHoweverItComes) {
  HttpLimits limits;
  limits.header_bytes = 1000;
  for (const int fields : {1, 20, 50}) {
    for (const std::size_t piece : {std::size_t{1}, std::size_t{7}, std::size_t{499}, std::size_t{999}, std::size_t{5000}}) {
      RequestReader fits(limits);
      EXPECT_EQ(read_in_pieces(fits, head_of(1000, fields) + std::string(kGet), piece), RequestReader::Progress::kHead) << fields << " " << piece;
      EXPECT_TRUE(fits.keep_alive());
      RequestReader too_long(limits);
      ASSERT_EQ(read_in_pieces(too_long, head_of(1001, fields) + std::string(kGet), piece), RequestReader::Progress::kRefused) << fields << " " << piece;
      EXPECT_EQ(too_long.refusal().status, 431);
    }
  }
}

TEST(RequestReader, ALongTargetIsRefusedBeforeItsEndHasCome) {
  HttpLimits limits;
  limits.header_bytes = 1000;
  RequestReader reader(limits);
  EXPECT_EQ(read_in_pieces(reader, "GET /" + std::string(994, 'a'), 100), RequestReader::Progress::kNeedsMore);
  RequestReader longer(limits);
  ASSERT_EQ(read_in_pieces(longer, "GET /" + std::string(995, 'a'), 100), RequestReader::Progress::kRefused);
  EXPECT_EQ(longer.refusal().status, 431);
}

TEST(RequestReader, ALineThatGoesOnInTheNextIsRefusedHoweverItComes) {
  for (const char* fold : {"\r\n ", "\r\n\t", "\r\n \r\n "}) {
    const std::string text = "GET /health HTTP/1.1\r\nHost: x\r\nx-folded: a" + std::string(fold) + "b\r\nx-more: c\r\n\r\n";
    for (const std::size_t piece : {std::size_t{1}, std::size_t{2}, std::size_t{50}, text.size()}) {
      const HttpLimits limits;
      RequestReader reader(limits);
      ASSERT_EQ(read_in_pieces(reader, text, piece), RequestReader::Progress::kRefused) << piece;
      EXPECT_EQ(reader.refusal().status, 400);
    }
  }
}

}  // namespace
}  // namespace lockstep::daemon
