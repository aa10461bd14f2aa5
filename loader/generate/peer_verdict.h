// What the destination says on the main connection: be16 type, be16 length, payload (QEMU migration/savevm.c
// and migration.c, source_return_path_thread).
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "dataplane/handoff/byte_order.h"

namespace migrx {

// Single thread. Bytes come in any split.
class PeerVerdict {
 public:
  void feed(Bytes bytes) noexcept;
  // Of the last PONG; 0: none yet.
  [[nodiscard]] uint32_t pong() const noexcept { return pong_; }
  // SHUT's value: 0 is success.
  [[nodiscard]] std::optional<uint32_t> shut() const noexcept { return shut_; }
  // Something that is no return path; nothing is read from there on.
  [[nodiscard]] bool nonsense() const noexcept { return nonsense_; }

 private:
  static constexpr uint32_t kBytesMax = 512;  // as a source accepts
  std::array<std::byte, 8> head_{};           // header, and the first four bytes of the payload
  uint32_t at_ = 0;                           // within the message
  uint32_t pong_ = 0;
  std::optional<uint32_t> shut_;
  bool nonsense_ = false;
};

}  // namespace migrx
