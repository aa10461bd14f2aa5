// Devices as DPDK's drivers are known to describe them. None of these was at hand, and the values were not
// recorded: they stand for the kinds of limits that devices have.
#include "dataplane/port_plan.h"

#include <gtest/gtest.h>

namespace migrx {
namespace {

DeviceInfo nic(const char* driver, uint32_t queues, uint32_t max_mtu, uint32_t max_rx_pktlen) {
  DeviceInfo device;
  device.driver = driver;
  device.max_rx_queues = device.max_tx_queues = queues;
  device.max_mtu = max_mtu;
  device.max_rx_pktlen = max_rx_pktlen;
  device.rx_descriptors = device.tx_descriptors = {64, 4096, 32};
  device.ipv4_checksum = device.tcp_checksum = device.scatter = device.vlan_filter = true;
  device.rss_ipv4 = device.rss_tcp = true;
  return device;
}
DeviceInfo ixgbe() {
  DeviceInfo device = nic("net_ixgbe", 128, 15872 - 26, 15872);
  device.rx_descriptors = device.tx_descriptors = {32, 4096, 8};
  return device;
}
DeviceInfo i40e() {
  DeviceInfo device = nic("net_i40e", 64, 9728 - 26, 9728);
  device.fast_free = true;
  return device;
}
DeviceInfo iavf() {
  return nic("net_iavf", 16, 9728 - 26, 9728);
}
DeviceInfo ena() {
  DeviceInfo device = nic("net_ena", 8, 9216, 9216 + 18);
  device.rx_descriptors = {128, 8192, 1};
  device.tx_descriptors = {128, 1024, 1};
  device.vlan_filter = false;
  return device;
}
// 82574L: legacy descriptors, so one queue, and buffers in powers of two.
DeviceInfo e1000e() {
  DeviceInfo device = nic("net_e1000_em", 1, UINT16_MAX, 0x2412);
  device.rx_descriptors = device.tx_descriptors = {32, 4096, 8};
  device.rss_ipv4 = device.rss_tcp = false;
  return device;
}
DeviceInfo vmxnet3() {
  DeviceInfo device = nic("net_vmxnet3", 8, 9000, 16384);
  device.rx_descriptors = {128, 4096, 32};
  device.tx_descriptors = {512, 4096, 32};
  return device;
}
// Verifies TCP's checksum alone; no RSS before virtio 1.2.
DeviceInfo virtio() {
  DeviceInfo device = nic("net_virtio", 2, 9000, 9728);
  device.ipv4_checksum = device.rss_ipv4 = device.rss_tcp = false;
  device.rx_descriptors = device.tx_descriptors = {32, 32768, 1};
  return device;
}
DeviceInfo af_xdp() {
  DeviceInfo device;
  device.driver = "net_af_xdp";
  device.is_virtual = true;
  device.max_mtu = 3498;
  device.max_rx_pktlen = 3498 + 18;
  return device;
}

DeviceWish wish(uint32_t mtu, uint32_t queues = 1) {
  DeviceWish wanted;
  wanted.name = "0000:3b:00.0";
  wanted.mtu = mtu;
  wanted.queues = queues;
  wanted.buffer_bytes = buffer_bytes_for_mtu(mtu);
  wanted.descriptors = {1024, 512};
  return wanted;
}

TEST(PortPlan, nics_of_servers_get_checksums_rss_and_no_scatter_at_any_mtu) {
  for (const DeviceInfo& device : {ixgbe(), i40e(), iavf(), ena()}) {
    for (const uint32_t mtu : {1500U, 9000U}) {
      PortPlan plan;
      ASSERT_EQ(plan_port(device, wish(mtu, 4), plan), "") << device.driver;
      EXPECT_TRUE(plan.ipv4_checksum && plan.tcp_checksum && plan.rss) << device.driver;
      EXPECT_FALSE(plan.scatter) << device.driver;
      EXPECT_EQ(plan.mtu, mtu);
      EXPECT_TRUE(plan.set_mtu);
      EXPECT_EQ(plan.descriptors.rx, 1024U);
      EXPECT_EQ(plan.descriptors.tx, 512U);
      EXPECT_TRUE(plan.warnings.empty()) << device.driver << plan.warnings.front();
      EXPECT_EQ(plan.fast_free, device.fast_free);
    }
  }
}

TEST(PortPlan, an_mtu_that_the_device_has_not_is_refused_with_its_largest) {
  PortPlan plan;
  EXPECT_NE(plan_port(i40e(), wish(9703), plan).find("its largest MTU is 9702"), std::string::npos);
  EXPECT_EQ(plan_port(i40e(), wish(9702), plan), "");
  EXPECT_NE(plan_port(vmxnet3(), wish(9001), plan).find("its largest MTU is 9000"), std::string::npos);
  // No MTU named: the frame's length counts.
  EXPECT_EQ(plan_port(e1000e(), wish(9216), plan), "");
  EXPECT_NE(plan_port(e1000e(), wish(9217), plan).find("its largest MTU is 9216"), std::string::npos);
}

TEST(PortPlan, e1000e_fills_powers_of_two_so_that_jumbo_frames_need_two_buffers) {
  PortPlan plan;
  ASSERT_EQ(plan_port(e1000e(), wish(1500), plan), "");
  EXPECT_FALSE(plan.scatter);
  ASSERT_EQ(plan_port(e1000e(), wish(9000), plan), "");  // buffers of 9216, of which 8192 are filled
  EXPECT_TRUE(plan.scatter);
  EXPECT_NE(plan_port(e1000e(), wish(1500, 2), plan).find("has 1 queue pairs"), std::string::npos);
}

TEST(PortPlan, vmxnet3_takes_powers_of_two_of_queues) {
  PortPlan plan;
  EXPECT_NE(plan_port(vmxnet3(), wish(1500, 3), plan).find("give 2 (--poll-cores)"), std::string::npos);
  EXPECT_EQ(plan_port(vmxnet3(), wish(1500, 4), plan), "");
}

TEST(PortPlan, who_cannot_spread_connections_is_warned_of) {
  PortPlan plan;
  ASSERT_EQ(plan_port(virtio(), wish(1500, 2), plan), "");
  EXPECT_FALSE(plan.rss || plan.ipv4_checksum);
  EXPECT_TRUE(plan.tcp_checksum);
  ASSERT_EQ(plan.warnings.size(), 1U);
  EXPECT_NE(plan.warnings[0].find("no RSS"), std::string::npos);
  DeviceInfo by_address = i40e();
  by_address.rss_tcp = false;
  ASSERT_EQ(plan_port(by_address, wish(1500, 2), plan), "");
  EXPECT_TRUE(plan.rss);
  ASSERT_EQ(plan.warnings.size(), 1U);
  EXPECT_NE(plan.warnings[0].find("addresses alone"), std::string::npos);
  ASSERT_EQ(plan_port(by_address, wish(1500, 1), plan), "");
  EXPECT_TRUE(plan.warnings.empty());
}

TEST(PortPlan, a_vlan_is_asked_of_devices_that_filter_and_its_tag_has_room) {
  DeviceWish tagged = wish(1500);
  tagged.vlan = 7;
  PortPlan plan;
  ASSERT_EQ(plan_port(iavf(), tagged, plan), "");
  EXPECT_TRUE(plan.vlan_filter);
  EXPECT_TRUE(plan.warnings.empty());
  ASSERT_EQ(plan_port(ena(), tagged, plan), "");
  EXPECT_FALSE(plan.vlan_filter);
  ASSERT_EQ(plan.warnings.size(), 1U);
  EXPECT_NE(plan.warnings[0].find("lower --mtu by 4"), std::string::npos);
  ASSERT_EQ(plan_port(iavf(), wish(1500), plan), "");
  EXPECT_FALSE(plan.vlan_filter);
}

TEST(PortPlan, virtual_devices_keep_their_own_mtu_and_chains) {
  DeviceInfo tap;
  tap.driver = "net_tap";
  tap.is_virtual = tap.scatter = tap.ipv4_checksum = tap.tcp_checksum = true;
  tap.max_rx_pktlen = 1522;
  tap.max_rx_queues = tap.max_tx_queues = 16;
  PortPlan plan;
  ASSERT_EQ(plan_port(tap, wish(9000, 2), plan), "");
  EXPECT_EQ(plan.mtu, 1504U);
  EXPECT_FALSE(plan.set_mtu);
  EXPECT_TRUE(plan.scatter);
  EXPECT_FALSE(plan.ipv4_checksum || plan.tcp_checksum);
  EXPECT_TRUE(plan.warnings.empty());
  DeviceInfo without_chains = tap;
  without_chains.scatter = false;
  DeviceWish small = wish(9000);
  small.buffer_bytes = 2048;
  EXPECT_NE(plan_port(without_chains, small, plan).find("too few for MTU 9000"), std::string::npos);
}

TEST(PortPlan, af_xdp_is_refused_above_1500_where_it_loses_frames_in_silence) {
  PortPlan plan;
  EXPECT_EQ(plan_port(af_xdp(), wish(1500), plan), "");
  EXPECT_NE(plan_port(af_xdp(), wish(1501), plan).find("MTU 1500"), std::string::npos);
  EXPECT_NE(plan_port(af_xdp(), wish(9000), plan).find("MTU 1500"), std::string::npos);
}

TEST(PortPlan, descriptors_are_what_the_device_can) {
  DeviceInfo device = i40e();
  device.rx_descriptors = {64, 512, 32};
  device.tx_descriptors = {1024, 4096, 32};
  PortPlan plan;
  ASSERT_EQ(plan_port(device, wish(1500), plan), "");
  EXPECT_EQ(plan.descriptors.rx, 512U);
  EXPECT_EQ(plan.descriptors.tx, 1024U);
  DeviceWish odd = wish(1500);
  odd.descriptors = {1000, 1025};
  ASSERT_EQ(plan_port(i40e(), odd, plan), "");
  EXPECT_EQ(plan.descriptors.rx, 1024U);
  EXPECT_EQ(plan.descriptors.tx, 1056U);
}

}  // namespace
}  // namespace migrx
