#include "loader/main/return_path.h"

namespace migrx {
namespace {

constexpr const char* kField = "return path of the destination";

std::array<std::byte, 8> make_be32_message(ReturnPathType type, uint32_t value) noexcept {
  std::array<std::byte, 8> out{};
  store_be16(out.data(), static_cast<uint16_t>(type));
  store_be16(out.data() + 2, 4);
  store_be32(out.data() + 4, value);
  return out;
}

}  // namespace

const char* to_string(ReturnPathType type) noexcept {
  switch (type) {
    case ReturnPathType::invalid:
      return "INVALID";
    case ReturnPathType::shut:
      return "SHUT";
    case ReturnPathType::pong:
      return "PONG";
    case ReturnPathType::req_pages_id:
      return "REQ_PAGES_ID";
    case ReturnPathType::req_pages:
      return "REQ_PAGES";
    case ReturnPathType::recv_bitmap:
      return "RECV_BITMAP";
    case ReturnPathType::resume_ack:
      return "RESUME_ACK";
    case ReturnPathType::switchover_ack:
      return "SWITCHOVER_ACK";
  }
  return "unknown";
}

std::array<std::byte, 8> make_shut(uint32_t value) noexcept {
  return make_be32_message(ReturnPathType::shut, value);
}
std::array<std::byte, 8> make_pong(uint32_t value) noexcept {
  return make_be32_message(ReturnPathType::pong, value);
}
std::array<std::byte, 4> make_switchover_ack() noexcept {
  std::array<std::byte, 4> out{};
  store_be16(out.data(), static_cast<uint16_t>(ReturnPathType::switchover_ack));
  return out;
}

bool ReturnPathReader::next(ReturnPathMessage& message) noexcept {
  if (error_) return false;
  if (!have_header_) {
    const uint64_t at = in_.offset();
    const std::byte* const p = in_.take(kReturnPathHeaderBytes);
    if (p == nullptr) return false;
    const uint16_t type = load_be16(p);
    length_ = load_be16(p + 2);
    type_ = static_cast<ReturnPathType>(type);
    if (shut_seen_) {
      error_ = make_error(ErrorClass::bad_stream, at, kField,
                          "message %u after SHUT, which must be the last one", type);
      return false;
    }
    uint16_t expected = 0;
    switch (type_) {
      case ReturnPathType::shut:
      case ReturnPathType::pong:
        expected = 4;
        break;
      case ReturnPathType::switchover_ack:
        break;
      case ReturnPathType::req_pages_id:
      case ReturnPathType::req_pages:
      case ReturnPathType::recv_bitmap:
      case ReturnPathType::resume_ack:
        error_ = make_error(ErrorClass::unsupported, at, kField,
                            "%s belongs to postcopy; turn the capability postcopy-ram off at the destination",
                            to_string(type_));
        return false;
      case ReturnPathType::invalid:
      default:
        error_ = make_error(ErrorClass::bad_stream, at, kField, "unknown message type %u", type);
        return false;
    }
    if (length_ != expected) {
      error_ = make_error(ErrorClass::bad_stream, at, kField, "%s of length %u, expected %u",
                          to_string(type_), length_, expected);
      return false;
    }
    have_header_ = true;
  }
  message = {type_, 0};
  if (length_ > 0) {
    const std::byte* const p = in_.take(length_);
    if (p == nullptr) return false;
    message.value = load_be32(p);
  }
  have_header_ = false;
  shut_seen_ = type_ == ReturnPathType::shut;
  return true;
}

}  // namespace migrx
