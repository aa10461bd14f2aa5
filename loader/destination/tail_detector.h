// Finds the end of the device state. FULL sections have no length, so no parser can tell where it is; but
// nearly every source ends with EOF (00) and a VM description (06, be32 length, JSON text; QEMU
// migration/savevm.c, qemu_savevm_state_complete_precopy), and then nothing more comes.
#pragma once

#include <cstdint>
#include <vector>

#include "dataplane/handoff/byte_order.h"

namespace migrx {

// Sans-IO; one thread. complete() is true while the bytes seen so far end exactly where a VM description that
// was announced among them ends. Device state may hold the same pattern by chance; then more bytes follow,
// and complete() is false again.
class TailDetector {
 public:
  void feed(Bytes bytes);
  [[nodiscard]] bool complete() const noexcept { return complete_; }
  [[nodiscard]] uint64_t bytes() const noexcept { return total_; }

 private:
  // 00 06 be32 '{': what the description begins with. QEMU's JSON has no space in front.
  static constexpr std::size_t kPatternBytes = 7;
  // A description is about 100 KiB for a small PC and grows with the number of devices.
  static constexpr uint32_t kDescriptionBytesMax = 64 << 20;
  static constexpr std::size_t kCandidatesMax = 64;

  uint64_t total_ = 0;
  std::vector<std::byte> last_;  // up to kPatternBytes - 1 bytes in front of the next ones
  std::vector<uint64_t> ends_;   // where announced descriptions would end
  bool complete_ = false;
};

}  // namespace migrx
