// Iterable sections beside `ram`, whose PARTs interleave with ram's, and the one FULL section that comes
// early. Their bodies have no length: a reader finds their end only by following their records. Nothing is
// loaded here; every byte is passed on as it came.
//
//   dirty-bitmap v1              QEMU migration/block-dirty-bitmap.c
//   block v1                     QEMU migration/block.c (up to 9.0)
//   …/virtio-mem-device-early v1 QEMU hw/virtio/virtio-mem.c (FULL, by computation)
#pragma once

#include <string_view>

#include "loader/main/main_events.h"
#include "loader/main/step.h"
#include "loader/stream/byte_reader.h"

namespace migrx {

enum class SectionKind : uint8_t { ram, dirty_bitmap, block, virtio_mem_early, device };

// What a START or FULL section with this name is; `device` for all that is none of the others.
[[nodiscard]] SectionKind section_kind(std::string_view idstr) noexcept;
// The capability or device that brings a section we cannot delimit, and how to do without; nullptr: unknown.
[[nodiscard]] const char* section_remedy(std::string_view idstr) noexcept;

// Follows one body at a time and passes its bytes to MainEvents::on_verbatim.
class OtherSectionBody {
 public:
  explicit OtherSectionBody(MainEvents& events) noexcept : events_(events) {}

  // kind: dirty_bitmap, block or virtio_mem_early.
  void begin(SectionKind kind) noexcept;
  // done: the body's last byte has been passed on. No allocation.
  Step read(ByteReader& in, StreamError& error) noexcept;

 private:
  enum class State : uint8_t {
    dirty_flags,
    dirty_flags_2,
    dirty_flags_4,
    dirty_node_length,
    dirty_bitmap_length,
    dirty_body,
    dirty_start,
    dirty_bits,
    dirty_bits_size,
    block_word,
    block_name_length,
    virtio_mem,
    data,  // left_ bytes, then after_data_
    finished,
  };

  // Takes n bytes and passes them on; nullptr: not there yet. The caller has asked writable() at
  // the record's start.
  const std::byte* pass(ByteReader& in, std::size_t n) noexcept;
  void expect_data(uint64_t bytes, State after) noexcept;
  void dirty_names_done() noexcept;

  MainEvents& events_;
  State state_ = State::finished;
  State after_data_ = State::finished;
  uint64_t left_ = 0;
  uint32_t flags_ = 0;
  bool zero_block_ = false;
};

}  // namespace migrx
