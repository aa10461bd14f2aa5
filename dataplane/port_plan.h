// The configuration that a device is given: negotiated between what the device says it can do and what the
// operator wants. Pure: every kind of device is tested without the device.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "dataplane/sizing.h"

namespace migrx {

// How many descriptors a queue may have.
struct DescriptorLimits {
  uint32_t min = 0;
  uint32_t max = UINT16_MAX;
  uint32_t align = 1;
};

// What a device says of itself (DPDK: rte_eth_dev_info), as far as it matters here.
struct DeviceInfo {
  std::string driver;       // "net_ixgbe"
  bool is_virtual = false;  // no PCI function: it delivers what a kernel interface or another process does
  uint32_t max_rx_queues = 1;
  uint32_t max_tx_queues = 1;
  uint32_t max_mtu = UINT16_MAX;  // UINT16_MAX: not said
  uint32_t max_rx_pktlen = 1518;  // a whole frame
  DescriptorLimits rx_descriptors;
  DescriptorLimits tx_descriptors;
  bool ipv4_checksum = false;
  bool tcp_checksum = false;
  bool scatter = false;      // a frame may lie in several packet buffers
  bool vlan_filter = false;  // drops tags that nobody asked for
  bool fast_free = false;    // tx: buffers of one pool, sent once
  bool rss_ipv4 = false;     // hashes addresses
  bool rss_tcp = false;      // hashes ports, too
};

struct DeviceWish {
  std::string name;  // for messages: devargs
  uint32_t mtu = 1500;
  uint32_t queues = 1;           // pairs, one per poll core
  uint32_t buffer_bytes = 2048;  // of a packet buffer
  QueueDescriptors descriptors;
  std::optional<uint16_t> vlan;
};

struct PortPlan {
  uint32_t mtu = 1500;   // to be set on the device
  bool set_mtu = false;  // and read back: the device is known to have one of its own
  QueueDescriptors descriptors;
  bool ipv4_checksum = false;
  bool tcp_checksum = false;
  bool scatter = false;
  bool vlan_filter = false;  // and wish.vlan let through
  bool fast_free = false;
  bool rss = false;
  std::vector<std::string> warnings;
};

// Empty: `plan` holds what to ask for. Otherwise why it cannot be had, and what to do.
[[nodiscard]] std::string plan_port(const DeviceInfo& device, const DeviceWish& wish, PortPlan& plan);

}  // namespace migrx
