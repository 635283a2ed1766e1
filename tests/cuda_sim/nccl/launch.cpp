#include "tests/cuda_sim/nccl/launch.hpp"

#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string_view>

#include "tests/cuda_sim/hooks/hooks.hpp"

namespace nccl_sim {
namespace {

constexpr int kImplicitOrderVersion = 22600;
constexpr int kPoison = 0xff;

template <typename Body>
void with_device_memory(const Body& body) {
  cuda_sim_with_device_memory(
      kKernelLabel, [](void* data) { (*static_cast<const Body*>(data))(); }, const_cast<Body*>(&body));
}

}  // namespace

int simulated_version() {
  const char* const told = std::getenv("LOCKSTEP_SIM_NCCL_VERSION");
  return told == nullptr ? NCCL_VERSION_CODE : static_cast<int>(std::strtol(told, nullptr, 10));
}

bool has_implicit_order() {
  const char* const told = std::getenv("NCCL_LAUNCH_ORDER_IMPLICIT");
  return simulated_version() >= kImplicitOrderVersion && told != nullptr && std::string_view(told) == "1";
}

bool orders_graphs() {
  const char* const told = std::getenv("NCCL_GRAPH_MIXING_SUPPORT");
  return told == nullptr || std::string_view(told) != "0";
}

std::uint64_t LaunchQueue::take() {
  const std::scoped_lock lock(mutex_);
  open_.insert(++taken_);
  return taken_;
}

bool LaunchQueue::wait(std::uint64_t place, const std::function<bool()>& is_stopped) {
  std::unique_lock lock(mutex_);
  bool stopped = false;
  changed_.wait(lock, [&] { return (stopped = is_stopped()) || *open_.begin() == place; });
  return !stopped;
}

void LaunchQueue::end(std::uint64_t place) {
  const std::scoped_lock lock(mutex_);
  open_.erase(place);
  changed_.notify_all();
}

void LaunchQueue::wake() {
  const std::scoped_lock lock(mutex_);
  changed_.notify_all();
}

KernelSlot& KernelSlot::of(int device) {
  static auto* const mutex = new std::mutex;                                  // NOLINT: streams may outlive main
  static auto* const slots = new std::map<int, std::unique_ptr<KernelSlot>>;  // NOLINT: as above
  const std::scoped_lock lock(*mutex);
  std::unique_ptr<KernelSlot>& slot = (*slots)[device];
  if (!slot) {
    slot = std::make_unique<KernelSlot>();
  }
  return *slot;
}

bool KernelSlot::take(const std::function<bool()>& is_stopped) {
  std::unique_lock lock(mutex_);
  bool stopped = false;
  changed_.wait(lock, [&] { return (stopped = is_stopped()) || !taken_; });
  if (!stopped) {
    taken_ = true;
  }
  return !stopped;
}

void KernelSlot::give_back() {
  const std::scoped_lock lock(mutex_);
  taken_ = false;
  changed_.notify_all();
}

void KernelSlot::wake() {
  const std::scoped_lock lock(mutex_);
  changed_.notify_all();
}

Bytes read_sent(std::span<const LocalCall> calls, int ranks) {
  std::vector<Call> records;
  std::vector<Bytes> data;
  with_device_memory([&] {
    for (const LocalCall& local : calls) {
      const auto* const from = static_cast<const std::byte*>(local.send);
      records.push_back(local.call);
      data.emplace_back(from, from + local.call.sent_bytes());
    }
    for (const LocalCall& local : calls) {
      if (const std::size_t bytes = local.call.received_bytes(ranks); bytes > 0) {
        std::memset(local.receive, kPoison, bytes);
      }
    }
  });
  return pack(records, data);
}

void write_received(std::span<const LocalCall> calls, int ranks, const Bytes& result) {
  with_device_memory([&] {
    const std::byte* next = result.data();
    for (const LocalCall& local : calls) {
      const std::size_t bytes = local.call.received_bytes(ranks);
      if (bytes > 0) {
        std::memcpy(local.receive, next, bytes);
      }
      next += bytes;
    }
  });
}

}  // namespace nccl_sim
