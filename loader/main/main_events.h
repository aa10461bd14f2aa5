// What the main channel tells the rest of the session, in the order of the stream. MainChannel understands
// the grammar and loads RAM; whoever implements MainEvents (the hand-off to a destination QEMU, the snapshot
// loader, a recorder) decides what becomes of everything else.
//
//   on_header on_configuration
//   ( on_command | on_ram_start | on_ram_section_begin … on_epoch_closed … on_ram_section_end
//     | on_other_section_begin on_verbatim… on_other_section_end )*
//   on_ram_complete on_tail…
//   | on_postcopy ( on_postcopy_discard | on_postcopy_package | on_tail )*
//
// Section ids, instance ids and versions are the source's. All calls come from the worker of the main
// channel, one at a time. Implementations must not block: they say "no room" and the channel parks, which
// closes its TCP window.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "dataplane/handoff/byte_order.h"
#include "loader/stream/epoch.h"
#include "loader/stream/error.h"

namespace migrx {

// Type bytes of QEMU's migration/savevm.h (QEMU_VM_*).
enum class SectionType : uint8_t {
  eof = 0x00,
  start = 0x01,
  part = 0x02,
  end = 0x03,
  full = 0x04,
  subsection = 0x05,
  vmdescription = 0x06,
  configuration = 0x07,
  command = 0x08,
  footer = 0x7e,
};

// enum qemu_vm_cmd of QEMU's migration/savevm.c.
enum class MigCommand : uint16_t {
  invalid = 0,
  open_return_path = 1,
  ping = 2,
  postcopy_advise = 3,
  postcopy_listen = 4,
  postcopy_run = 5,
  postcopy_ram_discard = 6,
  packaged = 7,
  enable_colo = 8,
  postcopy_resume = 9,
  recv_bitmap = 10,
  switchover_start = 11,
};

// One subsection of the configuration section, whole: 05 str8 name, be32 version, payload.
struct ConfigurationSubsection {
  std::string name;
  std::vector<std::byte> raw;
};

// Bounded: machine <= 255 bytes, at most 16 subsections of at most 64 capability names each.
struct Configuration {
  bool present = false;  // machine types up to 2.3 send none
  std::string machine;
  std::optional<uint32_t> target_page_bits;
  bool has_capabilities = false;          // the subsection was there, even if it named none
  std::vector<std::string> capabilities;  // validated capabilities that are on at the source
  std::optional<std::array<std::byte, 16>> uuid;
  std::vector<ConfigurationSubsection> subsections;  // in the order of the stream

  [[nodiscard]] bool has(std::string_view capability) const noexcept {
    for (const std::string& name : capabilities)
      if (name == capability) return true;
    return false;
  }
};

// The header that follows a block's length in a mapped-ram file (QEMU migration/ram.c, MappedRamHeader).
struct MappedRamHeader {
  uint32_t version = 0;
  uint64_t page_size = 0;
  uint64_t bitmap_offset = 0;  // absolute in the file
  uint64_t pages_offset = 0;   // absolute in the file; used_length bytes belong to the block
};

// One entry of the MEM_SIZE list. idstr is unique, 1..255 bytes; used_length > 0 and a multiple of
// the page size.
struct BlockEntry {
  std::string idstr;
  uint64_t used_length = 0;
  std::optional<uint64_t> mr_addr{};  // x-ignore-shared at the source
  // postcopy-ram at the source: of a block that does not lie in pages of kPageBytes.
  std::optional<uint64_t> page_bytes{};
  std::optional<MappedRamHeader> mapped_ram{};
};

// The longest event in bytes of an outgoing stream: a list of kRamBlocksMax blocks with the longest names.
// Command payloads and section headers are far smaller.
inline constexpr std::size_t kRamBlocksMax =
    4096;  // 256 DIMMs, and ROMs, video and device memory beside them
inline constexpr std::size_t kMainEventBytesMax = kRamBlocksMax * (1 + 255 + 8 + 8) + 1024;
inline constexpr std::size_t kCommandPayloadMax = 64;  // commands that precopy accepts are shorter than this

struct SectionHeader {
  SectionType type = SectionType::start;
  uint32_t section_id = 0;
  std::string_view idstr;  // also for PART and END: what START said; valid during the call
  uint32_t instance_id = 0;
  uint32_t version_id = 0;
};

class MainEvents {
 public:
  virtual ~MainEvents() = default;

  // Room for one event (kMainEventBytesMax bytes of outgoing stream). The channel asks before it reads an
  // item and parks while the answer is no; afterwards each event of that item, bytes of on_verbatim and
  // on_tail excepted, must be accepted. After on_ram_start, no also holds page records back until the blocks
  // are ready.
  [[nodiscard]] virtual bool writable() noexcept = 0;

  // Events that return a StreamError can refuse: the channel adds offset and channel where they are missing,
  // and fails. Called seldom: allocation is allowed in them.
  virtual StreamError on_header(uint32_t version) = 0;
  virtual StreamError on_configuration(const Configuration& configuration) = 0;
  // Checked: known, its length right, a PING only after OPEN_RETURN_PATH. Comes here: OPEN_RETURN_PATH, PING,
  // POSTCOPY_ADVISE (16 bytes of payload only with Postcopy::relayed, and before the list of blocks),
  // ENABLE_COLO (only with x-colo), SWITCHOVER_START. Answers on the return path are the implementation's
  // (loader/main/return_path.h).
  virtual StreamError on_command(MigCommand command, Bytes payload) = 0;

  // The MEM_SIZE list has been read and is well-formed. Afterwards every entry must be found in the session's
  // RamBlockList with exactly that length: create private blocks here, compare the others.
  virtual StreamError on_ram_start(const SectionHeader& section, std::span<const BlockEntry> blocks) = 0;
  // A ram PART or END begins. Sources send tens of thousands of empty PARTs: no allocation, no log.
  virtual void on_ram_section_begin(SectionType type, uint32_t section_id) noexcept = 0;
  // EOS, and the footer if there is one, of ram START, PART or END.
  virtual void on_ram_section_end(SectionType type, uint32_t section_id, bool has_footer) noexcept = 0;
  // Everything of `epoch` from all channels is in memory and nobody writes pages until this returns: the
  // moment to switch page targets, and the only one in which bits of pages may be taken (PageBitmap::take):
  // at other times a bit may stand before its page is visible. A page noted here can be read later: whoever
  // writes it again meanwhile sets its bit again. Without multifd each EOS closes an epoch, of empty PARTs
  // too. Be quick.
  virtual void on_epoch_closed(Epoch epoch) noexcept = 0;
  // RAM END has been met, all pages are in memory, no channel will write another.
  virtual void on_ram_complete() noexcept = 0;

  // The source switches to postcopy: its guest stands still, all pages that came are in memory, and nobody
  // writes a page any more. What follows is the destination QEMU's, byte by byte (on_tail), from the command
  // on that switches: RAM_DISCARD or PACKAGED. Only after a POSTCOPY_ADVISE with payload was taken. An error:
  // the switch does not happen here, and nothing of it may leave.
  virtual StreamError on_postcopy() {
    return make_error(ErrorClass::unsupported, 0, "", "postcopy is not for this destination");
  }
  // Before on_tail() brings the command that says so: the destination will drop these pages, which lie inside
  // the block, and ask the source for them. `first` and `pages` count pages of kPageBytes.
  virtual StreamError on_postcopy_discard(std::string_view /*idstr*/, uint64_t /*first*/,
                                          uint64_t /*pages*/) {
    return {};
  }
  // Likewise: the package comes, with the device state and the command to run the guest. It is the point of
  // no return, and the last that is looked at.
  virtual StreamError on_postcopy_package(uint32_t /*bytes*/) { return {}; }

  // Other iterables (`block`, `dirty-bitmap`, …) and FULL sections before RAM END (early virtio-mem):
  // on_verbatim gets all their bytes, section header and footer included, unchanged. It returns how many it
  // took; 0 parks.
  virtual void on_other_section_begin(const SectionHeader& section) noexcept = 0;
  [[nodiscard]] virtual std::size_t on_verbatim(Bytes bytes) noexcept = 0;
  virtual void on_other_section_end(const SectionHeader& section) noexcept = 0;

  // Everything from the type byte of the first FULL section after RAM END on: device state, EOF, VM
  // description; after on_postcopy(), all that comes. Nobody can tell from the bytes where it ends. Returns
  // how many bytes were taken; 0 parks.
  [[nodiscard]] virtual std::size_t on_tail(Bytes bytes) noexcept = 0;
};

}  // namespace migrx
