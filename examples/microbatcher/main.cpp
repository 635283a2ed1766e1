// The seed's own example: single strings in, their lengths out, batched on the way. Ends with 0 when every answer is right.
#include <cstdio>
#include <exception>
#include <lockstep/microbatcher.hpp>
#include <memory>
#include <string>
#include <vector>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>

namespace {

using Batcher = lockstep::AsyncMicrobatcher<std::string, std::size_t>;

boost::asio::awaitable<std::vector<std::size_t>> process_batch(std::vector<std::string> items) {
  std::printf("a batch of %zu\n", items.size());
  std::vector<std::size_t> lengths;
  for (const std::string& item : items) {
    lengths.push_back(item.size());
  }
  co_return lengths;
}

/// Items submitted from several coroutines are batched by themselves.
boost::asio::awaitable<void> client(Batcher& batcher, std::string text, int& wrong) {
  const std::size_t expected = text.size();
  const std::size_t length = co_await batcher.submit(std::move(text));
  wrong += length == expected ? 0 : 1;
}

}  // namespace

int main() {
  int wrong = 0;
  boost::asio::io_context io;
  Batcher batcher(io.get_executor(), process_batch, {.max_batch_size = 32, .batch_wait_timeout = std::chrono::milliseconds(2)});
  for (const char* text : {"hello", "micro", "batch", "", "many words in one item"}) {
    boost::asio::co_spawn(io, client(batcher, text, wrong), [](const std::exception_ptr& error) {
      if (error) {
        std::rethrow_exception(error);
      }
    });
  }
  io.run();
  std::printf("asynchronous: %s\n", batcher.stats().to_json().c_str());

  // The same without an event loop: submit waits, a thread of the microbatcher works.
  lockstep::SyncMicrobatcher<std::string, std::size_t> sync([](const std::vector<std::string>& items) {
    std::vector<std::size_t> lengths;
    for (const std::string& item : items) {
      lengths.push_back(item.size());
    }
    return lengths;
  });
  sync.start();
  wrong += sync.submit("hello") == 5 ? 0 : 1;
  sync.stop();
  std::printf("synchronous: %s\n", sync.stats().to_json().c_str());
  return wrong == 0 ? 0 : 1;
}
