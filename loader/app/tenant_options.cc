#include "loader/app/tenant_options.h"

#include <CLI/CLI.hpp>

namespace migrx {

void add_tenant_options(CLI::App& command, TenantOptions& o) {
  const char* const network = "Network";
  command.add_option("--listen", o.listen, "TCP port the source connects to")
      ->capture_default_str()
      ->group(network);
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

  const char* const limits = "Limits";
  const CLI::Range seconds(0.0, 1e6);
  command
      .add_option("--identify-timeout", o.identify_timeout_s,
                  "seconds that a new connection may take to say which channel it is (0: for ever)")
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
          "seconds without any byte moving before the migration fails: while channels wait for each other or "
          "for the destination, before the source's first page, or inside the device state (0: for ever)")
      ->check(seconds)
      ->capture_default_str()
      ->group(limits);
  command
      .add_option("--destination-timeout", o.destination_timeout_s,
                  "seconds after the last byte of device state in which the destination must say that it has "
                  "the guest (0: for ever)")
      ->check(seconds)
      ->capture_default_str()
      ->group(limits);
}

SessionLimits limits_of(const TenantOptions& options) {
  const auto ns = [](double seconds) { return static_cast<uint64_t>(seconds * 1e9); };
  SessionLimits limits;
  limits.identify_ns = ns(options.identify_timeout_s);
  limits.channels_ns = ns(options.channels_timeout_s);
  limits.stall_ns = ns(options.stall_timeout_s);
  limits.destination_ns = ns(options.destination_timeout_s);
  return limits;
}

}  // namespace migrx
