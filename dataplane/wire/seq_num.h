// TCP sequence numbers: 32 bits that wrap, so neither `<` of the integer nor its difference means anything.
#pragma once

#include <cstdint>

namespace migrx {

// Order and distance modulo 2^32 (RFC 9293 section 3.4). Right for numbers less than 2^31 apart, which a
// window of at most 2^30 bytes (RFC 7323 section 2.3) guarantees. Not a strict weak order: never a key of a
// sorted container.
class SeqNum {
 public:
  constexpr SeqNum() noexcept = default;
  constexpr explicit SeqNum(uint32_t value) noexcept : value_(value) {}
  [[nodiscard]] constexpr uint32_t value() const noexcept { return value_; }

  friend constexpr bool operator==(SeqNum a, SeqNum b) noexcept { return a.value_ == b.value_; }
  friend constexpr bool operator<(SeqNum a, SeqNum b) noexcept { return (a - b) < 0; }
  friend constexpr bool operator>(SeqNum a, SeqNum b) noexcept { return (a - b) > 0; }
  friend constexpr bool operator<=(SeqNum a, SeqNum b) noexcept { return (a - b) <= 0; }
  friend constexpr bool operator>=(SeqNum a, SeqNum b) noexcept { return (a - b) >= 0; }

  // Signed distance in bytes from `b` to `a`.
  friend constexpr int32_t operator-(SeqNum a, SeqNum b) noexcept {
    return static_cast<int32_t>(a.value_ - b.value_);
  }
  friend constexpr SeqNum operator+(SeqNum a, uint32_t bytes) noexcept { return SeqNum{a.value_ + bytes}; }
  friend constexpr SeqNum operator-(SeqNum a, uint32_t bytes) noexcept { return SeqNum{a.value_ - bytes}; }
  constexpr SeqNum& operator+=(uint32_t bytes) noexcept {
    value_ += bytes;
    return *this;
  }

 private:
  uint32_t value_ = 0;
};

// Bytes from `begin` up to `end`. Precondition: begin <= end.
[[nodiscard]] constexpr uint32_t bytes_between(SeqNum begin, SeqNum end) noexcept {
  return end.value() - begin.value();
}
[[nodiscard]] constexpr SeqNum earlier(SeqNum a, SeqNum b) noexcept {
  return a < b ? a : b;
}
[[nodiscard]] constexpr SeqNum later(SeqNum a, SeqNum b) noexcept {
  return a > b ? a : b;
}

}  // namespace migrx
