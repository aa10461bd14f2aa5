// Needs root: the Linux kernel as a sender on a host of its own, set in ways that real hosts are set, behind
// a router that loses what it is told to lose. Every byte is compared.
#include <gtest/gtest.h>
#include <netinet/tcp.h>

#include <chrono>
#include <fstream>
#include <memory>

#include "tests/dpdk/dpdk_rig.h"
#include "tests/dpdk/sender_host.h"

namespace migrx {
namespace {

using testing::Receiver;
using testing::ReceiverOptions;
using testing::SenderHost;
using testing::SenderInfo;
using testing::SenderOptions;

constexpr uint32_t kNetwork = 8;  // one for all: each test has devices of its own, one after the other
constexpr uint64_t kMib = 1U << 20;

bool has(const SenderInfo& info, uint8_t option) {
  return (info.options & option) != 0;
}

bool kernel_knows(const std::string& congestion) {
  std::ifstream file("/proc/sys/net/ipv4/tcp_available_congestion_control");
  std::string name;
  while (file >> name)
    if (name == congestion) return true;
  return false;
}

class KernelSender : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!testing::why_no_devices().empty()) GTEST_SKIP() << testing::why_no_devices();
    host_ = std::make_unique<SenderHost>(kNetwork);
    if (!host_->problem().empty()) GTEST_SKIP() << host_->problem();
  }
  void TearDown() override {
    if (receiver_ == nullptr) return;
    receiver_->stop();
    EXPECT_EQ(receiver_->core(0).wire_counters().read(WireCounter::tcp_checksum_bad), 0U);
    EXPECT_EQ(receiver_->core(0).tcp_counters().read(TcpCounter::overlap_differs), 0U);
    EXPECT_LE(receiver_->buffers_missing(), receiver_->port().descriptors().rx + 1);
  }
  void listen(uint32_t handoff_slots = 1023, uint32_t flows_max = 2, std::chrono::milliseconds pause = {}) {
    receiver_ = std::make_unique<Receiver>(ReceiverOptions{.devargs = "net_tap8,iface=mtap8",
                                                           .network = kNetwork,
                                                           .flows_max = flows_max,
                                                           .handoff_slots = handoff_slots,
                                                           .pause = pause});
    ASSERT_EQ(testing::bring_up("mtap8", kNetwork), "");
  }
  SenderInfo send(uint64_t bytes, const std::string& congestion = "",
                  const std::vector<std::size_t>& writes = {}) {
    return receiver_->receive(1, bytes, {host_->netns(), congestion, writes}).front();
  }
  // Every packet with data has a chance of being lost. False: the kernel cannot.
  bool lose(const std::string& probability) {
    return host_->route_by("-i mway8 -m length --length 200: -m statistic --mode random --probability " +
                           probability + " -j DROP");
  }
  uint64_t count(TcpCounter which) { return receiver_->core(0).tcp_counters().read(which); }

  std::unique_ptr<SenderHost> host_;
  std::unique_ptr<Receiver> receiver_;
};

#define SKIP_UNLESS(condition, what) \
  if (!(condition)) GTEST_SKIP() << "needs " << (what)

class KernelLoss : public KernelSender, public ::testing::WithParamInterface<const char*> {};

TEST_P(KernelLoss, a_router_that_loses_packets_delays_bulk_but_loses_no_byte) {
  SKIP_UNLESS(kernel_knows(GetParam()), std::string("congestion control ") + GetParam());
  SKIP_UNLESS(lose("0.02"), "iptables with the matches length and statistic");
  listen();
  const SenderInfo info = send(24 * kMib, GetParam());
  EXPECT_TRUE(has(info, TCPI_OPT_SACK));
  EXPECT_TRUE(has(info, TCPI_OPT_TIMESTAMPS));
  EXPECT_TRUE(has(info, TCPI_OPT_WSCALE));
  // 17,000 segments, of which one in 50 is lost.
  EXPECT_GT(host_->packets_met(0), 100U);
  EXPECT_GT(info.sent_again, host_->packets_met(0) / 2);
  EXPECT_GT(count(TcpCounter::out_of_order), 100U);
}
INSTANTIATE_TEST_SUITE_P(Congestion, KernelLoss, ::testing::Values("cubic", "bbr", "reno"),
                         [](const auto& congestion) { return std::string(congestion.param); });

TEST_F(KernelSender, without_sack_lost_segments_are_repaired_by_duplicate_acks) {
  ASSERT_TRUE(host_->set("tcp_sack", "0"));
  SKIP_UNLESS(lose("0.01"), "iptables with the matches length and statistic");
  listen();
  const auto begun = std::chrono::steady_clock::now();
  const SenderInfo info = send(8 * kMib);
  // Some 60 losses; at a retransmission time-out of 200 ms each it would take 12 s and more.
  EXPECT_LT(std::chrono::steady_clock::now() - begun, std::chrono::seconds(6));
  EXPECT_FALSE(has(info, TCPI_OPT_SACK));
  EXPECT_TRUE(has(info, TCPI_OPT_TIMESTAMPS));
  EXPECT_GT(host_->packets_met(0), 10U);
  EXPECT_EQ(count(TcpCounter::dsacks_sent), 0U);
}

TEST_F(KernelSender, without_timestamps_bulk_over_loss_arrives_whole) {
  ASSERT_TRUE(host_->set("tcp_timestamps", "0"));
  SKIP_UNLESS(lose("0.01"), "iptables with the matches length and statistic");
  listen();
  const SenderInfo info = send(16 * kMib);
  EXPECT_FALSE(has(info, TCPI_OPT_TIMESTAMPS));
  EXPECT_TRUE(has(info, TCPI_OPT_SACK));
  EXPECT_EQ(info.mss, 1460U);  // the twelve bytes of the option are data's
  EXPECT_EQ(count(TcpCounter::timestamp_missing), 0U);
}

TEST_F(KernelSender, without_window_scaling_64_kib_are_in_flight_at_most) {
  ASSERT_TRUE(host_->set("tcp_window_scaling", "0"));
  listen();
  EXPECT_FALSE(has(send(16 * kMib), TCPI_OPT_WSCALE));
}

TEST_F(KernelSender, with_everything_off_bulk_arrives_whole) {
  for (const char* key : {"tcp_sack", "tcp_timestamps", "tcp_window_scaling"})
    ASSERT_TRUE(host_->set(key, "0"));
  SKIP_UNLESS(lose("0.005"), "iptables with the matches length and statistic");
  listen();
  const SenderInfo info = send(8 * kMib);
  EXPECT_FALSE(has(info, TCPI_OPT_SACK | TCPI_OPT_TIMESTAMPS | TCPI_OPT_WSCALE));
}

// RFC 3168 section 6.1.1: a SYN with ECE and CWR asks; a SYN-ACK without ECE declines, and the sender must
// not set ECT then.
TEST_F(KernelSender, that_asks_for_ecn_is_told_no_and_marks_nothing) {
  ASSERT_TRUE(host_->set("tcp_ecn", "1"));
  SKIP_UNLESS(host_->route_by("-i mway8 -p tcp --syn -m ecn --ecn-tcp-ece --ecn-tcp-cwr") &&
                  host_->route_by("-i mway8 -p tcp -m ecn --ecn-ip-ect 2") &&
                  host_->route_by("-i mtap8 -p tcp -m ecn --ecn-tcp-ece"),
              "iptables with the match ecn");
  listen();
  const SenderInfo info = send(8 * kMib);
  EXPECT_FALSE(has(info, TCPI_OPT_ECN));
  EXPECT_FALSE(has(info, TCPI_OPT_ECN_SEEN));
  EXPECT_EQ(host_->packets_met(0), 1U);
  EXPECT_EQ(host_->packets_met(1), 0U);
  EXPECT_EQ(host_->packets_met(2), 0U);
}

// RFC 4821: no ICMP tells that large packets vanish, so the sender finds out by itself.
TEST_F(KernelSender, finds_its_way_through_a_path_mtu_black_hole) {
  ASSERT_TRUE(host_->set("tcp_mtu_probing", "1"));
  ASSERT_TRUE(host_->set("tcp_retries1", "1"));  // sooner
  SKIP_UNLESS(host_->route_by("-i mway8 -m length --length 1101: -j DROP"), "iptables with the match length");
  listen();
  const SenderInfo info = send(4 * kMib);
  EXPECT_GT(host_->packets_met(0), 0U);
  EXPECT_LE(info.mss, 1100U - 40);
}

// Probes are segments larger than those before and after them; here they get through.
TEST_F(KernelSender, that_probes_from_the_start_reaches_the_paths_mtu) {
  ASSERT_TRUE(host_->set("tcp_mtu_probing", "2"));
  listen();
  const SenderInfo info = send(24 * kMib);
  EXPECT_GT(info.mss, 1024U);
}

TEST_F(KernelSender, sees_the_smallest_window_that_migrx_gives) {
  listen(3);
  const SenderInfo info = send(2 * kMib);
  EXPECT_GT(count(TcpCounter::zero_windows_sent) + count(TcpCounter::window_updates_sent), 10U);
  EXPECT_LT(info.sent_again, 100U);  // the edge never moves back: at most a probe of the closed window
}

// A channel that waits at a barrier has promised all it has; what comes then in segments that are not full
// must not be refused, or the sender waits for its timer although the barrier has long been passed.
TEST_F(KernelSender, is_refused_nothing_while_the_reader_stands_still) {
  listen(511, 8, std::chrono::milliseconds(50));
  const std::pair<const char*, std::vector<std::size_t>> senders[] = {
      {"bulk", {65535}}, {"packets", {1100, 65535, 65535}}, {"pages", {8, 4096}}, {"tiny", {100}}};
  for (const auto& [name, writes] : senders) {
    SCOPED_TRACE(name);
    static_cast<void>(send(writes.size() == 1 && writes[0] < 1000 ? kMib : 4 * kMib, "", writes));
    EXPECT_EQ(count(TcpCounter::over_quota), 0U);
  }
  EXPECT_GT(count(TcpCounter::put_together), 0U);
}

TEST_F(KernelSender, with_the_smallest_buffers_of_its_own_is_not_held_up_by_delayed_acks) {
  ASSERT_TRUE(host_->set("tcp_wmem", "4096 4096 4096"));
  listen();
  const auto begun = std::chrono::steady_clock::now();
  static_cast<void>(send(2 * kMib));
  // One or two segments in flight: 40 ms for each pair would be half a minute.
  EXPECT_LT(std::chrono::steady_clock::now() - begun, std::chrono::seconds(15));
}

}  // namespace
}  // namespace migrx
