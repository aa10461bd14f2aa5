#include "loader/generate/peer_verdict.h"

namespace migrx {
namespace {

constexpr uint16_t kShut = 1;
constexpr uint16_t kPong = 2;
constexpr uint16_t kTypeMax = 7;
constexpr uint32_t kHeaderBytes = 4;

}  // namespace

void PeerVerdict::feed(Bytes bytes) noexcept {
  for (const std::byte byte : bytes) {
    if (nonsense_) return;
    if (at_ < head_.size()) head_[at_] = byte;
    ++at_;
    if (at_ < kHeaderBytes) continue;
    const uint16_t type = load_be16(head_.data());
    const uint16_t length = load_be16(head_.data() + 2);
    if (type == 0 || type > kTypeMax || length > kBytesMax) {
      nonsense_ = true;
      return;
    }
    if (at_ < kHeaderBytes + length) continue;
    at_ = 0;
    if (length != 4) continue;
    const uint32_t value = load_be32(head_.data() + kHeaderBytes);
    if (type == kPong) pong_ = value;
    if (type == kShut) shut_ = value;
  }
}

}  // namespace migrx
