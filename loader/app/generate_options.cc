#include "loader/app/generate_options.h"

#include <CLI/CLI.hpp>
#include <charconv>
#include <string_view>
#include <vector>

#include "dataplane/dpdk/dpdk_port.h"
#include "dataplane/wire/address_text.h"
#include "dataplane/wire/ipv6.h"
#include "loader/app/address_check.h"
#include "loader/app/address_list.h"
#include "loader/generate/guest_image.h"
#include "loader/tls/credentials.h"

namespace migrx {
namespace {

// "tcp:A.B.C.D:PORT", "tcp:[IPV6]:PORT"; the scheme may be left out.
bool parse_uri(std::string_view text, IpAddress& address, uint16_t& port) {
  if (text.starts_with("tcp:")) text.remove_prefix(4);
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return false;
  const std::string_view digits = text.substr(colon + 1);
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
  if (error != std::errc{} || end != digits.data() + digits.size() || port == 0) return false;
  std::string host(text.substr(0, colon));
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (bracketed) host = host.substr(1, host.size() - 2);
  return parse_ip_address(host.c_str(), address) && address.is_ipv4() != bracketed;
}

std::string check_addresses(const GenerateOptions& o, GenerateTarget& out) {
  if (!parse_uri(o.destination, out.remote, out.port) || out.remote.is_unspecified() ||
      out.remote.is_multicast())
    return "DESTINATION " + o.destination + ": expected tcp:A.B.C.D:PORT or tcp:[IPV6]:PORT";
  if (!parse_network(o.address, out.local))
    return "--address " + o.address +
           ": expected an address with its prefix length, such as 10.77.0.1/24 or fd00::1/64";
  if (const std::string why = no_hosts_address(out.local); !why.empty())
    return "--address " + o.address + " " + why + ": give the port an address of its own";
  if (out.local.address == out.remote)
    return "--address " + o.address + " is the destination's: give the port an address of its own";
  const auto other_family = [&out](const IpAddress& address) {
    return address.is_ipv4() != out.remote.is_ipv4();
  };
  if (other_family(out.local.address))
    return "--address " + o.address + ": the destination has an address of the other family";
  if (!out.remote.is_ipv4() && o.mtu < kIpv6MtuMin)
    return "--mtu " + std::to_string(o.mtu) + ": IPv6 needs " + std::to_string(kIpv6MtuMin) + " at least";
  out.next_hop = out.remote;
  const bool neighbour = out.local.contains(out.remote) || out.remote.is_link_local();
  if (o.gateway) {
    if (!parse_ip_address(o.gateway->c_str(), out.next_hop))
      return "--gateway " + *o.gateway + ": expected an address";
    if (other_family(out.next_hop))
      return "--gateway " + *o.gateway + ": the destination has an address of the other family";
  } else if (!neighbour) {
    return "the destination is not in the subnet of --address: give a --gateway";
  }
  return {};
}

}  // namespace

void add_generate_options(CLI::App& command, GenerateOptions& o) {
  const char* const network = "Network";
  command
      .add_option("DESTINATION", o.destination,
                  "tcp:A.B.C.D:PORT or tcp:[IPV6]:PORT of a receiver that waits")
      ->required();
  command
      .add_option("--port", o.port,
                  "DPDK devargs of the port: a PCI address, or a vdev such as net_tap0,iface=gen0")
      ->required()
      ->group(network)
      ->type_name("DEVARGS");
  command
      .add_option("--address", o.address,
                  "address of the port with its prefix length, of the destination's family")
      ->required()
      ->group(network)
      ->type_name("ADDRESS/N");
  command.add_option("--mtu", o.mtu, "MTU of the link")
      ->check(CLI::Range(576, 65535))
      ->capture_default_str()
      ->group(network);
  command.add_option("--gateway", o.gateway, "next hop when the destination is not in the port's subnet")
      ->group(network);
  command.add_option("--vlan", o.vlan, "VLAN tag to send with")->check(CLI::Range(1, 4094))->group(network);
  command
      .add_option("--local-port", o.local_port,
                  "TCP port of the main channel; the multifd channels have the next ones (default: random)")
      ->check(CLI::Range(1024, 65000))
      ->group(network);
  command
      .add_flag("!--no-congestion-control", o.congestion_control,
                "send what the receiver's window allows; for links that are known to be idle")
      ->group(network);
  command.add_option("--timeout", o.timeout_s, "seconds without any answer before giving up")
      ->check(CLI::Range(1, 3600))
      ->capture_default_str()
      ->group(network);
  command.add_option("--eal", o.eal, "extra EAL arguments, as one word")->group(network);

  const char* const guest = "Guest";
  command.add_option("--size", o.size, "bytes of RAM")
      ->transform(CLI::AsSizeValue(false))
      ->capture_default_str()
      ->group(guest);
  command.add_option("--block", o.block, "name of the RAM block, as the receiver knows it")
      ->capture_default_str()
      ->group(guest);
  command
      .add_option("--machine", o.machine,
                  "machine type in the stream; a QEMU compares as many characters as are given")
      ->capture_default_str()
      ->group(guest);
  command.add_option("--seed", o.seed, "seed: everything about the guest follows from this number")
      ->capture_default_str()
      ->group(guest);
  command.add_option("--zero-percent", o.zero_percent, "pages that are zero")
      ->check(CLI::Range(0, 100))
      ->capture_default_str()
      ->group(guest);
  command
      .add_option("--compressible-percent", o.compressible_percent,
                  "pages of text; the others hold random bytes")
      ->check(CLI::Range(0, 100))
      ->capture_default_str()
      ->group(guest);
  command.add_option("--rounds", o.rounds, "passes over RAM, with a barrier after each")
      ->check(CLI::Range(1, 10'000))
      ->capture_default_str()
      ->group(guest);
  command
      .add_option("--dirty-percent", o.dirty_percent, "pages that each later round changes and sends again")
      ->check(CLI::Range(0, 100))
      ->capture_default_str()
      ->group(guest);
  command.add_option("--image", o.image, "file to write what the receiver's RAM must be at the end")
      ->group(guest);

  const char* const encryption = "Encryption (as the source of QEMU's tls-creds)";
  command
      .add_option(
          "--tls-creds", o.tls_creds,
          "x509:dir=DIR or psk:dir=DIR with the client's files under QEMU's names; more options after "
          "commas: priority=, verify-peer=, sanity-check=, password-file= (x509), username= (psk)")
      ->group(encryption)
      ->type_name("KIND:dir=DIR");
  command
      .add_option("--tls-hostname", o.tls_hostname,
                  "name or address that the destination's certificate must have (default: the address in "
                  "DESTINATION)")
      ->group(encryption)
      ->type_name("NAME");

  const char* const stream = "Stream (names and values as at a QEMU source)";
  command.add_option("--multifd-channels", o.multifd_channels, "number of multifd channels")
      ->check(CLI::Range(1, 255))
      ->capture_default_str()
      ->group(stream);
  command.add_option("--multifd-compression", o.multifd_compression, "none, zlib or zstd")
      ->check(CLI::IsMember(std::vector<std::string>{"none", "zlib", "zstd"}))
      ->capture_default_str()
      ->group(stream);
  command.add_option("--multifd-level", o.multifd_level, "compression level (default: 1)")
      ->check(CLI::Range(0, 20))
      ->group(stream);
  command.add_option("--max-bandwidth", o.max_bandwidth, "bytes of stream per second (default: no limit)")
      ->transform(CLI::AsSizeValue(false))
      ->group(stream);
  command
      .add_flag(
          "--prepare", o.prepare,
          "make the whole stream before connecting, so that compressing it costs no time on the link; it "
          "stays in memory")
      ->group(stream);

  const char* const placement = "Placement and reporting";
  command.add_option("--cpu", o.cpu, "CPU of the sending thread (default: any)")
      ->check(CLI::Range(0, 4095))
      ->group(placement);
  command
      .add_option("--idle", o.idle,
                  "what the sending thread does when there is nothing to send: spin, yield or sleep")
      ->check(CLI::IsMember({"spin", "yield", "sleep"}))
      ->capture_default_str()
      ->group(placement);
  command.add_option("--report", o.report, "file for the JSON report")->group(placement);
  command.add_flag("--quiet", o.quiet, "no progress, errors only")->group(placement);
}

std::string check_generate_options(const GenerateOptions& o, GenerateTarget& out) {
  if (std::string problem = check_addresses(o, out); !problem.empty()) return problem;
  if (const std::string problem = check_devargs(o.port); !problem.empty())
    return "--port " + o.port + ": " + problem;
  if (o.port.starts_with("net_tap") && o.mtu > 1500)
    return "net_tap sends no frames above MTU 1500: use net_af_packet on one end of a veth pair";
  if (o.size == 0 || o.size % kGuestPageBytes != 0 || o.size > (1ULL << 44))
    return "--size must be a multiple of 4096, at most 16 TiB";
  if (o.zero_percent + o.compressible_percent > 100)
    return "--zero-percent and --compressible-percent are more than 100 together";
  if (o.block.empty() || o.block.size() > 255 || o.machine.empty() || o.machine.size() > 255)
    return "--block and --machine have 1 to 255 characters";
  if (o.multifd_compression == "zlib" && o.multifd_level.value_or(1) > 9)
    return "--multifd-level of zlib is at most 9";
  if (o.tls_creds) {
    TlsCredsOptions tls;
    if (std::string problem = parse_tls_creds(*o.tls_creds, tls, TlsCredsOptions::Endpoint::client);
        !problem.empty())
      return problem;
  } else if (o.tls_hostname) {
    return "--tls-hostname is compared with a certificate: it needs --tls-creds";
  }
  if (o.tls_hostname && o.tls_hostname->empty()) return "--tls-hostname is empty: leave it out";
  out.host = o.tls_hostname.value_or(IpAddressText(out.remote).c_str());
  if (o.local_port.value_or(1024) + o.multifd_channels > 65535)
    return "--local-port is too high for so many channels";
  return {};
}

}  // namespace migrx
