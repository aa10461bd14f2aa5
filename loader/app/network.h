// The dataplane of one process, built from options: EAL, pools, ports, mesh, poll cores.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "dataplane/dpdk/dpdk_port.h"
#include "dataplane/dpdk/eal.h"
#include "dataplane/dpdk/pool.h"
#include "dataplane/owner_table.h"
#include "dataplane/poll_core.h"
#include "dataplane/tenants.h"
#include "loader/app/host_options.h"
#include "loader/app/link_watch.h"
#include "loader/app/report.h"
#include "loader/app/setup_error.h"
#include "loader/app/traffic_watch.h"
#include "numa/placement.h"

namespace migrx {

class Network {
 public:
  // Everything up to ports that are ready to start. connections: that may be open at a time, of all tenants
  // together. runtime_folder: where receivers tell each other what memory they are about to take; empty:
  // nowhere. Throws SetupError, DpdkError.
  Network(const HostOptions& options, const Placement& placement, uint32_t connections,
          const std::string& runtime_folder);
  ~Network();
  Network(const Network&) = delete;
  Network& operator=(const Network&) = delete;

  // After start() frames arrive in the queues; the poll cores' threads may run.
  void start();
  // Who listens on the ports' addresses. Control thread.
  [[nodiscard]] Tenants& tenants() noexcept { return tenants_; }
  // Ports at which a SYN is left unanswered while it is found out who listens. Any thread.
  [[nodiscard]] AwaitedPorts& awaited_ports() noexcept { return awaited_ports_; }
  // --allow, checked; where it is empty, the ports' own subnets, or everybody of a family that has a gateway.
  // Throws SetupError.
  [[nodiscard]] std::vector<IpNetwork> allowed(const std::vector<std::string>& allow) const;
  // The poll cores' threads have stopped.
  void stop() noexcept;

  [[nodiscard]] PollCore& poll_core(uint32_t i) noexcept { return *poll_cores_[i]; }
  [[nodiscard]] uint32_t poll_cores() const noexcept { return static_cast<uint32_t>(poll_cores_.size()); }
  // The next new connection of any poll core. Control thread.
  [[nodiscard]] Handoff* take_accepted() noexcept;
  // How reset mode would find the peer of a connection; and a number that no other open connection has.
  [[nodiscard]] LostConnection whereabouts(const Handoff& connection) const noexcept;
  [[nodiscard]] uint32_t place(const Handoff& connection) const noexcept;
  [[nodiscard]] uint32_t ports() const noexcept { return static_cast<uint32_t>(ports_.size()); }
  // A port as poll core `core` has it, and its devargs.
  [[nodiscard]] const PollPort& poll_port(uint32_t port, uint32_t core) const noexcept {
    return poll_cores_[core]->config().ports[port];
  }
  [[nodiscard]] const std::string& port_name(uint32_t port) const noexcept { return ports_[port]->devargs(); }
  enum class Links : uint8_t { all, without_peer };  // the latter: not those that come with it (link_watch.h)
  // Devargs of a port whose link is down; empty: all are up. One thread at a time.
  [[nodiscard]] std::string first_link_down(Links which) const;
  // What is wrong with the path, a line once each; empty: nothing new. Control thread.
  [[nodiscard]] std::string look_at_traffic(double now_s);
  // Links that came or went since the last call, a line for each; those that came are announced
  // anew. Control thread.
  [[nodiscard]] std::vector<std::string> look_at_links(double now_s);
  // A line, once, when another host says that it has one of the addresses. Empty: no host does, or the line
  // has been given.
  [[nodiscard]] std::string take_conflict();
  // The first address of the first port, as text.
  [[nodiscard]] std::string first_address() const;
  // Places that tenants may be promised, on each poll core.
  [[nodiscard]] uint32_t places() const noexcept { return poll_cores_[0]->config().connections_max; }
  // TCP connections that are not finished.
  [[nodiscard]] uint32_t connections() const noexcept;
  [[nodiscard]] std::vector<std::string> warnings() const;
  // Counters of all poll cores and ports, and the pools' state; while they run, too.
  void report(Report& report) const;

 private:
  std::vector<std::vector<PortAddress>> addresses_;  // of each port
  std::vector<IpNetwork> allowed_by_default_;
  std::unique_ptr<Eal> eal_;
  std::vector<std::unique_ptr<BufferPool>> rx_pools_;
  std::vector<std::unique_ptr<BufferPool>> tx_pools_;
  std::vector<std::unique_ptr<DpdkPort>> ports_;
  std::unique_ptr<LinkWatch> links_;
  bool conflict_told_ = false;
  TrafficWatch traffic_watch_;
  std::unique_ptr<PollMesh> mesh_;
  AwaitedPorts awaited_ports_;
  std::vector<std::unique_ptr<PollCore>> poll_cores_;
  Tenants tenants_;
};

}  // namespace migrx
