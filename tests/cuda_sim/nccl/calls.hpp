// What ranks call, as the hub compares it, and how it travels there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nccl.h>
#include <span>
#include <string>
#include <vector>

namespace nccl_sim {

using Bytes = std::vector<std::byte>;

enum class CallKind : std::uint32_t { kAllReduce, kAllGather, kSend, kReceive };

/// One call of a collective or of one side of a pair, without its addresses.
struct Call {
  CallKind kind = CallKind::kAllReduce;
  std::int32_t datatype = 0;
  std::int32_t op = 0;     ///< of an all-reduce; else 0
  std::int32_t peer = -1;  ///< of a send or receive; else -1
  std::uint64_t count = 0;
  std::uint64_t graph = 0;  ///< which of its communicator's captures it is of, from 1: the same on all ranks; 0: it is in no graph

  [[nodiscard]] bool is_collective() const { return kind == CallKind::kAllReduce || kind == CallKind::kAllGather; }
  [[nodiscard]] std::size_t sent_bytes() const;
  [[nodiscard]] std::size_t received_bytes(int ranks) const;
  friend bool operator==(const Call&, const Call&) = default;
};
/// One call with its addresses.
struct LocalCall {
  Call call;
  const void* send = nullptr;
  void* receive = nullptr;
};
/// "ncclAllReduce(30 of ncclInt32, ncclSum)".
[[nodiscard]] std::string describe(const Call& call);
/// Bytes of one element; 0: no such type.
[[nodiscard]] std::size_t element_bytes(int datatype);
/// into[i] = into[i] op from[i]; false: this pair of type and operation is not simulated.
[[nodiscard]] bool reduce(const Call& call, Bytes& into, std::span<const std::byte> from);

/// Messages between a rank and the hub, over a stream socket.
enum class MessageKind : std::uint32_t {
  kHello,      ///< rank: Greeting
  kWelcome,    ///< hub: all ranks are there
  kStarted,    ///< rank: the device runs a launch: its calls, then the data of those that send
  kResult,     ///< hub: the data of those that receive, in their order
  kFailure,    ///< hub: number is an ncclResult_t, the body says why
  kLost,       ///< hub: number is the rank whose process is gone
  kFinalize,   ///< rank: it has nothing left to do
  kFinalized,  ///< hub: nobody has
  kShrink,     ///< rank: the ranks to exclude, as int32
  kShrunk,     ///< hub: number is the new communicator's key, the body rank and size as int32
  kBye,        ///< rank: what comes now is no crash
};
struct Message {
  MessageKind kind = MessageKind::kBye;
  std::uint64_t number = 0;
  Bytes body;
};
/// Who a connection is.
struct Greeting {
  std::uint64_t key = 0;  ///< of the communicator, from its unique id
  std::int32_t ranks = 0;
  std::int32_t rank = 0;
  std::int32_t device = 0;
  std::int32_t process = 0;
};

/// False: the other side is gone.
[[nodiscard]] bool send_message(int socket, const Message& message);
[[nodiscard]] bool receive_message(int socket, Message& message);

/// A kStarted body, and back; the data of call i is empty where it sends none.
[[nodiscard]] Bytes pack(const std::vector<Call>& calls, const std::vector<Bytes>& data);
void unpack(const Bytes& body, std::vector<Call>& calls, std::vector<Bytes>& data);
template <typename T>
[[nodiscard]] Bytes bytes_of(std::span<const T> values) {
  const auto bytes = std::as_bytes(values);
  return {bytes.begin(), bytes.end()};
}
[[nodiscard]] Bytes bytes_of(const std::string& text);
/// A number that no other communicator has.
[[nodiscard]] std::uint64_t random_key();

}  // namespace nccl_sim
