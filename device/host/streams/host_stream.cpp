#include "device/host/streams/host_stream.hpp"

#include <exception>
#include <pthread.h>
#include <system_error>
#include <utility>

#include <fmt/format.h>

namespace lockstep::device::host {

namespace {
/// The longest thread name that Linux takes.
constexpr std::size_t kThreadNameMax = 15;
}  // namespace

void run_task(Task& task, Timeline& timeline, std::string_view stream_name) {
  if (timeline.failed()) {
    return;
  }
  try {
    if (Status done = task(); !done) {
      timeline.fail(std::move(done).error());
    }
  } catch (const std::exception& thrown) {
    timeline.fail({ErrorCode::kInternal, fmt::format("a task of stream \"{}\" threw: {}", stream_name, thrown.what())});
  } catch (...) {  // everything: a throw would end the stream's thread and strand its waiters; it becomes the stream's error
    timeline.fail({ErrorCode::kInternal, fmt::format("a task of stream \"{}\" threw something that is no std::exception", stream_name)});
  }
}

Result<std::unique_ptr<Stream>> HostStream::create(std::string_view name, int spin_rounds) {
  std::unique_ptr<HostStream> stream(new HostStream(name, spin_rounds));
  try {
    stream->thread_ = std::jthread([self = stream.get()](const std::stop_token& stop) { self->run(stop); });
  } catch (const std::system_error& thrown) {
    return Error{ErrorCode::kResourceExhausted,
                 fmt::format("cannot start the thread of stream \"{}\": {}; raise the limit of processes or threads", name, thrown.what())};
  }
  return std::unique_ptr<Stream>(std::move(stream));
}

HostStream::HostStream(std::string_view name, int spin_rounds) : name_(name), timeline_(std::make_shared<Timeline>(spin_rounds)), ring_(kCapacity) {}

HostStream::~HostStream() {
  if (thread_.joinable()) {
    thread_.request_stop();
    thread_.join();
  }
  timeline_->abandon(name_);
}

void HostStream::enqueue(Task task) {
  push({.task = std::move(task), .context = is_forward_context_available() ? &get_forward_context() : nullptr, .awaited = {}});
}

void HostStream::record(Event& event) {
  // No entry of its own: the event is reached when the last entry so far is.
  static_cast<HostEvent&>(event).set({timeline_, timeline_->submitted()});
}

void HostStream::wait_for(Event& event) {
  TimelinePoint awaited = static_cast<HostEvent&>(event).get();
  if (awaited.timeline != nullptr && awaited.timeline != timeline_) {  // our own order needs no wait
    push({.task = {}, .context = nullptr, .awaited = std::move(awaited)});
  }
}

Status HostStream::synchronize(const Deadline& deadline) {
  LOCKSTEP_RETURN_IF_ERROR(timeline_->wait(timeline_->submitted(), deadline));
  return timeline_->clear_failure();
}

void HostStream::push(Entry entry) {
  const std::uint64_t number = timeline_->submitted() + 1;
  if (number > kCapacity) {
    timeline_->wait(number - kCapacity, std::stop_token{});  // until the slot's last entry has run
  }
  ring_[number % kCapacity] = std::move(entry);
  timeline_->submit();
}

void HostStream::run(const std::stop_token& stop) {
  pthread_setname_np(pthread_self(), name_.substr(0, kThreadNameMax).c_str());
  while (timeline_->wait_for_work(stop)) {
    Entry& entry = ring_[(timeline_->completed() + 1) % kCapacity];
    if (!run_entry(entry, stop)) {
      return;  // not done, so not completed: the destructor fires the rest
    }
    // Before the entry counts as done: who waits for it may destroy what the task refers to.
    entry = {};
    timeline_->complete();
  }
}

bool HostStream::run_entry(Entry& entry, const std::stop_token& stop) {
  if (entry.awaited.timeline != nullptr) {
    // Waited for even after a failure, so that our own later events never claim that earlier work has ended while it has not.
    if (!entry.awaited.timeline->wait(entry.awaited.point, stop)) {
      return false;
    }
    if (Status seen = entry.awaited.timeline->status_at(entry.awaited.point); !seen) {
      timeline_->fail(std::move(seen).error());
    }
    return true;
  }
  _set_forward_context(entry.context);
  run_task(entry.task, *timeline_, name_);
  _set_forward_context(nullptr);
  return true;
}

}  // namespace lockstep::device::host
