// Goal: the reader takes one request's bytes and leaves the next one's alone.
// Method: bytes given whole and in pieces, without a socket.
#include "daemon/http/connection/request_reader.hpp"

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

}  // namespace
}  // namespace lockstep::daemon
