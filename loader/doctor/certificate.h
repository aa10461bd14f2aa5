// When a certificate stops being valid.
#pragma once

#include <cstdint>
#include <string>

namespace migrx {

// Seconds since 1970 at which the first certificate of a PEM file expires, by the host's clock. False:
// `problem` says why it cannot be told. At most 64 KiB are read.
[[nodiscard]] bool certificate_expiry(const std::string& path, int64_t& expires_unix_s, std::string& problem);

}  // namespace migrx
