#include "loader/app/host_options.h"

#include <CLI/CLI.hpp>

#include "dataplane/dpdk/dpdk_port.h"
#include "loader/app/address_check.h"

namespace migrx {

void add_host_options(CLI::App& command, HostOptions& o) {
  const char* const network = "Network";
  command
      .add_option("--port", o.ports,
                  "DPDK devargs of a port: a PCI address, or a vdev such as net_tap0,iface=mig0")
      ->required()
      ->group(network)
      ->type_name("DEVARGS");
  command
      .add_option("--address", o.addresses,
                  "address of the port with its prefix length, IPv4 or IPv6, or several with commas between; "
                  "one --address per --port")
      ->required()
      ->group(network)
      ->type_name("ADDRESS/N[,ADDRESS/N...]");
  command.add_option("--mtu", o.mtu, "MTU of the link; the MSS announced follows from it")
      ->check(CLI::Range(576, 65535))
      ->capture_default_str()
      ->group(network);
  command
      .add_option("--gateway", o.gateway,
                  "gateway for sources outside the subnet, or one of each family with a comma between "
                  "(default: answer to the MAC a segment came from)")
      ->group(network);
  command
      .add_flag("!--no-probe", o.probe,
                "use --address without asking first whether another host has it (RFC 5227, RFC 4862)")
      ->group(network);
  command
      .add_option("--link-timeout", o.link_timeout_s,
                  "seconds to wait at the start for each port's link (0: start without one; default: 60, and "
                  "a port of memif or vhost, whose link comes with its peer, is not waited for)")
      ->check(CLI::Range(0.0, 1e6))
      ->group(network);
  command.add_option("--vlan", o.vlan, "VLAN tag to send with")->check(CLI::Range(1, 4094))->group(network);
  command
      .add_option("--pool-mbufs", o.pool_mbufs,
                  "packet buffers per poll core (default: chosen; less than the "
                  "minimum is refused)")
      ->group(network);
  command
      .add_option("--window", o.window_bytes,
                  "largest TCP window per connection in bytes (default: 1 MiB, or more if the round trip "
                  "asks for it)")
      ->transform(CLI::AsSizeValue(false))
      ->group(network);
  command.add_option("--eal", o.eal, "extra EAL arguments, as one word")->group(network);

  const char* const limits = "Limits";
  const CLI::Range seconds(0.0, 1e6);
  command
      .add_option("--peer-timeout", o.peer_timeout_s,
                  "seconds of silence after which a source's connection is given up; the default is as long "
                  "as a Linux source's TCP waits (0: for ever)")
      ->check(seconds)
      ->capture_default_str()
      ->group(limits);
  command
      .add_option("--linger", o.linger_s,
                  "once migrx has given up: seconds that a small process stays to reset connections whose "
                  "source could not be told (0: no such process, and that source's guest may stand still)")
      ->check(seconds)
      ->capture_default_str()
      ->group(limits);
  command
      .add_flag(
          "--telemetry", o.telemetry,
          "answer dpdk-telemetry.py: DPDK's own commands, and sessions, cores, tcp and pools below /migrx/")
      ->group("Reporting");
}

std::string check_host_options(const HostOptions& o, const TenantOptions& tenant) {
  if (o.addresses.size() != o.ports.size())
    return "every --port needs its --address: " + std::to_string(o.ports.size()) + " ports, " +
           std::to_string(o.addresses.size()) + " addresses";
  for (const std::string& port : o.ports)
    if (const std::string problem = check_devargs(port); !problem.empty())
      return "--port " + port + ": " + problem;
  return check_addresses(o, tenant);
}

}  // namespace migrx
