#include "loader/app/stream_options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <string_view>

#include "loader/app/tls_setup.h"

namespace migrx {
namespace {

constexpr std::array kCompressions{"none", "zlib", "zstd", "qpl", "uadk", "qatzip"};

// Capabilities that change what migrx has to do, and those that change nothing at a receiver (QEMU
// qapi/migration.json, MigrationCapability): accepted so that an operator can pass the source's list
// as it is.
constexpr std::array kCapabilitiesUsed{
    "xbzrle", "compress",    "multifd",    "switchover-ack", "validate-uuid",   "background-snapshot",
    "x-colo", "return-path", "mapped-ram", "postcopy-ram",   "postcopy-preempt"};
constexpr std::array kCapabilitiesWithoutEffect{
    "rdma-pin-all",  "auto-converge",       "zero-blocks",
    "events",        "release-ram",         "pause-before-switchover",
    "dirty-bitmaps", "late-block-activate", "zero-copy-send",
    "dirty-limit",   "postcopy-blocktime",  "block"};
constexpr std::array kCapabilitiesRefused{"x-ignore-shared"};

template <class Array>
bool contains(const Array& names, std::string_view name) {
  return std::any_of(names.begin(), names.end(), [&](const auto& known) { return name == known; });
}

}  // namespace

void add_stream_options(CLI::App& command, StreamOptions& o) {
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

  command
      .add_flag("--no-postcopy", o.no_postcopy,
                "refuse a source with the capability postcopy-ram (default: it may switch to postcopy, when "
                "there is "
                "a destination QEMU)")
      ->group(stream);
  command
      .add_flag("--expect-postcopy", o.expect_postcopy,
                "take the guest's memory when the source has come, not before: a source with postcopy-ram "
                "makes the "
                "destination QEMU give all of it back once, at the start")
      ->group(stream);

  const char* const encryption = "Encryption (as the destination of QEMU's tls-creds)";
  command
      .add_option("--tls-creds", o.tls_creds,
                  "x509:dir=DIR or psk:dir=DIR, then, each after a comma, verify-peer=off, priority=STRING, "
                  "sanity-check=off, password-file=FILE; the files in DIR are QEMU's (ca-cert.pem, "
                  "server-cert.pem, server-key.pem; keys.psk)")
      ->group(encryption);
  command
      .add_option(
          "--tls-authz", o.tls_authz,
          "subject of a client certificate that may connect, exact or as a pattern, or "
          "listfile:PATH of QEMU's authz-list-file; may repeat (default: every certificate that is good)")
      ->group(encryption);
}

std::string check_capability(const std::string& name) {
  if (contains(kCapabilitiesRefused, name))
    return "capability " + name + " is not supported: turn it off at the source (migrate_set_capability " +
           name + " off)";
  if (!contains(kCapabilitiesUsed, name) && !contains(kCapabilitiesWithoutEffect, name))
    return "capability " + name + " is unknown; names are QEMU's, e.g. xbzrle";
  return {};
}

std::string check_stream_options(const StreamOptions& o) {
  if (std::string problem = check_tls_options(o.tls_creds, o.tls_authz); !problem.empty()) return problem;
  if (o.expect_postcopy && o.no_postcopy)
    return "--expect-postcopy and --no-postcopy exclude each other: leave one out";
  if (o.multifd_compression != "none" && o.multifd_channels == 0)
    return "--multifd-compression needs --multifd-channels";
  if (o.multifd_flush_after_each_section && o.multifd_channels == 0)
    return "--multifd-flush-after-each-section needs --multifd-channels";
  if (o.switchover_ack_legacy && !contains(o.capabilities, "switchover-ack"))
    return "--switchover-ack-legacy is about the capability switchover-ack: add --capability switchover-ack, "
           "or leave it out";
  if (o.multifd_compression == "qatzip")
    return "--multifd-compression qatzip is not supported: set another method at the source";
  if (o.uuid && o.multifd_channels == 0 && !contains(o.capabilities, "validate-uuid"))
    return "--uuid: without multifd and validate-uuid the stream carries no uuid: turn the capability "
           "validate-uuid on at the source and here";
  for (const std::string& name : o.capabilities) {
    if (std::string problem = check_capability(name); !problem.empty()) return problem;
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
