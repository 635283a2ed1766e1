// MpiOperation: the requests and buffers of one started operation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "comm/mpi/mpi_runtime.hpp"

namespace lockstep::comm {

/// One operation, reused by later ones so that a step allocates nothing of ours.
/// All messages go through buffers of this object, at the price of one copy on each side: after a failure MPI goes on reading and writing whatever it was
/// given, so the caller could never free its own buffers, nor the stack that a span points to. Only these are leaked then. The copy costs what the
/// shared-memory transport's own two copies cost, and a late peer can do no harm.
/// All-to-all messages to other hosts travel framed, their length first, in pieces that MPI sends without asking: see docs/decisions/0021.
class MpiOperation {
 public:
  /// Whether MPI can do it at all: its counts are int. `rank` is for the message.
  [[nodiscard]] static Status check(std::span<const std::int32_t> values, int rank);
  [[nodiscard]] static Status check(const AllToAll& exchange, int rank);
  [[nodiscard]] Status start_all_reduce(const MpiRuntime& runtime, std::uint64_t id, std::span<const std::int32_t> values, ReduceOp op);
  [[nodiscard]] Status start_all_to_all(const MpiRuntime& runtime, std::uint64_t id, const AllToAll& exchange);

  /// One look, which also moves the library on: true when complete; then `status()` tells how.
  [[nodiscard]] bool poll();
  [[nodiscard]] const Status& status() const { return status_; }
  [[nodiscard]] std::uint64_t id() const { return id_; }
  [[nodiscard]] bool is_all_reduce() const { return !reduced_.empty(); }
  /// For messages: "all_reduce 17".
  [[nodiscard]] std::string describe() const;
  /// For messages, while incomplete: which peers it still waits for. Empty when MPI does not tell.
  [[nodiscard]] std::string missing_peers();

  [[nodiscard]] std::span<const std::int32_t> reduced() const { return reduced_; }
  /// Copies what came to the caller's receive buffers.
  void deliver(std::span<std::size_t> received_bytes) const;

 private:
  struct Transfer {
    int peer = 0;
    bool receives = false;
    std::size_t piece_bytes = 0;  ///< of a piece after a framed message's first one; 0: another transfer
  };
  struct Slot {
    std::size_t offset = 0;    ///< in incoming_, of what follows the frame
    std::size_t received = 0;  ///< bytes
  };

  void reset(const MpiRuntime& runtime, std::uint64_t id, std::uint64_t kind);
  /// Sends the values to every rank, and reduces what comes when all is there.
  [[nodiscard]] Status start_direct_all_reduce();
  [[nodiscard]] Status reduce_received();
  /// One request each, added to those of the operation.
  [[nodiscard]] Status post_receive(int source, std::size_t offset, std::size_t capacity, std::size_t piece_bytes = 0);
  [[nodiscard]] Status post_send(int peer, const void* data, std::size_t bytes);
  /// Once a framed message's first piece is there, which tells the length: receives the others.
  [[nodiscard]] Status post_rest(int source, std::size_t first_bytes);
  [[nodiscard]] std::size_t capacity_from(int source) const;
  [[nodiscard]] Status post_receives(const AllToAll& exchange);
  [[nodiscard]] Status post_sends(const AllToAll& exchange);
  [[nodiscard]] Status copy_own(const AllToAll& exchange);
  /// Ends what has arrived of an operation with framed messages.
  void poll_framed();
  /// A completed request's outcome. `code`: of the call that completed it.
  [[nodiscard]] Status collect(int code, std::size_t transfer, const MPI_Status& status);
  /// The outcome of all requests, completed at once.
  [[nodiscard]] Status collect_all(int code);

  const MpiRuntime* runtime_ = nullptr;
  std::uint64_t id_ = 0;
  int tag_ = 0;
  bool complete_ = false;
  Status status_;
  std::vector<std::int32_t> contributed_;
  std::vector<std::int32_t> reduced_;  ///< empty for an all-to-all
  std::vector<std::byte> outgoing_;
  std::vector<std::byte> incoming_;
  std::vector<Slot> slots_;                      ///< [size], by source
  std::vector<std::span<std::byte>> receivers_;  ///< [size], by source; borrowed from the caller until deliver
  std::vector<MPI_Request> requests_;
  std::vector<Transfer> transfers_;  ///< one per request; empty for an all-reduce that MPI does
  bool is_framed_ = false;           ///< some of the messages are
  std::size_t open_requests_ = 0;    ///< of an operation with framed messages
  std::vector<int> completed_;       ///< [requests], scratch
  ReduceOp op_ = ReduceOp::kSum;     ///< of an all-reduce
  std::vector<MPI_Status> statuses_;
};

}  // namespace lockstep::comm
