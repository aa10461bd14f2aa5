// What the stream cannot tell about itself and the operator has to say, in QEMU's own names.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

namespace migrx {

// Where the main channel waits for the multifd channels (QEMU migration/ram.c, property
// multifd-flush-after-each-section of the migration object).
enum class FlushMode : uint8_t {
  automatic,  // a MULTIFD_FLUSH record in the RAM START section means `round`, none means `section`
  section,    // multifd-flush-after-each-section=on: each EOS (sources up to 8.0, machine types up to 8.0)
  round,      // multifd-flush-after-each-section=off: each MULTIFD_FLUSH record
};

// What becomes of a source with the capability postcopy-ram. Decided before it comes, since the source may
// switch to postcopy at any moment after POSTCOPY_ADVISE, and at the switch its guest stands still already.
enum class Postcopy : uint8_t {
  no_handoff,     // refused: nobody here asks for the pages that are left behind
  ignore_shared,  // refused: QEMU has x-ignore-shared and postcopy-ram exclude each other
  read_back,      // refused: guest memory would be read at the end, and the destination's must not be touched
  colo,           // refused: a checkpoint needs all of the guest here
  declined,       // refused: the operator said --no-postcopy
  relayed,        // pages are loaded until the switch; what follows is the destination QEMU's
};

// Constant while a migration runs.
struct MainSettings {
  // multifd-channels when the capability `multifd` is on, 0 when it is off.
  uint32_t multifd_channels = 0;

  // Capabilities of the source, by QEMU's names.
  bool xbzrle = false;    // pages are taken without, as QEMU itself does not check
  bool compress = false;  // COMPRESS_PAGE records are refused without
  bool x_colo = false;
  bool mapped_ram = false;           // files only: MainChannel reports the blocks, pages are read elsewhere
  bool x_ignore_shared = false;      // the source keeps shared RAM to itself: it is in place here already
  bool switchover_ack = false;       // not visible on the wire
  bool background_snapshot = false;  // RAM ends without an END section
  Postcopy postcopy = Postcopy::no_handoff;

  FlushMode multifd_flush_after_each_section = FlushMode::automatic;

  // With switchover_ack and no destination QEMU to send it: whether the source waits for one SWITCHOVER_ACK
  // (loader/main/machine_type.h). Empty: as its machine type tells.
  std::optional<bool> switchover_ack_legacy{};

  // Compared when set.
  std::optional<std::array<std::byte, 16>> uuid{};
};

}  // namespace migrx
