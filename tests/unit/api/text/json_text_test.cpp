// Goal    What is written is JSON, and reads back as it was.
// Method  Round trips through Boost.JSON.
#include "daemon/api/text/json_text.hpp"

#include <limits>
#include <string>

#include <boost/json.hpp>
#include <gtest/gtest.h>

namespace lockstep::daemon {
namespace {

std::string as_json(std::string_view text) {
  std::string out;
  append_json_string(out, text);
  return out;
}

TEST(JsonText, EveryAsciiCharacterReadsBack) {
  std::string all;
  for (int byte = 0; byte < 128; ++byte) {
    all += static_cast<char>(byte);
  }
  EXPECT_EQ(boost::json::parse(as_json(all)).as_string(), boost::json::string_view(all.data(), all.size()));
  EXPECT_EQ(as_json("a\"b\\c\n\r\t\x01/"), R"("a\"b\\c\n\r\t\u0001/")");
}

TEST(JsonText, OtherCharactersStayAsTheyAre) {
  const std::string text = "gr\xc3\xbc\xc3\x9f \xf0\x9f\x99\x82 \xe2\x80\xa8";
  EXPECT_EQ(as_json(text), '"' + text + '"');
  EXPECT_EQ(boost::json::parse(as_json(text)).as_string(), boost::json::string_view(text.data(), text.size()));
}

TEST(JsonText, NumbersReadBackExactlyAndInfinityHasAForm) {
  for (const float number : {0.0F, -0.0F, -1.5F, -0.1F, -1e-30F, -1234.5678F, 3e8F}) {
    std::string out;
    append_json_number(out, number);
    EXPECT_EQ(static_cast<float>(boost::json::parse(out).to_number<double>()), number) << out;
  }
  std::string out;
  append_json_number(out, -std::numeric_limits<float>::infinity());
  EXPECT_EQ(boost::json::parse(out).to_number<double>(), -9999.0);
}

}  // namespace
}  // namespace lockstep::daemon
