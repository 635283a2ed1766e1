#include "tests/cuda_sim/nccl/hub/hub.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <poll.h>
#include <set>
#include <sys/socket.h>
#include <unistd.h>

#include <fmt/format.h>

#include "tests/cuda_sim/violation.hpp"

namespace nccl_sim {
namespace {

std::string describe_calls(const std::vector<Call>& calls) {
  std::string text;
  for (const Call& call : calls) {
    text += (text.empty() ? "" : " and ") + describe(call);
  }
  return text;
}

}  // namespace

void Hub::serve() {
  while (creator_ >= 0 || !connections_.empty()) {
    // A negative descriptor is left out by poll().
    std::vector<pollfd> sockets{{.fd = listener_, .events = POLLIN, .revents = 0}, {.fd = creator_, .events = 0, .revents = 0}};
    for (const auto& [socket, place] : connections_) {
      sockets.push_back({.fd = socket, .events = POLLIN, .revents = 0});
    }
    if (::poll(sockets.data(), sockets.size(), -1) < 0) {
      continue;
    }
    for (std::size_t i = 2; i < sockets.size(); ++i) {
      if (sockets[i].revents == 0 || !connections_.contains(sockets[i].fd)) {
        continue;
      }
      Message message;
      if (receive_message(sockets[i].fd, message)) {
        handle(sockets[i].fd, std::move(message));
      } else {
        leave(sockets[i].fd, false);
      }
    }
    creator_ = sockets[1].revents == 0 ? creator_ : -1;
    if (sockets[0].revents != 0) {
      accept_one();
    }
  }
}

void Hub::accept_one() {
  const int socket = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
  if (socket >= 0) {
    connections_[socket] = {nullptr, nullptr};
  }
}

void Hub::handle(int socket, Message message) {
  const auto [communicator, member] = connections_.at(socket);
  if (message.kind == MessageKind::kHello) {
    Greeting greeting;
    std::memcpy(&greeting, message.body.data(), sizeof greeting);
    greet(socket, greeting);
  } else if (message.kind == MessageKind::kBye) {
    leave(socket, true);
  } else if (message.kind == MessageKind::kStarted) {
    start(*communicator, *member, message.body);
  } else if (message.kind == MessageKind::kFinalize) {
    finalize(*communicator, *member);
  } else if (message.kind == MessageKind::kShrink) {
    shrink(*communicator, *member, message);
  }
}

void Hub::greet(int socket, const Greeting& greeting) {
  std::unique_ptr<Communicator>& communicator = communicators_[greeting.key];
  if (!communicator) {
    communicator = std::make_unique<Communicator>();
    communicator->key = greeting.key;
    communicator->ranks = greeting.ranks;
  }
  if (communicator->ranks != greeting.ranks || communicator->members.contains(greeting.rank)) {
    const std::string why = communicator->ranks != greeting.ranks
                                ? fmt::format("rank {} says that there are {} ranks, another said {}", greeting.rank, greeting.ranks, communicator->ranks)
                                : fmt::format("there are two ranks {}", greeting.rank);
    fail(*communicator, ncclInvalidUsage, why);
    static_cast<void>(send_message(socket, {.kind = MessageKind::kFailure, .number = ncclInvalidUsage, .body = bytes_of(why)}));
    return;
  }
  std::unique_ptr<Member>& member = communicator->members[greeting.rank];
  member = std::make_unique<Member>();
  member->greeting = greeting;
  member->socket = socket;
  connections_[socket] = {communicator.get(), member.get()};
  if (communicator->members.size() == static_cast<std::size_t>(communicator->ranks)) {
    welcome(*communicator);
  }
}

void Hub::welcome(Communicator& communicator) {
  std::map<int, int> rank_of_device;
  for (const auto& [rank, member] : communicator.members) {
    // All ranks of a simulation are on one host, so the number says which device it is.
    const auto [other, is_new] = rank_of_device.emplace(member->greeting.device, rank);
    if (!is_new) {
      fail(communicator, ncclInvalidUsage,
           fmt::format("Duplicate GPU detected : rank {} and rank {} both on CUDA device {}", other->second, rank, member->greeting.device));
      return;
    }
  }
  communicator.welcomed = true;
  for (const auto& [rank, member] : communicator.members) {
    static_cast<void>(send_message(member->socket, {.kind = MessageKind::kWelcome, .number = 0, .body = {}}));
  }
}

void Hub::start(Communicator& communicator, Member& member, const Bytes& body) {
  Launch launch;
  unpack(body, launch.calls, launch.sent);
  launch.received.resize(launch.calls.size());
  launch.done.resize(launch.calls.size(), false);
  for (const Call& call : launch.calls) {
    launch.collective.push_back(call.is_collective() ? member.collectives++ : 0);
  }
  member.running = std::move(launch);
  if (communicator.failed) {
    return;  // a kernel that nobody answers
  }
  match(communicator, member);
  finish_done(communicator);
  if (member.running && !communicator.failed) {
    look_for_finalized(communicator, member);
    look_for_deadlock(communicator, member);
  }
}

void Hub::look_for_finalized(Communicator& communicator, const Member& member) {
  for (const int rank : awaited(communicator, member)) {
    const auto found = communicator.members.find(rank);
    if (found != communicator.members.end() && found->second->finalizing) {
      fail(communicator, ncclInvalidUsage,
           fmt::format("rank {} calls ncclCommFinalize, and rank {} calls {}", rank, member.greeting.rank, describe_calls(member.running->calls)));
      return;
    }
  }
}

void Hub::match(Communicator& communicator, Member& member) {
  for (std::size_t i = 0; i < member.running->calls.size(); ++i) {
    const bool going_on = member.running->calls[i].is_collective() ? match_collective(communicator, member, i) : match_pair(communicator, member, i);
    if (!going_on) {
      return;
    }
  }
}

bool Hub::match_collective(Communicator& communicator, Member& member, std::size_t index) {
  const Call& call = member.running->calls[index];
  const std::uint64_t number = member.running->collective[index];
  std::vector<std::pair<Launch*, std::size_t>> sides;
  for (const auto& [rank, other] : communicator.members) {
    for (std::size_t i = 0; other->running && i < other->running->calls.size(); ++i) {
      const Call& theirs = other->running->calls[i];
      if (!theirs.is_collective() || other->running->collective[i] != number) {
        continue;
      }
      if (theirs != call) {
        fail(communicator, ncclInvalidUsage,
             fmt::format("collective {} differs: rank {} calls {}, rank {} calls {}", number, rank, describe(theirs), member.greeting.rank, describe(call)));
        return false;
      }
      sides.emplace_back(&*other->running, i);
    }
  }
  if (sides.size() < static_cast<std::size_t>(communicator.ranks)) {
    return true;
  }
  Bytes result = sides.front().first->sent[sides.front().second];
  for (std::size_t i = 1; i < sides.size(); ++i) {
    const Bytes& theirs = sides[i].first->sent[sides[i].second];
    if (call.kind == CallKind::kAllGather) {
      result.insert(result.end(), theirs.begin(), theirs.end());
    } else if (!reduce(call, result, theirs)) {
      cuda_sim::violation(describe(call) + " is not simulated: add it to tests/cuda_sim/nccl/calls.cpp");
    }
  }
  for (const auto& [launch, i] : sides) {
    launch->received[i] = result;
    launch->done[i] = true;
  }
  return true;
}

/// Messages between two ranks match in the order in which each side calls.
bool Hub::match_pair(Communicator& communicator, Member& member, std::size_t index) {
  const Call& call = member.running->calls[index];
  const auto found = communicator.members.find(call.peer);
  if (found == communicator.members.end() || !found->second->running || member.running->done[index]) {
    return true;
  }
  Launch& theirs = *found->second->running;
  const CallKind wanted = call.kind == CallKind::kSend ? CallKind::kReceive : CallKind::kSend;
  for (std::size_t i = 0; i < theirs.calls.size(); ++i) {
    const Call& other = theirs.calls[i];
    if (other.kind != wanted || other.peer != member.greeting.rank || theirs.done[i]) {
      continue;
    }
    if (other.count != call.count || other.datatype != call.datatype || other.graph != call.graph) {
      fail(communicator, ncclInvalidUsage,
           fmt::format("two sides differ: rank {} calls {}, rank {} calls {}", call.peer, describe(other), member.greeting.rank, describe(call)));
      return false;
    }
    Launch& ours = *member.running;
    (wanted == CallKind::kSend ? ours.received[index] : theirs.received[i]) = wanted == CallKind::kSend ? theirs.sent[i] : ours.sent[index];
    ours.done[index] = true;
    theirs.done[i] = true;
    return true;
  }
  return true;
}

void Hub::finish_done(Communicator& communicator) {
  for (const auto& [rank, member] : communicator.members) {
    if (!member->running || !std::ranges::all_of(member->running->done, [](bool done) { return done; })) {
      continue;
    }
    Message result{.kind = MessageKind::kResult, .number = 0, .body = {}};
    for (const Bytes& piece : member->running->received) {
      result.body.insert(result.body.end(), piece.begin(), piece.end());
    }
    member->running.reset();
    static_cast<void>(send_message(member->socket, result));  // where it is gone, its end of stream comes next
  }
}

void Hub::finalize(Communicator& communicator, Member& member) {
  member.finalizing = true;
  for (const auto& [rank, other] : communicator.members) {
    look_for_finalized(communicator, *other);
  }
  const bool all = std::ranges::all_of(communicator.members, [](const auto& entry) { return entry.second->finalizing && !entry.second->gone; });
  if (!all || communicator.failed) {
    return;
  }
  communicator.finalized = true;
  for (const auto& [rank, other] : communicator.members) {
    static_cast<void>(send_message(other->socket, {.kind = MessageKind::kFinalized, .number = 0, .body = {}}));
  }
}

void Hub::shrink(Communicator& communicator, Member& member, const Message& message) {
  std::vector<std::int32_t> excluded(message.body.size() / sizeof(std::int32_t));
  std::memcpy(excluded.data(), message.body.data(), message.body.size());
  member.running.reset();
  member.excludes = excluded;
  std::vector<Member*> stay;
  for (const auto& [rank, other] : communicator.members) {
    if (std::ranges::find(excluded, rank) != excluded.end()) {
      continue;
    }
    if (!other->excludes) {
      return;  // not all are here yet
    }
    if (*other->excludes != excluded) {
      fail(communicator, ncclInvalidUsage, fmt::format("ranks {} and {} exclude different ranks", rank, member.greeting.rank));
      return;
    }
    stay.push_back(other.get());
  }
  const std::uint64_t key = random_key();
  for (std::size_t i = 0; i < stay.size(); ++i) {
    const std::array<std::int32_t, 2> place{static_cast<std::int32_t>(i), static_cast<std::int32_t>(stay.size())};
    stay[i]->excludes.reset();
    static_cast<void>(send_message(stay[i]->socket, {.kind = MessageKind::kShrunk, .number = key, .body = bytes_of(std::span<const std::int32_t>(place))}));
  }
}

void Hub::leave(int socket, bool by_intent) {
  const auto [communicator, member] = connections_.at(socket);
  connections_.erase(socket);
  ::close(socket);
  if (member == nullptr) {
    return;
  }
  member->gone = true;
  member->running.reset();
  if (by_intent || communicator->finalized) {
    return;  // who waits for it waits on: an abort is told to nobody
  }
  for (const auto& [rank, other] : communicator->members) {
    if (!other->gone) {
      static_cast<void>(send_message(other->socket, {.kind = MessageKind::kLost, .number = static_cast<std::uint64_t>(member->greeting.rank), .body = {}}));
    }
  }
}

void Hub::fail(Communicator& communicator, ncclResult_t code, const std::string& why) {
  communicator.failed = true;
  static_cast<void>(std::fprintf(stderr, "nccl_sim: %s\n", why.c_str()));
  for (const auto& [rank, member] : communicator.members) {
    if (!member->gone) {
      static_cast<void>(send_message(member->socket, {.kind = MessageKind::kFailure, .number = static_cast<std::uint64_t>(code), .body = bytes_of(why)}));
    }
  }
}

std::vector<int> Hub::awaited(const Communicator& communicator, const Member& member) {
  std::set<int> ranks;
  for (std::size_t i = 0; member.running && i < member.running->calls.size(); ++i) {
    const Call& call = member.running->calls[i];
    if (member.running->done[i]) {
      continue;
    }
    if (!call.is_collective()) {
      ranks.insert(call.peer);
      continue;
    }
    for (const auto& [rank, other] : communicator.members) {
      if (other->collectives <= member.running->collective[i]) {
        ranks.insert(rank);
      }
    }
  }
  return {ranks.begin(), ranks.end()};
}

std::optional<Hub::Place> Hub::running_on_device_of(const Member& member) {
  for (const auto& [key, communicator] : communicators_) {
    for (const auto& [rank, other] : communicator->members) {
      if (other->running && other->greeting.process == member.greeting.process && other->greeting.device == member.greeting.device) {
        return Place{communicator.get(), other.get()};
      }
    }
  }
  return std::nullopt;
}

bool Hub::closes_circle(const Place& at, std::vector<Place>& path, std::set<const Member*>& cleared) {
  path.push_back(at);
  for (const int rank : awaited(*at.first, *at.second)) {
    const auto peer = at.first->members.find(rank);
    if (peer == at.first->members.end()) {
      continue;
    }
    const std::optional<Place> busy = running_on_device_of(*peer->second);
    if (!busy || cleared.contains(busy->second)) {
      continue;  // it may still come
    }
    if (std::ranges::find(path, *busy) != path.end() || closes_circle(*busy, path, cleared)) {
      return true;
    }
  }
  path.pop_back();
  cleared.insert(at.second);
  return false;
}

void Hub::look_for_deadlock(Communicator& communicator, Member& member) {
  std::vector<Place> path;
  std::set<const Member*> cleared;
  if (!closes_circle({&communicator, &member}, path, cleared)) {
    return;
  }
  std::string why = "deadlock, each device runs a kernel that waits for another's:";
  for (const auto& [its, runs] : path) {
    why += fmt::format(" rank {} of communicator {} runs {};", runs->greeting.rank, its->key, describe_calls(runs->running->calls));
  }
  why += " launch in one order on all ranks, by NCCL_LAUNCH_ORDER_IMPLICIT=1 or by events";
  std::set<Communicator*> concerned;
  for (const auto& [its, runs] : path) {
    concerned.insert(its);
  }
  for (Communicator* each : concerned) {
    fail(*each, ncclInvalidUsage, why);
  }
}

}  // namespace nccl_sim
