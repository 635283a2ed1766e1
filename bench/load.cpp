// Load on a running group, from one thread that costs little beside the ranks: bench_load PORT RANKS CONNECTIONS REQUESTS VOCABULARY SEED; prints JSON.
// Every request is a stream of kGeneratedTokens from kPromptTokens random tokens of its own (equal prompts would go to equal experts); a connection
// sends its next one when its last has ended. Times are the client's: from sending to the first event, and from event to event.
#include <algorithm>
#include <arpa/inet.h>
#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <optional>
#include <poll.h>
#include <random>
#include <string>
#include <string_view>
#include <sys/socket.h>
#include <unistd.h>
#include <vector>

#include <fmt/format.h>

#include "lockstep/core/time_slice.hpp"

namespace {

using Time = std::chrono::steady_clock::time_point;

constexpr int kPromptTokens = 30;
constexpr int kGeneratedTokens = 128;
/// Longer than anything here should take; a group that hangs ends the bench.
constexpr int kSilenceLimitMs = 120'000;

[[noreturn]] void fail(std::string_view message) {
  fmt::print(stderr, "bench_load: {}\n", message);
  std::exit(1);
}

struct Samples {
  std::vector<double> first_token_ms;
  std::vector<double> inter_token_ms;
  std::int64_t events = 0;
};

double milliseconds(Time from, Time to) {
  return std::chrono::duration<double, std::milli>(to - from).count();
}

/// One connection, kept open from request to request.
class Connection {
 public:
  explicit Connection(int port) : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const int on = 1;
    setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    // The sockets interface takes all kinds of addresses by this type.
    if (fd_ < 0 || connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
      fail(fmt::format("cannot connect to port {}: {}", port, std::strerror(errno)));
    }
  }
  ~Connection() { close(fd_); }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  [[nodiscard]] int fd() const { return fd_; }

  void send_request(std::mt19937& random, int vocabulary) {
    std::string body = R"({"prompt":[)";
    for (int i = 0; i < kPromptTokens; ++i) {
      body += fmt::format("{}{}", i == 0 ? "" : ",", random() % static_cast<unsigned>(vocabulary));
    }
    body += fmt::format(R"(],"max_tokens":{},"temperature":0,"ignore_eos":true,"stream":true}})", kGeneratedTokens);
    const std::string request =
        fmt::format("POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{}", body.size(), body);
    if (send(fd_, request.data(), request.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(request.size())) {
      fail("a request could not be sent whole");
    }
    text_.clear();
    scanned_ = 0;
    sent_ = std::chrono::steady_clock::now();
    last_.reset();
  }

  /// Takes what has come; true when the answer has ended.
  bool receive(Samples& samples) {
    std::array<char, 65536> buffer;
    const ssize_t count = recv(fd_, buffer.data(), buffer.size(), 0);
    if (count <= 0) {
      fail(fmt::format("a connection ended in the middle of an answer: {}", text_.substr(0, 500)));
    }
    const Time now = std::chrono::steady_clock::now();
    text_.append(buffer.data(), static_cast<std::size_t>(count));
    // Events are counted, not parsed: the framing of chunks lies between them and holds no "data: ".
    constexpr std::string_view kEvent = "data: ";
    for (std::size_t at = 0; (at = text_.find(kEvent, scanned_)) != std::string::npos; scanned_ = at + kEvent.size()) {
      if (text_.size() < at + kEvent.size() + 6) {
        return false;  // whether it is the last one is not to be seen yet
      }
      if (text_.compare(at + kEvent.size(), 6, "[DONE]") == 0) {
        done_ = true;
        continue;
      }
      ++samples.events;
      (last_ ? samples.inter_token_ms : samples.first_token_ms).push_back(milliseconds(last_.value_or(sent_), now));
      last_ = now;
    }
    if (!done_ && text_.starts_with("HTTP/1.1 ") && !text_.starts_with("HTTP/1.1 200")) {
      fail(text_.substr(0, 500));
    }
    // The end of the last chunk: what follows belongs to the next answer.
    if (done_ && text_.ends_with("\r\n0\r\n\r\n")) {
      done_ = false;
      return true;
    }
    return false;
  }

 private:
  int fd_;
  std::string text_;         // of this answer
  std::size_t scanned_ = 0;  // of the text: where the next event is looked for
  bool done_ = false;
  Time sent_{};
  std::optional<Time> last_;  // when the last event came
};

double quantile(std::vector<double>& values, double q) {
  if (values.empty()) {
    return 0;
  }
  const auto at = values.begin() + static_cast<std::ptrdiff_t>(q * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

struct Options {
  int port = 0;
  int ranks = 0;
  int connections = 0;
  int requests = 0;
  int vocabulary = 0;
  int seed = 0;
};

void run(const Options& options) {
  std::mt19937 random(static_cast<unsigned>(options.seed));
  std::vector<std::unique_ptr<Connection>> connections;
  std::vector<pollfd> polled;
  for (int i = 0; i < options.connections; ++i) {
    connections.push_back(std::make_unique<Connection>(options.port + i % options.ranks));
    polled.push_back({.fd = connections.back()->fd(), .events = POLLIN, .revents = 0});
  }
  Samples samples;
  int to_send = options.requests;
  int to_end = options.requests;
  const Time begin = std::chrono::steady_clock::now();
  for (const auto& connection : connections) {
    connection->send_request(random, options.vocabulary);
    --to_send;
  }
  while (to_end > 0) {
    if (poll(polled.data(), polled.size(), kSilenceLimitMs) <= 0) {
      fail("nothing came for two minutes");
    }
    for (std::size_t i = 0; i < polled.size(); ++i) {
      if (polled[i].revents == 0 || !connections[i]->receive(samples)) {
        continue;
      }
      --to_end;
      if (to_send > 0) {
        connections[i]->send_request(random, options.vocabulary);
        --to_send;
      }
    }
  }
  const double seconds = milliseconds(begin, std::chrono::steady_clock::now()) / 1000;
  fmt::print("{{\"tokens_per_s\": {:.1f}, \"events\": {}, \"ttft_ms_p50\": {:.3f}, \"ttft_ms_p99\": {:.3f}, \"itl_ms_p50\": {:.4f}, \"itl_ms_p99\": {:.4f}}}\n",
             options.requests * kGeneratedTokens / seconds, samples.events, quantile(samples.first_token_ms, 0.5), quantile(samples.first_token_ms, 0.99),
             quantile(samples.inter_token_ms, 0.5), quantile(samples.inter_token_ms, 0.99));
}

}  // namespace

int main(int argc, char** argv) {
  lockstep::ask_for_time_slice(lockstep::kShortTimeSlice);  // a client that waits for a core would measure that, and not the server
  Options options;
  const std::array<int*, 6> fields{&options.port, &options.ranks, &options.connections, &options.requests, &options.vocabulary, &options.seed};
  bool good = argc == 7;
  for (std::size_t i = 0; good && i < fields.size(); ++i) {
    const std::string_view text = argv[i + 1];
    const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), *fields[i]);
    good = error == std::errc() && rest == text.data() + text.size() && *fields[i] >= 0;
  }
  if (!good || options.ranks < 1 || options.connections < 1 || options.requests < options.connections || options.vocabulary < 1) {
    fail("usage: bench_load PORT RANKS CONNECTIONS REQUESTS VOCABULARY SEED");
  }
  run(options);
  return 0;
}
