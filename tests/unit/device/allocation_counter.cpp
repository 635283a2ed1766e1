// Replaces the global operator new of this test program by one that counts.
#include "tests/unit/device/allocation_counter.hpp"

#include <atomic>
#include <cstdlib>
#include <new>

namespace {
std::atomic<std::int64_t> allocations = 0;  // NOLINT(cppcoreguidelines-avoid-non-const-global-variables): what it counts is global

void* count_and_allocate(std::size_t bytes) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  void* data = std::malloc(bytes);
  if (data == nullptr) {
    throw std::bad_alloc();
  }
  return data;
}
}  // namespace

namespace lockstep {
std::int64_t allocation_count() {
  return allocations.load(std::memory_order_relaxed);
}
}  // namespace lockstep

void* operator new(std::size_t bytes) {
  return count_and_allocate(bytes);
}
void* operator new[](std::size_t bytes) {
  return count_and_allocate(bytes);
}
void* operator new(std::size_t bytes, const std::nothrow_t& /*tag*/) noexcept {
  allocations.fetch_add(1, std::memory_order_relaxed);
  return std::malloc(bytes);
}
void* operator new[](std::size_t bytes, const std::nothrow_t& /*tag*/) noexcept {
  allocations.fetch_add(1, std::memory_order_relaxed);
  return std::malloc(bytes);
}
void operator delete(void* data) noexcept {
  std::free(data);
}
void operator delete[](void* data) noexcept {
  std::free(data);
}
void operator delete(void* data, std::size_t /*bytes*/) noexcept {
  std::free(data);
}
void operator delete[](void* data, std::size_t /*bytes*/) noexcept {
  std::free(data);
}
