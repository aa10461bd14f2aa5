// Finds the guest's uuid in the first bytes of a main channel, before the channel is admitted. Those bytes
// are the header and the configuration section, which has a uuid when the source's capability validate-uuid
// is on.
#pragma once

#include <array>
#include <optional>

#include "dataplane/handoff/byte_order.h"

namespace migrx {

enum class PreambleStatus : uint8_t {
  need_more,  // the configuration section is not all here
  known,      // `uuid` is what it says; nothing: it says none, or cannot be read (the main channel tells why)
};
// `bytes`: from the stream's first on. Checks nothing that MainChannel will check. Allocates.
[[nodiscard]] PreambleStatus read_main_uuid(Bytes bytes, std::optional<std::array<std::byte, 16>>& uuid);

}  // namespace migrx
