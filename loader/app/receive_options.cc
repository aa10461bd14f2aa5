#include "loader/app/receive_options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <string_view>

#include "dataplane/dpdk/dpdk_port.h"
#include "loader/app/address_check.h"
#include "loader/app/destinations.h"
#include "loader/app/tls_setup.h"

namespace migrx {
namespace {

constexpr std::array kCompressions{"none", "zlib", "zstd", "qpl", "uadk", "qatzip"};

// Capabilities that change what migrx has to do, and those that change nothing at a receiver (QEMU
// qapi/migration.json, MigrationCapability): accepted so that an operator can pass the source's list as it
// is.
constexpr std::array kCapabilitiesUsed{"xbzrle",         "compress",      "multifd",
                                       "switchover-ack", "validate-uuid", "background-snapshot",
                                       "x-colo",         "return-path",   "mapped-ram"};
constexpr std::array kCapabilitiesWithoutEffect{"rdma-pin-all",   "auto-converge",
                                                "zero-blocks",    "events",
                                                "release-ram",    "pause-before-switchover",
                                                "dirty-bitmaps",  "late-block-activate",
                                                "zero-copy-send", "dirty-limit",
                                                "block"};
constexpr std::array kCapabilitiesRefused{"postcopy-ram", "postcopy-preempt", "postcopy-blocktime",
                                          "x-ignore-shared"};

template <class Array>
bool contains(const Array& names, std::string_view name) {
  return std::any_of(names.begin(), names.end(), [&](const auto& known) { return name == known; });
}

}  // namespace

void add_receive_options(CLI::App& command, ReceiveOptions& o) {
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
                  "network, in CIDR form, of whose addresses a NAT may give the source any for each of its "
                  "connections; may repeat (default: a source has one address)")
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

  const char* const stream = "Stream (names and values as at the source)";
  command
      .add_option("--multifd-channels", o.multifd_channels, "number of multifd channels; turns multifd on")
      ->check(CLI::Range(1, 255))
      ->group(stream);
  command.add_option("--multifd-compression", o.multifd_compression, "none, zlib, zstd, qpl, uadk")
      ->check(CLI::IsMember(std::vector<std::string>(kCompressions.begin(), kCompressions.end())))
      ->capture_default_str()
      ->group(stream);
  command
      .add_option("--capability", o.capabilities, "migration capability that is on at the source; may repeat")
      ->group(stream);
  command
      .add_option("--multifd-flush-after-each-section", o.multifd_flush_after_each_section,
                  "on or off; found out from the stream when not given")
      ->group(stream);
  command
      .add_option(
          "--switchover-ack-legacy", o.switchover_ack_legacy,
          "on or off; with the capability switchover-ack and --no-handoff: whether the source waits for one "
          "SWITCHOVER_ACK (machine types up to 11.0); told by the machine type when not given")
      ->group(stream);
  command
      .add_option("--uuid", o.uuid,
                  "the guest's -uuid: every multifd channel must carry it, and main with validate-uuid")
      ->group(stream);

  const char* const encryption = "Encryption (as the destination of QEMU's tls-creds)";
  command
      .add_option("--tls-creds", o.tls_creds,
                  "x509:dir=DIR or psk:dir=DIR, and, each behind a comma, verify-peer=off, priority=STRING, "
                  "sanity-check=off, password-file=FILE; the files in DIR are QEMU's (ca-cert.pem, "
                  "server-cert.pem, server-key.pem; keys.psk)")
      ->group(encryption);
  command
      .add_option(
          "--tls-authz", o.tls_authz,
          "subject of a client certificate that may connect, exact or as a pattern, or "
          "listfile:PATH of QEMU's authz-list-file; may repeat (default: every certificate that is good)")
      ->group(encryption);

  add_job_options(command, o);

  add_core_options(command, o, "Placement");

  const char* const limits = "Limits";
  const CLI::Range seconds(0.0, 1e6);
  command
      .add_option("--identify-timeout", o.identify_timeout_s,
                  "seconds a connection may stay silent before it has "
                  "said what it is (0: for ever)")
      ->check(seconds)
      ->capture_default_str()
      ->group(limits);
  command
      .add_option("--channels-timeout", o.channels_timeout_s,
                  "seconds between the first channel and the last (0: for ever)")
      ->check(seconds)
      ->capture_default_str()
      ->group(limits);
  command
      .add_option(
          "--stall-timeout", o.stall_timeout_s,
          "seconds that channels may wait for each other, or for the destination, a source before its "
          "first page, or device state for its end without any byte moving (0: for ever)")
      ->check(seconds)
      ->capture_default_str()
      ->group(limits);
  command
      .add_option("--destination-timeout", o.destination_timeout_s,
                  "seconds behind the last byte of device state for the destination to say that it has the "
                  "guest (0: for ever)")
      ->check(seconds)
      ->capture_default_str()
      ->group(limits);

  command
      .add_option("--peer-timeout", o.peer_timeout_s,
                  "seconds of silence after which a source's connection is given up; as long as a source "
                  "with Linux bears by default (0: for ever)")
      ->check(seconds)
      ->capture_default_str()
      ->group(limits);
  command
      .add_option(
          "--linger", o.linger_s,
          "seconds that a process stays behind, after this one has given up, to reset connections whose "
          "source could not be told (0: none does, and such a source may stand still)")
      ->check(seconds)
      ->capture_default_str()
      ->group(limits);
  command
      .add_option("--runtime-dir", o.runtime_dir,
                  "folder in which that process announces itself, and where a new receive finds it (default: "
                  "/run/migrx, or migrx in $XDG_RUNTIME_DIR)")
      ->group(limits);

  const char* const reporting = "Reporting";
  command
      .add_option("--ready-fd", o.ready_fd, "file descriptor that gets one line when the source may connect")
      ->group(reporting);
  command
      .add_flag("!--no-supervisor", o.supervise,
                "run without the parent process that frees the source when this "
                "process is killed")
      ->group(reporting);
  one_word_each(command);
}

std::string check_receive_options(const ReceiveOptions& o) {
  if (o.addresses.size() != o.ports.size())
    return "every --port needs its --address: " + std::to_string(o.ports.size()) + " ports, " +
           std::to_string(o.addresses.size()) + " addresses";
  for (const std::string& port : o.ports)
    if (const std::string problem = check_devargs(port); !problem.empty())
      return "--port " + port + ": " + problem;
  if (std::string problem = check_addresses(o); !problem.empty()) return problem;
  if (std::string problem = check_destination_options(o.handoff, o.no_handoff, o.qmp); !problem.empty())
    return problem;
  if (std::string problem = check_tls_options(o.tls_creds, o.tls_authz); !problem.empty()) return problem;
  if (o.multifd_compression != "none" && o.multifd_channels == 0)
    return "--multifd-compression needs --multifd-channels";
  if (o.multifd_compression == "qatzip")
    return "--multifd-compression qatzip is not supported: set another method at the source";
  if (o.uuid && o.multifd_channels == 0 && !contains(o.capabilities, "validate-uuid"))
    return "--uuid: without multifd and validate-uuid the stream bears none: turn that capability on at the "
           "source and here";
  for (const std::string& name : o.capabilities) {
    if (contains(kCapabilitiesRefused, name))
      return "capability " + name + " is not supported: turn it off at the source (migrate_set_capability " +
             name + " off)";
    if (!contains(kCapabilitiesUsed, name) && !contains(kCapabilitiesWithoutEffect, name))
      return "capability " + name + " is unknown; names are QEMU's, e.g. xbzrle";
    if (name == "multifd" && o.multifd_channels == 0)
      return "capability multifd needs --multifd-channels with the source's number";
    if (name == "mapped-ram") return "capability mapped-ram is for files: use migrx load";
    if (name == "background-snapshot" && contains(o.capabilities, "x-colo"))
      return "capabilities background-snapshot and x-colo exclude each other";
    if ((name == "compress" || name == "x-colo") && o.multifd_channels > 0)
      return "capability " + name + " and multifd exclude each other";
  }
  return {};
}

}  // namespace migrx
