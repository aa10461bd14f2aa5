// Where the bytes of the source's postcopy-preempt channel go: to the destination QEMU.
#pragma once

#include <cstddef>

#include "dataplane/handoff/byte_order.h"

namespace migrx {

class UrgentPages {
 public:
  virtual ~UrgentPages() = default;
  // Any thread: the destination has such a connection.
  [[nodiscard]] virtual bool wanted() const noexcept = 0;
  // The worker of the source's channel. Takes as much as there is room for; returns how much.
  virtual std::size_t write(Bytes bytes) noexcept = 0;
  [[nodiscard]] virtual bool has_room() const noexcept = 0;
};

}  // namespace migrx
