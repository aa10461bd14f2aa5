#include "loader/destination/return_relay.h"

#include <cstdio>

namespace migrx {
namespace {

// 16 TiB of pages.
constexpr uint64_t kBitmapBytesMax = uint64_t{1} << 29;

struct Lengths {
  uint16_t least;
  uint16_t most;
};

// Of the payload; nullopt: no message of a destination in postcopy.
std::optional<Lengths> lengths_of(ReturnPathType type) {
  switch (type) {
    case ReturnPathType::shut:
    case ReturnPathType::pong:
    case ReturnPathType::resume_ack:
      return Lengths{4, 4};
    case ReturnPathType::req_pages:
      return Lengths{12, 12};
    case ReturnPathType::req_pages_id:
      return Lengths{12 + 1 + 1, 12 + 1 + 255};
    case ReturnPathType::recv_bitmap:
      return Lengths{1 + 1, 1 + 255};
    case ReturnPathType::switchover_ack:
      return Lengths{0, 0};
    case ReturnPathType::invalid:
      break;
  }
  return std::nullopt;
}

void append(Bytes bytes, std::vector<std::byte>& out) {
  out.insert(out.end(), bytes.begin(), bytes.end());
}

}  // namespace

void ReturnRelay::begin_anew() noexcept {
  in_.emplace(kMessageMax);
  state_ = State::header;
}

bool ReturnRelay::feed(Bytes bytes, const DiscardedPages* discarded, std::vector<std::byte>& out) {
  in_->feed(bytes);
  const std::byte* p = nullptr;
  for (;;) {
    switch (state_) {
      case State::header:
        if ((p = in_->take(kReturnPathHeaderBytes)) == nullptr) return true;
        if (!take_header(p)) return false;
        append({p, kReturnPathHeaderBytes}, out);
        break;
      case State::payload:
        if ((p = in_->take(length_)) == nullptr) return true;
        if (!take_payload({p, length_})) return false;
        append({p, length_}, out);
        break;
      case State::bitmap_size:
        if ((p = in_->take(8)) == nullptr) return true;
        bitmap_bytes_ = load_be64(p);
        bitmap_done_ = 0;
        if (bitmap_bytes_ == 0 || bitmap_bytes_ > kBitmapBytesMax)
          return refuse("RECV_BITMAP: size", "no bitmap has so many bytes");
        append({p, 8}, out);
        state_ = State::bitmap;
        break;
      case State::bitmap: {
        const Bytes bits = in_->take_some(bitmap_bytes_ - bitmap_done_);
        if (bits.empty()) return true;
        complete(bits, discarded, out);
        bitmap_done_ += bits.size();
        if (bitmap_done_ == bitmap_bytes_) state_ = State::bitmap_end;
        break;
      }
      case State::bitmap_end:
        if ((p = in_->take(8)) == nullptr) return true;
        if (load_be64(p) != kEndMark) return refuse("RECV_BITMAP: end mark", "the bitmap does not end so");
        append({p, 8}, out);
        state_ = State::header;
        break;
    }
  }
}

bool ReturnRelay::take_header(const std::byte* header) {
  const uint16_t number = load_be16(header);
  type_ = static_cast<ReturnPathType>(number);
  length_ = load_be16(header + 2);
  const std::optional<Lengths> lengths = lengths_of(type_);
  if (!lengths || length_ < lengths->least || length_ > lengths->most) {
    char why[64];
    std::snprintf(why, sizeof why, "message %u of %u bytes", number, length_);
    return refuse("return path", why);
  }
  if (shut_) return refuse("return path", "a message follows SHUT");
  state_ = State::payload;
  return true;
}

bool ReturnRelay::take_payload(Bytes payload) {
  state_ = State::header;
  const auto name_at = [&](std::size_t at) {
    return at + 1 + std::to_integer<std::size_t>(payload[at]) == payload.size();
  };
  switch (type_) {
    case ReturnPathType::shut:
      shut_ = load_be32(payload.data());
      break;
    case ReturnPathType::req_pages_id:
      if (!name_at(12)) return refuse("REQ_PAGES_ID", "its length does not fit its block's name");
      [[fallthrough]];
    case ReturnPathType::req_pages:
      ++requests_;
      requested_bytes_ += load_be32(payload.data() + 8);
      break;
    case ReturnPathType::recv_bitmap:
      if (!name_at(0)) return refuse("RECV_BITMAP", "its length does not fit its block's name");
      block_.assign(reinterpret_cast<const char*>(payload.data() + 1), payload.size() - 1);
      state_ = State::bitmap_size;
      break;
    case ReturnPathType::pong:
    case ReturnPathType::resume_ack:
    case ReturnPathType::switchover_ack:
    case ReturnPathType::invalid:
      break;
  }
  return true;
}

void ReturnRelay::complete(Bytes bits, const DiscardedPages* discarded, std::vector<std::byte>& out) const {
  for (std::size_t i = 0; i < bits.size(); ++i) {
    const uint8_t kept = discarded == nullptr ? uint8_t{0} : discarded->kept(block_, bitmap_done_ + i);
    out.push_back(bits[i] | std::byte{kept});
  }
}

bool ReturnRelay::refuse(const char* field, const char* why) {
  error_ = make_error(ErrorClass::bad_stream, in_->offset(), field, "from the destination QEMU: %s", why);
  return false;
}

}  // namespace migrx
