// The addresses that the command line gives to ports, looked at before anything of the host is touched.
#pragma once

#include <string>

#include "dataplane/wire/address.h"
#include "loader/app/host_options.h"
#include "loader/app/tenant_options.h"

namespace migrx {

// Why no host may have the address as its own (RFC 1122, RFC 4291). Empty: one may.
[[nodiscard]] std::string no_hosts_address(const IpNetwork& network);

// What an operator should know of a port's address that is allowed. Empty: nothing.
[[nodiscard]] std::string address_warning(const IpAddress& address);

// Checks --address, --gateway, --allow and --listen. Empty: they make sense; otherwise the text says
// what to change.
[[nodiscard]] std::string check_addresses(const HostOptions& options, const TenantOptions& tenant);

}  // namespace migrx
