// The list of RAM blocks that follows the MEM_SIZE word (QEMU migration/ram.c,
// ram_save_setup and parse_ramblocks):
//
//   (str8 idstr, be64 used_length, [be64 page size: postcopy-ram, a block in huge pages],
//    [be64 mr->addr: x-ignore-shared], [28 byte header: mapped-ram])*
//
// until the lengths add up to the total of the word. Nothing says of which blocks the page size comes: QEMU
// looks at its own block. A byte tells here: names are never empty, and a page size begins with 00. Behind
// the last block the next record's word follows, which has a flag among its low bits, as no page size has.
#pragma once

#include <span>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "loader/main/main_events.h"
#include "loader/main/step.h"
#include "loader/stream/byte_reader.h"

namespace migrx {

class BlockListReader {
 public:
  static constexpr std::size_t kMappedRamHeaderBytes = 28;

  // total: bytes of all blocks together, a multiple of the page size.
  // page_sizes: of postcopy-ram, the sizes that may come, OR-ed; 0: none come.
  void begin(uint64_t total, bool with_mr_addr, bool with_mapped_ram, uint64_t page_sizes = 0) noexcept;
  // done: entries() is complete. parked: file_position_wanted() says where the stream goes on.
  // Allocates: once per migration, bounded by kRamBlocksMax.
  Step read(ByteReader& in, StreamError& error);
  [[nodiscard]] std::span<const BlockEntry> entries() const noexcept { return entries_; }

  // The word of the record behind the list, when it had to be read to find the list's end. Taken once.
  [[nodiscard]] std::optional<uint64_t> take_next_word() noexcept { return std::exchange(next_word_, {}); }

  // In a mapped-ram file the next entry lies after the pages of the last one: its absolute position
  // in the file.
  [[nodiscard]] std::optional<uint64_t> file_position_wanted() const noexcept { return position_wanted_; }
  void file_position_reached() noexcept { position_wanted_.reset(); }

 private:
  enum class State : uint8_t {
    name_length,
    name,
    used_length,
    last_page_size,
    page_size,
    mr_addr,
    mapped_ram
  };
  bool check_name(uint64_t at, StreamError& error);
  bool take_page_size(uint64_t at, uint64_t bytes, StreamError& error);
  bool check_mapped_ram(uint64_t at, const MappedRamHeader& header, StreamError& error) const;

  std::vector<BlockEntry> entries_;
  std::unordered_set<std::string> names_;  // of entries_
  std::optional<uint64_t> position_wanted_;
  std::optional<uint64_t> next_word_;
  uint64_t page_sizes_ = 0;
  uint64_t left_ = 0;  // bytes of blocks not listed yet
  uint8_t name_length_ = 0;
  State state_ = State::name_length;
  bool with_mr_addr_ = false;
  bool with_mapped_ram_ = false;
};

}  // namespace migrx
