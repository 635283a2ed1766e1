#include "tests/cuda_sim/nccl/calls.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <random>
#include <string_view>
#include <sys/socket.h>
#include <type_traits>

#include <fmt/format.h>

namespace nccl_sim {
namespace {

struct DataType {
  std::string_view name;
  std::size_t bytes;
};
/// In the order of ncclDataType_t.
constexpr std::array<DataType, ncclNumTypes> kTypes{{{"ncclInt8", 1},
                                                     {"ncclUint8", 1},
                                                     {"ncclInt32", 4},
                                                     {"ncclUint32", 4},
                                                     {"ncclInt64", 8},
                                                     {"ncclUint64", 8},
                                                     {"ncclFloat16", 2},
                                                     {"ncclFloat32", 4},
                                                     {"ncclFloat64", 8},
                                                     {"ncclBfloat16", 2},
                                                     {"ncclFloat8e4m3", 1},
                                                     {"ncclFloat8e5m2", 1}}};
constexpr std::array<std::string_view, ncclNumOps> kOps{"ncclSum", "ncclProd", "ncclMax", "ncclMin", "ncclAvg"};

template <typename T>
bool reduce_as(int op, Bytes& into, std::span<const std::byte> from) {
  for (std::size_t at = 0; at < into.size(); at += sizeof(T)) {
    T a{};
    T b{};
    std::memcpy(&a, into.data() + at, sizeof a);
    std::memcpy(&b, from.data() + at, sizeof b);
    switch (op) {
      case ncclSum:
        if constexpr (std::is_integral_v<T>) {
          using Wrapping = std::make_unsigned_t<T>;
          a = static_cast<T>(static_cast<Wrapping>(a) + static_cast<Wrapping>(b));  // a device's integers wrap
        } else {
          a += b;
        }
        break;
      case ncclMax:
        a = std::max(a, b);
        break;
      case ncclMin:
        a = std::min(a, b);
        break;
      default:
        return false;
    }
    std::memcpy(into.data() + at, &a, sizeof a);
  }
  return true;
}

bool send_all(int socket, const void* data, std::size_t bytes) {
  const auto* next = static_cast<const std::byte*>(data);
  while (bytes > 0) {
    const ssize_t sent = ::send(socket, next, bytes, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) {
      continue;
    }
    if (sent <= 0) {
      return false;
    }
    next += sent;
    bytes -= static_cast<std::size_t>(sent);
  }
  return true;
}

bool receive_all(int socket, void* data, std::size_t bytes) {
  auto* next = static_cast<std::byte*>(data);
  while (bytes > 0) {
    const ssize_t received = ::recv(socket, next, bytes, 0);
    if (received < 0 && errno == EINTR) {
      continue;
    }
    if (received <= 0) {
      return false;
    }
    next += received;
    bytes -= static_cast<std::size_t>(received);
  }
  return true;
}

struct Frame {
  MessageKind kind;
  std::uint32_t unused;
  std::uint64_t number;
  std::uint64_t bytes;
};

}  // namespace

std::size_t element_bytes(int datatype) {
  return datatype < 0 || datatype >= ncclNumTypes ? 0 : kTypes.at(static_cast<std::size_t>(datatype)).bytes;
}

std::size_t Call::sent_bytes() const {
  return kind == CallKind::kReceive ? 0 : count * element_bytes(datatype);
}

std::size_t Call::received_bytes(int ranks) const {
  const std::size_t bytes = count * element_bytes(datatype);
  return kind == CallKind::kSend ? 0 : (kind == CallKind::kAllGather ? bytes * static_cast<std::size_t>(ranks) : bytes);
}

std::string describe(const Call& call) {
  if (call.graph > 0) {
    Call bare = call;
    bare.graph = 0;
    return fmt::format("{} in the graph of capture {}", describe(bare), call.graph);
  }
  const std::string what = fmt::format("{} of {}", call.count, kTypes.at(static_cast<std::size_t>(call.datatype)).name);
  switch (call.kind) {
    case CallKind::kAllReduce:
      return fmt::format("ncclAllReduce({}, {})", what, kOps.at(static_cast<std::size_t>(call.op)));
    case CallKind::kAllGather:
      return fmt::format("ncclAllGather({})", what);
    case CallKind::kSend:
      return fmt::format("ncclSend({}, to rank {})", what, call.peer);
    case CallKind::kReceive:
      return fmt::format("ncclRecv({}, from rank {})", what, call.peer);
  }
  return "nothing";
}

bool reduce(const Call& call, Bytes& into, std::span<const std::byte> from) {
  switch (call.datatype) {
    case ncclInt32:
      return reduce_as<std::int32_t>(call.op, into, from);
    case ncclInt64:
      return reduce_as<std::int64_t>(call.op, into, from);
    case ncclFloat32:
      return reduce_as<float>(call.op, into, from);
    default:
      return false;
  }
}

bool send_message(int socket, const Message& message) {
  const Frame frame{.kind = message.kind, .unused = 0, .number = message.number, .bytes = message.body.size()};
  return send_all(socket, &frame, sizeof frame) && send_all(socket, message.body.data(), message.body.size());
}

bool receive_message(int socket, Message& message) {
  Frame frame{};
  if (!receive_all(socket, &frame, sizeof frame)) {
    return false;
  }
  message = {.kind = frame.kind, .number = frame.number, .body = Bytes(frame.bytes)};
  return receive_all(socket, message.body.data(), message.body.size());
}

Bytes pack(const std::vector<Call>& calls, const std::vector<Bytes>& data) {
  const std::uint64_t count = calls.size();
  Bytes body = bytes_of(std::span(&count, 1));
  const Bytes records = bytes_of(std::span<const Call>(calls));
  body.insert(body.end(), records.begin(), records.end());
  for (const Bytes& piece : data) {
    body.insert(body.end(), piece.begin(), piece.end());
  }
  return body;
}

void unpack(const Bytes& body, std::vector<Call>& calls, std::vector<Bytes>& data) {
  std::uint64_t count = 0;
  std::memcpy(&count, body.data(), sizeof count);
  calls.resize(count);
  std::memcpy(calls.data(), body.data() + sizeof count, count * sizeof(Call));
  const std::byte* next = body.data() + sizeof count + count * sizeof(Call);
  data.clear();
  for (const Call& call : calls) {
    data.emplace_back(next, next + call.sent_bytes());
    next += call.sent_bytes();
  }
}

std::uint64_t random_key() {
  std::random_device random;
  return std::uint64_t{random()} << 32U | random();
}

Bytes bytes_of(const std::string& text) {
  return bytes_of(std::span<const char>(text));
}

}  // namespace nccl_sim
