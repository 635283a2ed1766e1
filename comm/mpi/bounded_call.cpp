#include "comm/mpi/bounded_call.hpp"

#include <algorithm>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

namespace lockstep::comm {

namespace {

struct Completion {
  std::mutex mutex;
  std::condition_variable returned;
  bool done = false;
};

}  // namespace

bool call_within(Duration limit, std::function<void()> work) {
  // Shared by this call and the thread, for either may end last.
  const auto completion = std::make_shared<Completion>();
  std::thread thread([completion, work = std::move(work)] {
    work();
    const std::lock_guard lock(completion->mutex);
    completion->done = true;
    completion->returned.notify_one();
  });
  bool done = false;
  {
    std::unique_lock lock(completion->mutex);
    // A limit of "for ever" must not overflow the clock.
    const Duration bounded = std::min<Duration>(limit, std::chrono::hours(24 * 365));
    done = completion->returned.wait_for(lock, bounded, [&] { return completion->done; });
  }
  if (done) {
    thread.join();
  } else {
    thread.detach();  // tidy-ok: it may hang in MPI for ever; it owns all that it touches, and the process leaves by _exit
  }
  return done;
}

}  // namespace lockstep::comm
