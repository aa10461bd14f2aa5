#include "loader/app/supervisor.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace migrx {
namespace {

std::string scratch(const char* name) {
  return std::filesystem::temp_directory_path() /
         (std::string("migrx-supervisor-") + std::to_string(::getpid()) + name);
}

TEST(Supervisor, passes_the_exit_status_on) {
  EXPECT_EQ(supervise([](const Lifeline&) { return 0; }, [] { return 9; }), 0);
  EXPECT_EQ(supervise([](const Lifeline&) { return 2; }, [] { return 9; }), 2);
}

TEST(Supervisor, a_killed_receiver_leaves_no_file_and_is_followed_by_reset_mode) {
  const std::string made = scratch("made");
  const std::string kept = scratch("kept");
  const std::string reset_ran = scratch("reset");
  const int status = supervise(
      [&](const Lifeline& lifeline) -> int {
        std::ofstream(made) << "x";
        std::ofstream(kept) << "x";
        lifeline.made(made);
        lifeline.made(kept);
        lifeline.keep(kept);
        lifeline.listening();
        ::kill(::getpid(), SIGKILL);
        return 0;
      },
      [&] {
        std::ofstream(reset_ran) << "x";
        return 0;
      });
  EXPECT_EQ(status, 1);
  EXPECT_FALSE(std::filesystem::exists(made));
  EXPECT_TRUE(std::filesystem::exists(kept));
  EXPECT_TRUE(std::filesystem::exists(reset_ran));
  std::filesystem::remove(kept);
  std::filesystem::remove(reset_ran);
}

TEST(Supervisor, no_reset_mode_before_the_receiver_was_listening) {
  const std::string reset_ran = scratch("reset2");
  supervise(
      [](const Lifeline&) -> int {
        ::kill(::getpid(), SIGKILL);
        return 0;
      },
      [&] {
        std::ofstream(reset_ran) << "x";
        return 0;
      });
  EXPECT_FALSE(std::filesystem::exists(reset_ran));
}

TEST(Supervisor, a_signal_for_the_parent_reaches_the_receiver) {
  const int status = supervise(
      [](const Lifeline&) -> int {
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGTERM);
        ::sigprocmask(SIG_BLOCK, &set, nullptr);
        ::kill(::getppid(), SIGTERM);
        int signal = 0;
        ::sigwait(&set, &signal);
        return signal == SIGTERM ? 17 : 1;
      },
      [] { return 0; });
  EXPECT_EQ(status, 17);
}

}  // namespace
}  // namespace migrx
