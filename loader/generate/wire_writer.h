// Appends big-endian fields: how the bytes of a migration stream are put together here.
#pragma once

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace migrx {

class WireWriter {
 public:
  WireWriter& u8(uint64_t value) { return number(value, 1); }
  WireWriter& be16(uint64_t value) { return number(value, 2); }
  WireWriter& be32(uint64_t value) { return number(value, 4); }
  WireWriter& be64(uint64_t value) { return number(value, 8); }
  WireWriter& text(std::string_view text) {
    for (const char c : text) bytes_.push_back(static_cast<std::byte>(c));
    return *this;
  }
  // A length byte in front; at most 255 characters.
  WireWriter& str8(std::string_view name) { return u8(name.size()).text(name); }
  WireWriter& zeros(std::size_t count) {
    bytes_.insert(bytes_.end(), count, std::byte{0});
    return *this;
  }
  [[nodiscard]] std::vector<std::byte> take() { return std::exchange(bytes_, {}); }

 private:
  WireWriter& number(uint64_t value, int bytes) {
    for (int shift = (bytes - 1) * 8; shift >= 0; shift -= 8)
      bytes_.push_back(static_cast<std::byte>(value >> shift));
    return *this;
  }
  std::vector<std::byte> bytes_;
};

}  // namespace migrx
