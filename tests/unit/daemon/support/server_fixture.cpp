#include "tests/unit/daemon/support/server_fixture.hpp"

#include "daemon/api/chat/chat_format.hpp"
#include "daemon/api/completions/completion_format.hpp"

namespace lockstep::daemon::testing {

void ServerFixture::serve(bool echo, HttpLimits limits, std::vector<Route> routes, HttpObserver* observer) {
  HttpServerOptions options{.limits = limits, .headers = {{"x-lockstep-rank", "3"}}};
  if (observer != nullptr) {
    options.observers.push_back(observer);
  }
  serve_with(echo, std::move(options), std::move(routes));
}

void ServerFixture::serve_with(bool echo, HttpServerOptions options, std::vector<Route> routes, ApiKeys keys) {
  engine_ = std::make_unique<FakeEngine>(echo);
  service_ = GenerationService::create(
      io_, {.context = {.served_names = {"tiny"}, .tokenizer = &tokenizer_, .chat_template = &chat_template_}, .inline_body_bytes = 128});
  engine_->set_sink(service_->sink());
  routes.push_back({"/v1/completions", "POST", [this](std::shared_ptr<Exchange> exchange) { service_->handle(std::move(exchange), completion_format()); }});
  routes.push_back({"/v1/chat/completions", "POST", [this](std::shared_ptr<Exchange> exchange) { service_->handle(std::move(exchange), chat_format()); }});
  auto server = HttpServer::open(io_, std::move(options), Router(std::move(routes), std::move(keys)));
  ASSERT_TRUE(server) << server.error().message;
  server_ = std::move(*server);
  port_ = server_->port();
  service_->open_gate(*engine_);
  thread_ = std::jthread([this] { io_.run(); });
}

void ServerFixture::TearDown() {
  if (thread_.joinable()) {
    on_asio([this] { server_->close(); });
    work_.reset();
    io_.stop();
    thread_.join();
  }
}

}  // namespace lockstep::daemon::testing
