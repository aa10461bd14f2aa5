// `migrx generate`: what the command line says.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "dataplane/wire/address.h"

namespace CLI {
class App;
}

namespace migrx {

struct GenerateOptions {
  // Network.
  std::string destination;  // "tcp:10.77.0.2:4444", "tcp:[fd00::2]:4444", as the URI of QEMU's migrate
  std::string port;         // DPDK devargs
  std::string address;      // of the port, "10.77.0.1/24", "fd00::1/64"
  uint32_t mtu = 1500;
  std::optional<std::string> gateway;
  std::optional<uint16_t> vlan;
  std::optional<uint16_t> local_port;  // of the main channel, the others follow; nothing: a random one
  std::string eal;
  std::string idle = "yield";
  std::optional<int> cpu;

  // The guest.
  uint64_t size = 1ULL << 30;
  std::string block = "mem";
  std::string machine = "pc";
  uint64_t seed = 1;
  uint32_t zero_percent = 0;
  uint32_t compressible_percent = 0;
  uint32_t rounds = 1;
  uint32_t dirty_percent = 10;
  std::optional<std::string> image;  // file to write the guest's last state to

  // Encryption.
  std::optional<std::string> tls_creds;
  std::optional<std::string> tls_hostname;  // nothing: the address in `destination`

  // The stream.
  uint32_t multifd_channels = 2;
  std::string multifd_compression = "none";
  std::optional<int> multifd_level;
  uint64_t max_bandwidth = 0;  // bytes of stream per second; 0: none
  bool prepare = false;
  bool congestion_control = true;
  double timeout_s = 30;

  std::optional<std::string> report;
  bool quiet = false;
};

void add_generate_options(CLI::App& command, GenerateOptions& options);

// The addresses the options name, and their sense.
struct GenerateTarget {
  // All of one family.
  IpNetwork local;
  IpAddress remote;
  IpAddress next_hop;
  uint16_t port = 0;
  std::string host;  // that the server's certificate must have
};
// Empty: `out` is filled. Otherwise the text says what to change.
[[nodiscard]] std::string check_generate_options(const GenerateOptions& options, GenerateTarget& out);

}  // namespace migrx
