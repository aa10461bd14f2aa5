// The addresses that the command line gives to ports, looked at before anything of the host is touched.
#pragma once

#include <string>

#include "loader/app/host_options.h"
#include "loader/app/tenant_options.h"

namespace migrx {

// Checks --address, --gateway, --allow and --listen. Empty: they make sense; otherwise the text says
// what to change.
[[nodiscard]] std::string check_addresses(const HostOptions& options, const TenantOptions& tenant);

}  // namespace migrx
