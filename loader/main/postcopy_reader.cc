#include "loader/main/postcopy_reader.h"

#include <string_view>

namespace migrx {
namespace {

constexpr const char* kDiscardField = "RAM_DISCARD";
constexpr std::size_t kRangeBytes = 16;

}  // namespace

bool PostcopyReader::read(Bytes bytes, StreamError& error) {
  in_.feed(bytes);
  const std::byte* p = nullptr;
  for (;;) {
    switch (state_) {
      case State::head:
        if ((p = in_.take(5)) == nullptr) return true;
        if (!take_head(p, error)) return false;
        break;
      case State::payload:
        if ((p = in_.take(length_)) == nullptr) return true;
        if (command_ == MigCommand::postcopy_ram_discard && !take_discard({p, length_}, error)) return false;
        state_ = State::head;
        break;
      case State::package_length:
        if ((p = in_.take(4)) == nullptr) return true;
        state_ = State::opaque;
        error = events_.on_postcopy_package(load_be32(p));
        if (error) return false;
        break;
      case State::opaque:
        in_.skip(in_.available());
        return true;
    }
  }
}

bool PostcopyReader::take_head(const std::byte* head, StreamError& error) {
  const uint64_t at = offset() - 5;
  if (head[0] != static_cast<std::byte>(SectionType::command)) {
    error = make_error(ErrorClass::bad_stream, at, "section type",
                       "0x%02x between the switch to postcopy and its package: only commands come there",
                       std::to_integer<unsigned>(head[0]));
    return false;
  }
  const uint16_t number = load_be16(head + 1);
  command_ = static_cast<MigCommand>(number);
  length_ = load_be16(head + 3);
  uint16_t least = 4;
  uint16_t most = 4;
  switch (command_) {
    case MigCommand::postcopy_ram_discard:
      least = kDiscardBytesMin;
      most = kDiscardBytesMax;
      [[fallthrough]];
    case MigCommand::ping:
      state_ = State::payload;
      break;
    case MigCommand::packaged:
      state_ = State::package_length;
      break;
    default:
      error =
          make_error(ErrorClass::bad_stream, at, "command",
                     "%s (%u) between the switch to postcopy and its package: RAM_DISCARD, PING or PACKAGED "
                     "comes there",
                     to_string(command_), number);
      return false;
  }
  if (length_ < least || length_ > most) {
    error = make_error(ErrorClass::bad_stream, at, "command", "%s of length %u, expected %u to %u",
                       to_string(command_), length_, least, most);
    return false;
  }
  return true;
}

bool PostcopyReader::take_discard(Bytes payload, StreamError& error) {
  const uint64_t at = offset() - payload.size();
  const auto refuse = [&](const char* why) {
    error = make_error(ErrorClass::bad_stream, at, kDiscardField, "%s", why);
    return false;
  };
  if (payload[0] != std::byte{0}) {
    error = make_error_values(ErrorClass::unsupported, at, "RAM_DISCARD: version",
                              std::to_integer<uint64_t>(payload[0]), 0);
    return false;
  }
  const auto name_bytes = std::to_integer<std::size_t>(payload[1]);
  const std::size_t ranges_at = 2 + name_bytes + 1;
  if (name_bytes == 0 || ranges_at >= payload.size() || (payload.size() - ranges_at) % kRangeBytes != 0)
    return refuse("its length does not fit its block's name and whole ranges");
  if (payload[ranges_at - 1] != std::byte{0}) return refuse("its block's name has no end");
  const std::string_view name(reinterpret_cast<const char*>(payload.data() + 2), name_bytes);
  const RamBlock* const block = blocks_.find(name);
  if (block == nullptr) return refuse("of a block that is not in the list");
  for (std::size_t i = ranges_at; i < payload.size(); i += kRangeBytes) {
    const uint64_t start = load_be64(&payload[i]);
    const uint64_t length = load_be64(&payload[i + 8]);
    // Each bound by itself: the sum could wrap.
    const bool inside = start < block->used_length() && length <= block->used_length() - start;
    if (length == 0 || start % kPageBytes != 0 || length % kPageBytes != 0 || !inside) {
      error = make_error(ErrorClass::bad_stream, at + i, kDiscardField,
                         "block '%s': %llu bytes from %llu are no pages of its %llu bytes",
                         block->idstr().c_str(), static_cast<unsigned long long>(length),
                         static_cast<unsigned long long>(start),
                         static_cast<unsigned long long>(block->used_length()));
      return false;
    }
    error = events_.on_postcopy_discard(name, start / kPageBytes, length / kPageBytes);
    if (error) return false;
  }
  return true;
}

}  // namespace migrx
