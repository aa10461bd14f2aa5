#include "loader/app/supervisor.h"

#include "loader/app/lost_connection.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace migrx {
namespace {

using Lost = std::vector<std::string>;

std::string scratch(const char* name) {
  return std::filesystem::temp_directory_path() /
         (std::string("migrx-supervisor-") + std::to_string(::getpid()) + name);
}

TEST(Supervisor, passes_the_exit_status_on) {
  EXPECT_EQ(supervise([](const Lifeline&) { return 0; }, [](const Lost&) { return 9; }), 0);
  EXPECT_EQ(supervise([](const Lifeline&) { return 2; }, [](const Lost&) { return 9; }), 2);
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
      [&](const Lost&) {
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
      [&](const Lost&) {
        std::ofstream(reset_ran) << "x";
        return 0;
      });
  EXPECT_FALSE(std::filesystem::exists(reset_ran));
}

TEST(Supervisor, reset_mode_is_told_of_the_connections_of_each_place_the_last) {
  const std::string told = scratch("told");
  supervise(
      [](const Lifeline& lifeline) -> int {
        lifeline.listening();
        lifeline.connected(0, "main");
        lifeline.connected(11, "stranger 1");
        lifeline.connected(11, "stranger 2");
        lifeline.connected(12, "stranger 3");
        lifeline.ended(12);
        lifeline.ended(13);
        ::kill(::getpid(), SIGKILL);
        return 0;
      },
      [&](const Lost& lost) {
        std::ofstream file(told);
        for (const std::string& connection : lost) file << connection << ";";
        return 0;
      });
  std::ifstream file(told);
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(file), {}), "main;stranger 2;");
  std::filesystem::remove(told);
}

TEST(Supervisor, a_connection_is_told_in_words_without_loss) {
  LostConnection lost;
  lost.tuple = {{0x0a4d0001}, {0x0a4d0002}, 50192, 4444};
  for (uint8_t i = 0; i < 6; ++i) {
    lost.link.remote_mac.bytes[i] = std::byte(0xf0 + i);
    lost.link.local_mac.bytes[i] = std::byte(i);
  }
  lost.link.vlan_tci = 0xe007;
  lost.link.tagged = 1;
  lost.next_hop = {0xffff'ffff};
  const auto again = lost_connection_from(to_text(lost));
  ASSERT_TRUE(again);
  EXPECT_EQ(*again, lost);
  EXPECT_FALSE(lost_connection_from("a4d0001 c410 a4d0002"));
  EXPECT_FALSE(lost_connection_from(""));
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
      [](const Lost&) { return 0; });
  EXPECT_EQ(status, 17);
}

}  // namespace
}  // namespace migrx
