// Goal: an answer is compressed exactly when its client wants it and it is worth it, and unpacks to what it was.
// Method: values of Accept-Encoding with the expected word; answers of several lengths over a real server, unpacked by zlib.
#include <string>
#include <zlib.h>

#include "daemon/http/encoding/accept_encoding.hpp"
#include "daemon/http/encoding/compressor.hpp"
#include "tests/unit/daemon/support/server_fixture.hpp"

namespace lockstep::daemon::testing {
namespace {

std::string unpacked(std::string bytes) {
  z_stream stream{};
  EXPECT_EQ(inflateInit2(&stream, 15 + 16), Z_OK);
  std::string text(std::size_t{8} << 20, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(bytes.data());
  stream.avail_in = static_cast<uInt>(bytes.size());
  stream.next_out = reinterpret_cast<Bytef*>(text.data());
  stream.avail_out = static_cast<uInt>(text.size());
  EXPECT_EQ(inflate(&stream, Z_FINISH), Z_STREAM_END);
  text.resize(stream.total_out);
  inflateEnd(&stream);
  return text;
}

std::string prose(std::size_t bytes) {
  std::string text;
  for (int i = 0; text.size() < bytes; ++i) {
    text += "line " + std::to_string(i) + " of an answer that repeats itself\n";
  }
  text.resize(bytes);
  return text;
}

TEST(AcceptEncoding, QualitiesDecide) {
  for (const char* yes : {"gzip", "GZIP", "deflate, gzip", "gzip;q=0.5", "gzip; q=1.000", "br;q=1, gzip;q=0.001", "*", "*;q=0.1", "x-gzip",
                          "identity;q=0.5, gzip;q=0.5", "gzip, identity;q=0", " gzip ,br"}) {
    EXPECT_TRUE(accepts_gzip(yes)) << yes;
  }
  for (const char* no : {"", "br", "identity", "gzip;q=0", "gzip;q=0.000", "*, gzip;q=0", "identity, gzip;q=0.5", "gzip;q=2", "gzip;q=x", "gzip;q=-1",
                         "gzip;q=", "gzip;level=9", "gzippy", ",,;", "*;q=0"}) {
    EXPECT_FALSE(accepts_gzip(no)) << no;
  }
}

TEST(Gzip, TextComesBackWhole) {
  for (const std::size_t bytes : {1000U, 100'000U, 3'000'000U}) {
    const std::string text = prose(bytes);
    const CompressedText packed = gzip(text);
    ASSERT_TRUE(packed.compressed);
    EXPECT_LT(packed.bytes.size(), text.size() / 2);
    EXPECT_EQ(unpacked(packed.bytes), text);
  }
}

TEST(Gzip, WhatWouldGetLongerStaysAsItIs) {
  for (const std::string& text : {std::string(), std::string("x")}) {
    const CompressedText packed = gzip(text);
    EXPECT_FALSE(packed.compressed);
    EXPECT_EQ(packed.bytes, text);
  }
}

class CompressedAnswers : public ServerFixture {
 protected:
  void SetUp() override {
    const Handler text = [](const std::shared_ptr<Exchange>& exchange) {
      exchange->respond({.content_type = "text/plain", .body = prose(std::stoul(exchange->request().query))});
    };
    serve(true, {}, {{"/text", "GET", text}});
  }
  static std::string request(const std::string& bytes, const std::string& accepted, const std::string& method = "GET") {
    return method + " /text?" + bytes + " HTTP/1.1\r\nHost: t\r\nAccept-Encoding: " + accepted + "\r\n\r\n";
  }
};

TEST_F(CompressedAnswers, AreShorterForShortAndLongTextsAlike) {
  HttpClient client(port_);
  for (const std::size_t bytes : {1024U, 30'000U, 2'000'000U}) {  // the last is compressed on another thread
    client.send(request(std::to_string(bytes), "gzip"));
    const ClientResponse response = client.read_response();
    ASSERT_EQ(response.status, 200);
    EXPECT_EQ(response.headers.at("content-encoding"), "gzip");
    EXPECT_EQ(response.headers.at("vary"), "Accept-Encoding");
    EXPECT_LT(response.body.size(), bytes);
    EXPECT_EQ(unpacked(response.body), prose(bytes));
  }
}

TEST_F(CompressedAnswers, ComeOnlyToThoseWhoWantThem) {
  HttpClient client(port_);
  client.send(request("5000", "gzip;q=0"));
  const ClientResponse plain = client.read_response();
  EXPECT_FALSE(plain.headers.contains("content-encoding"));
  EXPECT_EQ(plain.headers.at("vary"), "Accept-Encoding");
  EXPECT_EQ(plain.body, prose(5000));
  client.send(request("1023", "gzip"));
  EXPECT_FALSE(client.read_response().headers.contains("content-encoding")) << "too short to be worth it";
  client.send(request("5000", "gzip", "HEAD"));
  EXPECT_EQ(client.read_response(true).headers.at("content-length"), "5000");
  EXPECT_EQ(client.get("/text?10").body.size(), 10U);
}

TEST_F(CompressedAnswers, OfAClientThatLeftAreDropped) {
  for (int i = 0; i < 20; ++i) {
    HttpClient client(port_);
    client.send(request("3000000", "gzip"));
    client.reset();
  }
  HttpClient client(port_);
  client.send(request("2000000", "gzip"));
  EXPECT_EQ(client.read_response().status, 200);
}

TEST_F(CompressedAnswers, UnderWayWhenTheServerClosesEndWithIt) {
  HttpClient client(port_);
  client.send(request("3000000", "gzip"));
  on_asio([this] { server_->close(); });
  EXPECT_TRUE(client.read_end());
}

}  // namespace
}  // namespace lockstep::daemon::testing
