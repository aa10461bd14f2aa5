#include "dataplane/port_plan.h"

#include <algorithm>
#include <bit>

namespace migrx {
namespace {

// Frame overhead that DPDK assumes where a device names none: header and frame check sequence.
constexpr uint32_t kDpdkOverheadBytes = 14 + 4;
constexpr uint32_t kAfXdpMtuMax = 1500;

// The same rounding as rte_eth_dev_adjust_nb_rx_tx_desc() does.
uint32_t adjusted(uint32_t wanted, const DescriptorLimits& limits) {
  const uint32_t align = std::max(limits.align, 1U);
  uint32_t count = (wanted + align - 1) / align * align;
  count = std::min(count, std::max(limits.max, 1U));
  return std::min<uint32_t>(std::max(count, limits.min), UINT16_MAX);
}

// Bytes of a packet buffer that the device fills before it goes on in the next.
uint32_t filled_bytes(const DeviceInfo& device, uint32_t buffer_bytes) {
  // RCTL.BSIZE of the 8254x and 8257x knows powers of two from 256 to 16384.
  if (device.driver == "net_e1000_em") return std::min(std::bit_floor(buffer_bytes), 16384U);
  return buffer_bytes;
}

std::string queues_problem(const DeviceInfo& device, const DeviceWish& wish) {
  const uint32_t most = std::min(device.max_rx_queues, device.max_tx_queues);
  const std::string found = "port " + wish.name + ": has " + std::to_string(most) +
                            " queue pairs, and there are " + std::to_string(wish.queues) +
                            " poll cores: give fewer (--poll-cores)";
  if (wish.queues == 0 || wish.queues > most) return found;
  // vmxnet3_dev_configure() refuses other numbers.
  if (device.driver == "net_vmxnet3" && !std::has_single_bit(wish.queues))
    return "port " + wish.name + ": vmxnet3 takes 1, 2, 4 or 8 queue pairs, and there are " +
           std::to_string(wish.queues) + " poll cores: give " + std::to_string(std::bit_floor(wish.queues)) +
           " (--poll-cores)";
  return {};
}

}  // namespace

std::string plan_port(const DeviceInfo& device, const DeviceWish& wish, PortPlan& plan) {
  plan = {};
  const std::string port = "port " + wish.name;
  if (std::string problem = queues_problem(device, wish); !problem.empty()) return problem;

  // MTU. Virtual devices deliver whatever the kernel's interface does and refuse an MTU of their own above
  // 1500.
  const uint32_t overhead = device.max_mtu != UINT16_MAX && device.max_rx_pktlen > device.max_mtu
                                ? device.max_rx_pktlen - device.max_mtu
                                : kDpdkOverheadBytes;
  const uint32_t of_frame = device.max_rx_pktlen > overhead ? device.max_rx_pktlen - overhead : 0;
  const uint32_t mtu_max = std::min(device.max_mtu, of_frame);
  // The driver's chunks are one packet buffer less the kernel's headroom, and what is longer is lost without
  // a word: seen on veth at MTU 3000, 3498 and 9000.
  if (device.driver == "net_af_xdp" && wish.mtu > kAfXdpMtuMax)
    return port + ": net_af_xdp loses frames above MTU " + std::to_string(kAfXdpMtuMax) +
           ": set that MTU at the source's interface and with --mtu, or use net_af_packet";
  if (wish.mtu > mtu_max && !device.is_virtual)
    return port + ": its largest MTU is " + std::to_string(mtu_max) + ", --mtu " + std::to_string(wish.mtu) +
           " is too much";
  plan.mtu = std::min(wish.mtu, mtu_max);
  plan.set_mtu = !device.is_virtual;
  // A frame with the tag that we ask for is 4 bytes longer than the device was told by its MTU.
  if (wish.vlan && !device.is_virtual && overhead < kDpdkOverheadBytes + 4)
    plan.warnings.push_back(port + " may drop tagged frames of full size: lower --mtu by 4");

  // Packet buffers.
  const uint32_t filled = filled_bytes(device, wish.buffer_bytes);
  const bool fits = wish.mtu + kLinkOverheadBytes <= filled;
  if (!device.scatter && !fits)
    return port + ": cannot spread a frame over several packet buffers, and " + std::to_string(filled) +
           " bytes are too few for MTU " + std::to_string(wish.mtu);
  // Without it, where every frame fits into one buffer, drivers can use their fastest receive functions.
  plan.scatter = device.scatter && (!fits || device.is_virtual);

  // Checksums. net_tap's "offload" is a loop in the driver that adds 16 bits at a time and took half of the
  // poll core's time at MTU 9000; ours is several times faster.
  plan.ipv4_checksum = device.ipv4_checksum && device.driver != "net_tap";
  plan.tcp_checksum = device.tcp_checksum && device.driver != "net_tap";
  plan.fast_free = device.fast_free;

  // Spreading connections.
  if (wish.queues > 1) {
    plan.rss = device.rss_ipv4 || device.rss_tcp;
    if (!plan.rss && !device.is_virtual)
      plan.warnings.push_back(port +
                              " cannot spread connections over its queues (no RSS): give one poll core");
    if (plan.rss && !device.rss_tcp)
      plan.warnings.push_back(port +
                              " spreads connections by their addresses alone: all channels of a source "
                              "come by one queue, so that one poll core does all work");
  }

  // A virtual function drops frames with tags that it was not asked to let through.
  plan.vlan_filter = wish.vlan.has_value() && device.vlan_filter;

  plan.descriptors = {adjusted(wish.descriptors.rx, device.rx_descriptors),
                      adjusted(wish.descriptors.tx, device.tx_descriptors)};
  return {};
}

}  // namespace migrx
