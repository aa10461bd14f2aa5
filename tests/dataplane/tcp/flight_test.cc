// The sender's scoreboard against a twin that keeps every segment in a map and works everything out anew.
#include "dataplane/tcp/flight.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

namespace migrx {
namespace {

constexpr uint64_t kUs = 1000;

TEST(TcpFlight, three_later_deliveries_mean_loss) {
  Flight flight(16);
  for (uint64_t i = 0; i < 5; ++i) flight.push(i * 100, 100, false, 10 * kUs);
  static_cast<void>(flight.sack({100, 300}, 20 * kUs));
  EXPECT_FALSE(flight.detect_losses(1000 * kUs));
  const Flight::Delivery third = flight.sack({300, 400}, 21 * kUs);
  EXPECT_EQ(third.bytes, 100U);
  EXPECT_EQ(third.rtt_ns, 11 * kUs);
  EXPECT_TRUE(flight.detect_losses(1000 * kUs));
  EXPECT_EQ(flight.bytes(), 100U);  // the last one alone is still under way
  EXPECT_EQ(flight.resend_lost(30 * kUs).begin, 0U);
  EXPECT_FALSE(flight.any_lost());
  EXPECT_EQ(flight.bytes(), 200U);
}

TEST(TcpFlight, what_was_sent_much_earlier_than_a_delivered_segment_is_lost) {
  Flight flight(16);
  flight.push(0, 100, false, 0);
  flight.push(100, 100, false, 500 * kUs);
  static_cast<void>(flight.sack({100, 200}, 600 * kUs));
  EXPECT_FALSE(flight.detect_losses(500 * kUs));
  EXPECT_TRUE(flight.detect_losses(499 * kUs));
}

TEST(TcpFlight, a_repetition_that_is_lost_too_is_noticed_without_the_timer) {
  Flight flight(64);
  for (uint64_t i = 0; i < 10; ++i) flight.push(i * 100, 100, false, 0);
  static_cast<void>(flight.sack({100, 500}, 50 * kUs));
  EXPECT_TRUE(flight.detect_losses(1000 * kUs));
  EXPECT_EQ(flight.resend_lost(60 * kUs).begin, 0U);
  // Three segments sent after the repetition arrive; it does not.
  for (uint64_t i = 10; i < 14; ++i) flight.push(i * 100, 100, false, 61 * kUs);
  static_cast<void>(flight.sack({500, 1300}, 120 * kUs));
  EXPECT_TRUE(flight.detect_losses(1000 * kUs));
  EXPECT_EQ(flight.resend_lost(130 * kUs).begin, 0U);
}

TEST(TcpFlight, an_early_answer_belongs_to_the_first_transmission) {
  Flight flight(64);
  for (uint64_t i = 0; i < 4; ++i) flight.push(i * 100, 100, false, 0);
  static_cast<void>(flight.sack({100, 400}, 50 * kUs));
  EXPECT_TRUE(flight.detect_losses(1000 * kUs));
  for (uint64_t i = 4; i < 8; ++i) flight.push(i * 100, 100, false, 55 * kUs);
  EXPECT_EQ(flight.resend_lost(60 * kUs).begin, 0U);
  // 1 us after the repetition: the first transmission was only late, and those behind it are not lost.
  EXPECT_EQ(flight.acknowledge(400, 61 * kUs).rtt_ns, 0U);
  EXPECT_FALSE(flight.detect_losses(1 * kUs));
}

TEST(TcpFlight, an_acknowledgment_inside_a_segment_leaves_the_rest) {
  Flight flight(16);
  flight.push(0, 100, false, 0);
  EXPECT_EQ(flight.acknowledge(30, 5).bytes, 30U);
  EXPECT_EQ(flight.bytes(), 70U);
  flight.lose_all();
  const SentSegment rest = flight.resend_lost(9);
  EXPECT_EQ(rest.begin, 30U);
  EXPECT_EQ(rest.end(), 100U);
}

// Everything by definition: a list of transmissions, each with its fate.
struct Twin {
  struct Segment {
    uint64_t end, serial, sent_ns;
    bool sacked = false, lost = false, resent = false;
  };
  std::map<uint64_t, Segment> segments;
  uint64_t serial = 0, delivered_serial = 0, delivered_ns = 0, rtt_min = UINT64_MAX;

  [[nodiscard]] uint64_t bytes() const {
    uint64_t sum = 0;
    for (const auto& [begin, s] : segments)
      if (!s.sacked && !s.lost) sum += s.end - begin;
    return sum;
  }
  [[nodiscard]] bool any_lost() const {
    return std::any_of(segments.begin(), segments.end(), [](const auto& s) { return s.second.lost; });
  }
  void deliver(Segment& s, uint64_t now) {
    if (!s.resent) rtt_min = std::min(rtt_min, std::max<uint64_t>(now - s.sent_ns, 1));
    if (s.resent && now - s.sent_ns < rtt_min) return;
    if (s.serial > delivered_serial) {
      delivered_serial = s.serial;
      delivered_ns = s.sent_ns;
    }
  }
  void acknowledge(uint64_t offset, uint64_t now) {
    while (!segments.empty() && segments.begin()->second.end <= offset) {
      if (!segments.begin()->second.sacked) deliver(segments.begin()->second, now);
      segments.erase(segments.begin());
    }
    if (segments.empty() || segments.begin()->first >= offset) return;
    auto node = segments.extract(segments.begin());
    node.key() = offset;
    segments.insert(std::move(node));
  }
  void sack(uint64_t begin, uint64_t end, uint64_t now) {
    for (auto& [at, s] : segments) {
      if (at < begin || s.end > end || s.sacked) continue;
      deliver(s, now);
      s.sacked = true;
      s.lost = false;
    }
  }
  bool detect(uint64_t reorder) {
    bool found = false;
    for (auto& [at, s] : segments) {
      if (s.sacked || s.lost) continue;
      if (s.serial + 3 > delivered_serial &&
          !(s.serial < delivered_serial && s.sent_ns + reorder < delivered_ns))
        continue;
      s.lost = found = true;
    }
    return found;
  }
};

TEST(TcpFlight, agrees_with_a_twin_whatever_happens) {
  for (uint32_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random{seed};
    const auto pick = [&](uint32_t n) { return static_cast<uint32_t>(random() % n); };
    Flight flight(64);
    Twin twin;
    uint64_t now = 1;
    uint64_t next = 0;
    for (int step = 0; step < 600; ++step) {
      now += pick(200);
      switch (pick(8)) {
        case 0:
        case 1:
        case 2:
          if (flight.full()) break;
          {
            const uint32_t length = 1 + pick(100);
            flight.push(next, length, false, now);
            twin.segments[next] = {next + length, ++twin.serial, now};
            next += length;
          }
          break;
        case 3: {
          const uint64_t first = twin.segments.empty() ? next : twin.segments.begin()->first;
          const uint64_t to = first + (pick(3) == 0 ? pick(400) : 0);
          static_cast<void>(flight.acknowledge(std::min(to, next), now));
          twin.acknowledge(std::min(to, next), now);
          break;
        }
        case 4: {
          const uint64_t begin = next - std::min<uint64_t>(next, pick(1500));
          const uint64_t end = std::min(next, begin + pick(600));
          static_cast<void>(flight.sack({begin, end}, now));
          twin.sack(begin, end, now);
          break;
        }
        case 5: {
          const uint64_t reorder = pick(2000);
          ASSERT_EQ(flight.detect_losses(reorder), twin.detect(reorder));
          break;
        }
        case 6:
          if (flight.any_lost()) {
            const SentSegment again = flight.resend_lost(now);
            const auto expected = std::find_if(twin.segments.begin(), twin.segments.end(),
                                               [](const auto& s) { return s.second.lost; });
            ASSERT_NE(expected, twin.segments.end());
            ASSERT_EQ(again.begin, expected->first);
            expected->second.lost = false;
            expected->second.resent = true;
            expected->second.serial = ++twin.serial;
            expected->second.sent_ns = now;
          } else if (pick(4) == 0) {
            SentSegment last;
            const bool found = flight.resend_last(now, last);
            const auto expected = std::find_if(twin.segments.rbegin(), twin.segments.rend(),
                                               [](const auto& s) { return !s.second.sacked; });
            ASSERT_EQ(found, expected != twin.segments.rend());
            if (!found) break;
            ASSERT_EQ(last.begin, expected->first);
            expected->second.lost = false;
            expected->second.resent = true;
            expected->second.serial = ++twin.serial;
            expected->second.sent_ns = now;
          }
          break;
        default:
          if (pick(20) != 0) break;
          flight.lose_all();
          for (auto& [at, s] : twin.segments) {
            s.sacked = false;
            s.lost = true;
          }
          break;
      }
      ASSERT_EQ(flight.bytes(), twin.bytes()) << "step " << step;
      ASSERT_EQ(flight.any_lost(), twin.any_lost()) << "step " << step;
      ASSERT_EQ(flight.segments(), twin.segments.size()) << "step " << step;
    }
  }
}

}  // namespace
}  // namespace migrx
