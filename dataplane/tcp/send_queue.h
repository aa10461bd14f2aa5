// The small send side: bytes that wait for the peer's acknowledgment, and the retransmission timer's value.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>

#include "dataplane/handoff/byte_order.h"
#include "dataplane/tcp/config.h"

namespace migrx {

// Return-path messages are a few bytes each, so the bytes lie in one piece and are moved up when
// acknowledged. Offset 0 is SND.UNA.
class SendQueue {
 public:
  static constexpr uint32_t kCapacity = 4096;

  [[nodiscard]] uint32_t size() const noexcept { return size_; }
  [[nodiscard]] uint32_t room() const noexcept { return kCapacity - size_; }
  // False: no room; nothing was taken.
  [[nodiscard]] bool append(Bytes bytes) noexcept {
    if (bytes.size() > room()) return false;
    std::memcpy(bytes_.data() + size_, bytes.data(), bytes.size());
    size_ += static_cast<uint32_t>(bytes.size());
    return true;
  }
  // At most `bytes_max` bytes from `offset` on.
  [[nodiscard]] Bytes peek(uint32_t offset, uint32_t bytes_max) const noexcept {
    return Bytes{bytes_}.subspan(offset, std::min(bytes_max, size_ - offset));
  }
  // Precondition: bytes <= size().
  void acknowledge(uint32_t bytes) noexcept {
    size_ -= bytes;
    std::memmove(bytes_.data(), bytes_.data() + bytes, size_);
  }
  void clear() noexcept { size_ = 0; }

 private:
  uint32_t size_ = 0;
  std::array<std::byte, kCapacity> bytes_;
};

// RFC 6298 section 2: SRTT, RTTVAR and RTO.
class RttEstimator {
 public:
  void reset(const TcpConfig& config) noexcept {
    srtt_ns_ = rttvar_ns_ = 0;
    rto_ns_ = config.rto_initial_ns;
  }
  void sample(uint64_t rtt_ns, const TcpConfig& config) noexcept {
    if (srtt_ns_ == 0) {  // (2.2)
      srtt_ns_ = std::max<uint64_t>(rtt_ns, 1);
      rttvar_ns_ = rtt_ns / 2;
    } else {  // (2.3)
      const uint64_t error = srtt_ns_ > rtt_ns ? srtt_ns_ - rtt_ns : rtt_ns - srtt_ns_;
      rttvar_ns_ = rttvar_ns_ - rttvar_ns_ / 4 + error / 4;
      srtt_ns_ = srtt_ns_ - srtt_ns_ / 8 + rtt_ns / 8;
    }
    rto_ns_ = std::clamp(srtt_ns_ + std::max(kNsPerMs, 4 * rttvar_ns_), config.rto_min_ns, config.rto_max_ns);
  }
  void back_off(const TcpConfig& config) noexcept {
    rto_ns_ = std::min(rto_ns_ * 2, config.rto_max_ns);
  }  // (5.5)
  [[nodiscard]] uint64_t rto_ns() const noexcept { return rto_ns_; }
  [[nodiscard]] uint64_t srtt_ns() const noexcept { return srtt_ns_; }

 private:
  uint64_t srtt_ns_ = 0;
  uint64_t rttvar_ns_ = 0;
  uint64_t rto_ns_ = kNsPerSecond;
};

}  // namespace migrx
