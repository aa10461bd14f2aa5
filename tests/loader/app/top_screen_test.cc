#include "loader/app/top_screen.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>

namespace migrx {
namespace {

using Json = nlohmann::json;

Json host(double busy_s, double idle_s, uint64_t bytes) {
  return {{"address", "192.0.2.1"},
          {"draining", false},
          {"budget",
           {{"sessions", 2},
            {"sessions-max", 16},
            {"connections", 18},
            {"connections-max", 272},
            {"private-ram", 1 << 20},
            {"private-ram-total", 1 << 30}}},
          {"ports", Json::array({{{"port", "0000:41:00.0"}, {"link", "up, 100 Gbit/s, full duplex"}}})},
          {"memory", {{"rx_buffers", 1000}, {"rx_buffers_available", 990}}},
          {"dataplane", {{"port.rx_packets", bytes / 1500}, {"port.rx_bytes", bytes}}},
          {"cores", Json::array({{{"cpu", 3},
                                  {"node", 0},
                                  {"role", "poll"},
                                  {"busy_s", busy_s},
                                  {"idle_s", idle_s},
                                  {"longest_turn_us", 250.4}}})}};
}

Json session(const std::string& id, const std::string& state, uint64_t wire_bytes) {
  return {{"id", id},
          {"state", state},
          {"port", 4444},
          {"figures",
           {{"channels", 5},
            {"channels-expected", 5},
            {"wire-bytes", wire_bytes},
            {"rounds", 1},
            {"ram-bytes", 4ULL << 30},
            {"first-pass-bytes", 1ULL << 30},
            {"left-s", 75.4}}}};
}

std::string all(const TopScreen& screen, unsigned width = 200, unsigned height = 100) {
  std::string text;
  for (const std::string& line : screen.lines(width, height)) text += line + "\n";
  return text;
}

TEST(TopScreen, shows_what_the_daemon_has_promised_and_how_its_cores_are_used) {
  TopScreen screen;
  screen.take_host(host(1.0, 9.0, 0), 100);
  std::string text = all(screen);
  EXPECT_NE(
      text.find(
          "migrx at 192.0.2.1   migrations 2 of 16   connections 18 of 272   private RAM 1 of 1024 MiB\n"),
      std::string::npos)
      << text;
  EXPECT_NE(text.find("port 0000:41:00.0  up, 100 Gbit/s, full duplex"), std::string::npos) << text;
  EXPECT_NE(text.find("poll              - of its turns"), std::string::npos)
      << "no share of one look: " << text;
  screen.take_host(host(1.5, 10.5, 2'500'000'000), 102);
  text = all(screen);
  EXPECT_NE(text.find("CPU   3  node 0  poll           25 % of its turns useful, longest 250 us"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("frames in 833.3k/s (10.00 Gbit/s)"), std::string::npos) << text;
}

TEST(TopScreen, rates_are_between_the_last_two_looks) {
  TopScreen screen;
  screen.take_sessions(Json::array({session("s1", "precopy", 1ULL << 30)}), 10);
  EXPECT_NE(all(screen).find("     5/5             -      1    3.00 GiB      1m15s"), std::string::npos)
      << all(screen);
  screen.take_sessions(Json::array({session("s1", "precopy", 2ULL << 30)}), 12);
  EXPECT_NE(all(screen).find("512.0 MiB/s"), std::string::npos) << all(screen);
  screen.take_sessions(Json::array({session("s1", "precopy", 5ULL << 30)}), 13);
  EXPECT_NE(all(screen).find("3.00 GiB/s"), std::string::npos) << all(screen);
  // Another daemon behind the same socket begins anew.
  screen.take_sessions(Json::array({session("s1", "precopy", 1)}), 14);
  EXPECT_EQ(all(screen).find("iB/s"), std::string::npos) << all(screen);
}

TEST(TopScreen, who_waits_or_prepares_says_what_for_and_who_is_over_how_it_ended) {
  TopScreen screen;
  screen.take_sessions(
      Json::array({{{"id", "s1"}, {"state", "done"}, {"port", 1}, {"outcome", "complete"}},
                   {{"id", "s2"}, {"state", "queued"}, {"port", 2}, {"progress", "waits for room"}}}),
      1);
  const std::string text = all(screen);
  const std::size_t waits = text.find("waits for room");
  const std::size_t ended = text.find("complete");
  ASSERT_NE(waits, std::string::npos) << text;
  ASSERT_NE(ended, std::string::npos) << text;
  EXPECT_LT(waits, ended) << "under way first: " << text;
}

TEST(TopScreen, events_are_shown_the_last_one_first) {
  TopScreen screen;
  for (int round = 1; round <= 20; ++round)
    screen.take_event("ROUND", {{"id", "s1"}, {"round", round}}, "12:00:00");
  screen.take_event("FAILED", {{"id", "s2"}, {"outcome", "failed"}, {"reason", "no memory"}}, "12:00:01");
  const std::string text = all(screen);
  ASSERT_NE(text.find("12:00:00  s1  ROUND 20"), std::string::npos) << text;
  EXPECT_LT(text.find("12:00:01  s2  FAILED  failed  no memory"), text.find("12:00:00  s1  ROUND 20"))
      << text;
  EXPECT_EQ(text.find("ROUND 3\n"), std::string::npos) << "the last eight: " << text;
}

TEST(TopScreen, fits_any_terminal) {
  TopScreen screen;
  screen.take_host(host(1, 1, 1), 1);
  Json sessions = Json::array();
  for (int i = 0; i < 300; ++i) sessions.push_back(session("s" + std::to_string(i), "precopy", 1));
  screen.take_sessions(sessions, 1);
  screen.take_event("READY", {{"id", "s1"}}, "12:00:00");
  for (const unsigned height : {0U, 1U, 5U, 24U, 400U})
    for (const unsigned width : {0U, 1U, 40U, 80U, 300U}) {
      const auto lines = screen.lines(width, height);
      EXPECT_LE(lines.size(), height);
      for (const std::string& line : lines) EXPECT_LE(line.size(), width);
    }
  EXPECT_NE(all(screen, 80, 24).find(" more\n"), std::string::npos) << all(screen, 80, 24);
}

// A socket that the operator names need not be a daemon's.
TEST(TopScreen, nothing_that_is_answered_makes_it_fail_or_steers_the_terminal) {
  for (const char* const text :
       {"null", "7", "[]", "[1, null, \"x\", []]", "{}", R"({"cores": 7, "ports": {"a": 1}, "budget": []})",
        R"([{"id": 7, "state": [], "port": "x", "figures": 7}])",
        R"([{"figures": {"left-s": -1, "ram-bytes": 1e308}}])",
        R"({"cores": [{"cpu": 1e300}, {"cpu": "x"}, 7], "dataplane": {"port.rx_bytes": "x"}})",
        R"([{"id": "\u001b[2J", "state": "a\nb", "progress": "\u0007"}])"}) {
    TopScreen screen;
    for (int i = 0; i < 2; ++i) {
      screen.take_host(Json::parse(text), i);
      screen.take_sessions(Json::parse(text), i);
      screen.take_event(text, Json::parse(text), "12:00:00");
      for (const std::string& line : screen.lines(100, 40))
        EXPECT_TRUE(std::all_of(line.begin(), line.end(), [](unsigned char c) {
          return c >= 0x20 && c != 0x7f;
        })) << line;
    }
  }
}

}  // namespace
}  // namespace migrx
