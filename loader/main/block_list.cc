#include "loader/main/block_list.h"

#include <algorithm>
#include <array>
#include <bit>

#include "loader/ram/ram_block.h"

namespace migrx {
namespace {

constexpr const char* kNameField = "RAM block list: idstr";
constexpr const char* kLengthField = "RAM block list: used_length";
constexpr const char* kMappedRamField = "RAM block list: mapped-ram header";

}  // namespace

void BlockListReader::begin(uint64_t total, bool with_mr_addr, bool with_mapped_ram,
                            uint64_t page_sizes) noexcept {
  entries_.clear();
  names_.clear();
  position_wanted_.reset();
  next_word_.reset();
  page_sizes_ = page_sizes & ~uint64_t{kPageBytes};
  left_ = total;
  state_ = State::name_length;
  with_mr_addr_ = with_mr_addr;
  with_mapped_ram_ = with_mapped_ram;
}

Step BlockListReader::read(ByteReader& in, StreamError& error) {
  const std::byte* p = nullptr;
  for (;;) {
    switch (state_) {
      case State::name_length: {
        if (position_wanted_.has_value()) return Step::parked;
        if (left_ == 0) return Step::done;
        if ((p = in.take(1)) == nullptr) return Step::need_more;
        name_length_ = std::to_integer<uint8_t>(*p);
        const uint64_t at = in.offset() - 1;
        if (name_length_ == 0 && page_sizes_ != 0 && !entries_.empty() && !entries_.back().page_bytes) {
          state_ = State::page_size;
          break;
        }
        if (name_length_ == 0) {
          error = make_error(ErrorClass::bad_stream, at, kNameField, "empty name");
          return Step::failed;
        }
        if (entries_.size() == kRamBlocksMax) {
          error = make_error_values(ErrorClass::bad_stream, at, "RAM block list: number of blocks",
                                    entries_.size() + 1, kRamBlocksMax);
          return Step::failed;
        }
        state_ = State::name;
        break;
      }
      case State::name: {
        if ((p = in.take(name_length_)) == nullptr) return Step::need_more;
        entries_.emplace_back();
        entries_.back().idstr.assign(reinterpret_cast<const char*>(p), name_length_);
        if (!check_name(in.offset() - name_length_, error)) return Step::failed;
        state_ = State::used_length;
        break;
      }
      case State::used_length: {
        if ((p = in.take(8)) == nullptr) return Step::need_more;
        const uint64_t length = load_be64(p);
        const uint64_t at = in.offset() - 8;
        // The sum is never formed: each length is held against what the total leaves.
        if (length == 0 || length % kPageBytes != 0) {
          error = make_error(ErrorClass::bad_stream, at, kLengthField,
                             "block '%s': %llu is not a multiple of the page size",
                             entries_.back().idstr.c_str(), static_cast<unsigned long long>(length));
          return Step::failed;
        }
        if (length > left_) {
          error = make_error_values(ErrorClass::bad_stream, at, kLengthField, length, left_,
                                    "the blocks are longer than the announced total");
          return Step::failed;
        }
        entries_.back().used_length = length;
        left_ -= length;
        state_ = with_mr_addr_                    ? State::mr_addr
                 : with_mapped_ram_               ? State::mapped_ram
                 : page_sizes_ != 0 && left_ == 0 ? State::last_page_size
                                                  : State::name_length;
        break;
      }
      case State::page_size: {  // its first byte, a zero, has been read
        if ((p = in.take(7)) == nullptr) return Step::need_more;
        std::array<std::byte, 8> bytes{};
        std::copy_n(p, 7, bytes.data() + 1);
        if (!take_page_size(in.offset() - 8, load_be64(bytes.data()), error)) return Step::failed;
        state_ = State::name_length;
        break;
      }
      case State::last_page_size: {
        if ((p = in.take(8)) == nullptr) return Step::need_more;
        const uint64_t word = load_be64(p);
        if (word % kPageBytes != 0)
          next_word_ = word;
        else if (!take_page_size(in.offset() - 8, word, error))
          return Step::failed;
        state_ = State::name_length;
        break;
      }
      case State::mr_addr: {
        if ((p = in.take(8)) == nullptr) return Step::need_more;
        entries_.back().mr_addr = load_be64(p);
        state_ = State::name_length;
        break;
      }
      case State::mapped_ram: {
        if ((p = in.take(kMappedRamHeaderBytes)) == nullptr) return Step::need_more;
        const MappedRamHeader header{load_be32(p), load_be64(p + 4), load_be64(p + 12), load_be64(p + 20)};
        if (!check_mapped_ram(in.offset() - kMappedRamHeaderBytes, header, error)) return Step::failed;
        entries_.back().mapped_ram = header;
        position_wanted_ = header.pages_offset + entries_.back().used_length;
        state_ = State::name_length;
        break;
      }
    }
  }
}

bool BlockListReader::check_name(uint64_t at, StreamError& error) {
  const std::string& name = entries_.back().idstr;
  for (const char c : name) {
    // QEMU makes names of device paths and object ids: printable, without blanks at least at the ends.
    if (c < 0x20 || c == 0x7f) {
      error = make_error(ErrorClass::bad_stream, at, kNameField, "control character in a block's name");
      return false;
    }
  }
  if (!names_.insert(name).second) {
    error = make_error(ErrorClass::bad_stream, at, kNameField, "block '%s' is listed twice", name.c_str());
    return false;
  }
  return true;
}

// One of those that POSTCOPY_ADVISE has announced.
bool BlockListReader::take_page_size(uint64_t at, uint64_t bytes, StreamError& error) {
  BlockEntry& entry = entries_.back();
  if (!std::has_single_bit(bytes) || (bytes & page_sizes_) == 0) {
    error = make_error(ErrorClass::bad_stream, at, "RAM block list: page size",
                       "block '%s': 0x%llx is none of the page sizes that POSTCOPY_ADVISE named (0x%llx)",
                       entry.idstr.c_str(), static_cast<unsigned long long>(bytes),
                       static_cast<unsigned long long>(page_sizes_));
    return false;
  }
  if (entry.used_length % bytes != 0) {
    error = make_error_values(ErrorClass::bad_stream, at, "RAM block list: page size", bytes,
                              entry.used_length, "the block is not in whole pages of that size");
    return false;
  }
  entry.page_bytes = bytes;
  return true;
}

// QEMU, mapped_ram_read_header and parse_ramblock_mapped_ram; regions must not overlap either.
bool BlockListReader::check_mapped_ram(uint64_t at, const MappedRamHeader& header, StreamError& error) const {
  const BlockEntry& entry = entries_.back();
  if (header.version != 1) {
    error = make_error_values(ErrorClass::unsupported, at, "RAM block list: mapped-ram version",
                              header.version, 1);
    return false;
  }
  if (header.page_size != kPageBytes) {
    error = make_error_values(ErrorClass::mismatch, at, "RAM block list: mapped-ram page_size",
                              header.page_size, kPageBytes);
    return false;
  }
  const uint64_t bitmap_bytes = (entry.used_length / kPageBytes + 63) / 64 * 8;
  uint64_t bitmap_end = 0;
  uint64_t pages_end = 0;
  if (__builtin_add_overflow(header.bitmap_offset, bitmap_bytes, &bitmap_end) ||
      __builtin_add_overflow(header.pages_offset, entry.used_length, &pages_end) || pages_end > INT64_MAX) {
    error = make_error(ErrorClass::bad_stream, at, kMappedRamField, "block '%s': offsets beyond any file",
                       entry.idstr.c_str());
    return false;
  }
  if (header.pages_offset % kPageBytes != 0 || header.pages_offset < bitmap_end) {
    error = make_error(ErrorClass::bad_stream, at, kMappedRamField,
                       "block '%s': pages_offset %llu is not a page boundary after the bitmap's end at %llu",
                       entry.idstr.c_str(), static_cast<unsigned long long>(header.pages_offset),
                       static_cast<unsigned long long>(bitmap_end));
    return false;
  }
  if (entries_.size() > 1) {
    const BlockEntry& before = entries_[entries_.size() - 2];
    if (header.bitmap_offset < before.mapped_ram->pages_offset + before.used_length) {
      error = make_error(ErrorClass::bad_stream, at, kMappedRamField, "block '%s' overlaps the pages of '%s'",
                         entry.idstr.c_str(), before.idstr.c_str());
      return false;
    }
  }
  return true;
}

}  // namespace migrx
