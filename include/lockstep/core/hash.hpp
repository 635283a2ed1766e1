// FNV-1a: the stable 64-bit hash of configurations and step guards.
#pragma once

#include <cstdint>
#include <string_view>

namespace lockstep {

/// FNV-1a, 64 bits: the same on every build and machine, which std::hash is not.      Source  Fowler, Noll, Vo; RFC 9923.
constexpr std::uint64_t fnv1a(std::string_view bytes, std::uint64_t seed = 0xcbf29ce484222325ULL) {
  std::uint64_t hash = seed;
  for (const char byte : bytes) {
    hash = (hash ^ static_cast<std::uint8_t>(byte)) * 0x100000001b3ULL;
  }
  return hash;
}

}  // namespace lockstep
