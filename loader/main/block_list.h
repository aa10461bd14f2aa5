// The list of RAM blocks that follows the MEM_SIZE word (QEMU migration/ram.c,
// ram_save_setup and parse_ramblocks):
//
//   (str8 idstr, be64 used_length, [be64 mr->addr: x-ignore-shared], [28 byte header: mapped-ram])*
//
// until the lengths add up to the total of the word. (postcopy-ram adds a page size for blocks in huge pages;
// such a source has been refused at POSTCOPY_ADVISE.)
#pragma once

#include <span>
#include <string>
#include <unordered_set>
#include <vector>

#include "loader/main/main_events.h"
#include "loader/main/step.h"
#include "loader/stream/byte_reader.h"

namespace migrx {

class BlockListReader {
 public:
  static constexpr std::size_t kMappedRamHeaderBytes = 28;

  // total: bytes of all blocks together, a multiple of the page size.
  void begin(uint64_t total, bool with_mr_addr, bool with_mapped_ram) noexcept;
  // done: entries() is complete. parked: file_position_wanted() says where the stream goes on.
  // Allocates: once per migration, bounded by kRamBlocksMax.
  Step read(ByteReader& in, StreamError& error);
  [[nodiscard]] std::span<const BlockEntry> entries() const noexcept { return entries_; }

  // In a mapped-ram file the next entry lies after the pages of the last one: its absolute position
  // in the file.
  [[nodiscard]] std::optional<uint64_t> file_position_wanted() const noexcept { return position_wanted_; }
  void file_position_reached() noexcept { position_wanted_.reset(); }

 private:
  enum class State : uint8_t { name_length, name, used_length, mr_addr, mapped_ram };
  bool check_name(uint64_t at, StreamError& error);
  bool check_mapped_ram(uint64_t at, const MappedRamHeader& header, StreamError& error) const;

  std::vector<BlockEntry> entries_;
  std::unordered_set<std::string> names_;  // of entries_
  std::optional<uint64_t> position_wanted_;
  uint64_t left_ = 0;  // bytes of blocks not listed yet
  uint8_t name_length_ = 0;
  State state_ = State::name_length;
  bool with_mr_addr_ = false;
  bool with_mapped_ram_ = false;
};

}  // namespace migrx
