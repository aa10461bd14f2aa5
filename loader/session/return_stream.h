// Bytes of the destination QEMU on their way to the source, in pieces that a connection takes.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "dataplane/handoff/handoff.h"
#include "loader/session/channel_security.h"

namespace migrx {

// Control thread only. No allocation without TLS.
class ReturnStream {
 public:
  // As ChannelSecurity::seal() has it.
  static constexpr std::size_t kSealedMax = 20;

  // Gives the connection the next bytes, with `security` as records. Returns how many of `bytes` are used up;
  // what is left must come again, first. 0: the connection takes none now.
  std::size_t send(Handoff& connection, ChannelSecurity* security, Bytes bytes) {
    if (bytes.empty()) return 0;
    if (security == nullptr) {
      const std::size_t n = std::min(bytes.size(), ConnectionCommand::kBytesMax);
      return connection.send(bytes.first(n)) ? n : 0;
    }
    // A record has its number, so one that found no room is kept, and the same bytes with it.
    if (record_.empty()) {
      text_bytes_ = std::min(bytes.size(), kSealedMax);
      if (!security->seal(connection, bytes.first(text_bytes_), record_)) return 0;
    }
    if (!connection.send(record_)) return 0;
    record_.clear();
    return text_bytes_;
  }

 private:
  std::vector<std::byte> record_;
  std::size_t text_bytes_ = 0;  // in it
};

}  // namespace migrx
