// MpiRuntime: MPI_Init_thread to MPI_Finalize, and our own copy of MPI_COMM_WORLD.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "comm/mpi/mpi_api.hpp"
#include "lockstep/comm/communicator.hpp"

namespace lockstep::comm {

/// Ownership  the process's MPI, once per process: MPI cannot be started twice. The destructor finalizes it, unless `abandon` was called.
/// Threads    one at a time, any: the level is MPI_THREAD_SERIALIZED. FUNNELED would not do, for the start and the end run on threads of their own, and
///            MULTIPLE would put locks into every call for concurrency that we never use.
class MpiRuntime {
 public:
  /// Errors  kTimeout: not all ranks came out of MPI_Init within options.start_timeout: leave by _exit. kInvalidArgument: MPI sees another rank or world than
  /// the launcher told. kUnsupported: a library without threads.
  [[nodiscard]] static Result<std::unique_ptr<MpiRuntime>> create(const CommOptions& options);
  ~MpiRuntime();
  MpiRuntime(const MpiRuntime&) = delete;
  MpiRuntime& operator=(const MpiRuntime&) = delete;

  [[nodiscard]] MPI_Comm world() const { return world_; }  ///< errors are returned, not fatal
  [[nodiscard]] int rank() const { return rank_; }
  [[nodiscard]] int size() const { return size_; }
  [[nodiscard]] int tag_max() const { return tag_max_; }
  /// Whether the rank runs on another host, as MPI sees it: what goes there passes a network.
  [[nodiscard]] bool is_remote(int rank) const { return is_remote_[static_cast<std::size_t>(rank)] != 0; }
  /// After a failure: MPI_Finalize waits for all ranks, so it is not called, and the process has to leave by _exit.
  void abandon() { abandoned_ = true; }

 private:
  MpiRuntime() = default;
  /// The blocking part of `create`.
  [[nodiscard]] Status start();
  [[nodiscard]] Status find_remote_ranks();

  MPI_Comm world_ = MPI_COMM_NULL;
  int rank_ = 0;
  int size_ = 1;
  int tag_max_ = 0;
  std::vector<std::uint8_t> is_remote_;  ///< [size]
  bool initialized_ = false;
  bool abandoned_ = false;
};

}  // namespace lockstep::comm
