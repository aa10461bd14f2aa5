// The main channel's stream, from the file header to the device state
// (QEMU migration/savevm.c, qemu_loadvm_state_main).
//
//   header ─▶ configuration ─▶ items ─▶ … ─▶ RAM END ─▶ items ─first FULL─▶ tail (opaque, to the end)
//                               │  command
//                               │  ram START, PART, END: body ─marker─▶ wait for all channels ─▶ … ─EOS─▶
//                               footer └  other sections: followed to their end, passed on
//
// An item is one command (such as PING) or one section; its first byte says which. A section carries one
// device's part of the stream, and guest RAM is a device in this sense: START and any number of PARTs come
// while the guest still runs, END when it has stopped. A FULL section comes once; the FULL sections after RAM
// END are the device state proper (CPUs, disks, network cards), which only the destination QEMU can read. A
// RAM section ends with an EOS record; pages that multifd channels carry are not in it.
//
// After POSTCOPY_ADVISE the source may switch to postcopy in any item: the command that switches waits until
// all that came is in memory, and then everything is passed on, as the tail is. RAM has no END then.
//
// With COLO the tail ends, and checkpoints follow: messages (loader/colo/checkpoint_reader.h), and in each
// one END section of RAM.
//
// A marker is the point of a RAM section at which main waits for all multifd channels (flush_barrier.h).
// Which record is one depends on the source: see FlushMode (main_settings.h). Sections end with a footer or
// not: see SectionFooterReader.
#pragma once

#include <array>
#include <optional>
#include <vector>

#include "dataplane/handoff/counter.h"
#include "loader/colo/checkpoint_reader.h"
#include "loader/main/commands.h"
#include "loader/main/configuration.h"
#include "loader/main/main_events.h"
#include "loader/main/main_settings.h"
#include "loader/main/other_sections.h"
#include "loader/main/postcopy_reader.h"
#include "loader/main/ram_section.h"
#include "loader/main/section_footer.h"
#include "loader/main/section_header.h"
#include "loader/main/tail_reader.h"
#include "loader/stream/flush_barrier.h"
#include "loader/stream/parser.h"

namespace migrx {

// Written by main's worker, once per piece of stream; read by anyone.
struct MainCounters {
  Counter normal_pages;
  Counter zero_pages;
  Counter zero_pages_untouched;  // of zero_pages: memory that still was zero
  Counter xbzrle_pages;
  Counter xbzrle_bytes;  // encoded
  Counter compressed_pages;
  Counter compressed_bytes;
  Counter ram_sections;    // START, PARTs, END
  Counter other_sections;  // of other iterables, and early FULL sections
  Counter markers;         // epochs closed
  Counter per_round;       // 1: multifd channels synchronise once per round
  Counter begun_anew;      // passes over RAM after the first, as this channel sees them
  Counter verbatim_bytes;
  Counter tail_bytes;
  Counter postcopy_bytes;  // passed on behind the switch to postcopy
};

class MainChannel final : public ChannelParser {
 public:
  // Nothing is owned; all must outlive the channel. barrier: for settings.multifd_channels channels. router:
  // null with one node. colo: null without the capability x-colo. Allocates; afterwards only the
  // configuration and the block list do.
  MainChannel(const MainSettings& settings, MainEvents& events, RamBlockList& blocks, FlushBarrier& barrier,
              CompressJobs& compress, const PageKernels& kernels, const NodeRouter* router = nullptr,
              ColoEvents* colo = nullptr);

  // An empty piece lets a parked channel go on without bytes.
  ParseResult parse(Bytes piece) noexcept override;
  [[nodiscard]] bool ready() noexcept override;
  StreamError end_of_stream() noexcept override;
  // For the session, after end_of_stream(): the return path was open and the source did not wait
  // for a verdict.
  [[nodiscard]] StreamError closed_too_early() const noexcept;
  // As above, after the verdict: the source ended before SHUT 0 had reached it.
  [[nodiscard]] StreamError closed_unread() const noexcept;
  [[nodiscard]] const StreamError& error() const noexcept override { return error_; }
  [[nodiscard]] uint64_t offset() const noexcept override { return in_.offset() + in_.carried(); }
  [[nodiscard]] uint64_t needed_from() noexcept override { return ram_.needed_from(); }

  [[nodiscard]] const MainCounters& counters() const noexcept { return counters_; }
  // Main's worker, or when the channel has stopped.
  [[nodiscard]] FlushMode flush_mode() const noexcept { return mode_; }
  [[nodiscard]] Epoch epoch() const noexcept { return epoch_; }
  // Main's worker: page records so far that brought more than zeros.
  [[nodiscard]] uint64_t pages_with_content() const noexcept {
    return ram_.page_records() - ram_.tally().zero_pages;
  }

  // In a mapped-ram file the stream jumps over the pages. While this has a value the channel is parked;
  // feed it from that absolute position of the file after file_position_reached(). offset() does not
  // count the jump.
  [[nodiscard]] std::optional<uint64_t> file_position_wanted() noexcept {
    return ram_.block_list().file_position_wanted();
  }
  void file_position_reached() noexcept { ram_.block_list().file_position_reached(); }

 private:
  // Bound of iterable sections; QEMU has at most one per kind, VFIO devices apart.
  static constexpr std::size_t kSectionsMax = 64;

  // What comes next; step() has one function for each.
  enum class State : uint8_t {
    header,
    header_event,
    first_item,
    configuration,
    configuration_event,
    item,
    command,
    section_header,
    other_body,
    ram_body,
    ram_listed,
    ram_ready,
    marker,
    ram_settle,
    ram_eos,
    section_footer,
    section_end,
    tail,
    postcopy_begin,
    postcopy_front,
    postcopy,
    colo_copy,
    colo_begin,
    colo_message,
    failed,
  };
  enum class Wait : uint8_t { none, events, barrier, settle, lane, file_position, colo };

  struct Section {
    uint32_t id = 0;
    uint32_t instance_id = 0;
    uint32_t version_id = 0;
    SectionKind kind = SectionKind::device;
    bool ended = false;
    std::string idstr;
  };

  // nullopt: state_ has moved on, run again.
  using Outcome = std::optional<ParseStatus>;
  ParseStatus run() noexcept;
  Outcome step() noexcept;
  Outcome at_header() noexcept;
  Outcome at_header_event();
  Outcome at_first_item() noexcept;
  Outcome at_configuration();
  Outcome at_configuration_event();
  Outcome at_item();
  Outcome at_command();
  Outcome at_section_header();
  Outcome at_other_body() noexcept;
  Outcome at_ram_body() noexcept;
  Outcome at_ram_listed();
  Outcome at_ram_ready() noexcept;
  Outcome at_marker() noexcept;
  Outcome at_ram_settle() noexcept;
  Outcome at_ram_eos() noexcept;
  Outcome at_section_footer() noexcept;
  Outcome at_section_end() noexcept;
  Outcome at_tail() noexcept;
  Outcome at_postcopy_begin();
  Outcome at_postcopy_front();
  Outcome at_postcopy();
  Outcome at_colo_copy() noexcept;
  Outcome at_colo_begin() noexcept;
  Outcome at_colo_message() noexcept;

  Outcome begin_command() noexcept;
  Outcome begin_header() noexcept;
  Outcome begin_postcopy() noexcept;
  Outcome begin_section();
  Outcome begin_part(uint32_t id);
  Outcome begin_checkpoint_item() noexcept;
  Outcome begin_tail(Bytes front) noexcept;
  Outcome end_of_sections() noexcept;
  // Of what follows the switch to postcopy: reads it, and passes on what finds room; how much.
  [[nodiscard]] std::optional<std::size_t> relay(Bytes bytes);
  Outcome met_flush() noexcept;
  Outcome met_eos() noexcept;
  // False: a channel has pages yet; the migration has failed.
  [[nodiscard]] bool end_of_ram() noexcept;
  [[nodiscard]] bool colo_enabled() const noexcept { return colo_ != nullptr && colo_->enabled(); }

  ParseStatus park(Wait wait) noexcept {
    wait_ = wait;
    return ParseStatus::parked;
  }
  ParseStatus fail(const StreamError& error) noexcept;
  // What a reader's answer means for the channel; nullopt: it is done. wait: for what it parks.
  Outcome unless_done(Step step, const StreamError& error, Wait wait) noexcept;
  // An event's answer; offset and field are filled in where it left them out.
  bool refused(StreamError error, const char* field) noexcept;
  void pass_header() noexcept;
  [[nodiscard]] SectionHeader current_header() const noexcept;
  void publish() noexcept;

  const MainSettings& settings_;
  MainEvents& events_;
  FlushBarrier& barrier_;
  ByteReader in_;
  ConfigurationReader configuration_;
  CommandReader command_;
  RamSection ram_;
  SectionHeaderReader header_;
  OtherSectionBody other_;
  SectionFooterReader footer_;
  TailReader tail_;
  PostcopyReader postcopy_;
  ColoEvents* const colo_;
  CheckpointReader checkpoint_;

  State state_ = State::header;
  State after_marker_ = State::ram_body;
  Wait wait_ = Wait::none;
  FlushMode mode_;
  StreamError error_;

  SectionType type_ = SectionType::eof;  // of the item being read
  uint64_t item_at_ = 0;                 // its offset
  std::vector<Section> sections_;        // those STARTed; never more than kSectionsMax
  Section early_;                        // the FULL section being passed on
  const Section* current_ = nullptr;
  bool ram_started_ = false;
  bool ram_ended_ = false;
  Epoch epoch_;                      // number of the next marker
  bool in_checkpoint_ = false;       // between VMSTATE_SEND and EOF
  bool checkpoint_has_ram_ = false;  // its END section has come
  std::size_t front_done_ = 0;       // of the command's head that switched to postcopy
  std::size_t read_ahead_ = 0;       // bytes that postcopy_ has read and that are not passed on
  uint64_t pages_copied_ = 0;        // page records before the last time that the cache was brought up

  MainCounters counters_;
  uint64_t ram_sections_ = 0;
};

}  // namespace migrx
