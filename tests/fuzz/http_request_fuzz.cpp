// Goal: no bytes of a client break the server, keep a connection for ever, or get an answer that is not HTTP.
// Method: the first byte chooses. Reader: the rest through RequestReader, cut where the second byte says; read in one piece it must come to the same. Server:
// the rest to a real connection over a socket pair, whose answers are read; when the client closes, the connection must go.
#include <cstdint>
#include <string>
#include <sys/socket.h>
#include <unistd.h>
#include <vector>

#include <boost/asio/io_context.hpp>

#include "daemon/http/connection/connection.hpp"
#include "daemon/http/connection/request_reader.hpp"
#include "lockstep/core/check.hpp"
#include "tests/support/memory_file.hpp"

namespace {

using namespace lockstep;
using namespace lockstep::daemon;

constexpr HttpLimits kLimits{.header_bytes = 2048, .body_bytes = 4096, .large_body_bytes = 512, .large_bodies = 2, .chunks = 16, .gzip_bytes = 64};

struct Outcome {
  std::vector<std::string> requests;
  int refusal = 0;
  bool operator==(const Outcome&) const = default;
};

/// Reads as a connection does: what was not taken is shown again with more behind it.
Outcome read_all(std::string_view input, std::size_t piece) {
  RequestReader reader(kLimits);
  reader.begin();
  Outcome outcome;
  std::string kept;
  while (!input.empty() || !kept.empty()) {
    std::size_t taken = 0;
    const RequestReader::Progress progress = reader.read(kept, taken);
    LOCKSTEP_CHECK(taken <= kept.size(), "took {} of {} bytes", taken, kept.size());
    kept.erase(0, taken);
    if (progress == RequestReader::Progress::kRefused) {
      outcome.refusal = reader.refusal().status;
      LOCKSTEP_CHECK(outcome.refusal >= 400 && outcome.refusal < 600, "status {}", outcome.refusal);
      return outcome;
    }
    if (progress == RequestReader::Progress::kComplete) {
      const HttpRequest request = reader.take_request();
      LOCKSTEP_CHECK(request.body.size() <= kLimits.body_bytes, "a body of {} bytes", request.body.size());
      outcome.requests.push_back(request.method + " " + request.path + "?" + request.query + " " + request.body);
      reader.begin();
    } else if (progress == RequestReader::Progress::kNeedsMore) {
      if (input.empty()) {
        break;
      }
      LOCKSTEP_CHECK(kept.size() <= kLimits.header_bytes + kLimits.body_bytes, "{} bytes wait", kept.size());
      kept += input.substr(0, piece);
      input.remove_prefix(std::min(piece, input.size()));
    }
  }
  return outcome;
}

void fuzz_reader(std::string_view input) {
  if (input.empty()) {
    return;
  }
  const std::size_t piece = 1 + static_cast<unsigned char>(input.front()) % 32;
  const Outcome cut = read_all(input.substr(1), piece);
  const Outcome whole = read_all(input.substr(1), input.size());
  LOCKSTEP_CHECK(cut.requests.size() >= whole.requests.size() ? std::equal(whole.requests.begin(), whole.requests.end(), cut.requests.begin())
                                                              : std::equal(cut.requests.begin(), cut.requests.end(), whole.requests.begin()),
                 "requests differ by how they came");
}

Router make_router() {
  const Handler echo = [](const std::shared_ptr<Exchange>& exchange) { exchange->respond({.body = exchange->request().body}); };
  const Handler stream = [](const std::shared_ptr<Exchange>& exchange) {
    exchange->begin_stream({.content_type = "text/event-stream"});
    if (exchange->write("data: 1\n\n")) {
      exchange->finish();
    }
  };
  return Router({{"/e", "POST", echo, Access::kKey, {}}, {"/s", "GET", stream, Access::kOpen, {}}, {"/m/{id}", "GET", echo, Access::kOpen, {}}});
}

void poll_all(boost::asio::io_context& io) {
  while (io.poll() > 0) {
  }
  io.restart();
}

void fuzz_server(std::string_view input) {
  static boost::asio::io_context io;
  static const std::shared_ptr<ServerState> kState = [] {
    auto state = std::make_shared<ServerState>(HttpServerOptions{.limits = kLimits, .cors_origins = {"https://example.org"}}, make_router());
    state->compressor = std::make_unique<Compressor>(io);
    return state;
  }();
  int ends[2] = {-1, -1};
  LOCKSTEP_CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) == 0, "no sockets");
  std::make_shared<Connection>(Client{.socket = Wire::Socket(io, boost::asio::generic::stream_protocol(AF_UNIX, 0), ends[0]), .remote = "fuzz"}, kState)
      ->start();
  LOCKSTEP_CHECK(::send(ends[1], input.data(), input.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(input.size()) || input.empty(), "not sent");
  poll_all(io);
  std::string answer(std::size_t{1} << 18, '\0');
  const ssize_t received = ::recv(ends[1], answer.data(), answer.size(), MSG_DONTWAIT);
  if (received > 0) {
    LOCKSTEP_CHECK(std::string_view(answer).starts_with("HTTP/1.1 "), "an answer that is not HTTP");
  }
  ::close(ends[1]);
  poll_all(io);
  LOCKSTEP_CHECK(kState->connections.empty() && kState->large_bodies == 0 && kState->exchanges == 0, "{} connections, {} bodies, {} exchanges are left",
                 kState->connections.size(), kState->large_bodies, kState->exchanges);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input = fuzz::text_of(data, size);
  if (!input.empty()) {
    (input.front() % 2 == 0 ? fuzz_server : fuzz_reader)(input.substr(1));
  }
  return 0;
}
