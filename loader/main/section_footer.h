// The end of a section: byte 7e and section_id as a big-endian 32-bit number (be32), or nothing (QEMU
// migration/savevm.c, check_section_footer).
//
// Machine types up to 2.3 send none (property send-section-footer). The stream does not say so: the byte
// after the first section tells, since no item begins with a footer's byte.
#pragma once

#include <optional>

#include "loader/main/main_events.h"
#include "loader/main/step.h"
#include "loader/stream/byte_reader.h"

namespace migrx {

// One per stream.
class SectionFooterReader {
 public:
  // After the body of that section. done: the section has ended, with a footer or without: present(). Where
  // there is none nothing is taken from `in`. No allocation.
  Step read(ByteReader& in, uint32_t section_id, std::string_view idstr, StreamError& error) noexcept;
  // Sections of this stream end with footers. Valid after the first one.
  [[nodiscard]] bool present() const noexcept { return present_.value_or(false); }

 private:
  bool find_out(std::byte next, uint64_t at, StreamError& error) noexcept;

  std::optional<bool> present_;  // not known before the first section has ended
};

}  // namespace migrx
