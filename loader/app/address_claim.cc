#include "loader/app/address_claim.h"

#include <fmt/format.h>
#include <ifaddrs.h>
#include <netinet/in.h>

#include <array>
#include <chrono>
#include <span>
#include <variant>
#include <vector>

#include "dataplane/address_probe.h"
#include "dataplane/wire/address_text.h"
#include "dataplane/wire/mld.h"
#include "loader/app/signals.h"
#include "loader/app/terminal.h"
#include "numa/clock.h"

namespace migrx {
namespace {

constexpr auto kLookAtLinks = std::chrono::milliseconds(10);
constexpr auto kListen = std::chrono::microseconds(500);
// A line-rate flood of frames must not keep the claim from its end, nor from a signal.
constexpr uint32_t kBurstsAtOnce = 64;
constexpr int kLookUs = 5000;
// A link that comes up within this is not worth a line.
constexpr uint64_t kPatienceNs = 500 * kNsPerMs;

std::string text_of(const EthernetAddress& mac) {
  return fmt::format("{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", std::to_integer<int>(mac.bytes[0]),
                     std::to_integer<int>(mac.bytes[1]), std::to_integer<int>(mac.bytes[2]),
                     std::to_integer<int>(mac.bytes[3]), std::to_integer<int>(mac.bytes[4]),
                     std::to_integer<int>(mac.bytes[5]));
}

void say(PortQueue& queue, const AddressProbe::Question& question) {
  TxFrame frame;
  if (!queue.tx_alloc(frame)) return;
  const MutableBytes out{frame.data, frame.capacity};
  const auto* const arp = std::get_if<ArpPacket>(&question);
  queue.tx_commit(arp != nullptr ? build_arp(*arp, out) : build_ndp(std::get<NdpPacket>(question), out));
  static_cast<void>(queue.tx_flush());
}

// Switches that snoop are to let answers through (RFC 4862 section 5.4.2).
void join_group(const PollPort& port, const IpAddress& ip) {
  TxFrame frame;
  if (ip.is_ipv4() || !port.queue->tx_alloc(frame)) return;
  FrameAddress link;
  link.local_mac = port.queue->mac();
  link.tagged = port.vlan == PollPort::kAnyVlan ? 0 : 1;
  link.vlan_tci = link.tagged != 0 ? static_cast<uint16_t>(port.vlan) : uint16_t{0};
  const IpAddress group = solicited_node(ip);
  port.queue->tx_commit(build_mld_report(IpAddress{}, {&group, 1}, link, {frame.data, frame.capacity}));
  static_cast<void>(port.queue->tx_flush());
}

// True: there may be more, and who has other things to do comes back for it.
bool listen(PortQueue& queue, std::span<AddressProbe> probes) {
  std::array<Frame, kBurst> frames;
  std::array<void*, kBurst> buffers;
  for (uint32_t burst = 0; burst < kBurstsAtOnce; ++burst) {
    const uint32_t count = queue.rx_burst(frames);
    for (uint32_t i = 0; i < count; ++i) {
      const Bytes bytes{frames[i].data, frames[i].data_len};
      ArpPacket arp;
      Icmp6View icmp;
      NdpPacket ndp;
      if (parse_arp(bytes, arp))
        for (AddressProbe& probe : probes) probe.on_arp(arp);
      else if (parse_icmp6(bytes, icmp) && parse_ndp(icmp, ndp))
        for (AddressProbe& probe : probes) probe.on_ndp(ndp);
      buffers[i] = frames[i].buffer;
    }
    if (count > 0) queue.free_bulk({buffers.data(), count});
    if (count < kBurst) return false;
  }
  return true;
}

bool has_address(const sockaddr* socket, const IpAddress& wanted) {
  if (socket == nullptr) return false;
  if (socket->sa_family == AF_INET)
    return wanted == Ipv4Address{ntohl(reinterpret_cast<const sockaddr_in*>(socket)->sin_addr.s_addr)};
  if (socket->sa_family != AF_INET6 || wanted.is_ipv4()) return false;
  IpAddress has;
  load_ipv6(reinterpret_cast<const std::byte*>(&reinterpret_cast<const sockaddr_in6*>(socket)->sin6_addr),
            has);
  return has == wanted;
}

}  // namespace

std::string kernel_interface_with(const IpAddress& address) {
  ifaddrs* all = nullptr;
  if (::getifaddrs(&all) != 0) return {};
  std::string name;
  for (const ifaddrs* i = all; i != nullptr && name.empty(); i = i->ifa_next)
    if (has_address(i->ifa_addr, address)) name = i->ifa_name;
  ::freeifaddrs(all);
  return name;
}

AddressClaim::AddressClaim(Network& network, const AddressClaimOptions& options)
    : network_(network),
      options_(options),
      link_timeout_s_(options.link_timeout_s.value_or(AddressClaimOptions::kLinkTimeout_s)),
      thread_([this] { run(); }) {}

AddressClaim::~AddressClaim() {
  stop_.store(true, std::memory_order_relaxed);
  if (thread_.joinable()) thread_.join();
}

void AddressClaim::run() {
  if (wait_for_links() && options_.probe) probe();
  over_.store(true, std::memory_order_release);  // pairs with finish()
}

std::string AddressClaim::link_missing() const {
  return network_.first_link_down(options_.link_timeout_s ? Network::Links::all
                                                          : Network::Links::without_peer);
}

bool AddressClaim::wait_for_links() {
  if (link_timeout_s_ <= 0) return true;
  const uint64_t until_ns = monotonic_ns() + static_cast<uint64_t>(link_timeout_s_ * 1e9);
  for (;;) {
    const std::string down = link_missing();
    if (down.empty()) return true;
    if (stop_.load(std::memory_order_relaxed)) return false;
    if (monotonic_ns() >= until_ns) {
      problem_ = fmt::format(
          "port {}: no link for {} s: look at the cable, the switch's port and the other end of a virtual "
          "device, or start without waiting (--link-timeout 0)",
          down, link_timeout_s_);
      return false;
    }
    std::this_thread::sleep_for(kLookAtLinks);
  }
}

// Not a thread of DPDK's: buffers go back to the pools themselves, and to no cache that nobody empties.
void AddressClaim::probe() {
  std::vector<std::vector<AddressProbe>> probes(network_.ports());
  for (uint32_t p = 0; p < network_.ports(); ++p) {
    const PollPort& port = network_.poll_port(p, 0);
    for (const PortAddress& address : port.addresses) {
      if (const std::string name = kernel_interface_with(address.ip); !name.empty()) {
        problem_ = fmt::format(
            "address {} is this host's own, on {}: its kernel would reset the source's connections. Give "
            "--address another one, or take it from {} (--no-probe starts regardless)",
            IpAddressText(address.ip).view(), name, name);
        return;
      }
      probes[p].emplace_back(port.queue->mac(), address.ip,
                             port.vlan == PollPort::kAnyVlan
                                 ? std::nullopt
                                 : std::optional<uint16_t>(static_cast<uint16_t>(port.vlan)));
      join_group(port, address.ip);
    }
  }
  for (bool over = false; !over && !stop_.load(std::memory_order_relaxed);) {
    over = true;
    bool more = false;
    for (uint32_t p = 0; p < probes.size(); ++p) {
      for (AddressProbe& probe : probes[p])
        if (const auto question = probe.poll_output(monotonic_ns()))
          say(*network_.poll_port(p, 0).queue, *question);
      for (uint32_t core = 0; core < network_.poll_cores(); ++core)
        more = listen(*network_.poll_port(p, core).queue, probes[p]) || more;
      for (std::size_t i = 0; i < probes[p].size(); ++i) {
        over = over && probes[p][i].over(monotonic_ns());
        if (!probes[p][i].other()) continue;
        problem_ = fmt::format(
            "address {} of port {} is in use by {}: give --address another one, or take it from that host. "
            "If a router answers there for every address (proxy ARP), --no-probe skips the question",
            IpAddressText(network_.poll_port(p, 0).addresses[i].ip).view(), network_.port_name(p),
            text_of(*probes[p][i].other()));
        return;
      }
    }
    if (!over && !more) std::this_thread::sleep_for(kListen);
  }
}

void AddressClaim::finish(const SignalWatch& signals, Terminal& terminal) {
  const uint64_t begun_ns = monotonic_ns();
  bool said = false;
  while (!over_.load(std::memory_order_acquire)) {  // pairs with run()
    if (signals.wait(kLookUs) != 0) throw SetupError(kInterrupted);
    if (said || link_timeout_s_ <= 0 || monotonic_ns() < begun_ns + kPatienceNs) continue;
    said = true;
    if (const std::string down = link_missing(); !down.empty())
      terminal.say(fmt::format("waiting for the link of {}, for {} s at most", down, link_timeout_s_));
  }
  thread_.join();
  if (!problem_.empty()) throw SetupError(problem_);
}

}  // namespace migrx
