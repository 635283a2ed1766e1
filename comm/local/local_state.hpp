// What the ranks of one LocalGroup share: the operations in flight and who has arrived at each.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "lockstep/comm/local_group.hpp"

namespace lockstep::comm {

enum class OperationKind : std::uint8_t { kAllReduce, kAllToAll };

/// One rank's side of one operation. Written by its rank alone, without the lock, until `publish`; read by all after that, until all have finished: so big
/// copies never hold the lock. All vectors keep their storage from one operation to the next.
struct Contribution {
  OperationKind kind = OperationKind::kAllReduce;
  ReduceOp reduce_op = ReduceOp::kSum;
  std::vector<std::int32_t> values;             ///< of an all-reduce
  std::vector<std::byte> messages;              ///< of an all-to-all: back to back, by destination
  std::vector<std::size_t> message_ends;        ///< [size], bytes
  std::vector<std::span<std::byte>> receivers;  ///< [size], borrowed from the caller; written by its own rank only, inside its wait

  [[nodiscard]] std::span<const std::byte> message_to(int destination) const;
};

struct Operation {
  std::uint64_t sequence = 0;
  std::vector<Contribution> contributions;  ///< [size]
  std::vector<bool> started;                ///< [size], under the lock
  int started_count = 0;                    ///< under the lock
  int finished_count = 0;                   ///< under the lock; at size, the operation is reused
  int first_rank = 0;                       ///< who published first: the one that later ones are compared with
  std::string divergence;                   ///< under the lock; not empty: two ranks started different operations
  std::atomic<bool> settled{false};         ///< all have started it, or two differ: `wait` does not block
};

/// Threads  any; the members' comments say what the lock guards.
struct LocalGroup::State {
  State(int group_size, LocalGroupHooks group_hooks);

  /// The operation of this sequence number, made or reused when this rank is the first to come to it.
  [[nodiscard]] Operation& enter(std::uint64_t sequence);
  /// Tells all that `rank` has filled its contribution; finds divergence.
  void publish(Operation& operation, int rank);
  /// Blocks until the operation is settled.      Errors  kDiverged, kPeerLost, kTimeout naming who has not started it, or what the deadline's watch says.
  [[nodiscard]] Status await(const Operation& operation, int rank, const Deadline& deadline);
  /// `rank` has read all that it needs; the last one gives the operation back.
  void finish(Operation& operation);
  void mark_lost(int rank);
  [[nodiscard]] bool any_lost() const { return lost_rank_.load(std::memory_order_acquire) >= 0; }

  const int size;
  const LocalGroupHooks hooks;
  std::vector<bool> taken;  ///< [size], under the lock: whose communicator was handed out
  std::mutex mutex;

 private:
  /// A sleeping rank. One condition variable each: with a common one, every arrival would wake all ranks to find that it was not the last.
  struct Sleeper {
    std::condition_variable wake;
    bool asleep = false;
  };

  [[nodiscard]] bool is_settled(const Operation& operation) const { return any_lost() || operation.settled.load(std::memory_order_acquire); }
  [[nodiscard]] Status outcome(const Operation& operation) const;
  [[nodiscard]] std::string missing_ranks(const Operation& operation) const;
  void wake_all();

  std::atomic<int> lost_rank_{-1};
  std::uint64_t first_sequence_ = 0;                   ///< of in_flight_[0]
  std::vector<std::unique_ptr<Operation>> in_flight_;  ///< by sequence number, without gaps
  std::vector<std::unique_ptr<Operation>> spare_;
  std::vector<Sleeper> sleepers_;  ///< [size]
  const int spin_count_;
};

[[nodiscard]] std::string describe_operation(const Contribution& contribution);

}  // namespace lockstep::comm
