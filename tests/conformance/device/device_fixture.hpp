// What the conformance tests of devices share: a device of the table, and the way to its memory and back, which is the same on all of them.
#pragma once

#include <chrono>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include <gtest/gtest.h>

#include "lockstep/device/device.hpp"

namespace lockstep::device {

inline DeviceOptions test_device_options() {
  // Shared: tests of several processes run at the same time.
  return {.local_rank = 0, .core_count = 2, .share_device = true, .batch_invariant = true, .plugin_folder = LOCKSTEP_TEST_PLUGINS};
}

inline Deadline patience() {
  return Deadline::after(std::chrono::seconds(60));
}

class DeviceFixture : public ::testing::Test {
 protected:
  /// Skips where there is no such device here: only tests that are labelled gpu may.
  void open(const DeviceBackend& backend) {
    backend_ = &backend;
    if (Status usable = backend.probe(test_device_options()); !usable) {
      GTEST_SKIP() << usable.error().message;
    }
    auto device = backend.make(test_device_options());
    ASSERT_TRUE(device) << device.error().message;
    device_ = std::move(*device);
    auto ops = device_->make_ops();
    ASSERT_TRUE(ops) << ops.error().message;
    ops_ = std::move(*ops);
    auto stream = device_->make_stream("test");
    ASSERT_TRUE(stream) << stream.error().message;
    stream_ = std::move(*stream);
  }

  /// Runs `body`, which calls ops, as a task. What it launches on a device may still be under way afterwards.
  template <typename Body>
  void run(const Body& body) {
    stream_->enqueue([&body]() -> Status {
      body();
      return {};
    });
    if (backend_->host_memory) {  // the task is on another thread, and `body` here
      ASSERT_TRUE(stream_->synchronize(patience()));
    }
  }
  [[nodiscard]] Buffer allocate(std::size_t bytes) {
    auto buffer = device_->allocate(bytes);
    EXPECT_TRUE(buffer) << buffer.error().message;
    return std::move(*buffer);
  }
  /// Copies to memory of the device, from a byte of it on.
  void write(const Buffer& buffer, std::size_t from_byte, std::span<const std::byte> bytes) {
    auto host = device_->allocate_host(bytes.size());
    ASSERT_TRUE(host) << host.error().message;
    std::memcpy(host->as<void>(), bytes.data(), bytes.size());
    run([&] { ops_->upload(*stream_, host->as<void>(), bytes.size(), buffer.as<std::byte>() + from_byte); });
    const Status done = stream_->synchronize(patience());
    ASSERT_TRUE(done) << done.error().message;
  }
  template <typename T>
  [[nodiscard]] Buffer upload(const std::vector<T>& values) {
    Buffer buffer = allocate(values.size() * sizeof(T));
    write(buffer, 0, std::as_bytes(std::span(values)));
    return buffer;
  }
  /// The first `count` elements, after all that was enqueued.
  template <typename T>
  [[nodiscard]] std::vector<T> download(const Buffer& buffer, std::size_t count) {
    auto host = device_->allocate_host(count * sizeof(T));
    EXPECT_TRUE(host) << host.error().message;
    run([&] { ops_->download(*stream_, buffer.as<void>(), count * sizeof(T), host->as<void>()); });
    const Status done = stream_->synchronize(patience());
    EXPECT_TRUE(done) << done.error().message;
    std::vector<T> values(count);
    std::memcpy(values.data(), host->as<void>(), count * sizeof(T));
    return values;
  }

  const DeviceBackend* backend_ = nullptr;
  std::unique_ptr<Device> device_;
  std::unique_ptr<Ops> ops_;
  std::unique_ptr<Stream> stream_;
};

}  // namespace lockstep::device
