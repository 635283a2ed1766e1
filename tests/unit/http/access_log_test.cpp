// Goal: a line for each request that the option asks for, and never a client's text in it.
// Method: made-up requests; the log goes to a string.
#include "daemon/front_door/access_log.hpp"

#include <memory>
#include <sstream>
#include <string>

#include <gmock/gmock.h>
#include <spdlog/sinks/ostream_sink.h>

namespace lockstep::daemon {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using std::chrono_literals::operator""ms;

std::string logged(AccessLogLevel level, const ResponseFacts& facts) {
  std::ostringstream text;
  spdlog::logger logger("test", std::make_shared<spdlog::sinks::ostream_sink_mt>(text));
  logger.set_pattern("%l %v");
  AccessLog(logger, level).on_response(facts);
  logger.flush();
  return text.str();
}

const ResponseFacts kCompletion{
    .route = "/v1/completions", .method = "POST", .status = 200, .duration = 1500ms, .bytes = 532, .remote = "127.0.0.1:50000", .request_id = "abc"};
const ResponseFacts kProbe{.route = "/ready", .method = "GET", .status = 200, .remote = "127.0.0.1:50000", .request_id = "abc"};

TEST(AccessLog, LineHasWhatIsAskedForInOrder) {
  EXPECT_EQ(access_line(kCompletion), "access remote=127.0.0.1:50000 method=POST route=/v1/completions status=200 bytes=532 seconds=1.5000 request_id=abc");
}

TEST(AccessLog, UnknownMethodIsNotRepeated) {
  ResponseFacts facts = kCompletion;
  facts.method = "BREW\x1b[31m";
  EXPECT_THAT(access_line(facts), HasSubstr("method=other "));
}

TEST(AccessLog, LevelDecidesWhatIsLogged) {
  EXPECT_THAT(logged(AccessLogLevel::kAll, kProbe), HasSubstr("info access"));
  EXPECT_EQ(logged(AccessLogLevel::kRequests, kProbe), "");
  EXPECT_THAT(logged(AccessLogLevel::kRequests, kCompletion), HasSubstr("info access"));
  EXPECT_EQ(logged(AccessLogLevel::kOff, kCompletion), "");
}

TEST(AccessLog, ProbeThatWentWrongIsNoRoutine) {
  ResponseFacts facts = kProbe;
  facts.status = 503;
  EXPECT_THAT(logged(AccessLogLevel::kRequests, facts), HasSubstr("status=503"));
}

}  // namespace
}  // namespace lockstep::daemon
