// What the main channel asks of the secondary's side of COLO (QEMU migration/colo.c), beside MainEvents.
#pragma once

#include <cstdint>

#include "dataplane/handoff/byte_order.h"

namespace migrx {

// COLOMessage of QEMU's qapi/migration.json; be32 codes on the main connection, in both directions.
enum class ColoMessage : uint32_t {
  checkpoint_ready = 0,    // secondary
  checkpoint_request = 1,  // primary
  checkpoint_reply = 2,    // secondary
  vmstate_send = 3,        // primary; RAM follows
  vmstate_size = 4,        // primary; be64 n and n bytes of device state follow
  vmstate_received = 5,    // secondary
  vmstate_loaded = 6,      // secondary
};
[[nodiscard]] const char* to_string(ColoMessage message) noexcept;

// Most bytes of device state that one checkpoint may have: bounds what a source can make us keep, twice. A
// small PC has 15 KB; video memory and RAM of devices are RAM blocks and not part of it.
inline constexpr uint64_t kColoStateBytesMax = 64ULL << 20;

// Called on main's worker only. Nothing here blocks; the copying is done in slices, so that others on the
// same thread get their turn.
class ColoEvents {
 public:
  enum class Tail : uint8_t { more, ended, too_long };

  virtual ~ColoEvents() = default;
  // The source has sent ENABLE_COLO.
  [[nodiscard]] virtual bool enabled() const noexcept = 0;
  // Initial migration, at an epoch's end: brings the cache up to RAM. False: call again next turn.
  [[nodiscard]] virtual bool copy_some() noexcept = 0;
  // Has the device state after RAM END come to its end? It ends with the VM description.
  [[nodiscard]] virtual Tail tail() const noexcept = 0;
  // RAM and cache are equal and the device state is complete: from now on pages go to the cache.
  virtual void begin_checkpoints() noexcept = 0;

  // False: no room, nothing was sent; call again next turn.
  [[nodiscard]] virtual bool send(ColoMessage message) noexcept = 0;
  // A checkpoint begins: forget what has come of the device state of one that was not finished.
  virtual void state_begins() noexcept = 0;
  // Never more than kColoStateBytesMax bytes in all.
  virtual void state_bytes(Bytes bytes) noexcept = 0;
  // All of a checkpoint has come. True: it is being loaded, nothing stops it any more. False: failover came
  // first; it is dropped.
  [[nodiscard]] virtual bool commit() noexcept = 0;
  // After commit(): marked pages to RAM. False: call again next turn; true: the checkpoint is finished.
  [[nodiscard]] virtual bool load_some() noexcept = 0;
};

}  // namespace migrx
