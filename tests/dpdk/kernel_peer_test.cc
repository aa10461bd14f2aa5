// Needs root: virtual devices in a network namespace, the Linux kernel as TCP peer.
#include <gtest/gtest.h>

#include <cerrno>
#include <cstdlib>
#include <string>
#include <tuple>

#include "tests/dpdk/dpdk_rig.h"

namespace migrx {
namespace {

using testing::bring_up;
using testing::Receiver;
using testing::ReceiverOptions;

#define SKIP_WITHOUT_DEVICES() \
  if (!testing::why_no_devices().empty()) GTEST_SKIP() << testing::why_no_devices()

// MIGRX_TEST_MIB makes the transfers longer, to measure.
uint64_t bytes_or(uint64_t mib) {
  const char* const wanted = std::getenv("MIGRX_TEST_MIB");
  return (wanted != nullptr ? std::strtoull(wanted, nullptr, 10) : mib) << 20;
}

constexpr const char* kNoIpv6 = "needs ip (iproute2) and the kernel's IPv6";
#define SKIP_WITHOUT(ipv6) \
  SKIP_WITHOUT_DEVICES();  \
  if ((ipv6) && !testing::kernel_has_ipv6()) GTEST_SKIP() << kNoIpv6

// Host 2 of the network, as ping takes it.
std::string ping(const std::string& options, uint32_t network, bool ipv6) {
  const std::string host = std::to_string(network) + (ipv6 ? "::2" : ".2");
  return "ping -c 1 -W 5 " + options + (ipv6 ? " fd00:77:" : " 10.77.") + host +
         " >/dev/null 2>&1 || ! command -v ping >/dev/null";
}

// IPv4 or IPv6.
class Families : public ::testing::TestWithParam<bool> {};
// MTU and family.
class Mtus : public ::testing::TestWithParam<std::tuple<uint32_t, bool>> {
 public:
  static uint32_t mtu() { return std::get<0>(GetParam()); }
  static bool ipv6() { return std::get<1>(GetParam()); }
};
std::string family_of(bool ipv6) {
  return ipv6 ? "IPv6" : "IPv4";
}
const auto family_name = [](const auto& test) { return family_of(test.param); };
const auto mtu_name = [](const auto& test) {
  return std::to_string(std::get<0>(test.param)) + family_of(std::get<1>(test.param));
};

void expect_clean(Receiver& receiver) {
  receiver.stop();
  const DpdkPort::Stats stats = receiver.port().stats();
  EXPECT_EQ(stats.rx_errors, 0U);
  EXPECT_EQ(stats.rx_no_buffer, 0U);
  EXPECT_EQ(receiver.core(0).wire_counters().read(WireCounter::tcp_checksum_bad), 0U);
}

class Tap : public Mtus {};

TEST_P(Tap, the_kernel_sends_through_a_tap_and_every_byte_arrives) {
  SKIP_WITHOUT(ipv6());
  Receiver receiver({.devargs = "net_tap1,iface=mtap1", .network = 1, .ipv6 = ipv6(), .mtu = mtu()});
  ASSERT_EQ(bring_up("mtap1", 1, ipv6()), "");
  receiver.receive(1, bytes_or(100));
  EXPECT_TRUE(receiver.port().link_up());
  EXPECT_EQ(receiver.port().warnings().size(), 0U);
  expect_clean(receiver);
  EXPECT_LE(receiver.buffers_missing(), receiver.port().descriptors().rx + 1);
}
INSTANTIATE_TEST_SUITE_P(Mtu, Tap,
                         ::testing::Combine(::testing::Values(1500U, 9000U, 65521U), ::testing::Bool()),
                         mtu_name);

class TapChains : public Families {};
TEST_P(TapChains, jumbo_frames_in_small_buffers_arrive_whole) {
  SKIP_WITHOUT(GetParam());
  Receiver receiver({.devargs = "net_tap2,iface=mtap2",
                     .network = 2,
                     .ipv6 = GetParam(),
                     .mtu = 65521,
                     .buffer_bytes = 2048});
  ASSERT_EQ(bring_up("mtap2", 2, GetParam()), "");
  receiver.receive(2, bytes_or(50));
  EXPECT_GT(receiver.count(PollCounter::frames_chained), 100U);
  expect_clean(receiver);
  EXPECT_LE(receiver.buffers_missing(), receiver.port().descriptors().rx + 1);
}
INSTANTIATE_TEST_SUITE_P(Family, TapChains, ::testing::Bool(), family_name);

class TapQueues : public Families {};
TEST_P(TapQueues, flows_over_several_queues_and_cores_arrive_whole) {
  SKIP_WITHOUT(GetParam());
  Receiver receiver({.devargs = "net_tap3,iface=mtap3",
                     .network = 3,
                     .ipv6 = GetParam(),
                     .mtu = 9000,
                     .cores = 3,
                     .flows_max = 8,
                     .handoff_slots = 255});
  ASSERT_EQ(bring_up("mtap3", 3, GetParam()), "");
  receiver.receive(8, bytes_or(10));
  // As people find out whether jumbo frames get here.
  EXPECT_EQ(::system(ping(GetParam() ? "-M do -s 8952" : "-M do -s 8972", 3, GetParam()).c_str()), 0);
  expect_clean(receiver);
  EXPECT_LE(receiver.buffers_missing(), 3 * (receiver.port().descriptors().rx + 1));
}
INSTANTIATE_TEST_SUITE_P(Family, TapQueues, ::testing::Bool(), family_name);

class TapReset : public Families {};
TEST_P(TapReset, closed_ports_and_reset_mode_refuse_the_kernel_at_once) {
  SKIP_WITHOUT(GetParam());
  Receiver receiver({.devargs = "net_tap4,iface=mtap4", .network = 4, .ipv6 = GetParam()});
  ASSERT_EQ(bring_up("mtap4", 4, GetParam()), "");
  EXPECT_EQ(receiver.connect_error(4444), 0);
  EXPECT_EQ(receiver.connect_error(4445), ECONNREFUSED);
  receiver.core(0).request_reset_mode();
  const uint64_t turns = receiver.count(PollCounter::turns);
  while (receiver.count(PollCounter::turns) < turns + 2) std::this_thread::yield();
  EXPECT_EQ(receiver.connect_error(4444), ECONNREFUSED);
  EXPECT_EQ(::system(ping("", 4, GetParam()).c_str()), 0);
}
INSTANTIATE_TEST_SUITE_P(Family, TapReset, ::testing::Bool(), family_name);

class AfPacket : public Mtus {};

TEST_P(AfPacket, the_kernel_sends_through_a_veth_and_every_byte_arrives) {
  SKIP_WITHOUT(ipv6());
  if (!testing::run_ip("link add mveth0 type veth peer name mveth1"))
    GTEST_SKIP() << "needs ip (iproute2) and the kernel's veth";
  for (const char* end : {"mveth0", "mveth1"}) {
    testing::disable_offloads(end);
    testing::set_mtu(end, mtu());
  }
  ASSERT_TRUE(testing::run_ip("link set mveth1 up"));
  ASSERT_EQ(bring_up("mveth0", 5, ipv6()), "");
  {
    Receiver receiver({.devargs = "net_af_packet5,iface=mveth1",
                       .network = 5,
                       .ipv6 = ipv6(),
                       .mtu = mtu(),
                       .cores = 2,
                       .flows_max = 4,
                       .handoff_slots = 255});
    receiver.receive(4, bytes_or(25));
    EXPECT_GT(receiver.count(PollCounter::checksums_in_software), 0U);
    expect_clean(receiver);
    EXPECT_EQ(receiver.buffers_missing(), 0U);
  }
  EXPECT_TRUE(testing::run_ip("link del mveth0"));
}
INSTANTIATE_TEST_SUITE_P(Mtu, AfPacket,
                         ::testing::Combine(::testing::Values(1500U, 9000U), ::testing::Bool()), mtu_name);

}  // namespace
}  // namespace migrx
