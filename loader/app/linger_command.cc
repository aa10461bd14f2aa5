#include "loader/app/linger_command.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <syslog.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <array>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <thread>

#include "dataplane/agent_thread.h"
#include "dataplane/dpdk/eal.h"
#include "loader/app/host_options.h"
#include "loader/app/linger.h"
#include "loader/app/network.h"
#include "loader/app/runtime_folder.h"
#include "loader/app/signals.h"
#include "numa/clock.h"

namespace migrx {
namespace {

// Refusing needs no windows.
constexpr uint64_t kWindowBytes = 65536;
constexpr uint32_t kNoConnections = 1;  // nobody listens
// A source that waits to be told has waited for minutes: 5000 turns a second for 20 minutes would be waste.
constexpr uint32_t kSleepNs = 2'000'000;
// After a receiver was killed: its connections of the last moment are not known, and those of them that have
// something to say repeat it, or their SYN, at doubled intervals from 1 s on (RFC 6298).
constexpr uint64_t kKilledQuietNs = 10'000'000'000;
constexpr uint64_t kSignalNs = 1'000'000'000;  // a second one counts from here on

struct LingerOptions {
  std::string announced;  // name in the folder; empty: it is not
  std::string runtime_dir;
};

std::string read_all(int fd) {
  std::string text;
  std::array<char, 65536> buffer;
  for (ssize_t n; text.size() <= kLostRecordBytesMax && (n = ::read(fd, buffer.data(), buffer.size())) > 0;)
    text.append(buffer.data(), static_cast<std::size_t>(n));
  return text;
}

HostOptions port_options(const LostRecord& record) {
  HostOptions options;
  options.ports = record.ports;
  options.addresses = record.addresses;
  options.gateway = record.gateway;
  options.vlan = record.vlan;
  options.mtu = record.mtu;
  options.eal = record.eal;
  options.window_bytes = kWindowBytes;
  return options;
}

// Serves a receiver that wants the port: on a thread of its own, since DPDK's start takes its time.
class Doorkeeper {
 public:
  Doorkeeper(LostRecord record, std::shared_ptr<const ResetBoard> board, const LingerOptions& options)
      : record_(std::move(record)), board_(std::move(board)), stop_(::eventfd(0, EFD_CLOEXEC)) {
    if (options.announced.empty()) return;
    std::string problem;
    folder_ = RuntimeFolder::open(options.runtime_dir, problem);
    name_ = options.announced;
    thread_ = std::thread([this] { run(); });
  }
  ~Doorkeeper() {
    if (!thread_.joinable()) return;
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t ignored = ::write(stop_.get(), &one, sizeof one);
    thread_.join();
  }
  Doorkeeper(const Doorkeeper&) = delete;
  Doorkeeper& operator=(const Doorkeeper&) = delete;
  // No peer is left to be told, or the time is over.
  void withdraw() const noexcept {
    if (folder_) folder_->withdraw(name_);
  }
  [[nodiscard]] LostRecord now() const {
    LostRecord record = record_;
    record.process = ::getpid();
    record.lost.clear();
    for (std::size_t i = 0; i < record_.lost.size(); ++i)
      if (board_->state(i) != ResetBoard::State::closed) record.lost.push_back(record_.lost[i]);
    return record;
  }

 private:
  void run() const {
    for (;;) {
      std::array<pollfd, 2> fds{{{kLingerSocket, POLLIN, 0}, {stop_.get(), POLLIN, 0}}};
      if (::poll(fds.data(), fds.size(), -1) < 0 && errno != EINTR) return;
      if (fds[1].revents != 0) return;
      const Descriptor client(::accept4(kLingerSocket, nullptr, nullptr, SOCK_CLOEXEC));
      if (!client || !serve_takeover(client, [this] { return now(); })) continue;
      ::syslog(LOG_INFO, "a new receiver takes over %s and %zu connections", record_.ports.front().c_str(),
               now().lost.size());
      withdraw();
      // At once, whatever the other thread is at: the kernel takes the port from a process that is gone.
      std::_Exit(0);
    }
  }

  const LostRecord record_;
  const std::shared_ptr<const ResetBoard> board_;
  std::optional<RuntimeFolder> folder_;
  std::string name_;
  Descriptor stop_;
  std::thread thread_;
};

int linger(const LingerOptions& options) {
  const std::optional<LostRecord> record = lost_record_from(read_all(STDIN_FILENO));
  if (!record) {
    std::fprintf(stderr,
                 "migrx receive starts migrx linger when it gives up, with a record on stdin: there is no "
                 "need to run it by hand\n");
    return 2;
  }
  const SignalWatch signals;
  ::openlog("migrx", LOG_PID, LOG_DAEMON);
  const auto board = std::make_shared<ResetBoard>(record->lost.size());
  const Doorkeeper doorkeeper(*record, board, options);
  ::syslog(LOG_NOTICE, "resetting %zu connections of a receiver that gave up, by %s", record->lost.size(),
           record->ports.front().c_str());
  try {
    // One thread that sleeps when idle: there is nothing to be fast for.
    Placement placement;
    placement.poll_agents = 1;
    placement.threads.push_back({CpuId{0}, kAnyNode, {{AgentRole::poll, 0, kAnyNode}}});
    const HostOptions options_of_ports = port_options(*record);
    Network network(options_of_ports, placement, kNoConnections, usable_runtime_folder(options.runtime_dir));
    ResetModeConfig config;
    const uint64_t now_ns = boottime_ns();
    config.max_ns = record->until_ns > now_ns ? record->until_ns - now_ns : 0;
    if (record->killed) config.quiet_ns = kKilledQuietNs;
    config.lost = record->lost;
    config.board = board;
    (void)network.poll_core(0).request_reset_mode(config);
    AgentThreadOptions thread_options;
    thread_options.idle = IdleStrategy::sleep;
    thread_options.sleep_ns = kSleepNs;
    thread_options.enter = enter_dpdk_thread;
    thread_options.leave = leave_dpdk_thread;
    AgentThread thread({&network.poll_core(0)}, std::move(thread_options));
    network.start();
    thread.start();
    uint64_t signalled_ns = 0;
    while (!network.poll_core(0).reset_mode_over()) {
      if (signals.wait(10'000) == 0) continue;
      const uint64_t at_ns = monotonic_ns();
      if (signalled_ns != 0 && at_ns - signalled_ns >= kSignalNs) break;
      if (signalled_ns == 0) signalled_ns = at_ns;
      ::syslog(LOG_NOTICE, "%zu sources have not been told yet; a second signal ends this process regardless",
               doorkeeper.now().lost.size());
    }
    thread.stop();
    network.stop();
    const std::size_t left = doorkeeper.now().lost.size();
    ::syslog(left == 0 ? LOG_INFO : LOG_WARNING, "over; %zu connections were not seen to be gone", left);
    doorkeeper.withdraw();
    return 0;
  } catch (const std::exception& problem) {
    // The record stays: the next receiver on this port takes the list from it.
    ::syslog(LOG_ERR, "cannot reset the source's connections: %s", problem.what());
    return 1;
  }
}

}  // namespace

void add_linger_command(CLI::App& app, int& exit_status) {
  auto options = std::make_shared<LingerOptions>();
  CLI::App* const command = app.add_subcommand("linger",
                                               "resets the connections of a receive that gave up; receive "
                                               "starts this command itself, with a record on stdin");
  command->add_option("--announced", options->announced,
                      "name of its socket and record in the runtime folder");
  command->add_option("--runtime-dir", options->runtime_dir, "that folder");
  command->callback([options, &exit_status] { exit_status = linger(*options); });
}

}  // namespace migrx
