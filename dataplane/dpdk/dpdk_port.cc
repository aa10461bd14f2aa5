#include "dataplane/dpdk/dpdk_port.h"

#include <net/if.h>
#include <rte_dev.h>
#include <rte_errno.h>
#include <rte_ethdev.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>

#include "dataplane/dpdk/eal.h"
#include "dataplane/dpdk/tap.h"

namespace migrx {
namespace {

constexpr uint64_t kRssWanted =
    RTE_ETH_RSS_IPV4 | RTE_ETH_RSS_NONFRAG_IPV4_TCP | RTE_ETH_RSS_IPV6 | RTE_ETH_RSS_NONFRAG_IPV6_TCP;

std::string bare_devargs(const std::string& devargs) {
  return devargs.starts_with("pci:") ? devargs.substr(4) : devargs;
}
std::string bare_name(const std::string& devargs) {
  return devargs.substr(0, devargs.find(','));
}

DeviceInfo device_info(const rte_eth_dev_info& info, bool is_virtual) {
  DeviceInfo device;
  device.driver = info.driver_name;
  device.is_virtual = is_virtual;
  device.max_rx_queues = info.max_rx_queues;
  device.max_tx_queues = info.max_tx_queues;
  device.max_mtu = info.max_mtu;
  device.max_rx_pktlen = info.max_rx_pktlen;
  const auto limits = [](const rte_eth_desc_lim& l) {
    return DescriptorLimits{l.nb_min, l.nb_max, l.nb_align};
  };
  device.rx_descriptors = limits(info.rx_desc_lim);
  device.tx_descriptors = limits(info.tx_desc_lim);
  device.ipv4_checksum = (info.rx_offload_capa & RTE_ETH_RX_OFFLOAD_IPV4_CKSUM) != 0;
  device.tcp_checksum = (info.rx_offload_capa & RTE_ETH_RX_OFFLOAD_TCP_CKSUM) != 0;
  device.scatter = (info.rx_offload_capa & RTE_ETH_RX_OFFLOAD_SCATTER) != 0;
  device.vlan_filter = (info.rx_offload_capa & RTE_ETH_RX_OFFLOAD_VLAN_FILTER) != 0;
  device.fast_free = (info.tx_offload_capa & RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE) != 0;
  device.rss_ipv4 = (info.flow_type_rss_offloads & RTE_ETH_RSS_IPV4) != 0;
  device.rss_tcp = (info.flow_type_rss_offloads & RTE_ETH_RSS_NONFRAG_IPV4_TCP) != 0;
  return device;
}

// pci_hint()'s driver of this host's function.
std::optional<std::string> pci_driver(const std::string& devargs) {
  const std::string name = bare_name(devargs);
  // "3b:00.0" is of domain 0.
  const bool short_form = std::count(name.begin(), name.end(), ':') == 1;
  const std::filesystem::path function = "/sys/bus/pci/devices/" + (short_form ? "0000:" + name : name);
  std::error_code error;
  if (!std::filesystem::exists(function, error)) return std::nullopt;
  return std::filesystem::read_symlink(function / "driver", error).filename().string();
}

bool find_port(const std::string& devargs, uint16_t& port_id) {
  if (rte_eth_dev_get_port_by_name(bare_name(devargs).c_str(), &port_id) == 0) return true;
  if (!is_pci_devargs(devargs)) return false;
  // "3b:00.0" is called "0000:3b:00.0"; the iterator knows such things.
  rte_dev_iterator iterator;
  uint16_t found = RTE_MAX_ETHPORTS;
  RTE_ETH_FOREACH_MATCHING_DEV(found, bare_name(devargs).c_str(), &iterator) {
    port_id = found;
    rte_eth_iterator_cleanup(&iterator);
    return true;
  }
  return false;
}

}  // namespace

DpdkPort::DpdkPort(DpdkPortOptions options) : options_(std::move(options)) {
  options_.devargs = complete_devargs(bare_devargs(options_.devargs), options_.mtu, options_.queues);
  try {
    attach();
    configure();
  } catch (...) {
    close();
    throw;
  }
}

DpdkPort::~DpdkPort() {
  close();
}

void DpdkPort::fail(std::string_view what, int error) const {
  throw DpdkError("port " + options_.devargs + ": " + std::string(what) + ": " +
                  rte_strerror(std::abs(error)) + recent_dpdk_log());
}

void DpdkPort::attach() {
  if (find_port(options_.devargs, port_id_)) return;
  const int result = rte_dev_probe(options_.devargs.c_str());
  // DPDK since 24.11 takes no more (lib/eal/common/hotplug_mp.h); older ones cut it off for secondary
  // processes alone.
  constexpr std::size_t kDevargsMax = 127;
  if (result != 0 && options_.devargs.size() > kDevargsMax)
    fail("the device's arguments are " + std::to_string(options_.devargs.size()) +
             " bytes long, and DPDK since 24.11 takes at most " + std::to_string(kDevargsMax) +
             ": give it shorter names or paths",
         result);
  if (result != 0 && is_pci_devargs(options_.devargs))
    fail(pci_hint(options_.devargs, pci_driver(options_.devargs)), result);
  if (result != 0) {
    const std::optional<std::string> interface = interface_of(options_.devargs);
    fail(device_hint(options_.devargs, interface && ::if_nametoindex(interface->c_str()) != 0), result);
  }
  attached_here_ = true;
  if (!find_port(options_.devargs, port_id_)) fail("the device has no Ethernet port", ENODEV);
}

void DpdkPort::configure() {
  rte_eth_dev_info info{};
  int result = rte_eth_dev_info_get(port_id_, &info);
  if (result != 0) fail("no information about the device", result);
  driver_ = info.driver_name;
  const bool is_virtual = !is_pci_devargs(options_.devargs);
  const int socket = rte_eth_dev_socket_id(port_id_);
  node_ = socket >= 0 && !is_virtual ? NodeId{socket} : kAnyNode;

  DeviceWish wish;
  wish.name = options_.devargs;
  wish.mtu = options_.mtu;
  wish.queues = options_.queues;
  wish.buffer_bytes = options_.buffer_bytes;
  wish.descriptors = {
      rx_descriptors_for(options_.devargs, options_.mtu, options_.buffer_bytes, options_.rx_descriptors),
      options_.tx_descriptors};
  wish.vlan = options_.vlan;
  if (const std::string problem = plan_port(device_info(info, is_virtual), wish, plan_); !problem.empty())
    throw DpdkError(problem);
  const PortPlan& plan = plan_;
  warnings_ = plan.warnings;

  rte_eth_conf conf{};
  if (plan.ipv4_checksum) conf.rxmode.offloads |= RTE_ETH_RX_OFFLOAD_IPV4_CKSUM;
  if (plan.tcp_checksum) conf.rxmode.offloads |= RTE_ETH_RX_OFFLOAD_TCP_CKSUM;
  if (plan.scatter) conf.rxmode.offloads |= RTE_ETH_RX_OFFLOAD_SCATTER;
  if (plan.vlan_filter) conf.rxmode.offloads |= RTE_ETH_RX_OFFLOAD_VLAN_FILTER;
  // Each tx queue has one pool, and no buffer is sent twice.
  if (plan.fast_free) conf.txmode.offloads |= RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE;
  conf.rxmode.mtu = plan.mtu;
  if (plan.rss) {
    conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
    conf.rx_adv_conf.rss_conf.rss_hf = kRssWanted & info.flow_type_rss_offloads;
  }
  const uint16_t queues = static_cast<uint16_t>(options_.queues);
  result = rte_eth_dev_configure(port_id_, queues, queues, &conf);
  if (result != 0) fail("cannot be configured", result);
  if (plan.set_mtu) set_mtu(plan.mtu);
  uint16_t rx_descriptors = static_cast<uint16_t>(plan.descriptors.rx);
  uint16_t tx_descriptors = static_cast<uint16_t>(plan.descriptors.tx);
  result = rte_eth_dev_adjust_nb_rx_tx_desc(port_id_, &rx_descriptors, &tx_descriptors);
  if (result != 0) fail("descriptors", result);
  descriptors_ = {rx_descriptors, tx_descriptors};
  rx_offloads_ = conf.rxmode.offloads;
  tx_offloads_ = conf.txmode.offloads;

  rte_ether_addr mac{};
  result = rte_eth_macaddr_get(port_id_, &mac);
  if (result != 0) fail("no MAC address", result);
  std::memcpy(mac_.bytes.data(), mac.addr_bytes, mac_.bytes.size());
  if (driver_ == "net_tap") {
    std::array<char, IF_NAMESIZE> name{};
    if (info.if_index != 0 && if_indextoname(info.if_index, name.data()) != nullptr) {
      const std::string problem = set_interface_mtu(name.data(), options_.mtu);
      if (!problem.empty())
        warnings_.push_back("port " + options_.devargs + ": interface " + name.data() +
                            " does not take MTU " + std::to_string(options_.mtu) + ": " + problem);
    }
  }
}

// rte_eth_dev_configure() writes down what was asked for; a device that shares its port with the kernel or
// with other functions is only told by this.
void DpdkPort::set_mtu(uint32_t mtu) {
  const int result = rte_eth_dev_set_mtu(port_id_, static_cast<uint16_t>(mtu));
  if (result != 0 && result != -ENOTSUP)
    fail("does not take MTU " + std::to_string(mtu) + " (lower --mtu, or raise the host's)", result);
  uint16_t now = 0;
  if (rte_eth_dev_get_mtu(port_id_, &now) != 0 || now == mtu) return;
  warnings_.push_back("port " + options_.devargs + " has MTU " + std::to_string(now) +
                      " although it was given " + std::to_string(mtu) + ": larger frames may be lost");
}

void DpdkPort::set_up_queues(const std::vector<BufferPool*>& rx_pools,
                             const std::vector<BufferPool*>& tx_pools) {
  if (rx_pools.size() != options_.queues || tx_pools.size() != options_.queues)
    throw DpdkError("port " + options_.devargs + ": needs one rx and one tx pool per queue");
  rte_eth_dev_info info{};
  int result = rte_eth_dev_info_get(port_id_, &info);
  if (result != 0) fail("no information about the device", result);
  const int socket = rte_eth_dev_socket_id(port_id_);
  const unsigned device_socket = socket >= 0 ? static_cast<unsigned>(socket) : 0;
  rte_eth_rxconf rx_conf = info.default_rxconf;
  rx_conf.offloads = rx_offloads_;
  rte_eth_txconf tx_conf = info.default_txconf;
  tx_conf.offloads = tx_offloads_;
  // tx first: net_tap opens a queue's descriptor at its first set-up, and both directions share it.
  for (uint16_t i = 0; i < options_.queues; ++i) {
    result =
        rte_eth_tx_queue_setup(port_id_, i, static_cast<uint16_t>(descriptors_.tx), device_socket, &tx_conf);
    if (result != 0) fail("tx queue " + std::to_string(i), result);
    result = rte_eth_rx_queue_setup(port_id_, i, static_cast<uint16_t>(descriptors_.rx), device_socket,
                                    &rx_conf, rx_pools[i]->raw());
    if (result != 0) fail("rx queue " + std::to_string(i), result);
    queues_.push_back(std::make_unique<DpdkQueue>(port_id_, i, mac_, *rx_pools[i], *tx_pools[i]));
  }
  if (driver_ == "net_tap") silence_tap_signals();
  for (const BufferPool* const pool : rx_pools) {
    if (node_ == kAnyNode || pool->node() == kAnyNode || pool->node() == node_) continue;
    warnings_.push_back("port " + options_.devargs + " is on node " + std::to_string(node_.value()) +
                        " and receives into buffers of node " + std::to_string(pool->node().value()) +
                        ": every frame crosses the interconnect");
    break;
  }
}

void DpdkPort::start() {
  if (started_) return;
  int result = rte_eth_dev_start(port_id_);
  if (result != 0) fail("does not start", result);
  started_ = true;
  last_stats_.reset();
  last_link_.clear();
  if (plan_.vlan_filter) {
    result = rte_eth_dev_vlan_filter(port_id_, *options_.vlan, 1);
    if (result != 0)
      warnings_.push_back("port " + options_.devargs + " does not let VLAN " +
                          std::to_string(*options_.vlan) + " through: " + rte_strerror(std::abs(result)));
  }
  listen_to_groups();
  if (options_.promiscuous) {
    result = rte_eth_promiscuous_enable(port_id_);
    if (result != 0) warnings_.push_back("port " + options_.devargs + " cannot be promiscuous");
  }
}

// A device either knows its groups, or takes all there are. One that can neither be told may take them all
// the same, as virtual devices do that have a socket of the kernel's before them: hence that socket's own
// list.
void DpdkPort::listen_to_groups() {
  if (options_.groups.empty()) return;
  std::vector<rte_ether_addr> groups(options_.groups.size());
  for (std::size_t i = 0; i < groups.size(); ++i)
    std::memcpy(groups[i].addr_bytes, options_.groups[i].bytes.data(), sizeof groups[i].addr_bytes);
  if (rte_eth_dev_set_mc_addr_list(port_id_, groups.data(), static_cast<uint32_t>(groups.size())) == 0)
    return;
  if (rte_eth_allmulticast_enable(port_id_) == 0) return;
  rte_eth_dev_info info{};
  if (rte_eth_dev_info_get(port_id_, &info) == 0 && info.if_index != 0) {
    membership_ = MulticastMembership(static_cast<int>(info.if_index), options_.groups);
    if (membership_.held()) return;
  }
  warnings_.push_back("port " + options_.devargs +
                      " cannot be told which multicast frames it is to let in: if no source finds migrx's "
                      "IPv6 address, let it take all (ip link set INTERFACE allmulticast on)");
}

void DpdkPort::stop() noexcept {
  if (!started_) return;
  // Some devices are reset by it: their counters begin anew, and their link is gone (seen with igb and
  // vmxnet3).
  last_stats_ = stats();
  last_link_ = link();
  started_ = false;
  static_cast<void>(rte_eth_dev_stop(port_id_));
}

void DpdkPort::close() noexcept {
  stop();
  queues_.clear();
  if (port_id_ == UINT16_MAX) return;
  rte_eth_dev_info info{};
  const bool known = rte_eth_dev_info_get(port_id_, &info) == 0;
  static_cast<void>(rte_eth_dev_close(port_id_));
  if (known && attached_here_ && info.device != nullptr) static_cast<void>(rte_dev_remove(info.device));
  port_id_ = UINT16_MAX;
}

bool DpdkPort::link_up() const {
  rte_eth_link link{};
  return rte_eth_link_get_nowait(port_id_, &link) == 0 && link.link_status == RTE_ETH_LINK_UP;
}

std::string DpdkPort::link() const {
  if (!last_link_.empty()) return last_link_;
  rte_eth_link link{};
  const int result = rte_eth_link_get_nowait(port_id_, &link);
  if (result != 0) return "unknown";
  if (link.link_status != RTE_ETH_LINK_UP) return "down";
  std::string text = "up";
  if (link.link_speed != RTE_ETH_SPEED_NUM_NONE && link.link_speed != RTE_ETH_SPEED_NUM_UNKNOWN)
    text += link.link_speed >= 1000 ? ", " + std::to_string(link.link_speed / 1000) + " Gbit/s"
                                    : ", " + std::to_string(link.link_speed) + " Mbit/s";
  return text + (link.link_duplex == RTE_ETH_LINK_FULL_DUPLEX ? ", full duplex" : ", half duplex");
}

std::vector<std::pair<std::string, uint64_t>> DpdkPort::xstats() const {
  std::vector<std::pair<std::string, uint64_t>> result;
  const int count = rte_eth_xstats_get(port_id_, nullptr, 0);
  if (count <= 0) return result;
  std::vector<rte_eth_xstat> values(static_cast<std::size_t>(count));
  std::vector<rte_eth_xstat_name> names(static_cast<std::size_t>(count));
  const int got = rte_eth_xstats_get(port_id_, values.data(), static_cast<unsigned>(count));
  if (got != count || rte_eth_xstats_get_names(port_id_, names.data(), static_cast<unsigned>(count)) != count)
    return result;
  for (const rte_eth_xstat& value : values)
    if (value.value != 0 && value.id < names.size()) result.emplace_back(names[value.id].name, value.value);
  return result;
}

DpdkPort::Stats DpdkPort::stats() const {
  if (last_stats_) return *last_stats_;
  rte_eth_stats raw{};
  if (rte_eth_stats_get(port_id_, &raw) != 0) return {};
  return {raw.ipackets, raw.ibytes, raw.imissed, raw.ierrors, raw.rx_nombuf, raw.opackets, raw.oerrors};
}

}  // namespace migrx
