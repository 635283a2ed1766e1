// ServerFixture: an HTTP server over a fake engine, with the Asio thread that a daemon would have.
#pragma once

#include <functional>
#include <future>
#include <memory>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <gtest/gtest.h>

#include "daemon/api/generation_service.hpp"
#include "daemon/http/server.hpp"
#include "tests/unit/daemon/support/fakes.hpp"
#include "tests/unit/daemon/support/http_client.hpp"

namespace lockstep::daemon::testing {

class ServerFixture : public ::testing::Test {
 protected:
  /// Starts a server with /v1/completions and /v1/chat/completions, and `routes`.
  void serve(bool echo, HttpLimits limits = {}, std::vector<Route> routes = {}, HttpObserver* observer = nullptr);
  void serve_with(bool echo, HttpServerOptions options, std::vector<Route> routes = {}, ApiKeys keys = {});
  void TearDown() override;
  /// Runs `call` on the Asio thread and waits for it.
  template <typename Call>
  auto on_asio(Call call) {
    std::packaged_task<std::invoke_result_t<Call>()> task(std::move(call));
    auto done = task.get_future();
    boost::asio::post(io_, [&task] { task(); });
    return done.get();
  }

  boost::asio::io_context io_;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_{io_.get_executor()};
  ByteTokenizer tokenizer_;
  FakeChatTemplate chat_template_;
  std::unique_ptr<FakeEngine> engine_;
  std::unique_ptr<GenerationService> service_;
  std::unique_ptr<HttpServer> server_;
  std::uint16_t port_ = 0;
  std::jthread thread_;
};

}  // namespace lockstep::daemon::testing
