// What follows the type byte of a section (QEMU migration/savevm.c,
// qemu_loadvm_section_start_full and qemu_loadvm_section_part_end):
//
//   START, FULL  be32 section_id, str8 idstr, be32 instance_id, be32 version_id
//   PART, END    be32 section_id
//
// idstr names a device and instance_id tells devices of one name apart. The source numbers its sections:
// section_id stands for both in all that follows START.
#pragma once

#include <array>

#include "loader/main/main_events.h"
#include "loader/main/step.h"
#include "loader/stream/byte_reader.h"

namespace migrx {

// Reads one header after the other and keeps the last one as it came, type byte included.
class SectionHeaderReader {
 public:
  // type: start, full, part or end; its byte has been read. at: the offset of that byte.
  void begin(SectionType type, uint64_t at) noexcept;
  // done: header() and bytes() are valid until the next begin(). No allocation.
  Step read(ByteReader& in, StreamError& error) noexcept;

  // Of a PART or END only type and section_id are there.
  [[nodiscard]] const SectionHeader& header() const noexcept { return header_; }
  [[nodiscard]] Bytes bytes() const noexcept { return {bytes_.data(), size_}; }
  // Of its type byte.
  [[nodiscard]] uint64_t at() const noexcept { return at_; }

 private:
  enum class State : uint8_t { section_id, section_id_and_name_length, name_and_rest, done };
  static constexpr std::size_t kNameAt = 1 + 4 + 1;
  static constexpr std::size_t kBytesMax = kNameAt + 255 + 4 + 4;

  void keep(const std::byte* p, std::size_t n) noexcept;

  State state_ = State::done;
  SectionHeader header_;
  uint64_t at_ = 0;
  std::size_t name_length_ = 0;
  std::array<std::byte, kBytesMax> bytes_{};
  std::size_t size_ = 0;
};

}  // namespace migrx
