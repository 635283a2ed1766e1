// Goal: what libraries would ignore without a word is refused by name.
// Method: made-up environments.
#include "daemon/preflight/environment_checks.hpp"

#include <map>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lockstep::daemon {
namespace {

using ::testing::HasSubstr;

Status check(const std::map<std::string, std::string>& variables) {
  return check_instruction_limit([&](std::string_view name) -> std::optional<std::string> {
    const auto found = variables.find(std::string(name));
    return found == variables.end() ? std::nullopt : std::optional(found->second);
  });
}

TEST(InstructionLimit, KnownNamesPassInAnyCase) {
  for (const char* value : {"", "ALL", "avx2", "Avx512_Core_Bf16", "AVX512_CORE_AMX"}) {
    EXPECT_TRUE(check({{"DNNL_MAX_CPU_ISA", value}})) << value;
  }
  EXPECT_TRUE(check({}));
}

TEST(InstructionLimit, UnknownNameIsRefusedWithThoseThatThereAre) {
  Status status = check({{"DNNL_MAX_CPU_ISA", "BOGUS"}});
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(status.error().message, HasSubstr("DNNL_MAX_CPU_ISA is \"BOGUS\", expected one of SSE41, AVX, AVX2"));
  status = check({{"ONEDNN_MAX_CPU_ISA", "avx512_core_bf61"}});
  ASSERT_FALSE(status);
  EXPECT_THAT(status.error().message, HasSubstr("ONEDNN_MAX_CPU_ISA is \"avx512_core_bf61\""));
  EXPECT_THAT(status.error().message, HasSubstr("did you mean AVX512_CORE_BF16?"));
  EXPECT_FALSE(check({{"DNNL_MAX_CPU_ISA", std::string(1 << 16, 'A')}}));
}

TEST(HostMemory, IsAtLeastWhatThisTestUses) {
  EXPECT_GT(host_memory_bytes(), 1 << 24);
}

}  // namespace
}  // namespace lockstep::daemon
