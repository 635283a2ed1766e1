// Goal: no file, however it was damaged or made, is read outside its bounds or accepted with a layout that its header does not describe.
// Method: one file per rule of the format that breaks only that rule, every truncation of a good file, and seeded random changes of bytes.
#include <array>
#include <random>
#include <span>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "lockstep/model/weights.hpp"
#include "model/files/safetensors_header.hpp"
#include "tests/unit/model/temporary_folder.hpp"

namespace lockstep::model {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string message_of(const TemporaryFolder& folder, std::string_view file) {
  folder.write("model.safetensors", file);
  const auto source = open_safetensors(folder.path());
  return source ? std::string("accepted") : source.error().message;
}

struct Hostile {
  std::string_view header;
  std::size_t data_bytes;
  std::string_view message;
};

TEST(HostileSafetensors, EachBrokenRuleIsRefusedWithItsReason) {
  const std::vector<Hostile> cases{
      {R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}})", 0, "an amount that overflows"},
      {R"({"a":{"dtype":"F32","shape":[2147483648,2147483648,4],"data_offsets":[0,8]}})", 8, "an amount that overflows"},
      {R"({"a":{"dtype":"BF16","shape":[9223372036854775808],"data_offsets":[0,0]}})", 0, "expected less than 2^63"},
      {R"({"a":{"dtype":"BF16","shape":[99999999999999999999999],"data_offsets":[0,0]}})", 0, "expected whole numbers"},
      {R"({"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,8]}})", 8, "span 8 bytes, expected 4 for BF16 of shape [2]"},
      {R"({"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]},"b":{"dtype":"BF16","shape":[2],"data_offsets":[2,6]}})", 6, "overlaps the tensor before"},
      {R"({"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]},"b":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}})", 4, "overlaps the tensor before"},
      {R"({"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]},"b":{"dtype":"BF16","shape":[2],"data_offsets":[6,10]}})", 10, "leaves a gap"},
      {R"({"a":{"dtype":"BF16","shape":[2],"data_offsets":[2,6]}})", 6, "leaves a gap"},
      {R"({"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}})", 3, "the file has 3 bytes of data"},
      {R"({"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}})", 5, "5 bytes of data, but its tensors take 4"},
      {"{}", 1, "1 bytes of data, but its tensors take 0"},
      {R"({"a":{"dtype":"BF16","shape":[2],"data_offsets":[4,0]}})", 4, "data_offsets [4, 0]"},
      {R"({"a":{"dtype":"BF16","shape":[2],"data_offsets":[9223372036854775803,9223372036854775807]}})", 4, "the file has 4 bytes of data"},
      {R"({"a":{"dtype":"BF16","shape":[2],"data_offsets":[-4,0]}})", 4, "has the number -4"},
      {R"({"a":{"dtype":"BF16","shape":[-2],"data_offsets":[0,4]}})", 4, "has the number -2"},
      {R"({"a":{"dtype":"BF16","shape":[2.0],"data_offsets":[0,4]}})", 4, "expected whole numbers"},
      {R"({"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4,8]}})", 4, "data_offsets has 3 numbers, expected 2"},
      {R"({"a":{"dtype":"BF16","shape":[2],"data_offsets":[]}})", 4, "data_offsets has 0 numbers, expected 2"},
      {R"({"a":{"dtype":"BF16","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,2],"data_offsets":[0,4]}})", 4, "more than 16 dimensions"},
      {R"({"a":{"dtype":"BF16","shape":[[2]],"data_offsets":[0,4]}})", 4, "an array where none is expected"},
      {R"({"a":{"dtype":"BF16","shape":2,"data_offsets":[0,4]}})", 4, "has the number 2"},
      {R"({"a":{"dtype":"BF16","shape":"2","data_offsets":[0,4]}})", 4, "has the string \"2\" where none is expected"},
      {R"({"a":{"dtype":"BF16","shape":["2"],"data_offsets":[0,4]}})", 4, "has the string \"2\" where none is expected"},
      {R"({"a":{"dtype":"BF16","shape":null,"data_offsets":[0,4]}})", 4, "has a null"},
      {R"({"a":{"dtype":["BF16"],"shape":[2],"data_offsets":[0,4]}})", 4, "an array where none is expected"},
      {R"({"a":{"dtype":"BF17","shape":[2],"data_offsets":[0,4]}})", 4, "dtype \"BF17\" is unknown; known: BOOL"},
      {R"({"a":{"dtype":16,"shape":[2],"data_offsets":[0,4]}})", 4, "has the number 16"},
      {R"({"a":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}})", 1, "expected an amount that overflows"},
      {R"({"a":{"shape":[2],"data_offsets":[0,4]}})", 4, "lacks one of dtype, shape and data_offsets"},
      {R"({"a":{"dtype":"BF16","data_offsets":[0,4]}})", 4, "lacks one of dtype, shape and data_offsets"},
      {R"({"a":{"dtype":"BF16","shape":[2]}})", 4, "lacks one of dtype, shape and data_offsets"},
      {R"({"a":{}})", 0, "lacks one of dtype, shape and data_offsets"},
      {R"({"a":{"dtype":"BF16","dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 4, "has the key \"dtype\" twice"},
      {R"({"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4],"extra":1}})", 4, "has the key \"extra\""},
      {R"({"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]},"a":{"dtype":"BF16","shape":[2],"data_offsets":[4,8]}})", 8, "\"a\" is listed twice"},
      {R"({"a":7})", 0, "has the number 7"},
      {R"({"a":{"dtype":{"x":1},"shape":[2],"data_offsets":[0,4]}})", 4, "an object where none is expected"},
      {R"({"__metadata__":"x"})", 0, "__metadata__ is a string"},
      {R"({"__metadata__":{"x":[1]}})", 0, "an array where none is expected"},
      {R"([])", 0, "does not start with {"},
      {R"( {})", 0, "does not start with {"},
      {"", 0, "does not start with {"},
      {R"({} {})", 0, "more than one JSON value"},
      {R"({"a":)", 0, "not JSON"},
      {"{\"\xff\":1}", 0, "not JSON"},
      {"{\"a\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[0,4]}}\x01", 4, "more than one JSON value"},
  };
  const TemporaryFolder folder;
  for (const Hostile& hostile : cases) {
    EXPECT_THAT(message_of(folder, safetensors_file(hostile.header, std::string(hostile.data_bytes, 'x'))),
                AllOf(HasSubstr("model.safetensors"), HasSubstr(std::string(hostile.message))))
        << hostile.header;
  }
}

TEST(HostileSafetensors, HeaderLengthsThatDoNotFitAreRefused) {
  const TemporaryFolder folder;
  EXPECT_THAT(message_of(folder, ""), HasSubstr("empty or not a regular file"));
  EXPECT_THAT(message_of(folder, "1234567"), HasSubstr("7 bytes, expected at least 8"));
  const auto with_length = [](std::uint64_t length) {
    std::string file = safetensors_file("{}", "");
    for (std::size_t i = 0; i < 8; ++i) {
      file[i] = static_cast<char>(length >> (8 * i) & 0xffU);
    }
    return file;
  };
  EXPECT_THAT(message_of(folder, with_length(3)), HasSubstr("header of 3 bytes, but the file has 10 in all"));
  EXPECT_THAT(message_of(folder, with_length(100'000'000)), HasSubstr("but the file has 10 in all"));
  EXPECT_THAT(message_of(folder, with_length(100'000'001)), HasSubstr("expected at most 100000000"));
  EXPECT_THAT(message_of(folder, with_length(std::uint64_t{1} << 63U)), HasSubstr("expected at most 100000000"));
  EXPECT_THAT(message_of(folder, with_length(~std::uint64_t{0})), HasSubstr("expected at most 100000000"));
}

TEST(HostileSafetensors, DeepNestingAndLongNamesAreRefusedWithoutStackOrMemory) {
  const TemporaryFolder folder;
  EXPECT_NE(message_of(folder, safetensors_file(R"({"a":)" + std::string(100'000, '[') + "}", "")), "accepted");
  EXPECT_NE(message_of(folder, safetensors_file(R"({"a":)" + std::string(100'000, '{') + "}", "")), "accepted");
  EXPECT_THAT(message_of(folder, safetensors_file("{\"" + std::string(5'000, 'n') + "\":{}}", "")), HasSubstr("a name of more than 4096 bytes"));
}

constexpr std::string_view kGood =
    R"({"__metadata__":{"format":"pt"},"a":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]},"b":{"dtype":"F32","shape":[2],"data_offsets":[12,20]}})";

/// The header of a file that is only in memory, in an allocation of exactly its size: the sanitizers see every byte read beyond it.
Result<SafetensorsHeader> header_of(const std::vector<char>& file) {
  return read_safetensors_header(std::as_bytes(std::span(file)), "memory");
}

/// A header of so many empty tensors.
std::string bloated_file(std::size_t entries) {
  std::string header = "{";
  for (std::size_t i = 0; i < entries; ++i) {
    header += (i == 0 ? "\"" : ",\"") + std::to_string(i) + R"(":{"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
  }
  return safetensors_file(header + "}", "");
}

TEST(HostileSafetensors, BloatedHeadersAreReadInProportionToTheirLengthAndEndAtTheCap) {
  const std::string many = bloated_file(100'000);
  const Result<SafetensorsHeader> header = read_safetensors_header(std::as_bytes(std::span(many)), "many");
  ASSERT_TRUE(header) << header.error().message;
  EXPECT_EQ(header->entries.size(), 100'000U);
  const std::string more = bloated_file(1'000'001);
  const Result<SafetensorsHeader> refused = read_safetensors_header(std::as_bytes(std::span(more)), "more");
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("more than 1000000 tensors"));
}

TEST(HostileSafetensors, EveryTruncationOfAGoodFileIsRefused) {
  const std::string good = safetensors_file(kGood, std::string(20, 'x'));
  EXPECT_TRUE(header_of({good.begin(), good.end()}));
  for (std::size_t size = 0; size < good.size(); ++size) {
    EXPECT_FALSE(header_of({good.begin(), good.begin() + static_cast<std::ptrdiff_t>(size)})) << size;
  }
}

TEST(HostileSafetensors, RandomChangesNeverGiveATensorOutsideTheFile) {
  const std::string good = safetensors_file(kGood, std::string(20, 'x'));
  std::mt19937 random(7);  // NOLINT: the same changes in every run
  int accepted = 0;
  for (int round = 0; round < 20'000; ++round) {
    std::vector<char> changed(good.begin(), good.end());
    for (int change = 0; change < 3; ++change) {
      changed[random() % (good.size() - 20)] = static_cast<char>(random() % 3 == 0 ? random() % 256 : "0123456789[]{},:\""[random() % 17]);
    }
    const Result<SafetensorsHeader> header = header_of(changed);
    if (!header) {
      EXPECT_THAT(header.error().message, HasSubstr("memory: "));
      continue;
    }
    ++accepted;
    std::uint64_t covered = 0;
    for (const SafetensorsEntry& entry : header->entries) {
      EXPECT_LE(entry.begin, entry.end) << "round " << round;
      EXPECT_LE(entry.end, changed.size()) << "round " << round;
      covered += entry.end - entry.begin;
    }
    EXPECT_EQ(covered + 8 + header->text.size(), changed.size()) << "round " << round;
  }
  EXPECT_GT(accepted, 10) << "hardly a change was harmless: the loop above checked nothing";
}

}  // namespace
}  // namespace lockstep::model
