// The records of a RAM section (QEMU migration/ram.c, ram_load_precopy): each a big-endian word of page
// offset and flags, then, depending on the flag,
//
//   ZERO           [str8 idstr] u8 0
//   PAGE           [str8 idstr] the page
//   XBZRLE         [str8 idstr] u8 1, be16 len, patch of the page as it is in memory
//   COMPRESS_PAGE  [str8 idstr] be32 len, one zlib stream
//   MEM_SIZE       the block list (block_list.h), once, first in START
//   MULTIFD_FLUSH  -
//   EOS            - (ends the body)
//
// The idstr is left out when CONTINUE is set: the block is that of the page record before,
// across sections too.
#pragma once

#include <optional>
#include <string_view>
#include <unordered_map>

#include "loader/main/block_list.h"
#include "loader/main/compress_jobs.h"
#include "loader/main/main_settings.h"
#include "loader/ram/node_router.h"
#include "loader/ram/page_writer.h"
#include "loader/ram/ram_block.h"
#include "loader/stream/byte_reader.h"
#include "loader/stream/parser.h"
#include "loader/stream/pass_counter.h"

namespace migrx {

// RAM_SAVE_FLAG_* of QEMU's migration/ram.c; the low kPageBits bits of a record's word.
namespace ram_flag {
inline constexpr uint64_t kFull = 0x001;  // never sent since 2009
inline constexpr uint64_t kZero = 0x002;
inline constexpr uint64_t kMemSize = 0x004;
inline constexpr uint64_t kPage = 0x008;
inline constexpr uint64_t kEos = 0x010;
inline constexpr uint64_t kContinue = 0x020;
inline constexpr uint64_t kXbzrle = 0x040;
inline constexpr uint64_t kHook = 0x080;  // RDMA
inline constexpr uint64_t kCompressPage = 0x100;
inline constexpr uint64_t kMultifdFlush = 0x200;
}  // namespace ram_flag

// What a word asks for: one of the flags alone, without CONTINUE.
enum class RamRecord : uint64_t {
  zero = ram_flag::kZero,
  mem_size = ram_flag::kMemSize,
  page = ram_flag::kPage,
  eos = ram_flag::kEos,
  xbzrle = ram_flag::kXbzrle,
  compress_page = ram_flag::kCompressPage,
  multifd_flush = ram_flag::kMultifdFlush,
};

// Plain numbers of one thread; the main channel publishes them.
struct RamTally {
  uint64_t normal_pages = 0;
  uint64_t zero_pages = 0;
  uint64_t zero_pages_untouched = 0;  // of zero_pages: memory that still was zero
  uint64_t xbzrle_pages = 0;
  uint64_t xbzrle_bytes = 0;
  uint64_t compressed_pages = 0;
  uint64_t compressed_bytes = 0;
};

class RamSection {
 public:
  enum class Event : uint8_t {
    need_more,
    parked,         // a lane to another node is full, or a mapped-ram file has to be positioned
    blocks_listed,  // blocks() is complete: call resolve() before going on
    flush,          // a MULTIFD_FLUSH record
    eos,            // the body ends here
    failed,
  };

  // compress: null means no helpers. router: null with one node. All references must outlive this.
  RamSection(const MainSettings& settings, const RamBlockList& blocks, const PageKernels& kernels,
             CompressJobs& compress, const NodeRouter* router);

  // A body begins. `start`: of the START section, whose first record must be MEM_SIZE.
  void begin(bool start) noexcept;
  // What the configuration section announced.
  void set_announced(bool x_ignore_shared, bool mapped_ram) noexcept {
    with_mr_addr_ = x_ignore_shared;
    with_mapped_ram_ = mapped_ram;
  }
  // What POSTCOPY_ADVISE announced: see BlockListReader::begin().
  void set_page_sizes(uint64_t page_sizes) noexcept { page_sizes_ = page_sizes; }

  // The piece that `in` was fed begins at this offset of the stream: what runs to other nodes is
  // noted by piece.
  void piece_begins(uint64_t offset) noexcept { piece_at_ = offset; }
  // Hot. Afterwards error is set if the answer is `failed`.
  Event run(ByteReader& in, StreamError& error) noexcept;

  // Call after blocks_listed: finds every listed block in the session's list, where it must have
  // the listed length.
  bool resolve(StreamError& error);
  [[nodiscard]] std::span<const BlockEntry> blocks() const noexcept { return list_.entries(); }

  // The page record at which run() parked could go on.
  [[nodiscard]] bool lane_has_room() noexcept;
  // Nothing is under way at helpers or other nodes' workers. When true, `error` tells whether all of it was
  // right, and fence() makes main's own page writes visible with the next release store.
  [[nodiscard]] bool settled(StreamError& error) noexcept;
  void fence() noexcept {
    writer_.fence();
    set_marks();
  }

  // See ChannelParser.
  [[nodiscard]] uint64_t needed_from() noexcept;

  [[nodiscard]] BlockListReader& block_list() noexcept { return list_; }
  [[nodiscard]] const RamTally& tally() const noexcept { return tally_; }
  // See PassCounter.
  [[nodiscard]] uint64_t begun_anew() const noexcept { return passes_.begun_anew(); }
  [[nodiscard]] uint64_t page_records() const noexcept {
    return tally_.normal_pages + tally_.zero_pages + tally_.xbzrle_pages + tally_.compressed_pages;
  }
  // Inside a record: the stream must not end here.
  [[nodiscard]] bool mid_record() const noexcept { return state_ != State::word; }

 private:
  enum class State : uint8_t {
    word,
    word_after_list,
    block_list,
    idstr_length,
    idstr,
    zero_fill,
    page_data,
    xbzrle_header,
    xbzrle_data,
    compress_length,
    compress_data,
  };
  struct Listed {
    RamBlock* block = nullptr;
    CopyLane* lane = nullptr;  // to the worker of the block's node; null: write it here
  };

  // What a piece of a page came to.
  enum class PageData : uint8_t { need_more, parked, complete };

  // What the word asks for; nullopt: state_ says what comes next.
  std::optional<Event> begin_record(uint64_t flags, StreamError& error) noexcept;
  void blame_small_pages(uint64_t flags, StreamError& error) const noexcept;
  bool check_flags(uint64_t flags, StreamError& error) const noexcept;
  bool check_offset(StreamError& error) const noexcept;
  bool find_block(std::string_view idstr, StreamError& error) noexcept;
  void payload_follows() noexcept;
  PageData page_data(ByteReader& in) noexcept;
  void zero_page() noexcept;
  [[nodiscard]] std::byte* page() const noexcept { return current_->block->target().base + page_offset_; }
  void mark_page() const noexcept { current_->block->target().bits->set(page_offset_ / kPageBytes); }
  void mark_page_of_run() noexcept;
  void set_marks() noexcept;

  const MainSettings& settings_;
  const RamBlockList& session_blocks_;
  CompressJobs& compress_;
  const NodeRouter* const router_;
  PageWriter writer_;
  BlockListReader list_;
  std::unordered_map<std::string_view, Listed> listed_;  // by the blocks' own names; constant after resolve()
  RoutedBytes routed_;
  RamTally tally_;
  PassCounter passes_;

  // Pages of a run of PAGE records whose bits are still to be set: one atomic operation for up to 64 of them.
  // Invariant: none whenever another kind of record is applied, and after fence().
  PageBitmap* marks_ = nullptr;
  uint64_t mark_first_ = 0;
  uint64_t mark_count_ = 0;

  State state_ = State::word;
  const Listed* current_ = nullptr;    // block of the last page record: what CONTINUE means
  RamRecord record_ = RamRecord::eos;  // being read
  uint64_t page_offset_ = 0;           // in the block
  uint64_t data_offset_ = 0;           // of the last PAGE record
  uint64_t piece_at_ = 0;
  uint64_t at_ = 0;             // stream offset of the record
  uint32_t name_bytes_ = 0;     // of the block's name to come
  uint32_t page_left_ = 0;      // bytes of the page that have not come
  uint32_t encoded_bytes_ = 0;  // of the XBZRLE patch or the zlib stream to come
  bool list_expected_ = false;  // MEM_SIZE must be the next record
  bool with_mr_addr_ = false;
  uint64_t page_sizes_ = 0;
  std::optional<uint64_t> word_after_list_;
  bool with_mapped_ram_ = false;
};

}  // namespace migrx
