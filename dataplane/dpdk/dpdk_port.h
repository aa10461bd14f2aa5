// A port: any device DPDK knows, from its devargs to running queues.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dataplane/dpdk/dpdk_queue.h"
#include "dataplane/dpdk/multicast.h"
#include "dataplane/dpdk/pool.h"
#include "dataplane/port_plan.h"
#include "dataplane/wire/address.h"
#include "numa/ids.h"

namespace migrx {

struct DpdkPortOptions {
  // As given to --port: "net_tap0,iface=mig0", "0000:3b:00.0". Virtual ports may lack what complete_devargs()
  // adds.
  std::string devargs;
  // The link's; what the peer's MSS is derived from. A tap interface is set to it.
  uint32_t mtu = 1500;
  uint32_t queues = 1;             // pairs, one per poll core
  uint32_t buffer_bytes = 2048;    // of the packet buffers it will receive into
  uint32_t rx_descriptors = 1024;  // per queue; adjusted to what the device can
  uint32_t tx_descriptors = 512;
  bool promiscuous = false;
  std::optional<uint16_t> vlan;         // frames bear this tag: a device that filters tags lets it through
  std::vector<EthernetAddress> groups;  // multicast addresses whose frames are to come in
};

// TcpConfig::mss for a link (RFC 6691): MTU less the fixed headers of IPv4 and TCP.
[[nodiscard]] constexpr uint16_t mss_for_mtu(uint32_t mtu) noexcept {
  return static_cast<uint16_t>(mtu > 40 + 536 ? (mtu < 65535 ? mtu : 65535) - 40 : 536);
}
// What is wrong with the devargs of a virtual device, in words for the operator: an argument that its driver
// does not know (most drivers then go on with a default of their own), one without a value, one given twice.
// Empty: nothing, or a driver that is not known here. Pure.
[[nodiscard]] std::string check_devargs(const std::string& devargs);
// The kernel's interface that a virtual device makes (net_tap) or needs (net_af_packet, net_af_xdp). Pure.
[[nodiscard]] std::optional<std::string> interface_of(const std::string& devargs);
// Why DPDK perhaps could not make that device, and what to do. interface_exists: interface_of(). Pure.
[[nodiscard]] std::string device_hint(const std::string& devargs, bool interface_exists);
// The same for a PCI function. driver: which the kernel has bound to it, "" for none; nothing: this host has
// no such function. Pure.
[[nodiscard]] std::string pci_hint(const std::string& devargs, const std::optional<std::string>& driver);
// Adds what makes a virtual device fit `mtu` and `queues` and is not there yet: the ring geometry of
// net_af_packet, whose own default is slow and too small for jumbo frames, and the buffers of net_memif.
// Others come back unchanged. Pure.
[[nodiscard]] std::string complete_devargs(const std::string& devargs, uint32_t mtu, uint32_t queues);
// Room a pool's buffers need for this device: buffer_bytes_for_mtu(), more for devices that cannot chain
// buffers.
[[nodiscard]] uint32_t buffer_bytes_for(const std::string& devargs, uint32_t mtu);
// rx descriptors worth having per queue. net_tap reads each frame into as many buffers as it has descriptors,
// so that every one beyond a frame's costs time and buys nothing: its queue is the kernel's.
[[nodiscard]] uint32_t rx_descriptors_for(const std::string& devargs, uint32_t mtu, uint32_t buffer_bytes,
                                          uint32_t wanted);

// All calls from the control thread; the queues belong to their poll cores between start() and stop().
class DpdkPort {
 public:
  // Finds or makes the device and configures it. Throws DpdkError.
  explicit DpdkPort(DpdkPortOptions options);
  // Stops and closes it; a virtual device is removed. The queues must not be in use any more.
  ~DpdkPort();
  DpdkPort(const DpdkPort&) = delete;
  DpdkPort& operator=(const DpdkPort&) = delete;

  // Gives each queue pair its pools: rx_pools[i] and tx_pools[i] are those of the poll core that will serve
  // queue i. They outlive the port. Once, before start(). Throws DpdkError.
  void set_up_queues(const std::vector<BufferPool*>& rx_pools, const std::vector<BufferPool*>& tx_pools);
  void start();  // throws DpdkError
  void stop() noexcept;

  [[nodiscard]] uint32_t queues() const noexcept { return static_cast<uint32_t>(queues_.size()); }
  [[nodiscard]] PortQueue& queue(uint32_t i) noexcept { return *queues_[i]; }
  [[nodiscard]] EthernetAddress mac() const noexcept { return mac_; }
  [[nodiscard]] const std::string& driver() const noexcept { return driver_; }
  [[nodiscard]] const std::string& devargs() const noexcept { return options_.devargs; }
  // Where the device hangs; kAnyNode: it does not say (virtual devices).
  [[nodiscard]] NodeId node() const noexcept { return node_; }
  // What the device has of what it was asked for, per queue: frames in packet buffers that it keeps.
  [[nodiscard]] QueueDescriptors descriptors() const noexcept { return descriptors_; }
  // What was negotiated with the device; its descriptors are wishes, descriptors() what became of them.
  [[nodiscard]] const PortPlan& plan() const noexcept { return plan_; }

  // "up, 100 Gbit/s, full duplex" or "down". After stop(): what it was then.
  [[nodiscard]] std::string link() const;
  [[nodiscard]] bool link_up() const;
  // What the operator should know but what does not prevent the start.
  [[nodiscard]] const std::vector<std::string>& warnings() const noexcept { return warnings_; }
  // The device's own counters by name, zeros left out.
  [[nodiscard]] std::vector<std::pair<std::string, uint64_t>> xstats() const;
  struct Stats {
    uint64_t rx_packets = 0;
    uint64_t rx_bytes = 0;
    uint64_t rx_missed = 0;     // no free descriptor: the poll core is too slow
    uint64_t rx_errors = 0;     // damaged, or too long
    uint64_t rx_no_buffer = 0;  // the pool was empty
    uint64_t tx_packets = 0;
    uint64_t tx_errors = 0;
  };
  // After stop(): what they were then.
  [[nodiscard]] Stats stats() const;

 private:
  void attach();
  void configure();
  void set_mtu(uint32_t mtu);
  void listen_to_groups();
  void close() noexcept;
  [[noreturn]] void fail(std::string_view what, int error) const;

  DpdkPortOptions options_;
  uint16_t port_id_ = UINT16_MAX;
  bool attached_here_ = false;  // by us, so to be removed by us
  bool started_ = false;
  std::string driver_;
  EthernetAddress mac_;
  NodeId node_ = kAnyNode;
  QueueDescriptors descriptors_;
  uint64_t rx_offloads_ = 0;
  uint64_t tx_offloads_ = 0;
  PortPlan plan_;
  std::optional<Stats> last_stats_;  // when it was stopped
  std::string last_link_;            // empty: it was not
  MulticastMembership membership_;
  std::vector<std::string> warnings_;
  std::vector<std::unique_ptr<DpdkQueue>> queues_;
};

}  // namespace migrx
