#include "loader/main/ram_section.h"

#include "loader/ram/xbzrle.h"

namespace migrx {
namespace {

using namespace ram_flag;

constexpr uint64_t kFlagMask = kPageBytes - 1;
constexpr uint64_t kPageRecords = kZero | kPage | kXbzrle | kCompressPage;
// Everything that may stand in a word beside CONTINUE, one at a time.
constexpr uint64_t kRecords = kPageRecords | kMemSize | kEos | kHook | kMultifdFlush;
// What a mapped-ram file cannot hold (QEMU 9.0, ram_load_precopy).
constexpr uint64_t kNotInMappedRam = kPage | kZero | kXbzrle | kHook | kMultifdFlush | kCompressPage;

// Where pages have 1 KiB, these two bits of a word belong to the page's offset.
constexpr uint64_t kSmallPageBits = 0xc00;
constexpr uint64_t kSmallPageBytes = 1024;

constexpr const char* kFlagsField = "RAM section: flags";
constexpr const char* kBlockField = "RAM section: idstr";

}  // namespace

RamSection::RamSection(const MainSettings& settings, const RamBlockList& blocks, const PageKernels& kernels,
                       CompressJobs& compress, const NodeRouter* router)
    : settings_(settings), session_blocks_(blocks), compress_(compress), router_(router), writer_(kernels) {}

void RamSection::begin(bool start) noexcept {
  state_ = State::word;
  list_expected_ = start;
}

RamSection::Event RamSection::run(ByteReader& in, StreamError& error) noexcept {
  const std::byte* p = nullptr;
  for (;;) {
    switch (state_) {
      case State::word: {
        at_ = in.offset();
        if ((p = in.take(8)) == nullptr) return Event::need_more;
        const uint64_t word = load_be64(p);
        page_offset_ = word & ~kFlagMask;
        const uint64_t flags = word & kFlagMask;
        // Nearly all records of a busy stream: the next page of the same block.
        if (flags == (kPage | kContinue) && current_ != nullptr && !list_expected_ && !with_mapped_ram_)
            [[likely]] {
          record_ = RamRecord::page;
          if (!check_offset(error)) return Event::failed;
          payload_follows();
          break;
        }
        if (const std::optional<Event> event = begin_record(flags, error)) return *event;
        break;
      }
      case State::page_data: {
        switch (page_data(in)) {
          case PageData::need_more:
            return Event::need_more;
          case PageData::parked:
            return Event::parked;
          case PageData::complete:
            state_ = State::word;
            break;
        }
        break;
      }
      case State::idstr_length: {
        if ((p = in.take(1)) == nullptr) return Event::need_more;
        name_bytes_ = std::to_integer<uint32_t>(*p);
        if (name_bytes_ == 0) {
          error = make_error(ErrorClass::bad_stream, at_, kBlockField, "empty name");
          return Event::failed;
        }
        state_ = State::idstr;
        break;
      }
      case State::idstr: {
        if ((p = in.take(name_bytes_)) == nullptr) return Event::need_more;
        if (!find_block({reinterpret_cast<const char*>(p), name_bytes_}, error)) return Event::failed;
        if (!check_offset(error)) return Event::failed;
        payload_follows();
        break;
      }
      case State::zero_fill: {
        if ((p = in.take(1)) == nullptr) return Event::need_more;
        // Up to 8.1 a destination filled the page with any byte; every source sends 0.
        if (*p != std::byte{0}) {
          error = make_error_values(ErrorClass::bad_stream, at_, "RAM section: fill byte of a zero page",
                                    std::to_integer<uint64_t>(*p), 0);
          return Event::failed;
        }
        zero_page();
        state_ = State::word;
        break;
      }
      case State::xbzrle_header: {
        if ((p = in.take(3)) == nullptr) return Event::need_more;
        if (p[0] != std::byte{1}) {
          error = make_error_values(ErrorClass::bad_stream, at_, "RAM section: XBZRLE encoding",
                                    std::to_integer<uint64_t>(p[0]), 1, "unknown page encoding");
          return Event::failed;
        }
        encoded_bytes_ = load_be16(p + 1);
        if (encoded_bytes_ > kPageBytes) {
          error = make_error_values(ErrorClass::bad_stream, at_, "RAM section: XBZRLE length", encoded_bytes_,
                                    kPageBytes);
          return Event::failed;
        }
        // Nothing to patch; QEMU's sources skip unchanged pages.
        state_ = encoded_bytes_ > 0 ? State::xbzrle_data : State::word;
        if (encoded_bytes_ == 0) ++tally_.xbzrle_pages;
        break;
      }
      case State::xbzrle_data: {
        if ((p = in.take(encoded_bytes_)) == nullptr) return Event::need_more;
        if (const XbzrleStatus status = xbzrle_apply(page(), {p, encoded_bytes_});
            status != XbzrleStatus::ok) {
          error = make_error(ErrorClass::bad_stream, at_, "RAM section: XBZRLE data",
                             "%s (block '%s', offset %llu)", to_string(status),
                             current_->block->idstr().c_str(), static_cast<unsigned long long>(page_offset_));
          return Event::failed;
        }
        mark_page();
        ++tally_.xbzrle_pages;
        tally_.xbzrle_bytes += encoded_bytes_;
        state_ = State::word;
        break;
      }
      case State::compress_length: {
        if ((p = in.take(4)) == nullptr) return Event::need_more;
        encoded_bytes_ = load_be32(p);
        if (encoded_bytes_ == 0 || encoded_bytes_ > kCompressedPageBytesMax) {
          error = make_error_values(ErrorClass::bad_stream, at_, "RAM section: COMPRESS_PAGE length",
                                    encoded_bytes_, kCompressedPageBytesMax);
          return Event::failed;
        }
        state_ = State::compress_data;
        break;
      }
      case State::compress_data: {
        if ((p = in.take(encoded_bytes_)) == nullptr) return Event::need_more;
        if (const InflateStatus status = compress_.submit({p, encoded_bytes_}, at_, page());
            status != InflateStatus::ok) {
          error = make_error(ErrorClass::bad_stream, at_, "RAM section: COMPRESS_PAGE data",
                             "%s (block '%s', offset %llu)", to_string(status),
                             current_->block->idstr().c_str(), static_cast<unsigned long long>(page_offset_));
          return Event::failed;
        }
        mark_page();
        ++tally_.compressed_pages;
        tally_.compressed_bytes += encoded_bytes_;
        state_ = State::word;
        break;
      }
      case State::word_after_list: {
        at_ = in.offset() - 8;
        page_offset_ = *word_after_list_ & ~kFlagMask;
        state_ = State::word;
        if (const std::optional<Event> event = begin_record(*word_after_list_ & kFlagMask, error))
          return *event;
        break;
      }
      case State::block_list: {
        switch (list_.read(in, error)) {
          case Step::need_more:
            return Event::need_more;
          case Step::parked:
            return Event::parked;
          case Step::failed:
            return Event::failed;
          case Step::done:
            word_after_list_ = list_.take_next_word();
            state_ = word_after_list_ ? State::word_after_list : State::word;
            return Event::blocks_listed;
        }
        break;
      }
    }
  }
}

std::optional<RamSection::Event> RamSection::begin_record(uint64_t flags, StreamError& error) noexcept {
  set_marks();
  if (!check_flags(flags, error)) {
    blame_small_pages(flags, error);
    return Event::failed;
  }
  record_ = static_cast<RamRecord>(flags & ~kContinue);
  switch (record_) {
    case RamRecord::mem_size:
      list_expected_ = false;
      list_.begin(page_offset_, with_mr_addr_, with_mapped_ram_, page_sizes_);
      state_ = State::block_list;
      return std::nullopt;
    case RamRecord::eos:
      return Event::eos;
    case RamRecord::multifd_flush:
      return Event::flush;
    case RamRecord::zero:
    case RamRecord::page:
    case RamRecord::xbzrle:
    case RamRecord::compress_page:
      break;
  }
  if ((flags & kContinue) == 0) {
    state_ = State::idstr_length;
    return std::nullopt;
  }
  if (current_ == nullptr) {
    error = make_error(ErrorClass::bad_stream, at_, kFlagsField,
                       "CONTINUE, but no page record has named a block yet");
    return Event::failed;
  }
  if (!check_offset(error)) return Event::failed;
  payload_follows();
  return std::nullopt;
}

// What came is no record. Where pages have 1 KiB it may be the next one's, whose offset has bits among the
// flags; or bytes from the midst of a page, when the last PAGE was taken for 4 KiB and had three records more
// inside: then the word of the very next page stands 1 KiB into it.
void RamSection::blame_small_pages(uint64_t flags, StreamError& error) const noexcept {
  if (current_ == nullptr) return;
  const uint64_t record = flags & ~(kContinue | kSmallPageBits);
  bool small = (flags & kSmallPageBits) != 0 && (flags & kContinue) != 0 && (record & kPageRecords) != 0 &&
               (record & (record - 1)) == 0 && current_->block->contains_page(page_offset_);
  if (!small && record_ == RamRecord::page && current_->lane == nullptr) {
    const uint64_t word = load_be64(current_->block->target().base + data_offset_ + kSmallPageBytes);
    small = (word & ~(kSmallPageBytes - 1)) == data_offset_ + kSmallPageBytes && (word & kContinue) != 0 &&
            (word & kPageRecords) != 0;
  }
  if (small)
    error =
        make_error(ErrorClass::unsupported, at_, kFlagsField,
                   "0x%llx: the source's machine has pages of 1 KiB (Arm boards such as vexpress-a9); only "
                   "guests with pages of 4 KiB can be received",
                   static_cast<unsigned long long>(flags));
}

// The order of QEMU's checks: first what the capabilities forbid, then what is no record at all.
bool RamSection::check_flags(uint64_t flags, StreamError& error) const noexcept {
  const uint64_t record = flags & ~kContinue;
  if (with_mapped_ram_ && (record & kNotInMappedRam) != 0) {
    error = make_error(ErrorClass::bad_stream, at_, kFlagsField,
                       "0x%llx: no such record can stand in a mapped-ram file",
                       static_cast<unsigned long long>(flags));
    return false;
  }
  if (!settings_.compress && (record & kCompressPage) != 0) {
    error = make_error(
        ErrorClass::mismatch, at_, kFlagsField,
        "0x%llx: a compressed page, but the capability compress is off here: turn it off at the source "
        "or on here",
        static_cast<unsigned long long>(flags));
    return false;
  }
  if ((record & (record - 1)) != 0 || (record & kRecords) == 0) {
    error =
        make_error(ErrorClass::bad_stream, at_, kFlagsField,
                   "unknown combination of flags 0x%llx: the stream is damaged, or the source's machine has "
                   "other pages than 4 KiB (as SPARC64 and Alpha have)",
                   static_cast<unsigned long long>(flags));
    return false;
  }
  if (record == kHook) {
    error = make_error(
        ErrorClass::unsupported, at_, kFlagsField,
        "0x%llx: a hook of the RDMA transport; migrate over tcp:", static_cast<unsigned long long>(flags));
    return false;
  }
  // QEMU takes the list anywhere; a source sends it exactly once, before everything else.
  if ((record == kMemSize) != list_expected_) {
    error = list_expected_
                ? make_error(ErrorClass::bad_stream, at_, kFlagsField,
                             "0x%llx: the first record of the START section must be MEM_SIZE",
                             static_cast<unsigned long long>(flags))
                : make_error(ErrorClass::bad_stream, at_, kFlagsField,
                             "MEM_SIZE: the block list comes once, as the first record of the START section");
    return false;
  }
  return true;
}

bool RamSection::check_offset(StreamError& error) const noexcept {
  // Departure: QEMU only tests that the page's first byte lies inside the block.
  if (current_->block->contains_page(page_offset_)) [[likely]]
    return true;
  error = make_error_values(ErrorClass::bad_stream, at_, "RAM section: offset", page_offset_,
                            current_->block->used_length() - kPageBytes, "beyond the end of the block");
  return false;
}

bool RamSection::find_block(std::string_view idstr, StreamError& error) noexcept {
  if (const auto found = listed_.find(idstr); found != listed_.end()) {
    current_ = &found->second;
    return true;
  }
  error =
      make_error(ErrorClass::bad_stream, at_, kBlockField, "block '%.*s' is not in the list of RAM blocks",
                 static_cast<int>(idstr.size()), idstr.data());
  return false;
}

// After the word and the name of a page record.
void RamSection::payload_follows() noexcept {
  // Threads of the source that compress overtake each other by some pages.
  constexpr uint64_t kSlack = 64 * kPageBytes;
  if (record_ != RamRecord::page)
    passes_.note(current_->block->target().bits, page_offset_,
                 record_ == RamRecord::compress_page ? kSlack : 0);
  switch (record_) {
    case RamRecord::page:
      page_left_ = kPageBytes;
      data_offset_ = page_offset_;
      state_ = State::page_data;
      if (current_->lane == nullptr) writer_.seek(page());
      return;
    case RamRecord::zero:
      state_ = State::zero_fill;
      return;
    case RamRecord::xbzrle:
      state_ = State::xbzrle_header;
      return;
    case RamRecord::compress_page:
      state_ = State::compress_length;
      return;
    case RamRecord::mem_size:
    case RamRecord::eos:
    case RamRecord::multifd_flush:
      return;  // begin_record answers these, which have no page
  }
}

RamSection::PageData RamSection::page_data(ByteReader& in) noexcept {
  if (current_->lane == nullptr) [[likely]] {
    do {
      const Bytes piece = in.take_some(page_left_);
      if (piece.empty()) return PageData::need_more;
      writer_.write(piece);
      page_left_ -= static_cast<uint32_t>(piece.size());
    } while (page_left_ > 0);
  } else {
    do {
      const Bytes piece = in.peek_some(page_left_);
      if (piece.empty()) return PageData::need_more;
      CopyLane& lane = *current_->lane;
      if (!routed_.room_for(lane, piece_at_) ||
          !lane.push({page() + (kPageBytes - page_left_), piece.data(), static_cast<uint32_t>(piece.size())}))
        return PageData::parked;
      routed_.note(lane, piece_at_);
      in.skip(piece.size());
      page_left_ -= static_cast<uint32_t>(piece.size());
    } while (page_left_ > 0);
  }
  mark_page_of_run();
  ++tally_.normal_pages;
  return PageData::complete;
}

void RamSection::mark_page_of_run() noexcept {
  PageBitmap* const bits = current_->block->target().bits;
  const uint64_t page_number = page_offset_ / kPageBytes;
  if (bits != marks_ || page_number != mark_first_ + mark_count_) {
    set_marks();
    marks_ = bits;
    mark_first_ = page_number;
    passes_.note(bits, page_offset_);
  }
  ++mark_count_;
}

void RamSection::set_marks() noexcept {
  if (mark_count_ > 0) {
    marks_->set_range(mark_first_, mark_count_);
    passes_.note(marks_, (mark_first_ + mark_count_ - 1) * kPageBytes);
  }
  mark_count_ = 0;
}

void RamSection::zero_page() noexcept {
  const PageTarget& target = current_->block->target();
  ++tally_.zero_pages;
  if (target.still_zero(page_offset_ / kPageBytes)) {
    ++tally_.zero_pages_untouched;
    return;
  }
  writer_.clear_page(target.base + page_offset_);
  mark_page();
}

bool RamSection::resolve(StreamError& error) {
  current_ = nullptr;
  listed_.clear();
  listed_.reserve(list_.entries().size());
  for (const BlockEntry& entry : list_.entries()) {
    RamBlock* const block = session_blocks_.find(entry.idstr);
    if (block == nullptr) {
      error = make_error(ErrorClass::mismatch, at_, "RAM block list: idstr", "block '%s' is not known here",
                         entry.idstr.c_str());
      return false;
    }
    if (block->used_length() != entry.used_length) {
      error = make_error(ErrorClass::mismatch, at_, "RAM block list: used_length",
                         "block '%s' is %llu bytes long at the source, but %llu here", entry.idstr.c_str(),
                         static_cast<unsigned long long>(entry.used_length),
                         static_cast<unsigned long long>(block->used_length()));
      return false;
    }
    listed_.emplace(block->idstr(),
                    Listed{block, router_ != nullptr ? router_->lane_to(block->node()) : nullptr});
  }
  return true;
}

bool RamSection::lane_has_room() noexcept {
  if (state_ != State::page_data || current_->lane == nullptr) return true;
  return current_->lane->has_room() && routed_.room_for(*current_->lane, piece_at_);
}

bool RamSection::settled(StreamError& error) noexcept {
  if (!compress_.settled() || !routed_.collect()) return false;
  uint64_t at = 0;
  if (const InflateStatus status = compress_.failure(at); status != InflateStatus::ok)
    error =
        make_error(ErrorClass::bad_stream, at, "RAM section: COMPRESS_PAGE data", "%s", to_string(status));
  return true;
}

uint64_t RamSection::needed_from() noexcept {
  return routed_.collect() ? ChannelParser::kNothingNeeded : routed_.oldest();
}

}  // namespace migrx
