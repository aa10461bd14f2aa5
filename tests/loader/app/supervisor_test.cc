#include "loader/app/supervisor.h"

#include "loader/app/lost_connection.h"
#include "loader/app/signals.h"
#include "numa/clock.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>

namespace migrx {
namespace {

using Lost = std::vector<std::string>;

int run(
    std::function<int(const Lifeline&)> receive, std::function<void(const Lost&)> leave = [](const Lost&) {},
    std::vector<int> of_child = {}) {
  return supervise({.receive = std::move(receive),
                    .leave =
                        [&](const Supervision::Legacy& legacy) {
                          leave(legacy.connections);
                          return std::string("left");
                        },
                    .of_child = std::move(of_child)});
}

std::string scratch(const char* name) {
  return std::filesystem::temp_directory_path() /
         (std::string("migrx-supervisor-") + std::to_string(::getpid()) + name);
}

TEST(Supervisor, passes_the_exit_status_on) {
  EXPECT_EQ(run([](const Lifeline&) { return 0; }), 0);
  EXPECT_EQ(run([](const Lifeline&) { return 2; }), 2);
}

TEST(Supervisor, a_file_that_took_the_place_of_a_killed_receivers_stays) {
  const std::string path = scratch("replaced");
  EXPECT_EQ(run([&](const Lifeline& lifeline) -> int {
              std::ofstream(path) << "x";
              lifeline.made(path, file_id_at(path));
              std::ofstream(path + ".new") << "somebody else's";
              std::filesystem::rename(path + ".new", path);
              ::kill(::getpid(), SIGKILL);
              return 0;
            }),
            1);
  EXPECT_TRUE(std::filesystem::exists(path));
  std::filesystem::remove(path);
}

TEST(Supervisor, a_killed_receiver_leaves_no_file_and_somebody_stays_behind_for_its_connections) {
  const std::string made = scratch("made");
  const std::string kept = scratch("kept");
  Lost left;
  const int status = run(
      [&](const Lifeline& lifeline) -> int {
        std::ofstream(made) << "x";
        std::ofstream(kept) << "x";
        lifeline.made(made, file_id_at(made));
        lifeline.made(kept, file_id_at(kept));
        lifeline.keep(kept);
        lifeline.listening();
        lifeline.connected(0, "main");
        ::kill(::getpid(), SIGKILL);
        return 0;
      },
      [&](const Lost& lost) { left = lost; });
  EXPECT_EQ(status, 1);
  EXPECT_FALSE(std::filesystem::exists(made));
  EXPECT_TRUE(std::filesystem::exists(kept));
  EXPECT_EQ(left, Lost{"main"});
  std::filesystem::remove(kept);
}

TEST(Supervisor, nobody_stays_behind_when_all_have_been_told_or_nobody_was_listened_to) {
  bool left = false;
  run(
      [](const Lifeline& lifeline) -> int {
        lifeline.connected(0, "main");
        ::kill(::getpid(), SIGKILL);
        return 0;
      },
      [&](const Lost&) { left = true; });
  run(
      [](const Lifeline& lifeline) {
        lifeline.listening();
        lifeline.connected(0, "main");
        lifeline.ended(0);
        return 1;
      },
      [&](const Lost&) { left = true; });
  EXPECT_FALSE(left);
}

// It may have accepted a connection in its last moment, of which it could not tell.
TEST(Supervisor, somebody_stays_behind_for_a_killed_receiver_that_listened_and_for_no_other) {
  const auto stays_for = [](bool listens, bool killed) {
    std::optional<bool> said;
    supervise({.receive = [&](const Lifeline& lifeline) -> int {
                 if (listens) lifeline.listening();
                 if (killed) ::kill(::getpid(), SIGKILL);
                 return 1;
               },
               .leave =
                   [&](const Supervision::Legacy& legacy) {
                     EXPECT_TRUE(legacy.connections.empty());
                     said = legacy.killed;
                     return std::string("left");
                   }});
    return said;
  };
  EXPECT_EQ(stays_for(true, true), std::optional(true));
  EXPECT_FALSE(stays_for(false, true));
  EXPECT_FALSE(stays_for(true, false));
}

// A manager's watchdog: the child hangs and would hear no SIGTERM.
TEST(Supervisor, sigabrt_ends_a_child_that_hangs_and_its_connections_are_left) {
  Lost left;
  const int status = run(
      [](const Lifeline& lifeline) -> int {
        lifeline.listening();
        lifeline.connected(0, "main");
        ::kill(::getppid(), SIGABRT);
        for (;;) ::pause();
      },
      [&](const Lost& lost) { left = lost; });
  EXPECT_EQ(status, 1);
  EXPECT_EQ(left, Lost{"main"});
}

TEST(Supervisor, those_are_left_that_have_each_place_last_however_the_receiver_ends) {
  Lost left;
  const int status = run(
      [](const Lifeline& lifeline) {
        lifeline.listening();
        lifeline.connected(0, "main");
        lifeline.connected(11, "stranger 1");
        lifeline.connected(11, "stranger 2");
        lifeline.connected(12, "stranger 3");
        lifeline.ended(12);
        lifeline.ended(13);
        return 1;
      },
      [&](const Lost& lost) { left = lost; });
  EXPECT_EQ(status, 1);
  EXPECT_EQ(left, (Lost{"main", "stranger 2"}));
}

// The exit status tells where the guest is, also when a process is killed that has told the source already.
TEST(Supervisor, what_a_killed_receiver_would_have_said_is_the_status) {
  EXPECT_EQ(run([](const Lifeline& lifeline) -> int {
              lifeline.if_killed(3);
              lifeline.if_killed(0);
              ::kill(::getpid(), SIGKILL);
              return 0;
            }),
            0);
}

TEST(Supervisor, a_connection_is_told_in_words_without_loss) {
  LostConnection lost;
  lost.tuple = {Ipv4Address{0x0a4d0001}, Ipv4Address{0x0a4d0002}, 50192, 4444};
  for (uint8_t i = 0; i < 6; ++i) {
    lost.link.remote_mac.bytes[i] = std::byte(0xf0 + i);
    lost.link.local_mac.bytes[i] = std::byte(i);
  }
  lost.link.vlan_tci = 0xe007;
  lost.link.tagged = 1;
  lost.next_hop = Ipv4Address{0xffff'ffff};
  const auto again = lost_connection_from(to_text(lost));
  ASSERT_TRUE(again);
  EXPECT_EQ(*again, lost);
  LostConnection ipv6 = lost;
  ipv6.tuple = {{0xfd00'0000'0000'0000, 1}, {0xfd00'0000'0000'0000, 2}, 50192, 4444};
  ipv6.next_hop = {0xfe80'0000'0000'0000, 0xffff'ffff'ffff'ffff};
  const auto six = lost_connection_from(to_text(ipv6));
  ASSERT_TRUE(six);
  EXPECT_EQ(*six, ipv6);
  // As receivers before IPv6 wrote it.
  const auto old = lost_connection_from("a4d0001 c410 a4d0002 115c f0f1f2f3f4f5 102030405 e007 1 ffffffff");
  ASSERT_TRUE(old);
  EXPECT_EQ(*old, lost);
  // Two families in one connection; an IPv4 address in the clothes of the other; a word too many.
  ipv6.next_hop = Ipv4Address{1};
  EXPECT_FALSE(lost_connection_from(to_text(ipv6)));
  EXPECT_FALSE(
      lost_connection_from("00000000000000000000ffff0a4d0001 1 00000000000000000000ffff0a4d0002 2 3 4 5 0 "
                           "00000000000000000000ffff0a4d0001"));
  EXPECT_FALSE(lost_connection_from(to_text(lost) + " 1"));
  EXPECT_FALSE(lost_connection_from(to_text(lost) + " "));
  EXPECT_FALSE(lost_connection_from("a4d0001 c410 a4d0002"));
  EXPECT_FALSE(lost_connection_from(""));
}

// How many signals the receiver has got half a second after the first, and which was the first.
int signals_of(const std::function<void(pid_t parent)>& send) {
  return run([&](const Lifeline&) -> int {
    const SignalWatch watch;
    send(::getppid());
    int count = 0;
    for (int ms = 0; ms < 500; ms += 10) count += watch.wait(10'000) != 0 ? 1 : 0;
    return 10 + count;
  });
}

TEST(Supervisor, a_signal_for_the_parent_reaches_the_receiver_once) {
  EXPECT_EQ(signals_of([](pid_t parent) { ::kill(parent, SIGTERM); }), 11);
  // On a machine that stands still for a moment five signals may be more than a second apart: once more then.
  for (int attempt = 0; attempt < 10; ++attempt) {
    uint64_t took_ns = 0;
    const int status = signals_of([&took_ns](pid_t parent) {
      const uint64_t begun_ns = monotonic_ns();
      for (int i = 0; i < 5; ++i) {
        ::kill(parent, i % 2 == 0 ? SIGTERM : SIGINT);
        ::usleep(20'000);
      }
      took_ns = monotonic_ns() - begun_ns;
    });
    if (took_ns > 500'000'000) continue;
    EXPECT_EQ(status, 11);
    return;
  }
  GTEST_SKIP() << "this machine stood still for half a second, ten times in a row";
}

// A service manager that ends the whole group, a terminal's Ctrl-C.
TEST(Supervisor, a_signal_for_the_group_reaches_the_receiver_once) {
  const pid_t program = ::fork();
  if (program == 0) {
    ::setpgid(0, 0);
    std::_Exit(signals_of([](pid_t parent) { ::kill(-parent, SIGTERM); }));
  }
  int status = 0;
  ASSERT_EQ(::waitpid(program, &status, 0), program);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 11);
}

TEST(Supervisor, what_was_ignored_at_the_start_stays_ignored) {
  const auto before = ::signal(SIGHUP, SIG_IGN);
  EXPECT_EQ(signals_of([](pid_t parent) {
              ::kill(parent, SIGHUP);
              ::kill(::getpid(), SIGHUP);
            }),
            10);
  ::signal(SIGHUP, before);
}

// --ready-fd: who reads to the end must see it when the receiver has closed it.
TEST(Supervisor, a_descriptor_of_the_receivers_ends_with_it) {
  std::array<int, 2> pipe{};
  ASSERT_EQ(::pipe(pipe.data()), 0);
  const int status = run(
      [&](const Lifeline&) -> int {
        ::close(pipe[1]);
        char byte = 0;
        // No writer is left, in the parent neither.
        return ::read(pipe[0], &byte, 1) == 0 ? 20 : 21;
      },
      [](const Lost&) {}, {pipe[1]});
  EXPECT_EQ(status, 20);
  ::close(pipe[0]);
}

}  // namespace
}  // namespace migrx
