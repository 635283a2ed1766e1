#include "comm/mpi/mpi_runtime.hpp"

#include <algorithm>
#include <cstdio>
#include <iterator>
#include <numeric>
#include <utility>

#include <fmt/format.h>

#include "comm/mpi/bounded_call.hpp"

namespace lockstep::comm {

namespace {

/// Ranks that drained together finalize within milliseconds; what takes longer waits for one that died in between.
constexpr Duration kFinalizeLimit = std::chrono::seconds(10);

double seconds(Duration duration) {
  return std::chrono::duration<double>(duration).count();
}

}  // namespace

Result<std::unique_ptr<MpiRuntime>> MpiRuntime::create(const CommOptions& options) {
  int initialized = 0;
  if (MPI_Initialized(&initialized) != MPI_SUCCESS || initialized != 0) {
    return Error{ErrorCode::kInvalidArgument, "MPI was started before in this process; only one mpi communicator can be made, once"};
  }
  struct Start {
    std::unique_ptr<MpiRuntime> runtime{new MpiRuntime};
    Status status;
  };
  // Shared with the thread that is left behind when MPI_Init does not return.
  auto start = std::make_shared<Start>();
  if (!call_within(options.start_timeout, [start] { start->status = start->runtime->start(); })) {
    // Never destroyed: should MPI_Init return after all, nobody may finalize what the process is about to leave by _exit.
    static_cast<void>(new std::shared_ptr<Start>(start));
    return Error{ErrorCode::kTimeout, fmt::format("MPI_Init of rank {} did not return within {:.1f} s; at least one of {} ranks did not start (see its log)",
                                                  options.launch.rank, seconds(options.start_timeout), options.launch.world_size)};
  }
  LOCKSTEP_RETURN_IF_ERROR(start->status);
  std::unique_ptr<MpiRuntime> runtime = std::move(start->runtime);
  if (runtime->rank() != options.launch.rank || runtime->size() != options.launch.world_size) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{} says rank {} of {}, MPI says rank {} of {}; use the launcher of the MPI that this program was built with",
                             options.launch.launcher, options.launch.rank, options.launch.world_size, runtime->rank(), runtime->size())};
  }
  return runtime;
}

Status MpiRuntime::start() {
  int provided = MPI_THREAD_SINGLE;
  if (const int code = MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided); code != MPI_SUCCESS) {
    return Error{ErrorCode::kInternal, fmt::format("MPI_Init_thread failed with code {}", code)};
  }
  initialized_ = true;
  if (provided < MPI_THREAD_SERIALIZED) {
    return Error{ErrorCode::kUnsupported, fmt::format("this MPI grants thread level {}; MPI_THREAD_SERIALIZED ({}) is needed: install one built with threads",
                                                      provided, MPI_THREAD_SERIALIZED)};
  }
  // A communicator of our own: a library that uses MPI_COMM_WORLD in this process cannot take our messages.
  if (const int code = MPI_Comm_dup(MPI_COMM_WORLD, &world_); code != MPI_SUCCESS) {
    return mpi_error(code, rank_, "MPI_Comm_dup");
  }
  // The default handler ends the job without a word to our clients.
  int* tag_limit = nullptr;
  int found = 0;
  for (const int code : {MPI_Comm_set_errhandler(world_, MPI_ERRORS_RETURN), MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN),
                         MPI_Comm_rank(world_, &rank_), MPI_Comm_size(world_, &size_), MPI_Comm_get_attr(MPI_COMM_WORLD, MPI_TAG_UB, &tag_limit, &found)}) {
    if (code != MPI_SUCCESS) {
      return mpi_error(code, rank_, "start");
    }
  }
  tag_max_ = found != 0 ? *tag_limit : 32767;  // the least that the standard grants
  return find_remote_ranks();
}

Status MpiRuntime::find_remote_ranks() {
  const auto size = static_cast<std::size_t>(size_);
  std::vector<int> ranks(size);
  std::iota(ranks.begin(), ranks.end(), 0);
  std::vector<int> ranks_here(size, MPI_UNDEFINED);
  MPI_Comm here = MPI_COMM_NULL;
  MPI_Group here_group = MPI_GROUP_NULL;
  MPI_Group world_group = MPI_GROUP_NULL;
  // One after the other: each needs what the one before it made.
  int code = MPI_Comm_split_type(world_, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &here);
  code = code != MPI_SUCCESS ? code : MPI_Comm_group(here, &here_group);
  code = code != MPI_SUCCESS ? code : MPI_Comm_group(world_, &world_group);
  code = code != MPI_SUCCESS ? code : MPI_Group_translate_ranks(world_group, size_, ranks.data(), here_group, ranks_here.data());
  code = code != MPI_SUCCESS ? code : MPI_Group_free(&world_group);
  code = code != MPI_SUCCESS ? code : MPI_Group_free(&here_group);
  code = code != MPI_SUCCESS ? code : MPI_Comm_free(&here);
  if (code != MPI_SUCCESS) {
    return mpi_error(code, rank_, "start");
  }
  std::ranges::transform(ranks_here, std::back_inserter(is_remote_), [](int rank) { return static_cast<std::uint8_t>(rank == MPI_UNDEFINED ? 1 : 0); });
  return {};
}

MpiRuntime::~MpiRuntime() {
  if (!initialized_ || abandoned_) {
    return;
  }
  MPI_Comm world = world_;
  const bool finalized = call_within(kFinalizeLimit, [world]() mutable {
    if (world != MPI_COMM_NULL) {
      static_cast<void>(MPI_Comm_free(&world));  // the process is about to end: nothing is left to do about a failure
    }
    static_cast<void>(MPI_Finalize());
  });
  if (!finalized) {
    fmt::print(stderr, "lockstep: rank {}: MPI_Finalize did not return within {:.0f} s: a rank died while the group ended\n", rank_, seconds(kFinalizeLimit));
  }
}

}  // namespace lockstep::comm
