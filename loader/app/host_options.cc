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
  command.add_option("--listen", o.listen, "TCP port the source connects to")
      ->capture_default_str()
      ->group(network);
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
      .add_option("--allow", o.allow,
                  "network that may connect, in CIDR form; may repeat (default: the port's "
                  "own subnets; anyone of a family that has a --gateway)")
      ->group(network);
  command
      .add_option("--source-nat", o.source_nat,
                  "network, in CIDR form, from which a NAT may give each of the source's connections another "
                  "address; may repeat (default: a source has one address)")
      ->group(network);
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
}

std::string check_host_options(const HostOptions& o) {
  if (o.addresses.size() != o.ports.size())
    return "every --port needs its --address: " + std::to_string(o.ports.size()) + " ports, " +
           std::to_string(o.addresses.size()) + " addresses";
  for (const std::string& port : o.ports)
    if (const std::string problem = check_devargs(port); !problem.empty())
      return "--port " + port + ": " + problem;
  return check_addresses(o);
}

}  // namespace migrx
