// Goal    fnv1a is FNV-1a of 64 bits, on every build: ranks of different builds compare it.
// Method  Published test vectors, and the property that hashing in pieces equals hashing the whole.
#include "lockstep/core/hash.hpp"

#include <string_view>

#include <gtest/gtest.h>

namespace lockstep {
namespace {

TEST(Fnv1a, GivesThePublishedVectors) {
  static_assert(fnv1a("") == 0xcbf29ce484222325ULL);
  EXPECT_EQ(fnv1a("a"), 0xaf63dc4c8601ec8cULL);
  EXPECT_EQ(fnv1a("foobar"), 0x85944171f73967e8ULL);
}

TEST(Fnv1a, OfPiecesEqualsThatOfTheWhole) {
  constexpr std::string_view kText = "lockstep takes every step together";
  for (std::size_t cut = 0; cut <= kText.size(); ++cut) {
    EXPECT_EQ(fnv1a(kText.substr(cut), fnv1a(kText.substr(0, cut))), fnv1a(kText));
  }
}

TEST(Fnv1a, TreatsBytesAboveAsciiAsUnsigned) {
  EXPECT_EQ(fnv1a("\xff"), 0xaf64724c8602eb6eULL);
}

}  // namespace
}  // namespace lockstep
