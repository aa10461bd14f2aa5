// What a stream is: the source's capabilities and parameters, and its encryption.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace migrx {

// Names are QEMU's where QEMU has one: capabilities and parameters as in `migrate_set_capability`.
struct StreamOptions {
  uint32_t multifd_channels = 0;  // 0: multifd off
  std::string multifd_compression = "none";
  std::vector<std::string> capabilities;
  std::optional<bool> multifd_flush_after_each_section;
  std::optional<bool> switchover_ack_legacy;
  std::optional<std::string> uuid;
  bool no_postcopy = false;      // a source with the capability postcopy-ram is refused
  bool expect_postcopy = false;  // guest memory is taken when the source has come

  // Encryption: "x509:dir=…" or "psk:dir=…" (loader/tls/credentials.h), and who of those may connect.
  std::optional<std::string> tls_creds;
  std::vector<std::string> tls_authz;
};

// Adds the options to a subcommand; values appear in `options` when the command line has been parsed.
void add_stream_options(CLI::App& command, StreamOptions& options);

// A capability that migrx does not support or that QEMU has not. Empty: neither. The text says what to
// change.
[[nodiscard]] std::string check_capability(const std::string& name);

// Options that contradict each other, or that migrx does not support. Empty: none. The text says
// what to change.
[[nodiscard]] std::string check_stream_options(const StreamOptions& options);

}  // namespace migrx
