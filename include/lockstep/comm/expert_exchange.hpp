// ExpertExchange: carries rows to the members that hold their experts, and the experts' outputs back.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "lockstep/comm/communicator.hpp"
#include "lockstep/comm/group.hpp"
#include "lockstep/core/bfloat16.hpp"
#include "lockstep/device/stream_times.hpp"
#include "lockstep/forward_context.hpp"

namespace lockstep::device {
class Device;
class Ops;
}  // namespace lockstep::device

namespace lockstep::comm {

/// How many rows are gathered rather than routed, unless told: with fewer it is faster between hosts, with more slower on four ranks (bench/exchange).
inline constexpr std::int32_t kGatherRowsDefault = 4;

/// What of a row's outputs comes back from the member that computed them.
enum class CombineMode : std::uint8_t {
  kPerExpert,  ///< one row for each of its experts there: the row's owner weighs and sums in expert order, and an answer is one at every world size
  kPerRank,    ///< one row, the weighed sum of its experts there: fewer bytes, rounded once for each member
};

struct ExpertExchangeOptions {
  std::int32_t hidden = 0;
  std::int32_t top_k = 0;
  std::int32_t rows_max = 0;                      ///< rows of one micro-batch on any member, at most
  std::int32_t gather_rows = 0;                   ///< micro-batches of at most so many rows on all members together are gathered; equal on all members
  CombineMode combine = CombineMode::kPerExpert;  ///< equal on all members
  device::Device* device = nullptr;               ///< whose ops read and write the rows: these then lie in its memory for the host. Null: memory like any other
  device::Ops* ops = nullptr;  ///< where exchanges_on_device() says so: what moves rows there, called by this exchange's thread; may be shared
  int lane = 0;                ///< of rows that travel from device to device: exchanges of different lanes do so side by side; equal on all members
};

/// Whether rows stay in the memory of `device`, which may be null: it has its own, the communicator takes that (or there is nobody else), and nothing has to be
/// summed on the way. What ExpertExchange says of the host's memory then holds of the device's, but for expert ids.
[[nodiscard]] bool exchanges_on_device(Communicator& communicator, const device::Device* device, CombineMode combine);

/// Where in the run an exchange stands; travels in each message's header and is compared by the receiver.
struct ExchangePosition {
  std::int64_t step = 0;
  std::int32_t layer = 0;
  std::int32_t micro_batch = 0;
};

/// What a member dispatches; borrowed until finish_dispatch.
struct RoutedRows {
  std::span<const BFloat16> rows;            ///< [local tokens, hidden]
  std::span<const std::int32_t> expert_ids;  ///< [local tokens, top_k], ascending within a row
  std::span<const float> weights{};          ///< [local tokens, top_k], as expert_ids; used by CombineMode::kPerRank alone, and may be empty else
};

/// What this member computes for the group in one exchange, grouped by its experts.
struct ReceivedRows {
  std::span<const BFloat16> rows;         ///< [offsets.back(), hidden], grouped by local expert; within one, by source member, then the source's order
  std::span<const std::int32_t> offsets;  ///< [local experts + 1], rows
};

/// One exchange's state: buffers are made once, for the largest micro-batch. One object per micro-batch in flight.
/// Order      start_dispatch → finish_dispatch → (experts write outputs()) → start_combine → finish_combine. Several objects may be in flight at once: their
/// starts come in the same order on all members, their ends in any.
/// Wire       routed: a row goes once to each member that holds one of its experts, with the list of (row, expert) pairs. Gathered: all rows go to every
///            member that holds experts, with the experts of each; one that computes nothing for us sends no answer. Which of the two follows from the
///            counts in DPMetadata alone. Each pair's output comes back as one bfloat16 row, or all outputs of a row on one member as one.
///            Capacities are DPMetadata's counts; a member with zero tokens sends no rows but computes for the others. Sizes: docs/collectives.md.
/// Threads    the engine's; `received`, `outputs` and `combined` may be read on another one between the end of an exchange and the start of the next.
/// Memory     the host's: a device that has its own is given received() and combined() by uploads, and gives rows and outputs() by downloads that are done.
///            The device's where exchanges_on_device() says so: no exchange waits for it then, and streams are ordered by `take` and `computed`.
/// Errors     kDiverged: a header names another step, layer, micro-batch or more rows than agreed (with both sides' values); the communicator's.
class ExpertExchange {
 public:
  [[nodiscard]] static Result<std::unique_ptr<ExpertExchange>> create(Communicator& communicator, const GroupView& view, const Placement& placement,
                                                                      const ExpertExchangeOptions& options);
  virtual ~ExpertExchange() = default;
  ExpertExchange(const ExpertExchange&) = delete;
  ExpertExchange& operator=(const ExpertExchange&) = delete;

  /// `tokens` are this micro-batch's counts of all members.
  [[nodiscard]] virtual Status start_dispatch(const ExchangePosition& position, const DPMetadata& tokens, const RoutedRows& routed) = 0;
  /// Moves the exchange that is under way on; true when its `finish_` would not wait, be it that it failed.      Cost  a look: to be called until it is true.
  [[nodiscard]] virtual bool arrived() = 0;
  [[nodiscard]] virtual Status finish_dispatch(const Deadline& deadline) = 0;
  /// Before a `start_`: where to mark that the device begins with that exchange, and that it has ended. In the host's memory nothing of it is a device's.
  virtual void mark_next(const device::StreamMark& begin, const device::StreamMark& end) {
    static_cast<void>(begin);
    static_cast<void>(end);
  }
  /// After each `finish_`, before received() or combined() is used: what `stream` is given from here on finds it there; `taken` is set when nothing holds the
  /// stream back any more. Of the host's memory nothing has to be done.
  virtual void take(device::Stream& stream, const device::StreamMark& taken) { taken.set(stream); }
  /// Before start_combine: what `stream` was given so far writes outputs(), be it that it is still to run. Of the host's memory it has to be done.
  virtual void computed(device::Stream& stream) { static_cast<void>(stream); }
  /// Valid from finish_dispatch until the next start_dispatch.
  [[nodiscard]] virtual ReceivedRows received() const = 0;
  /// Where the experts' outputs go: [received().offsets.back(), hidden], the order of `received()`.
  [[nodiscard]] virtual std::span<BFloat16> outputs() = 0;
  [[nodiscard]] virtual Status start_combine() = 0;
  [[nodiscard]] virtual Status finish_combine(const Deadline& deadline) = 0;
  /// Valid until the next start_dispatch. kPerExpert: [local tokens * top_k, hidden], the output of each of our (token, expert) pairs, in the order of
  /// `expert_ids`. kPerRank: [local tokens * min(top_k, members with experts for us), hidden], a token's sums by ascending member, then rows of zeros.
  [[nodiscard]] virtual std::span<const BFloat16> combined() const = 0;
  /// Bytes put on the wire by this object so far, headers included, rows to itself not.
  [[nodiscard]] virtual std::uint64_t wire_bytes_total() const = 0;
  /// Rows sent to other members so far.
  [[nodiscard]] virtual std::uint64_t crossed_rows_total() const = 0;

 protected:
  ExpertExchange() = default;
};

}  // namespace lockstep::comm
