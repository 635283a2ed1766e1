// InlineStream: a stream that runs each task on the calling thread at once.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "device/host/streams/timeline.hpp"
#include "lockstep/device/stream.hpp"

namespace lockstep::device::host {

class InlineStream final : public Stream {
 public:
  explicit InlineStream(std::string_view name) : name_(name), timeline_(std::make_shared<Timeline>(0)) {}

  void enqueue(Task task) override;
  void record(Event& event) override;
  /// Blocks the calling thread: there is no other that could.
  void wait_for(Event& event) override;
  [[nodiscard]] Status synchronize(const Deadline& deadline) override;
  [[nodiscard]] std::string_view name() const override { return name_; }

 private:
  const std::string name_;
  const std::shared_ptr<Timeline> timeline_;  ///< shared with the events recorded here
};

}  // namespace lockstep::device::host
