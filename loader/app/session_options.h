// All that is said of one migration: its place on the host, its stream, and its job.
#pragma once

#include <cstdint>

#include "loader/app/job_options.h"
#include "loader/app/stream_options.h"
#include "loader/app/tenant_options.h"

namespace migrx {

struct SessionOptions : TenantOptions, StreamOptions, JobOptions {};

// Connections that a migration may have at a time on each poll core: its channels, and some for those who
// connect and do not speak, and a source that tries again at once.
[[nodiscard]] constexpr uint32_t places_for(uint32_t multifd_channels) noexcept {
  return multifd_channels + 1 + 8;
}

}  // namespace migrx
