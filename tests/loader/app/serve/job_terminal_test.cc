#include "loader/app/serve/job_terminal.h"

#include <gtest/gtest.h>

namespace migrx {
namespace {

TEST(JobTerminal, lines_are_taken_once_and_in_their_order) {
  JobTerminal terminal;
  terminal.say("first");
  terminal.warn("warning: second");
  const std::vector<JobTerminal::Line> lines = terminal.take_lines();
  ASSERT_EQ(lines.size(), 2U);
  EXPECT_EQ(lines[0].text, "first");
  EXPECT_FALSE(lines[0].warning);
  EXPECT_TRUE(lines[1].warning);
  EXPECT_TRUE(terminal.take_lines().empty());
}

TEST(JobTerminal, what_nobody_takes_is_bounded) {
  JobTerminal terminal;
  for (int i = 0; i < 1000; ++i) terminal.say(std::to_string(i));
  const std::vector<JobTerminal::Line> lines = terminal.take_lines();
  EXPECT_EQ(lines.size(), 64U);
  EXPECT_EQ(lines.back().text, "999");
}

TEST(JobTerminal, the_last_progress_stays) {
  static uint64_t now_ns = 1;
  JobTerminal terminal([] { return now_ns; });
  EXPECT_TRUE(terminal.due());
  terminal.progress("half");
  now_ns += 100'000'000;
  EXPECT_FALSE(terminal.due());
  now_ns += 200'000'000;
  EXPECT_TRUE(terminal.due());
  EXPECT_EQ(terminal.last_progress(), "half");
  EXPECT_EQ(terminal.last_progress(), "half");
}

}  // namespace
}  // namespace migrx
