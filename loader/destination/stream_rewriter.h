// The stream that a destination QEMU gets: the source's, without the RAM that migrx loads.
//
//   header, configuration, OPEN_RETURN_PATH, PING; then nothing before that PING's PONG
//   RAM START: every block with its length (x-ignore-shared: and its address)
//   RAM PART:  all pages of private blocks (ROMs, video memory), as zero, which they are here at first; in
//              each hugepage of them one is written first, so that the destination gets its memory now
//   RAM PART:  those that changed, as each epoch closes, if there are any
//   RAM END:   those that changed since; then, untouched, everything after the source's RAM END
//
// The PONG says that a QEMU waits there, has taken this source's configuration, and reads. Before it nothing
// is taken from the source that could lead to a page in memory: writable() is false.
//
// The first PART is there for the guest's downtime: video memory, 16 MiB of mostly zero pages, often comes
// last. What the destination has cleared by then, while it has time, need not be sent again after the guest's
// stop; and a zero page that comes for memory never written costs nothing here.
//
// With postcopy-ram the destination empties all of its RAM at POSTCOPY_ADVISE, the files that migrx loads
// included. So a PING of ours stands behind ADVISE, and until its PONG has come and the memory is there anew
// (memory_ready()) nothing is loaded. At the switch the private pages that changed leave in one more PART;
// all that follows is the source's, byte by byte, and RAM has no END.
//
// What belongs to the fast path (multifd, pages of file-backed blocks, compressed records) never gets here.
// With x-ignore-shared the destination compares an ignored block's address with its own mr->addr, the offset
// of the memory region in its parent (QEMU migration/ram.c, parse_ramblock): 0 for a single backend, the sum
// of the backends before it with several.
#pragma once

#include <atomic>
#include <map>
#include <string>
#include <vector>

#include "loader/destination/byte_fifo.h"
#include "loader/destination/discarded_pages.h"
#include "loader/destination/handoff_form.h"
#include "loader/main/main_events.h"
#include "loader/ram/ram_block.h"

namespace migrx {

// Main's worker only. When a page is read here, a channel of the next epoch may be writing it: its bit is set
// after that write, so the page is forwarded once more, at the latest in END, when no channel writes.
class StreamRewriter final : public MainEvents {
 public:
  // addresses: mr->addr by block name, where it is not what the order of the file-backed blocks says; of no
  // meaning in the plain form. out has room for at least two events of kMainEventBytesMax. Both references
  // must outlive the rewriter.
  // page_bytes: in what pages the blocks in files lie, by name; 4096 where none is given.
  StreamRewriter(const RamBlockList& blocks, HandoffForm form, std::map<std::string, uint64_t> addresses,
                 std::map<std::string, uint64_t> page_bytes, ByteFifo& out);

  // Value of the PING that stands after the configuration.
  static constexpr uint32_t kProofPing = 1;
  // Of the one behind POSTCOPY_ADVISE.
  static constexpr uint32_t kAdvisePing = 2;
  // Control thread: the destination has answered it.
  void destination_proved() noexcept { proved_.store(true, std::memory_order_release); }

  // Before anything else: the memory of the blocks in files is not there yet.
  void expect_no_memory() noexcept { no_memory_ = true; }
  // Any thread: nothing goes on before memory_ready().
  [[nodiscard]] bool wants_memory() const noexcept { return wants_memory_.load(std::memory_order_acquire); }
  // Control thread: the memory of the blocks in files is all there; with postcopy-ram after the destination
  // has answered kAdvisePing.
  void memory_ready() noexcept { memory_ready_.store(true, std::memory_order_release); }

  [[nodiscard]] bool writable() noexcept override;
  StreamError on_header(uint32_t version) override;
  StreamError on_configuration(const Configuration& configuration) override;
  StreamError on_command(MigCommand command, Bytes payload) override;
  StreamError on_ram_start(const SectionHeader& section, std::span<const BlockEntry> blocks) override;
  void on_ram_section_begin(SectionType, uint32_t) noexcept override {}
  void on_ram_section_end(SectionType type, uint32_t section_id, bool has_footer) noexcept override;
  void on_epoch_closed(Epoch epoch) noexcept override;
  void on_ram_complete() noexcept override;
  void on_other_section_begin(const SectionHeader&) noexcept override {}
  [[nodiscard]] std::size_t on_verbatim(Bytes bytes) noexcept override { return out_.write(bytes); }
  void on_other_section_end(const SectionHeader&) noexcept override {}
  [[nodiscard]] std::size_t on_tail(Bytes bytes) noexcept override;

  StreamError on_postcopy() override;
  StreamError on_postcopy_discard(std::string_view idstr, uint64_t first, uint64_t pages) override;
  StreamError on_postcopy_package(uint32_t bytes) override;

  // Any thread: the source may switch to postcopy.
  [[nodiscard]] bool advised() const noexcept { return advised_.load(std::memory_order_acquire); }
  // Any thread: what is written from here on, the last PART of private pages excepted, and all that the
  // destination says from here on, are the source's and the destination's own. True before the first such
  // byte is written.
  [[nodiscard]] bool in_postcopy() const noexcept { return in_postcopy_.load(std::memory_order_acquire); }
  // Any thread: the package is on its way, or has gone. discarded() does not change any more.
  [[nodiscard]] bool packaged() const noexcept { return packaged_.load(std::memory_order_acquire); }
  // Any thread, once packaged().
  [[nodiscard]] const DiscardedPages& discarded() const noexcept { return discarded_; }

  // Any thread: sections of RAM written so far, each with one EOS.
  [[nodiscard]] uint64_t sections_written() const noexcept {
    return sections_.load(std::memory_order_acquire);
  }
  // Any thread: all of RAM END, and the first byte of device state, are on their way. Before that nobody can
  // have loaded the guest.
  [[nodiscard]] bool device_state_begun() const noexcept {
    return device_state_begun_.load(std::memory_order_acquire);
  }

 private:
  enum class PageKind : uint8_t {
    loaded,   // as it lies in memory now
    fresh,    // zero, and not to be looked at: what comes meanwhile is marked and sent on later
    touched,  // not zero for a moment, so that the destination allocates its memory; a fresh one follows
  };
  struct Page {
    const RamBlock* block;
    uint64_t index;   // in the block
    uint64_t number;  // among all pages of private blocks
    PageKind kind;
  };

  void emit(const std::vector<std::byte>& bytes) noexcept;
  [[nodiscard]] uint64_t page_bytes_of(const std::string& idstr) const;
  [[nodiscard]] StreamError check_page_sizes(uint64_t announced) const;
  void add_page(std::size_t block, uint64_t page) noexcept;
  void take_pages() noexcept;
  // Writes the section at hand as far as there is room; true: nothing is left of it.
  [[nodiscard]] bool pump() noexcept;
  [[nodiscard]] bool emit_page(const Page& page) noexcept;

  const RamBlockList& blocks_;
  const HandoffForm form_;
  const std::map<std::string, uint64_t> addresses_;
  ByteFifo& out_;
  const std::map<std::string, uint64_t> page_bytes_;
  std::atomic<bool> proved_{false};        // control thread -> main's worker
  std::atomic<bool> memory_ready_{false};  // likewise
  bool no_memory_ = false;
  std::atomic<bool> wants_memory_{false};
  std::atomic<bool> advised_{false};
  std::atomic<bool> in_postcopy_{false};
  std::atomic<bool> packaged_{false};
  DiscardedPages discarded_;
  bool asked_ = false;            // the PING has been written
  std::vector<std::byte> start_;  // RAM START, until its footer is known
  uint32_t ram_section_ = 0;
  bool footers_ = true;

  std::vector<uint64_t> first_page_;  // by block: the number of its first page
  std::vector<PageBitmap*> taken_;    // by block: its marks that were taken; nullptr for file-backed ones
  std::vector<bool> known_zero_;  // by number: the destination was told that it is zero, and nothing since

  // The PART or END being written.
  std::vector<Page> pages_;  // capacity for every private page: never grows after on_ram_start
  std::size_t next_page_ = 0;
  const RamBlock* last_block_ = nullptr;  // of the record before, in this section
  bool open_ = false;                     // its header has been written
  bool end_open_ = false;                 // and it was END's
  bool pending_ = false;                  // a section is being written
  bool final_ = false;                    // RAM is complete: END is due
  std::atomic<bool> device_state_begun_{false};
  std::atomic<uint64_t> sections_{0};
};

}  // namespace migrx
