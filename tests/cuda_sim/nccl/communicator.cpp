#include "tests/cuda_sim/nccl/communicator.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <utility>

#include <fmt/format.h>

#include "tests/cuda_sim/violation.hpp"

namespace nccl_sim {
namespace {

/// How many questions a thing in progress takes, beyond what it waits for: none, or a few.
constexpr unsigned kPollsMax = 3;

/// Whether the library notices that a peer's process is gone. A real one may or may not: over a network it sees the connection end, within a host it sees
/// nothing.
bool notices_loss() {
  const char* const wish = std::getenv("LOCKSTEP_SIM_NCCL_LOSS");
  const std::string_view text = wish == nullptr ? "drawn" : wish;
  if (text != "told" && text != "silent" && text != "drawn") {
    cuda_sim::violation(fmt::format("LOCKSTEP_SIM_NCCL_LOSS is \"{}\", expected told, silent or drawn", text));
  }
  return text == "told" || (text == "drawn" && cuda_sim_draw(2) == 0);
}

/// Of the current device's stream.
cuda_sim::CaptureState capture_of(cudaStream_t stream) {
  cuda_sim::CaptureState state;
  cuda_sim_capture(stream, &state);
  return state;
}

int connect_to(const std::string& name) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path + 1, name.data(), std::min(name.size(), sizeof address.sun_path - 1));
  const auto bytes = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  const int socket = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (socket >= 0 && ::connect(socket, reinterpret_cast<const sockaddr*>(&address), bytes) != 0) {
    ::close(socket);
    return -1;
  }
  return socket;
}

}  // namespace

Communicator::~Communicator() {
  if (listener_.joinable()) {
    ::shutdown(socket_, SHUT_RDWR);
    listener_.join();
  }
  if (socket_ >= 0) {
    ::close(socket_);
  }
}

void Communicator::connect(const std::string& address) {
  address_ = address;
  polls_left_ = static_cast<int>(cuda_sim_draw(kPollsMax));
  socket_ = connect_to(address);
  if (socket_ < 0) {
    error_ = ncclSystemError;
    last_error_ = "nobody listens at the unique id's address: the rank that made it is gone";
    return;
  }
  static_cast<void>(send_message(socket_, {.kind = MessageKind::kHello, .number = 0, .body = bytes_of(std::span(&greeting_, 1))}));
  listener_ = std::thread([this] { listen(); });
}

void Communicator::listen() {
  Message message;
  while (receive_message(socket_, message)) {
    handle(message);
  }
  const std::scoped_lock lock(mutex_);
  const bool finalized = phase_ == Phase::kFinalized || (phase_ == Phase::kFinalizing && arrived_);
  if (!finalized && !stopped_) {
    cuda_sim::violation("the hub of simulated NCCL is gone");
  }
}

/// Under the lock.
void Communicator::lose(int rank, const std::string& why) {
  if (error_ == ncclSuccess && notices_loss()) {
    error_ = ncclRemoteError;
    last_error_ = fmt::format("connection closed by remote peer: rank {}: {}", rank, why);
  }
  changed_.notify_all();
}

void Communicator::handle(const Message& message) {
  const std::scoped_lock lock(mutex_);
  switch (message.kind) {
    case MessageKind::kWelcome:
      arrived_ = arrived_ || phase_ == Phase::kConnecting;
      break;
    case MessageKind::kFinalized:
      arrived_ = arrived_ || phase_ == Phase::kFinalizing;
      break;
    case MessageKind::kResult:
      result_ = message.body;
      break;
    case MessageKind::kFailure:
      error_ = error_ == ncclSuccess ? static_cast<ncclResult_t>(message.number) : error_;
      last_error_.assign(reinterpret_cast<const char*>(message.body.data()), message.body.size());
      break;
    case MessageKind::kLost:
      lose(static_cast<int>(message.number), "its process ended");
      break;
    case MessageKind::kShrunk: {
      std::int32_t place[2] = {0, 0};
      std::memcpy(place, message.body.data(), sizeof place);
      Greeting greeting = greeting_;
      greeting.key = message.number;
      greeting.rank = place[0];
      greeting.ranks = place[1];
      shrunk_ = std::make_shared<Communicator>(greeting, blocking_);
      arrived_ = true;
      break;
    }
    default:
      cuda_sim::violation("the hub says what only ranks say");
  }
  changed_.notify_all();
}

ncclResult_t Communicator::state() {
  const std::scoped_lock lock(mutex_);
  if (error_ != ncclSuccess) {
    return error_;
  }
  return phase_ == Phase::kReady || phase_ == Phase::kFinalized ? ncclSuccess : ncclInProgress;
}

ncclResult_t Communicator::advance(std::unique_lock<std::mutex>& lock) {
  if (error_ != ncclSuccess) {
    return error_;
  }
  if (phase_ == Phase::kReady || phase_ == Phase::kFinalized) {
    return ncclSuccess;
  }
  if (polls_left_ > 0) {
    --polls_left_;
    return ncclInProgress;
  }
  if (phase_ == Phase::kLaunching) {
    phase_ = Phase::kReady;
    const auto launch = std::exchange(deferred_, nullptr);
    lock.unlock();
    const ncclResult_t launched = launch();
    lock.lock();
    return launched;
  }
  if (!arrived_ || (phase_ == Phase::kFinalizing && graphs_ > 0)) {
    return ncclInProgress;  // "keep polling until all graphs referencing us die", src/init.cc of NCCL 2.28
  }
  arrived_ = false;
  if (phase_ == Phase::kShrinking) {
    shrunk_->connect(address_);
    *shrunk_to_ = std::exchange(shrunk_, nullptr);
  }
  phase_ = phase_ == Phase::kFinalizing ? Phase::kFinalized : Phase::kReady;
  return ncclSuccess;
}

ncclResult_t Communicator::poll() {
  std::unique_lock lock(mutex_);
  return advance(lock);
}

ncclResult_t Communicator::wait_until_done() {
  std::unique_lock lock(mutex_);
  ncclResult_t now = advance(lock);
  while (now == ncclInProgress) {
    if (polls_left_ == 0 && phase_ != Phase::kLaunching) {
      changed_.wait(lock, [this] { return (arrived_ && (phase_ != Phase::kFinalizing || graphs_ == 0)) || error_ != ncclSuccess; });
    }
    now = advance(lock);
  }
  return now;
}

const char* Communicator::last_error() {
  const std::scoped_lock lock(mutex_);
  return last_error_.c_str();
}

void Communicator::note(const std::string& why) {
  const std::scoped_lock lock(mutex_);
  last_error_ = why;
}

ncclResult_t Communicator::launch(std::vector<LocalCall> calls, cudaStream_t stream) {
  const unsigned polls = blocking_ ? 0 : cuda_sim_draw(kPollsMax);
  if (polls == 0) {
    return enqueue_launch(std::move(calls), stream);
  }
  const CurrentDevice current(device());
  const unsigned long long capture = capture_of(stream).id;
  const std::scoped_lock lock(mutex_);
  phase_ = Phase::kLaunching;
  polls_left_ = static_cast<int>(polls) - 1;
  deferred_ = [this, calls = std::move(calls), stream, capture] {
    const CurrentDevice of_launch(device());
    if (capture_of(stream).id != capture) {
      cuda_sim::violation(describe(calls.front().call) + " was in progress when its stream's capture began or ended: wait for ncclCommGetAsyncError before");
    }
    return enqueue_launch(calls, stream);
  };
  return ncclInProgress;
}

ncclResult_t Communicator::number_captured(std::vector<LocalCall>& calls, const cuda_sim::CaptureState& capture) {
  const std::scoped_lock lock(mutex_);
  const auto [number, is_new] = captures_.try_emplace(capture.id, captures_.size() + 1);
  for (LocalCall& local : calls) {
    local.call.graph = number->second;
    const int peer = local.call.peer;
    if (capture.is_global && peer >= 0 && peer != rank() && !connected_.contains(peer)) {
      // "If you are capturing NCCL P2P calls without any previous P2P calls to the same peer(s), you would also need to use the
      // cudaStreamCaptureModeThreadLocal mode": what connects them allocates, on a thread of NCCL's.
      static_cast<void>(cuda_sim_refuse_while_capturing());
      last_error_ = fmt::format("{} connects to a peer in a capture of mode cudaStreamCaptureModeGlobal", describe(local.call));
      return ncclUnhandledCudaError;
    }
  }
  return ncclSuccess;
}

LaunchQueue* Communicator::queue_of(bool by_graph) {
  if (by_graph && !orders_graphs()) {
    return nullptr;
  }
  return has_implicit_order() ? &KernelSlot::of(device()).queue() : &queue_;
}

std::shared_ptr<void> Communicator::hold() {
  const std::scoped_lock lock(mutex_);
  ++graphs_;
  return {nullptr, [self = shared_from_this()](void*) {
            const std::scoped_lock at_end(self->mutex_);
            --self->graphs_;
            self->changed_.notify_all();
          }};
}

void Communicator::check_launchable(const Call& call) {
  const std::scoped_lock lock(mutex_);
  if (ended_ != nullptr) {
    cuda_sim::violation(fmt::format("cudaGraphLaunch of {}, whose communicator was ended by {}", describe(call), ended_));
  }
}

ncclResult_t Communicator::enqueue_launch(std::vector<LocalCall> calls, cudaStream_t stream) {
  const CurrentDevice current(device());
  const cuda_sim::CaptureState capture = capture_of(stream);
  if (capture.id != 0) {
    if (const ncclResult_t refused = number_captured(calls, capture); refused != ncclSuccess) {
      return refused;
    }
  }
  for (const LocalCall& local : calls) {
    connected_.insert(local.call.peer);
  }
  const auto prepare = [self = shared_from_this(), calls = std::make_shared<const std::vector<LocalCall>>(std::move(calls)),
                        held = capture.id == 0 ? nullptr : hold()](bool by_graph) -> std::function<void()> {
    if (by_graph) {
      self->check_launchable(calls->front().call);
    }
    LaunchQueue* const queue = self->queue_of(by_graph);
    const std::uint64_t place = queue == nullptr ? 0 : queue->take();
    return [self, calls, queue, place] { self->run(*calls, queue, place); };
  };
  // Calls of one communicator keep the order of their capture whatever their streams; with the implicit order, all of a device do.
  std::vector<const void*> chains{this};
  const void* order = this;
  if (has_implicit_order()) {
    order = &KernelSlot::of(device());
    chains.push_back(order);
  }
  if (capture.id != 0 && !orders_graphs()) {
    order = nullptr;
  }
  const cudaError_t code = cuda_sim_launch(stream, {.label = kKernelLabel, .prepare = prepare, .chains = std::move(chains), .order = order});
  if (code != cudaSuccess) {
    static_cast<void>(cudaGetLastError());
    note(fmt::format("Cuda failure '{}' on the stream of a call, device {}", cudaGetErrorString(code), device()));
  }
  return code == cudaSuccess ? ncclSuccess : ncclUnhandledCudaError;
}

void Communicator::run(const std::vector<LocalCall>& calls, LaunchQueue* queue, std::uint64_t place) {
  const auto is_stopped = [this] {
    const std::scoped_lock lock(mutex_);
    return stopped_;
  };
  {
    const std::scoped_lock lock(mutex_);
    ++running_;
  }
  KernelSlot& slot = KernelSlot::of(device());
  const bool runs = !is_stopped() && (queue == nullptr || queue->wait(place, is_stopped)) && slot.take(is_stopped);
  if (runs) {
    static_cast<void>(send_message(socket_, {.kind = MessageKind::kStarted, .number = 0, .body = read_sent(calls, ranks())}));
  }
  std::optional<Bytes> result;
  std::unique_lock lock(mutex_);
  if (runs) {
    // Also after an error: a kernel whose peers do not come runs until it is aborted.
    changed_.wait(lock, [this] { return result_ || stopped_; });
    result = std::exchange(result_, std::nullopt);
  }
  lock.unlock();
  if (result && !is_stopped()) {
    write_received(calls, ranks(), *result);
  }
  if (runs) {
    slot.give_back();
  }
  if (queue != nullptr) {
    queue->end(place);
  }
  lock.lock();
  --running_;
  changed_.notify_all();
}

ncclResult_t Communicator::finalize() {
  const std::scoped_lock lock(mutex_);
  phase_ = Phase::kFinalizing;
  polls_left_ = static_cast<int>(cuda_sim_draw(kPollsMax));
  static_cast<void>(send_message(socket_, {.kind = MessageKind::kFinalize, .number = 0, .body = {}}));
  return ncclInProgress;
}

void Communicator::stop_running(std::unique_lock<std::mutex>& lock) {
  stopped_ = true;
  deferred_ = nullptr;
  changed_.notify_all();
  lock.unlock();
  KernelSlot::of(device()).wake();
  KernelSlot::of(device()).queue().wake();
  queue_.wake();
  lock.lock();
  changed_.wait(lock, [this] { return running_ == 0; });
}

void Communicator::abort(const char* by) {
  std::unique_lock lock(mutex_);
  ended_ = by;
  stop_running(lock);
  lock.unlock();
  if (socket_ >= 0) {
    static_cast<void>(send_message(socket_, {.kind = MessageKind::kBye, .number = 0, .body = {}}));
    ::shutdown(socket_, SHUT_RDWR);
  }
  lock.lock();
  changed_.wait(lock, [this] { return graphs_ == 0; });  // as a finalize
}

bool Communicator::is_in_graphs() {
  const std::scoped_lock lock(mutex_);
  return graphs_ > 0;
}

ncclResult_t Communicator::shrink(const std::vector<std::int32_t>& excluded, bool abort_running, std::shared_ptr<Communicator>* made, bool blocking) {
  std::unique_lock lock(mutex_);
  if (abort_running) {
    ended_ = "ncclCommShrink";
    stop_running(lock);
    error_ = ncclSuccess;  // of the work that was ended
    result_.reset();
  }
  phase_ = Phase::kShrinking;
  polls_left_ = static_cast<int>(cuda_sim_draw(kPollsMax));
  arrived_ = false;
  shrunk_to_ = made;
  static_cast<void>(send_message(socket_, {.kind = MessageKind::kShrink, .number = 0, .body = bytes_of(std::span<const std::int32_t>(excluded))}));
  lock.unlock();
  return blocking ? wait_until_done() : ncclInProgress;
}

}  // namespace nccl_sim
