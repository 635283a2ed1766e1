#include "daemon/api/request/body_reader.hpp"

#include <exception>
#include <utility>
#include <variant>
#include <vector>

#include <boost/asio/bind_executor.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/thread_pool.hpp>
#include <fmt/format.h>

#include "lockstep/microbatcher.hpp"

namespace lockstep::daemon {
namespace {

/// A batch's bodies are answered when all of them are read: few, so that the first does not wait long for the last.
constexpr std::size_t kBatchMax = 4;
/// Their text is bounded by the HTTP server, which reads few large bodies at a time.
constexpr std::size_t kPendingMax = 1024;

using Read = std::monostate;

struct Body {
  BodyReader::Work work;
  std::shared_ptr<std::atomic<bool>> taken;
};

std::vector<BatchOutcome<Read>> read_all(const std::vector<Body>& bodies) {
  std::vector<BatchOutcome<Read>> outcomes;
  outcomes.reserve(bodies.size());
  for (const Body& body : bodies) {
    if (body.taken->exchange(true)) {
      outcomes.emplace_back(std::make_exception_ptr(MicrobatcherError(ErrorCode::kCancelled, "nobody waits for this request any more")));
      continue;
    }
    try {
      body.work();
      outcomes.emplace_back(Read{});
    } catch (...) {  // everything: one body's failure is its own
      outcomes.emplace_back(std::current_exception());
    }
  }
  return outcomes;
}

Error error_of(const std::exception_ptr& thrown) {
  try {
    std::rethrow_exception(thrown);
  } catch (const MicrobatcherError& error) {
    return {error.code(), error.what()};
  } catch (const std::exception& error) {
    return {ErrorCode::kInternal, fmt::format("reading a request's body failed: {}", error.what())};
  } catch (...) {  // everything: whatever was thrown, the request is answered
    return {ErrorCode::kInternal, "reading a request's body failed"};
  }
}

class WorkerBodyReader final : public BodyReader {
 public:
  explicit WorkerBodyReader(boost::asio::io_context& io) : io_(io) {}

  BodyRead read(Work work, Done done) override {
    auto taken = std::make_shared<std::atomic<bool>>(false);
    batcher_.submit(Body{.work = std::move(work), .taken = taken},
                    boost::asio::bind_executor(io_.get_executor(), [done = std::move(done)](const std::exception_ptr& thrown, Read) {
                      done(thrown ? std::optional(error_of(thrown)) : std::nullopt);
                    }));
    return BodyRead(std::move(taken));
  }

 private:
  boost::asio::io_context& io_;
  boost::asio::thread_pool worker_{1};  // its destructor waits for the batch that runs
  AsyncMicrobatcher<Body, Read> batcher_{worker_.get_executor(), read_all, {.max_batch_size = kBatchMax, .name = "request bodies", .max_pending = kPendingMax}};
};

}  // namespace

std::unique_ptr<BodyReader> BodyReader::create(boost::asio::io_context& io) {
  return std::make_unique<WorkerBodyReader>(io);
}

}  // namespace lockstep::daemon
