// Goal: the table decides who gets in and where a request goes; what is not declared open is closed as soon as there are keys.
// Method: a table with each kind of line, asked for every combination of path, method and key.
#include "daemon/http/router.hpp"

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lockstep::daemon {
namespace {

using ::testing::HasSubstr;

std::vector<Route> table() {
  const Handler nothing = [](const std::shared_ptr<Exchange>&) {};
  return {{"/probe", "GET", nothing, Access::kOpen}, {"/list", "GET", nothing}, {"/list", "POST", nothing}, {"/list/{id}", "GET", nothing}};
}

Router router_with(const std::vector<std::string>& keys) {
  return Router(table(), *ApiKeys::create(keys));
}

int status_of(const Router& router, std::string method, std::string path, std::string authorization = "") {
  const RouteMatch match = router.match({.method = std::move(method), .path = std::move(path), .authorization = std::move(authorization)});
  EXPECT_NE(match.route == nullptr, !match.answer.has_value()) << "a route or an answer, never both";
  return match.answer ? match.answer->status : 200;
}

TEST(Router, WithoutKeysEveryRouteIsOpen) {
  const Router router(table());
  EXPECT_EQ(status_of(router, "GET", "/probe"), 200);
  EXPECT_EQ(status_of(router, "POST", "/list"), 200);
  EXPECT_EQ(status_of(router, "HEAD", "/list"), 200);
  EXPECT_EQ(status_of(router, "GET", "/list/a"), 200);
  EXPECT_EQ(status_of(router, "DELETE", "/list"), 405);
  EXPECT_EQ(status_of(router, "GET", "/nowhere"), 404);
}

TEST(Router, WithKeysEverythingButOpenRoutesNeedsOne) {
  const Router router = router_with({"one", "two"});
  for (const char* authorization : {"", "Bearer three", "Basic one"}) {
    EXPECT_EQ(status_of(router, "GET", "/probe", authorization), 200);
    EXPECT_EQ(status_of(router, "POST", "/probe", authorization), 405);
    EXPECT_EQ(status_of(router, "GET", "/list", authorization), 401);
    EXPECT_EQ(status_of(router, "HEAD", "/list", authorization), 401);
    EXPECT_EQ(status_of(router, "DELETE", "/list", authorization), 401);
    EXPECT_EQ(status_of(router, "GET", "/list/a", authorization), 401);
    EXPECT_EQ(status_of(router, "GET", "/nowhere", authorization), 401);
  }
  for (const char* authorization : {"Bearer one", "bearer two"}) {
    EXPECT_EQ(status_of(router, "GET", "/list", authorization), 200);
    EXPECT_EQ(status_of(router, "DELETE", "/list", authorization), 405);
    EXPECT_EQ(status_of(router, "GET", "/nowhere", authorization), 404);
  }
}

TEST(Router, RefusalSaysHowToAuthenticate) {
  const RouteMatch match = router_with({"one"}).match({.method = "GET", .path = "/list"});
  ASSERT_TRUE(match.answer);
  ASSERT_EQ(match.answer->headers.size(), 1U);
  EXPECT_EQ(match.answer->headers[0].name, "WWW-Authenticate");
  EXPECT_EQ(match.answer->headers[0].value, "Bearer");
  EXPECT_THAT(match.answer->body, HasSubstr(R"("code":"invalid_api_key")"));
  EXPECT_EQ(match.label, "/list");
}

TEST(Router, NewKeysCountFromTheNextRequest) {
  Router router = router_with({"old"});
  router.set_keys(*ApiKeys::create({"new"}));
  EXPECT_EQ(status_of(router, "GET", "/list", "Bearer old"), 401);
  EXPECT_EQ(status_of(router, "GET", "/list", "Bearer new"), 200);
}

TEST(Router, OptionsTellsTheMethodsOfAPath) {
  const Router router = router_with({"one"});
  const RouteMatch match = router.match({.method = "OPTIONS", .path = "/list"});
  ASSERT_TRUE(match.answer);
  EXPECT_EQ(match.answer->status, 204);
  EXPECT_EQ(match.answer->headers.at(0).value, "GET, HEAD, POST, OPTIONS");
  EXPECT_EQ(status_of(router, "OPTIONS", "/nowhere"), 401);
}

TEST(Router, OptionsOfTheWholeServerNeedsNoKeyAndNoPath) {
  const RouteMatch match = router_with({"one"}).match({.method = "OPTIONS", .path = "*"});
  ASSERT_TRUE(match.answer);
  EXPECT_EQ(match.answer->status, 204);
  EXPECT_EQ(match.answer->headers.at(0).value, "GET, HEAD, POST, OPTIONS");
  EXPECT_EQ(status_of(Router(table()), "GET", "*"), 404);
}

TEST(Router, LabelIsThePathOfTheTable) {
  const Router router(table());
  EXPECT_EQ(router.match({.method = "GET", .path = "/list/anything"}).label, "/list/{id}");
  EXPECT_EQ(router.match({.method = "BREW", .path = "/list"}).label, "/list");
  EXPECT_EQ(router.match({.method = "GET", .path = "/listing"}).label, kNoRoute);
  EXPECT_EQ(router.match({.method = "GET", .path = "/list/"}).label, kNoRoute) << "a parameter has at least one character";
}

TEST(PathParameter, IsDecoded) {
  EXPECT_EQ(path_parameter("/list/{id}", "/list/a"), "a");
  EXPECT_EQ(path_parameter("/list/{id}", "/list/owner/name"), "owner/name");
  EXPECT_EQ(path_parameter("/list/{id}", "/list/owner%2Fna%6de"), "owner/name");
  for (const char* bad : {"/list/%", "/list/a%2", "/list/%zz", "/other/a"}) {
    EXPECT_EQ(path_parameter("/list/{id}", bad), std::nullopt) << bad;
  }
}

}  // namespace
}  // namespace lockstep::daemon
