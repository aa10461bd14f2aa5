#include "loader/main/other_sections.h"

namespace migrx {
namespace {

// Flags of a dirty-bitmap record; the top bit of a byte says that more bytes of flags follow.
constexpr uint32_t kDirtyEos = 0x01;
constexpr uint32_t kDirtyZeroes = 0x02;
constexpr uint32_t kDirtyBitmapName = 0x04;
constexpr uint32_t kDirtyDeviceName = 0x08;
constexpr uint32_t kDirtyStart = 0x10;
constexpr uint32_t kDirtyComplete = 0x20;
constexpr uint32_t kDirtyBits = 0x40;
constexpr uint32_t kDirtyExtra = 0x80;
// QEMU sends the bits of 1 KiB chunks of a bitmap, rounded to its alignment; a megabyte is far beyond that.
constexpr uint64_t kDirtyBitsBytesMax = 1U << 20;

// Flags of a block record, below the sector number.
constexpr uint64_t kBlockFlagMask = 0x1ff;
constexpr uint64_t kBlockDevice = 0x01;
constexpr uint64_t kBlockEos = 0x02;
constexpr uint64_t kBlockProgress = 0x04;
constexpr uint64_t kBlockZero = 0x08;
constexpr uint64_t kBlockBytes = 1U << 20;

// virtio-mem: be64 addr, be64 region_size, be64 block_size, be32 node, be64 size, then the bitmap
// of plugged blocks.
constexpr std::size_t kVirtioMemHeaderBytes = 36;
// 2^27 blocks: 256 TiB in blocks of 2 MiB.
constexpr uint64_t kVirtioMemBlocksMax = uint64_t{1} << 27;

}  // namespace

SectionKind section_kind(std::string_view idstr) noexcept {
  if (idstr == "ram") return SectionKind::ram;
  if (idstr == "dirty-bitmap") return SectionKind::dirty_bitmap;
  if (idstr == "block") return SectionKind::block;
  if (idstr.ends_with("virtio-mem-device-early")) return SectionKind::virtio_mem_early;
  return SectionKind::device;
}

const char* section_remedy(std::string_view idstr) noexcept {
  if (idstr.ends_with("/vfio")) return "a VFIO device that migrates; unplug it before the migration";
  if (idstr == "spapr/htab") return "a pseries guest; only x86, Arm and RISC-V guests can be received";
  if (idstr.starts_with("s390-")) return "an s390 guest; only x86, Arm and RISC-V guests can be received";
  return nullptr;
}

void OtherSectionBody::begin(SectionKind kind) noexcept {
  flags_ = 0;
  left_ = 0;
  switch (kind) {
    case SectionKind::dirty_bitmap:
      state_ = State::dirty_flags;
      break;
    case SectionKind::block:
      state_ = State::block_word;
      break;
    case SectionKind::virtio_mem_early:
      state_ = State::virtio_mem;
      break;
    case SectionKind::ram:
    case SectionKind::device:
      state_ = State::finished;
      break;
  }
}

const std::byte* OtherSectionBody::pass(ByteReader& in, std::size_t n) noexcept {
  const std::byte* const p = in.take(n);
  // There was room for an event when this record began, and a record's fixed fields are much
  // smaller than that.
  if (p != nullptr) static_cast<void>(events_.on_verbatim({p, n}));
  return p;
}

void OtherSectionBody::expect_data(uint64_t bytes, State after) noexcept {
  left_ = bytes;
  after_data_ = after;
  state_ = State::data;
}

void OtherSectionBody::dirty_names_done() noexcept {
  state_ = (flags_ & kDirtyStart) != 0      ? State::dirty_start
           : (flags_ & kDirtyComplete) != 0 ? State::dirty_body
           : (flags_ & kDirtyBits) != 0     ? State::dirty_bits
                                            : State::dirty_body;
}

Step OtherSectionBody::read(ByteReader& in, StreamError& error) noexcept {
  const std::byte* p = nullptr;
  for (;;) {
    switch (state_) {
      case State::dirty_flags: {
        if (!events_.writable()) return Step::parked;
        if ((p = pass(in, 1)) == nullptr) return Step::need_more;
        flags_ = std::to_integer<uint32_t>(*p);
        state_ = (flags_ & kDirtyExtra) != 0 ? State::dirty_flags_2 : State::dirty_node_length;
        break;
      }
      case State::dirty_flags_2: {
        if ((p = pass(in, 1)) == nullptr) return Step::need_more;
        const uint32_t second = std::to_integer<uint32_t>(*p);
        flags_ = flags_ << 8 | second;
        state_ = (second & kDirtyExtra) != 0 ? State::dirty_flags_4 : State::dirty_node_length;
        break;
      }
      case State::dirty_flags_4: {
        if ((p = pass(in, 2)) == nullptr) return Step::need_more;
        flags_ = flags_ << 16 | load_be16(p);
        state_ = State::dirty_node_length;
        break;
      }
      case State::dirty_node_length: {
        if ((flags_ & kDirtyDeviceName) == 0) {
          state_ = State::dirty_bitmap_length;
          break;
        }
        if ((p = pass(in, 1)) == nullptr) return Step::need_more;
        expect_data(std::to_integer<uint64_t>(*p), State::dirty_bitmap_length);
        break;
      }
      case State::dirty_bitmap_length: {
        if ((flags_ & kDirtyBitmapName) == 0) {
          dirty_names_done();
          break;
        }
        if ((p = pass(in, 1)) == nullptr) return Step::need_more;
        const uint64_t length = std::to_integer<uint64_t>(*p);
        dirty_names_done();
        expect_data(length, state_);
        break;
      }
      case State::dirty_body:
        state_ = (flags_ & kDirtyEos) != 0 ? State::finished : State::dirty_flags;
        break;
      case State::dirty_start: {
        if (pass(in, 5) == nullptr) return Step::need_more;  // be32 granularity, u8 flags
        state_ = State::dirty_body;
        break;
      }
      case State::dirty_bits: {
        if (pass(in, 12) == nullptr) return Step::need_more;  // be64 first sector, be32 sectors
        state_ = (flags_ & kDirtyZeroes) != 0 ? State::dirty_body : State::dirty_bits_size;
        break;
      }
      case State::dirty_bits_size: {
        if ((p = in.take(8)) == nullptr) return Step::need_more;
        const uint64_t bytes = load_be64(p);
        if (bytes > kDirtyBitsBytesMax) {
          error = make_error_values(ErrorClass::bad_stream, in.offset() - 8,
                                    "dirty-bitmap section: bytes of bits", bytes, kDirtyBitsBytesMax);
          return Step::failed;
        }
        static_cast<void>(events_.on_verbatim({p, 8}));
        expect_data(bytes, State::dirty_body);
        break;
      }
      case State::block_word: {
        if (!events_.writable()) return Step::parked;
        if ((p = in.take(8)) == nullptr) return Step::need_more;
        const uint64_t flags = load_be64(p) & kBlockFlagMask;
        zero_block_ = (flags & kBlockZero) != 0;
        // QEMU, block_load: the first of these that is set decides.
        if ((flags & kBlockDevice) != 0) {
          state_ = State::block_name_length;
        } else if ((flags & kBlockProgress) != 0) {
          state_ = (flags & kBlockEos) != 0 ? State::finished : State::block_word;
        } else if ((flags & kBlockEos) != 0) {
          state_ = State::finished;
        } else {
          error = make_error(ErrorClass::bad_stream, in.offset() - 8, "block section: flags",
                             "unknown flags 0x%llx", static_cast<unsigned long long>(flags));
          return Step::failed;
        }
        flags_ = static_cast<uint32_t>(flags);
        static_cast<void>(events_.on_verbatim({p, 8}));
        break;
      }
      case State::block_name_length: {
        if ((p = pass(in, 1)) == nullptr) return Step::need_more;
        const uint64_t data = zero_block_ ? 0 : kBlockBytes;
        expect_data(std::to_integer<uint64_t>(*p) + data,
                    (flags_ & kBlockEos) != 0 ? State::finished : State::block_word);
        break;
      }
      case State::virtio_mem: {
        if (!events_.writable()) return Step::parked;
        if ((p = in.take(kVirtioMemHeaderBytes)) == nullptr) return Step::need_more;
        const uint64_t at = in.offset() - kVirtioMemHeaderBytes;
        const uint64_t region_size = load_be64(p + 8);
        const uint64_t block_size = load_be64(p + 16);
        if (block_size == 0 || (block_size & (block_size - 1)) != 0 || region_size % block_size != 0) {
          error = make_error(ErrorClass::bad_stream, at, "virtio-mem-device-early: block_size",
                             "region of %llu bytes in blocks of %llu",
                             static_cast<unsigned long long>(region_size),
                             static_cast<unsigned long long>(block_size));
          return Step::failed;
        }
        if (region_size / block_size > kVirtioMemBlocksMax) {
          error = make_error_values(ErrorClass::bad_stream, at, "virtio-mem-device-early: blocks",
                                    region_size / block_size, kVirtioMemBlocksMax);
          return Step::failed;
        }
        static_cast<void>(events_.on_verbatim({p, kVirtioMemHeaderBytes}));
        expect_data((region_size / block_size + 63) / 64 * 8, State::finished);
        break;
      }
      case State::data: {
        while (left_ > 0) {
          const Bytes piece = in.peek_some(left_);
          if (piece.empty()) return Step::need_more;
          const std::size_t taken = events_.on_verbatim(piece);
          if (taken == 0) return Step::parked;
          in.skip(taken);
          left_ -= taken;
        }
        state_ = after_data_;
        break;
      }
      case State::finished:
        return Step::done;
    }
  }
}

}  // namespace migrx
