#include "loader/main/section_header.h"

#include <algorithm>

namespace migrx {

void SectionHeaderReader::begin(SectionType type, uint64_t at) noexcept {
  header_ = {};
  header_.type = type;
  at_ = at;
  bytes_[0] = std::byte{static_cast<uint8_t>(type)};
  size_ = 1;
  const bool named = type == SectionType::start || type == SectionType::full;
  state_ = named ? State::section_id_and_name_length : State::section_id;
}

void SectionHeaderReader::keep(const std::byte* p, std::size_t n) noexcept {
  std::copy_n(p, n, bytes_.begin() + static_cast<std::ptrdiff_t>(size_));
  size_ += n;
}

Step SectionHeaderReader::read(ByteReader& in, StreamError& error) noexcept {
  const std::byte* p = nullptr;
  for (;;) {
    switch (state_) {
      case State::section_id:
        if ((p = in.take(4)) == nullptr) return Step::need_more;
        keep(p, 4);
        header_.section_id = load_be32(p);
        state_ = State::done;
        break;
      case State::section_id_and_name_length:
        if ((p = in.take(5)) == nullptr) return Step::need_more;
        keep(p, 5);
        header_.section_id = load_be32(p);
        name_length_ = std::to_integer<std::size_t>(p[4]);
        if (name_length_ == 0) {
          error = make_error(ErrorClass::bad_stream, at_, "section: idstr", "empty name");
          return Step::failed;
        }
        state_ = State::name_and_rest;
        break;
      case State::name_and_rest:
        if ((p = in.take(name_length_ + 8)) == nullptr) return Step::need_more;
        keep(p, name_length_ + 8);
        header_.idstr = {reinterpret_cast<const char*>(bytes_.data()) + kNameAt, name_length_};
        header_.instance_id = load_be32(p + name_length_);
        header_.version_id = load_be32(p + name_length_ + 4);
        state_ = State::done;
        break;
      case State::done:
        return Step::done;
    }
  }
}

}  // namespace migrx
