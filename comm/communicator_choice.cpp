#include "lockstep/comm/communicator_choice.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace lockstep::comm {

namespace {

constexpr std::int32_t kNobody = std::numeric_limits<std::int32_t>::max();

/// What the ranks have in common.
struct Votes {
  std::int32_t name_first = 0;         ///< the least of the wished names, by their place in communicator_names()
  std::int32_t name_last = 0;          ///< the greatest
  std::int32_t unable_rank = kNobody;  ///< the lowest rank that cannot use the devices' communicator
};

Result<Votes> count_votes(Communicator& hosts, std::int32_t name, bool able, const Deadline& deadline) {
  const std::array<std::int32_t, 3> ours{name, -name, able ? kNobody : hosts.rank()};
  std::array<std::int32_t, 3> least{};
  LOCKSTEP_ASSIGN_OR_RETURN(const Ticket ticket, hosts.start_all_reduce(ours, ReduceOp::kMin));
  LOCKSTEP_RETURN_IF_ERROR(hosts.wait(ticket, least, deadline));
  return Votes{.name_first = least[0], .name_last = -least[1], .unable_rank = least[2]};
}

/// The one that is made over one of the hosts.
const CommBackend& device_backend() {
  return *std::ranges::find_if(comm_backends(), [](const CommBackend& backend) { return backend.make_over != nullptr; });
}

Status can_use(const CommBackend& backend, const CommunicatorWish& wish, const CommOptions& options) {
  if (!wish.computes_on_device) {
    return Error{ErrorCode::kUnsupported, "this rank does not compute on a GPU: give --device cuda"};
  }
  return backend.probe == nullptr ? Status{} : backend.probe(options);
}

Error refusal(std::string_view name, const std::string& why) {
  return {ErrorCode::kUnsupported, fmt::format("--communicator {}: {}", name, why)};
}

std::string made_note(const Communicator& made, bool automatic) {
  const std::string reason = made.agreement_reason();
  return fmt::format("communicator {}{}: rows travel between the devices; the agreement by {}{}{}", made.transport(),
                     automatic ? ", which all ranks can use" : "", made.agreement_transport(), reason.empty() ? "" : ": ", reason);
}

}  // namespace

std::span<const std::string_view> communicator_names() {
  static const std::vector<std::string_view> names = [] {
    std::vector<std::string_view> all{kAutoCommunicator};
    for (const CommBackend& backend : comm_backends()) {
      if (backend.multi_process) {
        all.push_back(backend.name);
      }
    }
    return all;
  }();
  return names;
}

Status check_communicator(const CommunicatorWish& wish, const CommOptions& options) {
  const CommBackend& backend = device_backend();
  const Status usable = wish.name == backend.name ? can_use(backend, wish, options) : Status{};
  return usable ? usable : refusal(wish.name, usable.error().message);
}

Result<CommunicatorChoice> choose_communicator(std::unique_ptr<Communicator> hosts, const CommunicatorWish& wish, const CommOptions& options) {
  const std::span<const std::string_view> names = communicator_names();
  const auto name = std::ranges::find(names, wish.name);
  if (name == names.end()) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("unknown communicator '{}'; expected one of: {}", wish.name, fmt::join(names, ", "))};
  }
  const CommBackend& backend = device_backend();
  const bool automatic = wish.name == kAutoCommunicator;
  const bool wanted = automatic || wish.name == backend.name;
  const Status usable = wanted ? can_use(backend, wish, options) : Status{};
  LOCKSTEP_ASSIGN_OR_RETURN(const Votes votes,
                            count_votes(*hosts, static_cast<std::int32_t>(name - names.begin()), usable.has_value(), Deadline::after(options.start_timeout)));
  if (votes.name_first != votes.name_last) {
    return Error{ErrorCode::kDiverged,
                 fmt::format("rank {}: --communicator is {} here, and the ranks have {} and {}: restart them with equal options", hosts->rank(), wish.name,
                             names[static_cast<std::size_t>(votes.name_first)], names[static_cast<std::size_t>(votes.name_last)])};
  }
  const std::string_view kept = hosts->transport();
  if (wanted && votes.unable_rank == kNobody) {
    LOCKSTEP_ASSIGN_OR_RETURN(std::unique_ptr<Communicator> made, backend.make_over(std::move(hosts), options));
    std::string note = made_note(*made, automatic);
    return CommunicatorChoice{.communicator = std::move(made), .note = std::move(note)};
  }
  const std::string why = usable ? fmt::format("rank {} cannot use {}; its log says why", votes.unable_rank, backend.name) : usable.error().message;
  if (wanted && !automatic) {
    Error error = refusal(wish.name, why);
    error.rank = votes.unable_rank;
    return error;
  }
  // On hosts, and where it was asked for, there is nothing to explain.
  std::string note = wanted && wish.computes_on_device ? fmt::format("communicator {}: rows pass through the host's memory, as {}", kept, why) : std::string();
  return CommunicatorChoice{.communicator = std::move(hosts), .note = std::move(note)};
}

}  // namespace lockstep::comm
