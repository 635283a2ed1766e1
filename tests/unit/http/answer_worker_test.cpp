// Goal    Answers that take long are made beside the Asio thread, a few at a time: others are served meanwhile, and what is too much is told so.
// Method  A real server; an answer that is made until the test lets it go on; then the trace's own route behind such an answer.
#include "daemon/http/answer_worker.hpp"

#include <atomic>
#include <latch>
#include <new>
#include <optional>
#include <vector>

#include "daemon/trace/trace_ring.hpp"
#include "daemon/trace/trace_route.hpp"
#include "tests/unit/daemon/support/server_fixture.hpp"

namespace lockstep::daemon::testing {
namespace {

constexpr std::size_t kOpenMax = 2;
constexpr const char* kSlow = "GET /slow HTTP/1.1\r\nHost: t\r\n\r\n";

/// Says when so many requests are being answered.
class Inflight final : public HttpObserver {
 public:
  void on_inflight(std::size_t exchanges) override {
    count_ = exchanges;
    count_.notify_all();
  }
  void wait_for(std::size_t exchanges) const {
    for (std::size_t now = count_; now != exchanges; now = count_) {
      count_.wait(now);
    }
  }

 private:
  std::atomic<std::size_t> count_ = 0;
};

class AnswerWorkerTest : public ServerFixture {
 protected:
  void open(HttpLimits limits = {}) {
    const Handler slow = [this](const std::shared_ptr<Exchange>& exchange) {
      worker_->answer(exchange, [this] {
        if (++made_ == 1) {
          first_is_made_.count_down();
          go_on_.wait();
        }
        return HttpResponse{.content_type = "text/plain", .body = "slow"};
      });
    };
    const Handler failing = [this](const std::shared_ptr<Exchange>& exchange) { worker_->answer(exchange, []() -> HttpResponse { throw std::bad_alloc(); }); };
    const Handler page = [](const std::shared_ptr<Exchange>& exchange) { exchange->respond({.content_type = "text/plain", .body = "page"}); };
    const Handler large = [](const std::shared_ptr<Exchange>& exchange) {
      exchange->respond({.content_type = "text/plain", .body = std::string(std::size_t{1} << 20, 'x')});
    };
    serve(true, limits,
          {{"/slow", "GET", slow},
           {"/failing", "GET", failing},
           {"/page", "GET", page},
           {"/large", "GET", large},
           {"/debug/trace", "GET", trace_handler({.ring = &ring_, .worker = &*worker_, .peers = &no_peers_})}},
          &inflight_);
  }
  void TearDown() override {
    let_go_on();
    ServerFixture::TearDown();
    worker_.reset();
  }
  void let_go_on() {
    if (!go_on_.try_wait()) {
      go_on_.count_down();
    }
  }

  Inflight inflight_;
  TraceRing ring_{16};
  comm::PeerChannel* no_peers_ = nullptr;
  std::optional<AnswerWorker> worker_{std::in_place, io_, kOpenMax};
  std::latch first_is_made_{1};
  std::latch go_on_{1};
  std::atomic<int> made_ = 0;
};

TEST_F(AnswerWorkerTest, OthersAreServedWhileAnAnswerIsMade) {
  open();
  HttpClient waiting(port_);
  waiting.send(kSlow);
  first_is_made_.wait();
  EXPECT_EQ(HttpClient(port_).get("/page").body, "page");
  let_go_on();
  EXPECT_EQ(waiting.read_response().body, "slow");
}

TEST_F(AnswerWorkerTest, MoreThanMayBeInTheMakingAre503AndThePlaceIsFreeAgainLater) {
  open();
  HttpClient first(port_);
  first.send(kSlow);
  first_is_made_.wait();
  HttpClient second(port_);
  second.send(kSlow);
  inflight_.wait_for(2);
  HttpClient third(port_);
  const ClientResponse refused = third.get("/slow");
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.headers.at("retry-after"), "1");
  let_go_on();
  EXPECT_EQ(first.read_response().body, "slow");
  EXPECT_EQ(second.read_response().body, "slow");
  EXPECT_EQ(third.get("/slow").body, "slow");
}

TEST_F(AnswerWorkerTest, AnAnswerWhoseClientHasLeftIsNotMade) {
  open();
  HttpClient first(port_);
  first.send(kSlow);
  first_is_made_.wait();
  {
    HttpClient leaving(port_);
    leaving.send(kSlow);
    inflight_.wait_for(2);
  }
  inflight_.wait_for(1);
  let_go_on();
  EXPECT_EQ(first.read_response().body, "slow");
  EXPECT_EQ(first.get("/slow").body, "slow");
  EXPECT_EQ(made_, 2);
}

TEST_F(AnswerWorkerTest, WhatItsMakerThrowsIsAnsweredWith503) {
  open();
  HttpClient client(port_);
  EXPECT_EQ(client.get("/failing").status, 503);
  EXPECT_EQ(client.get("/failing").status, 503) << "its place is free again";
  EXPECT_EQ(client.get("/page").status, 200);
}

TEST_F(AnswerWorkerTest, ATraceIsMadeByTheWorker) {
  open();
  HttpClient slow(port_);
  slow.send(kSlow);
  first_is_made_.wait();
  HttpClient traced(port_);
  traced.send("GET /debug/trace HTTP/1.1\r\nHost: t\r\n\r\n");
  inflight_.wait_for(2);
  HttpClient other(port_);
  EXPECT_EQ(other.get("/page").body, "page");
  EXPECT_EQ(other.get("/debug/trace").status, 503) << "two are in the making";
  EXPECT_EQ(other.get("/debug/trace?steps=0").status, 400) << "what is wrong needs no worker";
  let_go_on();
  EXPECT_EQ(traced.read_response().status, 200);
}

TEST_F(AnswerWorkerTest, LongTextCountsAmongTheLargeAnswersBeforeItIsCompressed) {
  HttpLimits limits;
  limits.answer_bytes = std::size_t{1} << 19;
  open(limits);
  HttpClient client(port_);
  client.send("GET /large HTTP/1.1\r\nHost: t\r\nAccept-Encoding: gzip\r\n\r\n");
  EXPECT_EQ(client.read_response().status, 503) << "it is held whole until it has become short";
}

}  // namespace
}  // namespace lockstep::daemon::testing
