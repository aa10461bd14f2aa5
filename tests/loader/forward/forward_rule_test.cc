#include "loader/forward/forward_rule.h"

#include <gtest/gtest.h>

namespace migrx {
namespace {

TEST(ForwardRule, names_a_port_of_ours_and_a_server) {
  ForwardRule rule;
  EXPECT_EQ(parse_forward_rule("10809=127.0.0.1:49153", rule), "");
  EXPECT_EQ(rule.port, 10809);
  EXPECT_EQ(rule.server.host, "127.0.0.1");
  EXPECT_EQ(rule.server.port, 49153);
  EXPECT_EQ(parse_forward_rule("1=[::1]:65535", rule), "");
  EXPECT_EQ(rule.server.host, "::1");
}

TEST(ForwardRule, anything_else_is_refused_with_an_example) {
  for (const char* const text :
       {"", "=", "10809", "10809=", "=127.0.0.1:1", "0=127.0.0.1:1", "65536=127.0.0.1:1", "-1=127.0.0.1:1",
        " 1=127.0.0.1:1", "1 =127.0.0.1:1", "1=127.0.0.1", "1=127.0.0.1:0", "1=localhost:1", "1=0.0.0.0:1",
        "1=[::]:1", "1=unix:/run/x", "1=127.0.0.1:1=2", "1=::1:1"}) {
    ForwardRule rule;
    EXPECT_NE(parse_forward_rule(text, rule).find("10809=127.0.0.1:10809"), std::string::npos) << text;
  }
}

}  // namespace
}  // namespace migrx
