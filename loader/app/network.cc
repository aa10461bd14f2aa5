#include "loader/app/network.h"

#include <sys/random.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <map>

#include "dataplane/wire/address_text.h"
#include "loader/app/address_check.h"
#include "loader/app/address_list.h"
#include "loader/app/packet_memory.h"
#include "loader/app/watch/metric_table.h"
#include "loader/session/session_limits.h"
#include "numa/control_group.h"
#include "numa/host_files.h"
#include "numa/memory_budget.h"

namespace migrx {
namespace {

// Slots of a hand-off ring by default. 512 segments of 1448 bytes are 0.7 MiB per connection:
// several bandwidth-delay products of a rack, and with 8 channels still in the caches of a server CPU.
constexpr uint32_t kHandoffSlots = 512;
// 100 Gbit/s: what windows are made for, as far as the slots reach.
constexpr uint64_t kPathBytesPerSecond = 12'500'000'000;
// This process serves one migration and ends when its connections have: TIME-WAIT lasts as long as a source
// needs to send its last FIN once more (200 ms in common kernels), and no 4-tuple is used again.
constexpr uint64_t kTimeWaitNs = 250 * kNsPerMs;

NodeId node_of(const Placement& placement, AgentRole role, uint32_t index) {
  for (const ThreadPlan& thread : placement.threads)
    for (const AgentPlan& agent : thread.agents)
      if (agent.role == role && agent.index == index) return agent.node;
  return kAnyNode;
}

// Link addresses of the groups that are to reach a port with these addresses.
std::vector<EthernetAddress> multicast_groups(const std::vector<PortAddress>& addresses) {
  std::vector<EthernetAddress> groups;
  for (const PortAddress& address : addresses)
    if (!address.ip.is_ipv4()) groups.push_back(multicast_mac(solicited_node(address.ip)));
  if (!groups.empty()) groups.push_back(multicast_mac(kAllNodes));
  return groups;
}

PortReport port_report(const DpdkPort& port) {
  PortReport out;
  out.port = port.devargs();
  out.driver = port.driver();
  for (const std::byte byte : port.mac().bytes) {
    std::array<char, 4> text{};
    std::snprintf(text.data(), text.size(), "%s%02x", out.mac.empty() ? "" : ":",
                  std::to_integer<unsigned>(byte));
    out.mac += text.data();
  }
  out.node = port.node() == kAnyNode ? -1 : port.node().value();
  out.link = port.link();
  out.mtu = port.plan().mtu;
  out.queues = port.queues();
  out.rx_descriptors = port.descriptors().rx;
  out.tx_descriptors = port.descriptors().tx;
  for (const auto& [name, on] : {std::pair{"ipv4_checksum", port.plan().ipv4_checksum},
                                 {"tcp_checksum", port.plan().tcp_checksum},
                                 {"scatter", port.plan().scatter},
                                 {"vlan_filter", port.plan().vlan_filter},
                                 {"rss", port.plan().rss}})
    if (on) out.offloads.emplace_back(name);
  return out;
}

}  // namespace

Network::Network(const HostOptions& options, const Placement& placement, uint32_t connections,
                 const std::string& runtime_folder)
    : traffic_watch_(options.mtu, options.addresses.empty()
                                      ? std::string("ADDRESS")
                                      : options.addresses[0].substr(0, options.addresses[0].find('/'))) {
  // 1. Addresses and who may connect.
  ListenerConfig listener;
  // Every channel of a source begins with four bytes that say what it is (loader/session/channel.h), in one
  // write with more. Those who connect and do not speak have the other places at most.
  listener.first_bytes_min = 4;
  const auto checked = [](const char* option, const std::string& problem) {
    if (!problem.empty()) throw SetupError(std::string(option) + " " + problem);
  };
  std::string problem;
  std::vector<IpAddress> gateways;
  if (options.gateway) gateways = parse_gateways(*options.gateway, problem);
  checked("--gateway", problem);
  for (const std::string& text : options.addresses) {
    const std::vector<IpNetwork> networks = parse_networks(text, problem);
    checked("--address", problem);
    addresses_.push_back(port_addresses(networks, gateways));
    const std::vector<IpNetwork> allowed = allowed_by_default(networks, gateways);
    allowed_by_default_.insert(allowed_by_default_.end(), allowed.begin(), allowed.end());
  }
  if (::getrandom(listener.secret.data(), listener.secret.size(), 0) !=
      static_cast<ssize_t>(listener.secret.size()))
    throw SetupError("the kernel gives no random numbers");

  // 2. Sizes. Every poll core can hold every connection: the device decides which queue a flow comes by.
  const uint32_t cores = placement.poll_agents;
  uint32_t buffer_bytes = buffer_bytes_for_mtu(options.mtu);
  for (const std::string& devargs : options.ports)
    buffer_bytes = std::max(buffer_bytes, buffer_bytes_for(devargs, options.mtu));
  TcpConfig tcp;
  tcp.mss = mss_for_mtu(options.mtu);
  tcp.buffer_bytes = buffer_bytes;
  tcp.room_behind = room_behind;
  tcp.time_wait_ns = kTimeWaitNs;
  bound_silence(tcp, static_cast<uint64_t>(options.peer_timeout_s * 1e9));
  SizingNeeds needs;
  needs.mtu = options.mtu;
  needs.buffer_bytes = buffer_bytes;
  needs.connections_max = connections;
  needs.cores = cores;
  std::vector<DpdkPortOptions> ports;
  for (const std::string& devargs : options.ports) {
    DpdkPortOptions port;
    port.devargs = complete_devargs(devargs, options.mtu, cores);
    port.mtu = options.mtu;
    port.queues = cores;
    port.buffer_bytes = buffer_bytes;
    port.vlan = options.vlan;
    port.groups = multicast_groups(addresses_[ports.size()]);
    port.rx_descriptors = rx_descriptors_for(devargs, options.mtu, buffer_bytes, 1024);
    // As asked for; the devices, once they are there, say what they have.
    needs.ports.push_back({port.rx_descriptors, port.tx_descriptors});
    ports.push_back(std::move(port));
  }
  uint32_t slots = kHandoffSlots;
  if (options.window_bytes == 0) {
    tcp.path_bytes_per_s = kPathBytesPerSecond;
  } else {
    slots = static_cast<uint32_t>(
        std::clamp<uint64_t>(quota_for_window(tcp, options.window_bytes), buffer_quota_min(tcp), 1U << 16));
    tcp.window_bytes = static_cast<uint32_t>(std::min<uint64_t>(options.window_bytes, 1U << 30));
  }
  if (options.pool_mbufs > 0) {
    needs.buffers_per_connection = buffer_quota_min(tcp);
    const uint32_t least = size_dataplane(needs).rx_buffers;
    if (options.pool_mbufs < least)
      throw SetupError("--pool-mbufs " + std::to_string(options.pool_mbufs) +
                       " is too few: " + std::to_string(least) + " at least for " +
                       std::to_string(connections) + " connections at MTU " + std::to_string(options.mtu) +
                       ", so that a waiting channel cannot starve another");
    const uint32_t spare = (options.pool_mbufs - least) / connections + needs.buffers_per_connection;
    if (options.window_bytes == 0) slots = std::min(slots, spare);
    if (slots > spare)
      throw SetupError(
          "--window needs more packet buffers than --pool-mbufs gives: lower --window or raise --pool-mbufs");
  }
  slots = std::max(slots, buffer_quota_min(tcp));
  tcp.buffer_quota = slots;
  needs.buffers_per_connection = slots;
  DataplaneSizing sizing = size_dataplane(needs);

  // 3. EAL, pools, ports.
  EalOptions eal;
  const uint64_t rx_bytes =
      BufferPool::memory_bytes(std::max(options.pool_mbufs, sizing.rx_buffers), buffer_bytes);
  const uint64_t tx_bytes = BufferPool::memory_bytes(sizing.tx_buffers, kTxBufferBytes);
  eal.memory_bytes = cores * (rx_bytes + tx_bytes) + (32U << 20);
  std::map<NodeId, uint64_t> wanted{{kAnyNode, kEalBytes}};
  for (uint32_t i = 0; i < cores; ++i) wanted[node_of(placement, AgentRole::poll, i)] += rx_bytes + tx_bytes;
  const HostFiles files;
  PacketMemory memory(runtime_folder, wanted, memory_facts(files, "self"), memory_group_of(files, "self"));
  eal.hugepage_bytes = memory.free_bytes();
  eal.port_devargs = options.ports;
  eal.extra_args = options.eal;
  eal.telemetry = options.telemetry;
  eal_ = std::make_unique<Eal>(eal);
  if (!eal_->uses_hugepages()) memory.give_up();
  memory.taken(kAnyNode, kEalBytes);
  for (std::size_t p = 0; p < ports.size(); ++p) {
    ports_.push_back(std::make_unique<DpdkPort>(std::move(ports[p])));
    needs.ports[p] = ports_[p]->descriptors();
  }
  sizing = size_dataplane(needs);
  if (options.pool_mbufs > 0 && options.pool_mbufs < sizing.rx_buffers)
    throw SetupError("--pool-mbufs " + std::to_string(options.pool_mbufs) +
                     " is too few: " + std::to_string(sizing.rx_buffers) +
                     " at least, since the ports keep more packet buffers than they were asked to");
  std::vector<BufferPool*> rx_pools;
  std::vector<BufferPool*> tx_pools;
  const uint32_t rx_buffers = std::max(options.pool_mbufs, sizing.rx_buffers);
  for (uint32_t i = 0; i < cores; ++i) {
    const NodeId node = node_of(placement, AgentRole::poll, i);
    rx_pools_.push_back(
        std::make_unique<BufferPool>("rx" + std::to_string(i), rx_buffers, buffer_bytes, node));
    tx_pools_.push_back(
        std::make_unique<BufferPool>("tx" + std::to_string(i), sizing.tx_buffers, kTxBufferBytes, node));
    rx_pools.push_back(rx_pools_.back().get());
    tx_pools.push_back(tx_pools_.back().get());
    memory.taken(node, rx_bytes + tx_bytes);
  }
  for (const auto& port : ports_) port->set_up_queues(rx_pools, tx_pools);

  links_ = std::make_unique<LinkWatch>(options.ports);

  // 4. Poll cores.
  // Not of the secret: whoever could find out how the tables hash must not learn anything about cookies.
  uint64_t seed = 0;
  if (::getrandom(&seed, sizeof seed, 0) != static_cast<ssize_t>(sizeof seed))
    throw SetupError("the kernel gives no random numbers");
  if (cores > 1) mesh_ = std::make_unique<PollMesh>(cores, connections * cores, seed);
  for (uint32_t i = 0; i < cores; ++i) {
    PollCoreConfig config;
    config.index = i;
    for (std::size_t p = 0; p < ports_.size(); ++p)
      config.ports.push_back({&ports_[p]->queue(i), addresses_[p],
                              options.vlan ? static_cast<int32_t>(*options.vlan) : PollPort::kAnyVlan});
    config.connections_max = connections;
    config.handoff_slots = slots;
    config.tcp = tcp;
    config.listener = listener;
    config.mesh = mesh_.get();
    config.awaited = &awaited_ports_;
    config.announce = i == 0;
    config.flow_seed = seed;
    poll_cores_.push_back(std::make_unique<PollCore>(config));
    tenants_.add(*poll_cores_.back());
  }
}

Network::~Network() {
  poll_cores_.clear();
  ports_.clear();
  for (const auto* const pools : {&rx_pools_, &tx_pools_})
    for (const auto& pool : *pools) pool->leave_to_eal();
}

void Network::start() {
  for (const auto& port : ports_) port->start();
}

std::vector<IpNetwork> Network::allowed(const std::vector<std::string>& allow) const {
  if (allow.empty()) return allowed_by_default_;
  std::vector<IpNetwork> networks;
  for (const std::string& text : allow) {
    IpNetwork network;
    if (!parse_network(text, network))
      throw SetupError("--allow " + text + ": expected a network such as 10.77.0.0/24");
    networks.push_back(network);
  }
  return networks;
}

void Network::stop() noexcept {
  for (const auto& port : ports_) port->stop();
}

Handoff* Network::take_accepted() noexcept {
  for (const auto& core : poll_cores_)
    if (Handoff* const connection = core->take_accepted()) return connection;
  return nullptr;
}

LostConnection Network::whereabouts(const Handoff& connection) const noexcept {
  return poll_cores_[connection.poll_core]->whereabouts(connection);
}

uint32_t Network::place(const Handoff& connection) const noexcept {
  return connection.poll_core * poll_cores_[0]->config().connections_max + connection.connection;
}

std::string Network::first_link_down(Links which) const {
  for (const auto& port : ports_) {
    const bool asked = which == Links::all || !link_comes_with_peer(port->devargs());
    if (asked && !port->link_up()) return port->devargs();
  }
  return {};
}

std::vector<std::string> Network::look_at_links(double now_s) {
  std::vector<std::string> lines;
  for (std::size_t i = 0; i < ports_.size(); ++i) {
    const bool up = ports_[i]->link_up();
    std::string line = links_->look(i, up, up ? ports_[i]->link() : "down", now_s);
    if (line.empty()) continue;
    lines.push_back(std::move(line));
    // The switch, or another one, may have forgotten where the address is.
    if (up) poll_cores_[0]->request_announcement();
  }
  return lines;
}

std::string Network::take_conflict() {
  if (conflict_told_) return {};
  for (const auto& core : poll_cores_)
    conflict_told_ = conflict_told_ || core->counters().read(PollCounter::address_conflicts) > 0;
  return conflict_told_
             ? "another host says by ARP or neighbour discovery that it has an address of migrx's ports: "
               "take "
               "the address from it (arping -D or ndisc6 finds it), or the source may talk to it instead"
             : std::string{};
}

std::string Network::look_at_traffic(double now_s) {
  TrafficFacts facts;
  facts.now_s = now_s;
  for (const auto& core : poll_cores_) {
    facts.segments += core->wire_counters().read(WireCounter::segment_ok);
    facts.wrong_checksums += core->wire_counters().read(WireCounter::ip_checksum_bad) +
                             core->wire_counters().read(WireCounter::tcp_checksum_bad);
    facts.stacked_vlans += core->wire_counters().read(WireCounter::stacked_vlan);
    facts.in_order += core->tcp_counters().read(TcpCounter::in_order);
    facts.acks_from_behind_hole += core->tcp_counters().read(TcpCounter::ack_behind_hole);
    facts.connections += core->connections();
  }
  return traffic_watch_.look(facts);
}

std::string Network::first_address() const {
  return std::string(IpAddressText(addresses_.front().front().ip).view());
}

uint32_t Network::connections() const noexcept {
  uint32_t sum = 0;
  for (const auto& core : poll_cores_) sum += core->connections();
  return sum;
}

std::vector<std::string> Network::warnings() const {
  std::vector<std::string> all;
  for (const auto& port : ports_) all.insert(all.end(), port->warnings().begin(), port->warnings().end());
  for (const std::vector<PortAddress>& port : addresses_)
    for (const PortAddress& address : port)
      if (std::string warning = address_warning(address.ip); !warning.empty())
        all.push_back(std::move(warning));
  return all;
}

void Network::report(Report& report) const {
  report.ports.clear();
  std::vector<const PollCore*> cores;
  for (const auto& core : poll_cores_) cores.push_back(core.get());
  PortTotals ports;
  for (const auto& port : ports_) {
    const DpdkPort::Stats stats = port->stats();
    ports.stats.rx_packets += stats.rx_packets;
    ports.stats.rx_bytes += stats.rx_bytes;
    ports.stats.rx_missed += stats.rx_missed;
    ports.stats.rx_errors += stats.rx_errors;
    ports.stats.rx_no_buffer += stats.rx_no_buffer;
    ports.stats.tx_packets += stats.tx_packets;
    ports.stats.tx_errors += stats.tx_errors;
    report.ports.push_back(port_report(*port));
  }
  ports.link_changes = links_->changes();
  report.links = links_->events();
  report.dataplane = counters_of(cores, ports);
  BufferTotals buffers;
  for (const auto& pool : rx_pools_) {
    buffers.buffers += pool->buffers();
    buffers.available += pool->available();
  }
  buffers.hugepages = eal_->uses_hugepages();
  report.memory = counters_of(buffers);
}

}  // namespace migrx
