#include "tests/dpdk/dpdk_rig.h"

#include <arpa/inet.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <random>

#include "dataplane/wire/ipv6.h"

namespace migrx::testing {
namespace {

using std::chrono::steady_clock;
constexpr uint16_t kPort = 4444;
constexpr auto kPatience = std::chrono::seconds(30);

std::string devices_refused = "the environment was not set up";

// Everything in a namespace of its own, before DPDK makes its first thread.
class DpdkEnvironment final : public ::testing::Environment {
 public:
  void SetUp() override {
    if (geteuid() != 0)
      devices_refused = "needs root, to make a network namespace and devices in it";
    else if (unshare(CLONE_NEWNET) != 0)
      devices_refused = std::string("cannot make a network namespace: ") + std::strerror(errno);
    else if (access("/dev/net/tun", R_OK | W_OK) != 0)
      devices_refused = std::string("/dev/net/tun: ") + std::strerror(errno);
    else
      devices_refused.clear();
    EalOptions options;
    options.file_prefix = "migrx-test-" + std::to_string(getpid());
    // MIGRX_TEST_HUGEPAGES=1: with hugepages if enough are free.
    options.memory =
        std::getenv("MIGRX_TEST_HUGEPAGES") != nullptr ? EalMemory::automatic : EalMemory::ordinary;
    options.memory_bytes = 192U << 20;
    options.telemetry = true;
    eal_.emplace(options);
  }
  void TearDown() override {
    eal_.reset();
    const char* const run_dir = geteuid() == 0 ? "/var/run" : std::getenv("XDG_RUNTIME_DIR");
    if (run_dir == nullptr) return;
    const std::string folder = std::string(run_dir) + "/dpdk/migrx-test-" + std::to_string(getpid());
    EXPECT_NE(access(folder.c_str(), F_OK), 0) << folder << " was left behind";
  }

 private:
  std::optional<Eal> eal_;
};
[[maybe_unused]] const ::testing::Environment* const environment =
    ::testing::AddGlobalTestEnvironment(new DpdkEnvironment);

IpAddress ours(uint32_t network, bool ipv6) {
  if (ipv6) return {0xfd00'0077'0000'0000U | uint64_t{network} << 16, 2};
  return Ipv4Address{10U << 24 | 77U << 16 | network << 8 | 2};
}

sockaddr_in6 address_of(const IpAddress& ip, uint16_t port) {
  sockaddr_in6 address{};
  address.sin6_family = AF_INET6;
  address.sin6_port = htons(port);
  std::array<std::byte, 16> bytes;
  store_ipv6(bytes.data(), ip);
  std::memcpy(&address.sin6_addr, bytes.data(), bytes.size());
  return address;
}

sockaddr_in address_of(uint32_t network, uint32_t host, uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(10U << 24 | 77U << 16 | network << 8 | host);
  return address;
}

class ControlSocket {
 public:
  ControlSocket() : fd_(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {}
  ~ControlSocket() { close(fd_); }
  ControlSocket(const ControlSocket&) = delete;
  ControlSocket& operator=(const ControlSocket&) = delete;
  [[nodiscard]] bool request(unsigned long what, ifreq& ifr) const { return ioctl(fd_, what, &ifr) == 0; }

 private:
  int fd_;
};

ifreq request_for(const std::string& interface) {
  ifreq ifr{};
  interface.copy(ifr.ifr_name, sizeof ifr.ifr_name - 1);
  return ifr;
}

}  // namespace

const std::string& why_no_devices() {
  return devices_refused;
}

bool kernel_has_ipv6() {
  return access("/proc/net/if_inet6", R_OK) == 0 && run_ip("-V");
}

std::string bring_up(const std::string& interface, uint32_t network, bool ipv6) {
  const ControlSocket control;
  const auto set_address = [&](unsigned long what, const sockaddr_in& address) {
    ifreq ifr = request_for(interface);
    std::memcpy(&ifr.ifr_addr, &address, sizeof address);
    return control.request(what, ifr);
  };
  sockaddr_in mask{};
  mask.sin_family = AF_INET;
  mask.sin_addr.s_addr = htonl(0xffffff00);
  ifreq flags = request_for(interface);
  if (!set_address(SIOCSIFADDR, address_of(network, 1, 0)) || !set_address(SIOCSIFNETMASK, mask) ||
      !control.request(SIOCGIFFLAGS, flags))
    return interface + ": " + std::strerror(errno);
  flags.ifr_flags = static_cast<short>(flags.ifr_flags | IFF_UP | IFF_RUNNING);
  if (!control.request(SIOCSIFFLAGS, flags)) return interface + ": " + std::strerror(errno);
  // nodad: else the address may not be used for a second.
  if (ipv6 && !run_ip("addr add fd00:77:" + std::to_string(network) + "::1/64 dev " + interface + " nodad"))
    return interface + ": ip takes no IPv6 address for it";
  return {};
}

void disable_offloads(const std::string& interface) {
  const ControlSocket control;
  for (const int command : {ETHTOOL_STXCSUM, ETHTOOL_STSO, ETHTOOL_SGSO, ETHTOOL_SGRO}) {
    ethtool_value value{};
    value.cmd = static_cast<uint32_t>(command);
    ifreq ifr = request_for(interface);
    ifr.ifr_data = reinterpret_cast<char*>(&value);
    static_cast<void>(control.request(SIOCETHTOOL, ifr));
  }
}

void set_mtu(const std::string& interface, uint32_t mtu) {
  ifreq ifr = request_for(interface);
  ifr.ifr_mtu = static_cast<int>(mtu);
  EXPECT_TRUE(ControlSocket().request(SIOCSIFMTU, ifr)) << interface << ": " << std::strerror(errno);
}

bool run_ip(const std::string& arguments) {
  return std::system(("ip " + arguments + " >/dev/null 2>&1").c_str()) == 0;
}

Pattern::Pattern(uint32_t flow) : bytes_(kPeriod + 65535) {
  std::minstd_rand random(flow + 1);
  for (uint64_t i = 0; i < kPeriod; ++i) bytes_[i] = static_cast<std::byte>(random() >> 7);
  std::copy_n(bytes_.begin(), 65535, bytes_.begin() + kPeriod);
}

// Compares what arrives with the pattern of its flow.
class Receiver::Loader final : public Agent {
 public:
  Loader(std::vector<std::unique_ptr<PollCore>>& cores, const ReceiverOptions& options)
      : cores_(cores),
        pause_ns_(static_cast<uint64_t>(std::chrono::nanoseconds(options.pause).count())),
        pause_each_(options.pause_each) {
    for (uint32_t flow = 0; flow < options.flows_max; ++flow) patterns_.emplace_back(flow);
    channels_.reserve(64);
  }
  uint32_t do_work(uint64_t now_ns) noexcept override {
    uint32_t work = 0;
    for (auto& core : cores_)
      while (Handoff* const handoff = core->take_accepted()) channels_.push_back({handoff});
    if (now_ns < paused_until_ns_) return work;
    if (pause_ns_ > 0 && bytes >= pause_at_) {
      pause_at_ = bytes + pause_each_;
      paused_until_ns_ = now_ns + pause_ns_;
      return work;
    }
    for (Channel& channel : channels_) work += serve(channel);
    return work;
  }
  [[nodiscard]] const char* name() const noexcept override { return "compare"; }

  std::atomic<uint64_t> bytes{0};
  std::atomic<uint64_t> wrong{0};
  std::atomic<uint32_t> ended{0};

 private:
  struct Channel {
    Handoff* handoff = nullptr;
    uint64_t offset = 0;
    uint64_t flow = 0;  // from the first 8 bytes
    bool done = false;
  };
  uint32_t serve(Channel& channel) noexcept {
    if (channel.done) return 0;
    uint32_t work = 0;
    for (;;) {
      const std::span<const Slice> slices = channel.handoff->readable();
      if (slices.empty()) return work;
      for (const Slice& slice : slices) {
        check(channel, {slice.data, slice.length});
        if (slice.end != StreamEnd::none) channel.done = true;
      }
      const auto count = static_cast<uint32_t>(slices.size());
      channel.handoff->advance(count);
      channel.handoff->release(count);
      work += count;
      if (!channel.done) continue;
      static_cast<void>(channel.handoff->close());
      channel.handoff->detach();
      channel.handoff->retire();
      ended.fetch_add(1);
      return work;
    }
  }
  void check(Channel& channel, Bytes piece) noexcept {
    for (; channel.offset < 8 && !piece.empty(); piece = piece.subspan(1), ++channel.offset)
      channel.flow = channel.flow << 8 | std::to_integer<uint64_t>(piece[0]);
    if (piece.empty()) return;
    if (channel.flow >= patterns_.size() ||
        std::memcmp(piece.data(), patterns_[channel.flow].at(channel.offset), piece.size()) != 0)
      wrong.fetch_add(1);
    channel.offset += piece.size();
    bytes.fetch_add(piece.size(), std::memory_order_relaxed);
  }
  std::vector<std::unique_ptr<PollCore>>& cores_;
  const uint64_t pause_ns_;
  const uint64_t pause_each_;
  uint64_t pause_at_ = 0;  // bytes
  uint64_t paused_until_ns_ = 0;
  std::vector<Pattern> patterns_;
  std::vector<Channel> channels_;
};

Receiver::Receiver(const ReceiverOptions& options) : options_(options) {
  const uint32_t buffer_bytes =
      options.buffer_bytes != 0 ? options.buffer_bytes : buffer_bytes_for(options.devargs, options.mtu);
  DpdkPortOptions port;
  port.devargs = options.devargs;
  port.mtu = options.mtu;
  port.queues = options.cores;
  port.buffer_bytes = buffer_bytes;
  port.rx_descriptors = 256;
  port.tx_descriptors = 256;
  const IpAddress ip = ours(options.network, options.ipv6);
  if (options.ipv6) port.groups = {multicast_mac(solicited_node(ip)), multicast_mac(kAllNodes)};
  port_ = std::make_unique<DpdkPort>(port);
  SizingNeeds needs;
  needs.ports = {port_->descriptors()};
  needs.mtu = options.mtu;
  needs.buffer_bytes = buffer_bytes;
  needs.connections_max = options.flows_max;
  needs.buffers_per_connection = options.handoff_slots;
  needs.cores = options.cores;
  const DataplaneSizing sizing = size_dataplane(needs);
  const std::string name = "t" + std::to_string(options.network) + "-";
  std::vector<BufferPool*> rx_pools;
  std::vector<BufferPool*> tx_pools;
  for (uint32_t i = 0; i < options.cores; ++i) {
    pools_.push_back(std::make_unique<BufferPool>(name + "rx" + std::to_string(i), sizing.rx_buffers,
                                                  buffer_bytes, kAnyNode));
    tx_pools_.push_back(std::make_unique<BufferPool>(name + "tx" + std::to_string(i), sizing.tx_buffers,
                                                     kTxBufferBytes, kAnyNode));
    rx_pools.push_back(pools_[i].get());
    tx_pools.push_back(tx_pools_[i].get());
  }
  port_->set_up_queues(rx_pools, tx_pools);
  if (options.cores > 1)
    mesh_ = std::make_unique<PollMesh>(options.cores, options.flows_max * options.cores, 1);
  std::vector<Agent*> agents;
  for (uint32_t i = 0; i < options.cores; ++i) {
    PollCoreConfig config;
    config.index = i;
    config.ports = {{&port_->queue(i), {PortAddress{ip}}}};
    config.connections_max = options.flows_max;
    config.handoff_slots = options.handoff_slots;
    config.tcp.mss = mss_for_mtu(options.mtu);
    config.tcp.buffer_bytes = buffer_bytes;
    config.tcp.room_behind = room_behind;
    config.mesh = mesh_.get();
    cores_.push_back(std::make_unique<PollCore>(config));
    tenants_.add(*cores_.back());
    agents.push_back(cores_[i].get());
  }
  static_cast<void>(tenants_.open({.port = kPort}));
  loader_ = std::make_unique<Loader>(cores_, options);
  agents.push_back(loader_.get());
  port_->start();
  thread_ = std::make_unique<AgentThread>(
      agents,
      AgentThreadOptions{.idle = options.idle, .enter = enter_dpdk_thread, .leave = leave_dpdk_thread});
  thread_->start();
}

Receiver::~Receiver() {
  stop();
}

void Receiver::stop() {
  thread_->stop();
  port_->stop();
}

uint32_t Receiver::buffers_missing() const {
  uint32_t missing = 0;
  for (const auto& pool : pools_) missing += pool->buffers() - pool->available();
  return missing;
}

uint64_t Receiver::count(PollCounter which) const {
  uint64_t sum = 0;
  for (const auto& core : cores_) sum += core->counters().read(which);
  return sum;
}

int Receiver::connect_socket(uint16_t port, int& error, const std::string& congestion) const {
  const int fd = socket(options_.ipv6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  timeval patience{};
  patience.tv_sec = 20;
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  const sockaddr_in address = address_of(options_.network, 2, port);
  const sockaddr_in6 address6 = address_of(ours(options_.network, true), port);
  const auto length = static_cast<socklen_t>(congestion.size());
  const bool told =
      congestion.empty() || setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, congestion.data(), length) == 0;
  const auto* const to = options_.ipv6 ? reinterpret_cast<const sockaddr*>(&address6)
                                       : reinterpret_cast<const sockaddr*>(&address);
  error = told && connect(fd, to, options_.ipv6 ? sizeof address6 : sizeof address) == 0 ? 0 : errno;
  return fd;
}

int Receiver::connect_error(uint16_t port) const {
  int error = 0;
  close(connect_socket(port, error, {}));
  return error;
}

std::vector<SenderInfo> Receiver::receive(uint32_t flows, uint64_t bytes, const SenderOptions& sender) {
  const uint64_t bytes_before = loader_->bytes;
  const uint32_t ended_before = loader_->ended;
  const auto began = steady_clock::now();
  std::vector<std::thread> senders;
  std::vector<std::string> problems(flows);
  std::vector<SenderInfo> infos(flows);
  const uint64_t frames_before = count(PollCounter::frames);
  const uint64_t cpu_before_ns = thread_->cpu_ns();
  for (uint32_t flow = 0; flow < flows; ++flow) {
    senders.emplace_back([this, flow, bytes, &problems, &infos, &sender] {
      const Pattern pattern(flow);
      int error = 0;
      // The namespace is this thread's alone, and goes with it.
      if (sender.netns >= 0 && setns(sender.netns, CLONE_NEWNET) != 0)
        problems[flow] = std::string("setns: ") + std::strerror(errno);
      const int fd = connect_socket(kPort, error, sender.congestion);
      if (error != 0) problems[flow] = std::string("connect: ") + std::strerror(error);
      std::byte number[8];
      store_be64(number, flow);
      const int at_once = sender.writes.empty() ? 0 : 1;
      setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &at_once, sizeof at_once);
      uint64_t sent = 0;
      std::size_t write = 0;
      while (problems[flow].empty() && sent < bytes) {
        const std::byte* const from = sent < 8 ? number + sent : pattern.at(sent);
        std::size_t count = sent < 8 ? 8 - sent : std::min<uint64_t>(bytes - sent, 65535);
        if (!sender.writes.empty()) count = std::min(count, sender.writes[write++ % sender.writes.size()]);
        const ssize_t done = send(fd, from, count, MSG_NOSIGNAL);
        if (done < 0) problems[flow] = std::string("send: ") + std::strerror(errno);
        if (done > 0) sent += static_cast<uint64_t>(done);
      }
      tcp_info info{};
      socklen_t length = sizeof info;
      if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) == 0)
        infos[flow] = {info.tcpi_options, info.tcpi_snd_mss, info.tcpi_total_retrans};
      close(fd);
    });
  }
  for (std::thread& thread : senders) thread.join();
  const auto deadline = steady_clock::now() + kPatience;
  while (loader_->ended - ended_before < flows && steady_clock::now() < deadline)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  const double seconds = std::chrono::duration<double>(steady_clock::now() - began).count();
  for (const std::string& problem : problems) EXPECT_EQ(problem, "");
  EXPECT_EQ(loader_->ended - ended_before, flows);
  EXPECT_EQ(loader_->bytes - bytes_before, flows * (bytes - 8));
  EXPECT_EQ(loader_->wrong, 0U);
  uint32_t sent_again = 0;
  for (const SenderInfo& info : infos) sent_again += info.sent_again;
  const uint64_t frames = count(PollCounter::frames) - frames_before;
  const double cpu_ns = static_cast<double>(thread_->cpu_ns() - cpu_before_ns);
  const double bits = static_cast<double>(flows * bytes) * 8;
  std::printf(
      "%s, %s, MTU %u, %u flows, %u cores: %.2f Gbit/s; receiver: %.0f ns of CPU per frame, %.2f Gbit per "
      "CPU second; %u segments sent again\n",
      options_.devargs.c_str(), options_.ipv6 ? "IPv6" : "IPv4", options_.mtu, flows, options_.cores,
      bits * 1e-9 / seconds, cpu_ns / static_cast<double>(frames), bits / cpu_ns, sent_again);
  return infos;
}

}  // namespace migrx::testing
