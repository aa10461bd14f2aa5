#include "loader/app/forwards.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "dataplane/wire/address_text.h"
#include "loader/app/address_list.h"
#include "loader/app/setup_error.h"
#include "loader/app/signals.h"
#include "loader/destination/socket_diag.h"
#include "numa/clock.h"

namespace migrx {
namespace {

constexpr std::size_t kWarnedMax = 16;
// QEMU's NBD server has a queue as long as the host allows (blockdev-nbd.c, nbd_server_start: SOMAXCONN); VNC
// and other listeners of one client have a short one, and are not for the migration's network.
constexpr uint32_t kNbdBacklogMin = 256;
// A source that has ended its block jobs has closed their connections before its migration is complete.
constexpr uint64_t kFarewellNs = 5'000'000'000;
constexpr int kFarewellPauseUs = 1000;

// The destination QEMU; nullopt: it is not known, or is not one process.
std::optional<pid_t> destination_process(const JobOptions& options, const SocketAddress& handoff) {
  if (options.destination_pid) return *options.destination_pid;
  std::string problem;
  const std::optional<ListenSocket> listener =
      find_listener(handoff, handoff.path, /*network_namespace=*/-1, problem);
  if (!listener) return std::nullopt;
  const std::vector<pid_t> processes = processes_with_socket(listener->inode);
  return processes.size() == 1 ? std::optional{processes.front()} : std::nullopt;
}

bool is_loopback(const SocketAddress& address) {
  IpAddress ip;
  return parse_ip_address(address.host.c_str(), ip) && ip.is_loopback();
}

}  // namespace

Forwards::Forwards(const ReceiveOptions& options, const ForwardPlan& plan, const Surroundings& surroundings)
    : options_(options), at_(surroundings) {
  if (plan.ports() == 0) return;
  for (const std::string& text : options.source_nat)
    if (IpNetwork network; parse_network(text, network)) nat_.add(network);
  std::optional<WatchedProcess> watched;
  if (plan.range) {
    static_cast<void>(parse_socket_address(*options.handoff, handoff_));  // the plan has seen that it is one
    if (const std::optional<pid_t> process = destination_process(options, handoff_))
      watched = {*process, plan.range->first, plan.range->last, handoff_.port};
    else if (!options.forward_range.empty())
      at_.warn(
          "--forward-range: the process that listens at --handoff is not known, so no NBD server of it is "
          "found: give --destination-pid");
  }
  for (const ForwardRule& rule : plan.rules) listen(rule.port, rule.server, 0);
  if (!plan.rules.empty() || watched) thread_ = std::make_unique<ForwardThread>(watched, ForwardLimits{});
  look();
}

Forwards::~Forwards() {
  if (thread_ == nullptr) return;
  ports_.clear();
  thread_->stop();
  for (const ForwardThread::Ended& ended : thread_->take_news().ended) on_ended(ended);
}

void Forwards::listen(uint16_t number, const SocketAddress& server, uint64_t inode) {
  TenantConfig tenant;
  tenant.port = number;
  tenant.allow = at_.host.network().allowed(options_.allow);
  tenant.places_max = ForwardPlan::kPlaces;
  tenant.server_speaks_first = true;
  ports_.push_back(
      {number, server, inode, std::make_unique<OpenPort>(at_.host.network(), at_.arrivals, tenant)});
  at_.terminal.say(fmt::format("forwarding: connections to port {} go to {}{}", number, server.text,
                               inode != 0 ? ", where the destination QEMU has another server" : ""));
}

void Forwards::on_found(const PortListener& listener) {
  if (listener.backlog < kNbdBacklogMin) return;
  const auto has_port = [&](const Port& port) { return port.number == listener.port; };
  if (std::any_of(ports_.begin(), ports_.end(), has_port)) return;
  const std::string what =
      fmt::format("the destination QEMU's server on port {} is not forwarded: ", listener.port);
  SocketAddress server;
  if (!parse_socket_address(listener.address, server).empty()) return;
  const std::string advice = fmt::format("--forward PORT={}", listener.address.substr(4));
  if (listener.port == options_.listen)
    return warn_once(what + "that is the port of --listen: choose another one, or give " + advice);
  if (!is_loopback(server) && server.host != handoff_.host)
    return warn_once(what + "it listens on another address than loopback: give " + advice);
  if (std::any_of(ports_.begin(), ports_.end(), [](const Port& port) { return port.inode != 0; }))
    return warn_once(what + "one is forwarded already: give " + advice);
  try {
    listen(listener.port, server, listener.inode);
  } catch (const SetupError& problem) {
    warn_once(what + problem.what());
  }
}

void Forwards::look() {
  if (thread_ == nullptr) return;
  const ForwardThread::News news = thread_->take_news();
  for (const ForwardThread::Ended& ended : news.ended) on_ended(ended);
  // Before those that have appeared: a server may have been stopped and started anew.
  for (const PortListener& gone : news.gone)
    std::erase_if(ports_, [&](const Port& port) { return port.inode == gone.inode; });
  for (const PortListener& listener : news.appeared) on_found(listener);
  if (!news.problem.empty() && !options_.forward_range.empty())
    warn_once("--forward-range: servers of the destination QEMU cannot be found: " + news.problem);
  for (const Port& port : ports_)
    while (Handoff* const connection = port.open->take()) admit(port, *connection);
}

void Forwards::admit(const Port& port, Handoff& connection) {
  const IpAddress source = nat_.source_of(connection.peer_address);
  // Two hosts that write to the guest's disks at a time are one too many.
  if (!active_.empty() && source != source_) {
    warn_once(
        fmt::format("{} connected to port {}, which another source uses, and was reset: name the "
                    "source with --allow",
                    connection.peer.data(), port.number));
    static_cast<void>(connection.abort());
    connection.detach();
    return give_back(connection);
  }
  source_ = source;
  active_[&connection] = {port.number, port.server.text, connection.peer.data(), monotonic_ns()};
  thread_->take(connection, port.server);
}

void Forwards::on_ended(const ForwardThread::Ended& ended) {
  const auto found = active_.find(ended.connection);
  if (found != active_.end()) {
    const Active& was = found->second;
    const double seconds = static_cast<double>(monotonic_ns() - was.since_ns) * 1e-9;
    const double mib = static_cast<double>(ended.bytes_to_server) / (1 << 20);
    const std::string text =
        fmt::format("forwarded for {} from port {} to {}: {:.1f} MiB in {:.1f} s, {} bytes back; {}",
                    was.peer, was.port, was.server, mib, seconds, ended.bytes_to_peer, to_text(ended.end));
    const bool is_usual = ended.end == Forward::End::orderly || ended.end == Forward::End::peer_gone;
    if (is_usual)
      at_.terminal.say(text);
    else
      at_.terminal.warn("warning: " + text);
    active_.erase(found);
  }
  give_back(*ended.connection);
}

void Forwards::give_back(Handoff& connection) {
  at_.live_connections.ended(at_.host.network().place(connection));
  connection.retire();
}

void Forwards::finish(bool completed, const SignalWatch& signals) {
  if (thread_ == nullptr) return;
  look();
  ports_.clear();
  const uint64_t until_ns = monotonic_ns() + kFarewellNs;
  while (completed && !active_.empty() && monotonic_ns() < until_ns && !signals.pending()) {
    look();
    static_cast<void>(signals.wait(kFarewellPauseUs));
  }
  thread_->stop();
  look();
}

// Its text may name a peer, so it is bounded.
void Forwards::warn_once(const std::string& text) {
  if (warned_.size() < kWarnedMax && warned_.insert(text).second) at_.warn(text);
}

}  // namespace migrx
