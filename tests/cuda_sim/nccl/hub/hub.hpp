// The hub: where all ranks of a communicator meet. It is a process of its own, so that it outlives any rank, and sees what every rank's device runs: so it can
// compare the two sides of each call, and tell a deadlock from a rank that is late. NCCL has nothing like it; its ranks find each other by the unique id alone.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tests/cuda_sim/nccl/calls.hpp"

namespace nccl_sim {

class Hub {
 public:
  /// `listener` is the socket that ranks connect to; `creator` reads end of file when the process that made the unique ids is gone.
  Hub(int listener, int creator) : listener_(listener), creator_(creator) {}
  /// Until that process and all ranks are gone.
  void serve();

 private:
  /// What a rank's device runs now: one kernel of NCCL at a time.
  struct Launch {
    std::vector<Call> calls;
    std::vector<Bytes> sent;
    std::vector<Bytes> received;
    std::vector<std::uint64_t> collective;  ///< by call: which of the communicator's collectives it is
    std::vector<bool> done;
  };
  struct Communicator;
  struct Member {
    Greeting greeting;
    int socket = -1;
    bool gone = false;
    bool finalizing = false;
    std::uint64_t collectives = 0;  ///< started so far
    std::optional<Launch> running;
    std::optional<std::vector<std::int32_t>> excludes;  ///< asked to shrink
  };
  struct Communicator {
    std::uint64_t key = 0;
    std::int32_t ranks = 0;
    bool welcomed = false;
    bool failed = false;
    bool finalized = false;
    std::map<int, std::unique_ptr<Member>> members;  ///< by rank
  };
  /// A member, with the communicator that it is of.
  using Place = std::pair<Communicator*, Member*>;

  void accept_one();
  void handle(int socket, Message message);
  void greet(int socket, const Greeting& greeting);
  void welcome(Communicator& communicator);
  void start(Communicator& communicator, Member& member, const Bytes& body);
  void match(Communicator& communicator, Member& member);
  bool match_collective(Communicator& communicator, Member& member, std::size_t index);
  bool match_pair(Communicator& communicator, Member& member, std::size_t index);
  void finish_done(Communicator& communicator);
  void finalize(Communicator& communicator, Member& member);
  void shrink(Communicator& communicator, Member& member, const Message& message);
  void leave(int socket, bool by_intent);
  static void fail(Communicator& communicator, ncclResult_t code, const std::string& why);
  /// The ranks without which the member's launch cannot end.
  [[nodiscard]] static std::vector<int> awaited(const Communicator& communicator, const Member& member);
  /// What runs on the same device as this member, of any communicator.
  [[nodiscard]] std::optional<Place> running_on_device_of(const Member& member);
  /// Fails the communicator where a rank is waited for that said it has nothing left to do.
  static void look_for_finalized(Communicator& communicator, const Member& member);
  void look_for_deadlock(Communicator& communicator, Member& member);
  [[nodiscard]] bool closes_circle(const Place& at, std::vector<Place>& path, std::set<const Member*>& cleared);

  const int listener_;
  int creator_;  ///< -1: gone
  std::map<std::uint64_t, std::unique_ptr<Communicator>> communicators_;
  std::map<int, Place> connections_;  ///< by socket; null until greeted
};

}  // namespace nccl_sim
