// The memory of the blocks in files is taken while the source waits: a destination QEMU gives all of it back
// at POSTCOPY_ADVISE (QEMU migration/postcopy-ram.c, postcopy_ram_incoming_init), so that it was taken in
// vain before, or has not been (--expect-postcopy).
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace migrx {

// Control thread; the work is done elsewhere.
class MemoryRefill {
 public:
  virtual ~MemoryRefill() = default;
  // Once, and no worker writes to the memory until it is there. emptied: the destination has given it back.
  virtual void begin(bool emptied) = 0;
  // nullopt: it goes on, or has not begun. Empty: every page is there. Otherwise what is wrong with this
  // host, and what to do about it.
  [[nodiscard]] virtual std::optional<std::string> outcome() = 0;
  // Grows while it goes on.
  [[nodiscard]] virtual uint64_t bytes_done() const noexcept = 0;
};

}  // namespace migrx
