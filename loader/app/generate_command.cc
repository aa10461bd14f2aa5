#include "loader/app/generate_command.h"

#include <fmt/format.h>
#include <sys/random.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "dataplane/agent_thread.h"
#include "dataplane/dpdk/dpdk_port.h"
#include "dataplane/dpdk/eal.h"
#include "dataplane/dpdk/pool.h"
#include "loader/app/generate_options.h"
#include "loader/app/network.h"
#include "loader/app/session_report.h"
#include "loader/app/signals.h"
#include "loader/app/terminal.h"
#include "loader/generate/generator.h"
#include "numa/clock.h"

namespace migrx {
namespace {

// Buffers of frames that the device still has to send, and of those being filled.
constexpr uint32_t kTxBuffers = 2047;
constexpr uint32_t kRxBuffers = 2047;
constexpr uint32_t kEphemeralFirst = 49152;  // RFC 6335 section 6
// Bytes of pages whose content the pool holds: within a core's second-level cache, or beyond
// any compressor's window.
constexpr uint32_t kPoolPagesPlain = 128;
constexpr uint32_t kPoolPagesCompressed = 4096;

// EAL, pools and the port, in the order in which they need each other.
struct Link {
  std::unique_ptr<Eal> eal;
  std::unique_ptr<BufferPool> rx_pool;
  std::unique_ptr<BufferPool> tx_pool;
  std::unique_ptr<DpdkPort> port;
};

Link open_link(const GenerateOptions& options, const IpAddress& local, uint32_t buffer_bytes) {
  EalOptions eal;
  eal.memory_bytes = BufferPool::memory_bytes(kRxBuffers, buffer_bytes) +
                     BufferPool::memory_bytes(kTxBuffers, buffer_bytes) + (32U << 20);
  eal.port_devargs = {options.port};
  eal.extra_args = options.eal;
  Link link;
  link.eal = std::make_unique<Eal>(eal);
  link.rx_pool = std::make_unique<BufferPool>("rx", kRxBuffers, buffer_bytes, kAnyNode);
  link.tx_pool = std::make_unique<BufferPool>("tx", kTxBuffers, buffer_bytes, kAnyNode);
  DpdkPortOptions port;
  port.devargs = options.port;
  port.mtu = options.mtu;
  port.rx_descriptors = rx_descriptors_for(options.port, options.mtu, buffer_bytes, 512);
  port.tx_descriptors = 512;
  port.buffer_bytes = buffer_bytes;
  if (!local.is_ipv4()) port.groups = {multicast_mac(solicited_node(local))};
  link.port = std::make_unique<DpdkPort>(std::move(port));
  link.port->set_up_queues({link.rx_pool.get()}, {link.tx_pool.get()});
  return link;
}

void write_image(const GuestImage& image, const std::string& path) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  std::vector<std::byte> chunk;
  for (uint64_t page = 0; page < image.settings().pages;) {
    const uint64_t n = std::min<uint64_t>(256, image.settings().pages - page);
    chunk.resize(n * kGuestPageBytes);
    for (uint64_t i = 0; i < n; ++i, ++page)
      image.read(image.last_version(page), 0, std::span{chunk}.subspan(i * kGuestPageBytes, kGuestPageBytes));
    file.write(reinterpret_cast<const char*>(chunk.data()), static_cast<std::streamsize>(chunk.size()));
  }
  if (!file.flush()) throw SetupError("--image " + path + ": cannot be written");
}

// The client's side of --tls-creds; nothing: without TLS.
std::optional<TlsSourceSettings> tls_of(const GenerateOptions& options, const GenerateTarget& target,
                                        Terminal& terminal) {
  if (!options.tls_creds) return std::nullopt;
  TlsCredsOptions creds;
  std::string problem = parse_tls_creds(*options.tls_creds, creds, TlsCredsOptions::Endpoint::client);
  TlsSourceSettings settings;
  settings.host = target.host;
  if (problem.empty()) settings.credentials = TlsCredentials::load(creds, problem);
  if (settings.credentials == nullptr) throw SetupError("--tls-creds: " + problem);
  for (const TlsCredentials::Lifetime& lifetime : settings.credentials->lifetimes())
    if (const std::string warning = lifetime.warning(std::time(nullptr)); !warning.empty())
      terminal.warn("warning: " + warning);
  return settings;
}

nlohmann::ordered_json describe_tls(const Generator& generator, uint32_t streams) {
  uint64_t records = 0;
  uint64_t key_updates = 0;
  std::string session;
  for (uint32_t i = 0; i < streams; ++i) {
    const SealedStream* const sealed = generator.sealed(i);
    if (sealed == nullptr) continue;
    records += sealed->records();
    key_updates += sealed->key_updates();
    if (session.empty()) session = sealed->description();
  }
  return {{"session", session}, {"records", records}, {"key_updates", key_updates}};
}

nlohmann::ordered_json describe(const GenerateOptions& options, const Generator& generator,
                                GuestSource& source, const AgentThreadCounters& thread, double cpu_s,
                                double make_s) {
  nlohmann::ordered_json report;
  report["command"] = "generate";
  report["version"] = MIGRX_VERSION;
  report["outcome"] = generator.accepted() ? "complete" : generator.ram_loaded() ? "ram-loaded" : "failed";
  report["problem"] = generator.problem();
  report["destination"] = options.destination;
  report["port"] = options.port;
  report["mtu"] = options.mtu;
  report["guest"] = {{"bytes", options.size},
                     {"seed", options.seed},
                     {"zero_percent", options.zero_percent},
                     {"compressible_percent", options.compressible_percent},
                     {"rounds", options.rounds},
                     {"dirty_percent", options.dirty_percent}};
  report["multifd"] = {{"channels", options.multifd_channels}, {"compression", options.multifd_compression}};
  if (options.tls_creds) report["tls"] = describe_tls(generator, source.streams());
  uint64_t stream_bytes = 0;
  uint64_t segments = 0;
  auto channels = nlohmann::ordered_json::array();
  for (uint32_t i = 0; i < source.streams(); ++i) {
    const TcpSender* const sender = generator.sender(i);
    if (sender == nullptr) continue;
    const TcpSenderCounters& c = sender->counters();
    stream_bytes += sender->acknowledged();
    segments += c.segments;
    channels.push_back(
        {{"channel", i == 0 ? "main" : "multifd " + std::to_string(i - 1)},
         {"bytes", sender->acknowledged()},
         {"segments", c.segments},
         {"resent_segments", c.resent_segments},
         {"resent_bytes", c.resent_bytes},
         {"fast_recoveries", c.fast_recoveries},
         {"timeouts", c.timeouts},
         {"tail_probes", c.tail_probes},
         {"window_probes", c.window_probes},
         {"window_closed", c.window_closed},
         {"cwnd_limited", c.cwnd_limited},
         {"acks_heard", c.acks_heard},
         {"cwnd_bytes", sender->cwnd()},
         {"srtt_us", static_cast<double>(sender->srtt_ns()) * 1e-3},
         {"rtt_min_us",
          sender->rtt_min_ns() == kNever ? 0.0 : static_cast<double>(sender->rtt_min_ns()) * 1e-3},
         {"segment_bytes", sender->segment_bytes()}});
  }
  const double seconds = generator.ram_loaded()
                             ? static_cast<double>(generator.ram_loaded_ns() - generator.started_ns()) * 1e-9
                             : -1;
  const double busy_s = static_cast<double>(thread.busy_ns.read()) * 1e-9;
  report["seconds"] = seconds;
  report["guest_bytes_sent"] = source.guest_bytes();
  report["zero_pages"] = source.zero_pages();
  report["normal_pages"] = source.normal_pages();
  report["multifd_packets"] = source.packets();
  report["stream_bytes"] = stream_bytes;
  report["guest_bytes_per_s"] = seconds > 0 ? static_cast<double>(source.guest_bytes()) / seconds : 0;
  report["stream_bytes_per_s"] = seconds > 0 ? static_cast<double>(stream_bytes) / seconds : 0;
  report["segments"] = segments;
  report["frames"] = {{"sent", generator.frames_sent()},
                      {"received", generator.frames_received()},
                      {"dropped", generator.frames_dropped()}};
  report["thread"] = {
      {"busy_s", busy_s},
      {"idle_s", static_cast<double>(thread.idle_ns.read()) * 1e-9},
      {"busy_ns_per_segment", segments > 0 ? busy_s * 1e9 / static_cast<double>(segments) : 0},
      {"busy_cycles_per_segment",
       segments > 0 ? busy_s * static_cast<double>(tsc_hz()) / static_cast<double>(segments) : 0}};
  report["cpu_s"] = cpu_s;
  report["make_s"] = make_s;
  report["channels"] = std::move(channels);
  return report;
}

int generate(const GenerateOptions& options) {
  const SignalWatch signals;
  StandardTerminal terminal(options.quiet);
  try {
    GenerateTarget target;
    if (const std::string problem = check_generate_options(options, target); !problem.empty())
      throw SetupError(problem);
    GuestImageSettings guest;
    guest.seed = options.seed;
    guest.pages = options.size / kGuestPageBytes;
    guest.zero_percent = options.zero_percent;
    guest.compressible_percent = options.compressible_percent;
    guest.rounds = options.rounds;
    guest.dirty_percent = options.dirty_percent;
    guest.pool_pages = options.multifd_compression == "none" ? kPoolPagesPlain : kPoolPagesCompressed;
    const GuestImage image(guest);
    if (options.image) write_image(image, *options.image);

    GuestSourceSettings stream;
    stream.block = options.block;
    stream.machine = options.machine;
    stream.channels = options.multifd_channels;
    stream.method = parse_multifd_method(options.multifd_compression).value_or(MultifdMethod::none);
    stream.level = options.multifd_level.value_or(1);
    stream.bytes_per_second = options.max_bandwidth;
    GuestSource source(stream, image);
    const uint64_t make_began_ns = monotonic_ns();
    if (options.prepare) source.make_all();
    const double make_s = static_cast<double>(monotonic_ns() - make_began_ns) * 1e-9;

    const uint32_t buffer_bytes = buffer_bytes_for(options.port, options.mtu);
    Link link = open_link(options, target.local.address, buffer_bytes);
    for (const std::string& warning : link.port->warnings()) terminal.warn("warning: " + warning);
    GeneratorConfig config;
    config.local_ip = target.local.address;
    config.remote_ip = target.remote;
    config.next_hop = target.next_hop;
    config.remote_port = target.port;
    if (options.vlan) config.vlan = *options.vlan;
    const FourTuple tuple{target.remote, target.local.address, 0, 0};
    TcpConfig tcp;
    tcp.mss = mss_for_mtu(options.mtu);
    config.tcp.mss = static_cast<uint16_t>(
        std::min<uint32_t>(mss_for(tcp, tuple), link.tx_pool->buffer_bytes() - kHeaderBytesMax));
    config.tcp.congestion_control = options.congestion_control;
    config.tls = tls_of(options, target, terminal);
    config.answer_timeout_ns = static_cast<uint64_t>(options.timeout_s * 1e9);
    if (::getrandom(&config.secret, sizeof config.secret, 0) != static_cast<ssize_t>(sizeof config.secret))
      throw SetupError("the kernel gives no random numbers");
    // Random, so that a run does not meet what a peer remembers of the one before.
    config.first_local_port = options.local_port.value_or(static_cast<uint16_t>(
        kEphemeralFirst + config.secret % (65535U - kEphemeralFirst - options.multifd_channels)));
    Generator generator(config, link.port->queue(0), source);

    AgentThreadOptions thread_options;
    if (options.cpu) thread_options.cpu = CpuId{*options.cpu};
    thread_options.idle = parse_idle_strategy(options.idle).value_or(IdleStrategy::yield);
    thread_options.enter = enter_dpdk_thread;
    thread_options.leave = leave_dpdk_thread;
    AgentThread thread({&generator}, std::move(thread_options));
    link.port->start();
    thread.start();
    const double began_s = static_cast<double>(monotonic_ns()) * 1e-9;
    double cpu_s = 0;
    while (generator.phase() != GeneratorPhase::over) {
      if (const int signal = signals.wait(1000); signal != 0) {
        terminal.warn(fmt::format("signal {}: ending", signal));
        generator.request_cancel();
      }
      cpu_s = static_cast<double>(thread.cpu_ns()) * 1e-9;
      const double now_s = static_cast<double>(monotonic_ns()) * 1e-9;
      if (terminal.due())
        terminal.progress(fmt::format("{:7.1f}s {:.2f} GB acknowledged", now_s - began_s,
                                      static_cast<double>(generator.acknowledged_bytes()) * 1e-9));
    }
    thread.stop();
    link.port->stop();

    const nlohmann::ordered_json report =
        describe(options, generator, source, thread.counters(), cpu_s, make_s);
    if (generator.ram_loaded())
      terminal.say(fmt::format(
          "{}: {:.2f} GiB of guest RAM in {:.3f} s, {:.2f} GB/s of stream",
          report["outcome"].get<std::string>(), static_cast<double>(source.guest_bytes()) / (1ULL << 30),
          report["seconds"].get<double>(), report["stream_bytes_per_s"].get<double>() * 1e-9));
    if (!generator.problem().empty()) terminal.warn(generator.problem());
    if (options.report) {
      std::ofstream file(*options.report, std::ios::trunc);
      file << report.dump(2) << "\n";
      if (!file.flush()) throw SetupError("--report " + *options.report + ": cannot be written");
    }
    return generator.ram_loaded() ? 0 : 1;
  } catch (const std::exception& problem) {
    terminal.warn(problem.what());
    return 2;
  }
}

}  // namespace

void add_generate_command(CLI::App& app, int& exit_status) {
  auto options = std::make_shared<GenerateOptions>();
  CLI::App* const command =
      app.add_subcommand("generate", "send a made-up guest, to measure a receiver and the way to it");
  add_generate_options(*command, *options);
  command->callback([options, &exit_status] { exit_status = generate(*options); });
}

}  // namespace migrx
