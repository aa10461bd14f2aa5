// The comparison at the end of bench/pipeline can fail: a finished migration's RAM is damaged in one place at
// a time, and the damage has to be named.
#include "bench/pipeline/replay_check.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "bench/pipeline/receiver.h"

namespace migrx::bench {
namespace {

constexpr uint32_t kMtu = 1500;
constexpr uint32_t kChannels = 2;
constexpr uint64_t kPages = 512;
constexpr uint32_t kRounds = 3;
constexpr uint64_t kTurnsMax = 10'000'000;
constexpr uint64_t kLine = 64;

// One migration through the whole receiver, and what its RAM was a round before its end.
class ReplayCheck : public testing::Test {
 protected:
  static ReplayOptions replay(const PoolPlan& pool) {
    ReplayOptions options;
    options.mtu = kMtu;
    options.buffers = pool.buffers;
    return options;
  }

  void SetUp() override {
    std::string problem;
    const PageKernels* const kernels = select_page_kernels(problem);
    ASSERT_NE(kernels, nullptr) << problem;
    Receiver receiver(kMtu, plan_, port_, *kernels, guest_, pool_.quota, 1);
    ASSERT_TRUE(receiver.connect(port_, kTurnsMax));
    port_.open_gate();
    for (uint64_t i = 0; i < kTurnsMax && !receiver.control->over() && !receiver.failed(); ++i) {
      receiver.turn();
      for (uint64_t page = 0; page < kPages; ++page)
        if (stamp_of(page).epoch == kRounds - 2) std::memcpy(earlier(page), at(page), kPageBytes);
    }
    ASSERT_TRUE(receiver.accepted());
    ASSERT_EQ(check(), "");
    receiver.close();
  }

  [[nodiscard]] std::byte* at(uint64_t page) const { return guest_.data() + page * kPageBytes; }
  // The page as the last round but one left it.
  [[nodiscard]] std::byte* earlier(uint64_t page) { return earlier_.data() + page * kPageBytes; }
  [[nodiscard]] PageStamp stamp_of(uint64_t page) const {
    PageStamp stamp;
    std::memcpy(&stamp, at(page), sizeof stamp);
    return stamp;
  }
  [[nodiscard]] std::string check() const { return check_guest(plan_, port_, guest_.data()); }

  // What is said of the one wrong page; and its RAM is right again afterwards.
  template <typename Damage>
  [[nodiscard]] std::string said_of(const Damage& damage) {
    const std::vector<std::byte> right(guest_.data(), guest_.data() + guest_.size());
    damage();
    std::string said = check();
    std::memcpy(guest_.data(), right.data(), right.size());
    EXPECT_EQ(check(), "");
    return said;
  }
  static std::string stamp_of_another(uint64_t page) {
    return "page " + std::to_string(page) + " bears the stamp of another, or of an earlier round";
  }
  // The bytes at which the check found a difference in `page`: [first, second) of it; empty: it did not.
  static std::array<uint64_t, 2> named(const std::string& said, uint64_t page) {
    unsigned long long bytes = 0, from = 0;
    const std::string form = "page " + std::to_string(page) + " differs within %llu bytes from byte %llu on";
    if (std::sscanf(said.c_str(), form.c_str(), &bytes, &from) != 2) return {0, 0};
    return {from, from + bytes};
  }
  void expect_named(const std::string& said, uint64_t page, uint64_t byte) const {
    const auto [begin, end] = named(said, page);
    EXPECT_TRUE(begin <= byte && byte < end) << "byte " << byte << " of page " << page << ", but: " << said;
  }

  const GuestPlan plan_{kChannels, kPages, kRounds, /*scatter=*/true};
  const HugeRegion guest_{plan_.guest_bytes()};
  const PoolPlan pool_ = plan_pool(kMtu, 1, kChannels, 0);
  ReplayPort port_{replay(pool_), plan_};
  std::vector<std::byte> earlier_ = std::vector<std::byte>(guest_.size());
};

TEST_F(ReplayCheck, one_flipped_bit_is_named_wherever_it_is) {
  for (const uint64_t page : {uint64_t{0}, uint64_t{77}, kPages - 1})
    for (const uint64_t byte : {sizeof(PageStamp), uint64_t{1500}, uint64_t{kPageBytes - 1}})
      expect_named(said_of([&] { at(page)[byte] ^= std::byte{0x10}; }), page, byte);
}

TEST_F(ReplayCheck, each_byte_of_a_stamp_counts) {
  for (std::size_t byte = 0; byte < sizeof(PageStamp); ++byte)
    EXPECT_EQ(said_of([&] { at(300)[byte] ^= std::byte{1}; }), stamp_of_another(300));
}

TEST_F(ReplayCheck, a_page_in_the_place_of_another_is_named) {
  EXPECT_EQ(said_of([&] { std::memcpy(at(10), at(11), kPageBytes); }), stamp_of_another(10));
  // Also when the stamps are as they should be.
  const auto said = said_of([&] {
    std::memcpy(at(10) + sizeof(PageStamp), at(11) + sizeof(PageStamp), kPageBytes - sizeof(PageStamp));
  });
  expect_named(said, 10, sizeof(PageStamp));
}

TEST_F(ReplayCheck, a_page_of_the_round_before_is_named) {
  const std::byte* const old = earlier(200);
  EXPECT_EQ(said_of([&] { std::memcpy(at(200), old, kPageBytes); }), stamp_of_another(200));
  const auto said = said_of([&] {
    std::memcpy(at(200) + sizeof(PageStamp), old + sizeof(PageStamp), kPageBytes - sizeof(PageStamp));
  });
  expect_named(said, 200, sizeof(PageStamp));
}

TEST_F(ReplayCheck, a_line_that_was_never_stored_is_named) {
  for (const uint64_t page : {uint64_t{1}, kPages - 1})
    for (const uint64_t line : {kLine, kPageBytes - kLine}) {
      expect_named(said_of([&] { std::memcpy(at(page) + line, earlier(page) + line, kLine); }), page, line);
      expect_named(said_of([&] { std::memset(at(page) + line, 0, kLine); }), page, line);
    }
}

// Slices of a packet buffer other than the one that was sent: same place in the segment, other buffer.
TEST_F(ReplayCheck, a_line_of_another_segment_is_named) {
  const uint64_t segment = port_.segment_bytes();
  for (uint64_t byte = kLine; byte + segment + kLine < kPageBytes; byte += 7 * kLine) {
    const auto said = said_of([&] { std::memcpy(at(123) + byte, at(123) + byte + segment, kLine); });
    expect_named(said, 123, byte);
  }
}

TEST_F(ReplayCheck, ram_that_the_source_has_not_sent_is_not_right_by_chance) {
  const ReplayPort silent(replay(pool_), plan_);
  EXPECT_EQ(check_guest(plan_, silent, guest_.data()),
            "0 bytes of " + std::to_string(plan_.guest_bytes()) + " were sent last");
}

// A port that coalesces gives the same bytes in fewer frames; a hole ends a chain.
TEST(ReplayCoalesced, the_bytes_are_those_of_single_segments) {
  std::string problem;
  const PageKernels* const kernels = select_page_kernels(problem);
  ASSERT_NE(kernels, nullptr) << problem;
  const GuestPlan plan(kChannels, kPages, kRounds, /*scatter=*/true);
  for (const uint32_t mtu : {1500U, 9000U})
    for (const uint32_t drop_every : {0U, 50U}) {
      const HugeRegion guest(plan.guest_bytes());
      const PoolPlan pool = plan_pool(mtu, 32, kChannels, drop_every);
      ReplayOptions options;
      options.mtu = mtu;
      options.buffers = pool.buffers;
      options.drop_every = drop_every;
      options.coalesce_bytes = 64 << 10;
      ReplayPort port(options, plan);
      Receiver receiver(mtu, plan, port, *kernels, guest, pool.quota, 1);
      ASSERT_TRUE(receiver.connect(port, kTurnsMax));
      port.open_gate();
      for (uint64_t i = 0; i < kTurnsMax && !receiver.control->over() && !receiver.failed(); ++i)
        receiver.turn();
      ASSERT_TRUE(receiver.accepted());
      EXPECT_EQ(check_guest(plan, port, guest.data()), "");
      EXPECT_LT(port.counters().frames * 2, port.counters().segments) << mtu << " " << drop_every;
      EXPECT_EQ(port.counters().resent, port.counters().lost);
      receiver.close();
      EXPECT_EQ(port.buffers_available(), port.buffers_total());
    }
}

TEST(ReplayCoalesced, what_the_port_has_not_verified_is_not_coalesced) {
  const GuestPlan plan(kChannels, kPages, kRounds, /*scatter=*/false);
  ReplayOptions options;
  options.coalesce_bytes = 64 << 10;
  options.checksum_good = false;
  EXPECT_THROW(ReplayPort(options, plan), std::invalid_argument);
}

}  // namespace
}  // namespace migrx::bench
