// All that is said of one migration: its place on the host, its stream, and its job.
#pragma once

#include "loader/app/job_options.h"
#include "loader/app/stream_options.h"
#include "loader/app/tenant_options.h"

namespace migrx {

struct SessionOptions : TenantOptions, StreamOptions, JobOptions {};

}  // namespace migrx
