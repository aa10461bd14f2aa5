#include "loader/app/open_port.h"

#include <fmt/format.h>

#include "loader/app/network.h"
#include "loader/app/setup_error.h"

namespace migrx {

OpenPort::OpenPort(Network& network, Arrivals& arrivals, const TenantConfig& config)
    : network_(network), arrivals_(arrivals), tenant_(network.tenants().open(config)) {
  if (tenant_ == nullptr)
    throw SetupError(
        fmt::format("--listen {}: another migration listens there: choose another port", config.port));
  silent_peers_ = network.tenants().silent_peers(*tenant_);
  arrivals.expect(*tenant_);
}

void OpenPort::keep_silent() {
  network_.tenants().keep_silent(*tenant_);
}

OpenPort::~OpenPort() {
  arrivals_.forget(*tenant_);
  network_.tenants().close(*tenant_);
}

}  // namespace migrx
