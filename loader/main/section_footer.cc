#include "loader/main/section_footer.h"

namespace migrx {
namespace {

constexpr std::size_t kFooterBytes = 5;

bool begins_item(uint8_t type) noexcept {
  return type <= static_cast<uint8_t>(SectionType::full) ||
         type == static_cast<uint8_t>(SectionType::command);
}

}  // namespace

bool SectionFooterReader::find_out(std::byte next, uint64_t at, StreamError& error) noexcept {
  const auto type = std::to_integer<uint8_t>(next);
  present_ = type == static_cast<uint8_t>(SectionType::footer);
  if (*present_ || begins_item(type)) return true;
  error = make_error(ErrorClass::bad_stream, at, "section footer",
                     "0x%02x is neither a footer nor the beginning of the next section", type);
  return false;
}

Step SectionFooterReader::read(ByteReader& in, uint32_t section_id, std::string_view idstr,
                               StreamError& error) noexcept {
  if (!present_.has_value()) {
    const std::optional<std::byte> next = in.peek();
    if (!next) return Step::need_more;
    if (!find_out(*next, in.offset(), error)) return Step::failed;
  }
  if (!*present_) return Step::done;
  const std::byte* const p = in.take(kFooterBytes);
  if (p == nullptr) return Step::need_more;
  const uint64_t at = in.offset() - kFooterBytes;
  if (*p != std::byte{static_cast<uint8_t>(SectionType::footer)}) {
    error = make_error(ErrorClass::bad_stream, at, "section footer", "missing after '%.*s': 0x%02x",
                       static_cast<int>(idstr.size()), idstr.data(), std::to_integer<unsigned>(*p));
    return Step::failed;
  }
  if (const uint32_t id = load_be32(p + 1); id != section_id) {
    error = make_error_values(ErrorClass::bad_stream, at, "section footer: section_id", id, section_id);
    return Step::failed;
  }
  return Step::done;
}

}  // namespace migrx
