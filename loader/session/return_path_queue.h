// Holds messages for the source until its connection takes them. None is ever lost, and there are never many.
#pragma once

#include <array>
#include <cassert>
#include <cstdint>
#include <cstring>
#include <vector>

#include "dataplane/handoff/handoff.h"
#include "loader/session/channel_security.h"

namespace migrx {

// Control thread only. No allocation without TLS.
class ReturnPathQueue {
 public:
  static constexpr std::size_t kMessages = 16;
  // Kept free for SWITCHOVER_ACK and SHUT, which answer no question and must never wait for room.
  static constexpr std::size_t kReserved = 2;
  static constexpr std::size_t kMessageBytes = 8;

  // Room for an answer (a PONG, a message of COLO). False: leave the question unread; the source waits.
  [[nodiscard]] bool has_room() const noexcept { return count_ + kReserved < kMessages; }
  [[nodiscard]] bool empty() const noexcept { return count_ == 0; }

  // Precondition: has_room(), or one of the kReserved messages that come once each. At most kMessageBytes.
  void put(Bytes message) noexcept {
    assert(count_ < kMessages && message.size() <= kMessageBytes);
    Message& slot = messages_[(first_ + count_++) % kMessages];
    slot.length = static_cast<uint8_t>(message.size());
    std::memcpy(slot.bytes.data(), message.data(), message.size());
  }
  // Gives the connection as many as it takes, in order; with `security` as records. True: none is left.
  bool flush(Handoff* connection, ChannelSecurity* security = nullptr) {
    while (count_ > 0 && connection != nullptr) {
      const Message& slot = messages_[first_];
      const Bytes message{slot.bytes.data(), slot.length};
      // A record has its number, so one that found no room is kept and sent first.
      if (security != nullptr && sealed_.empty() && !security->seal(*connection, message, sealed_)) break;
      if (!connection->send(security != nullptr ? Bytes{sealed_} : message)) break;
      sealed_.clear();
      first_ = (first_ + 1) % kMessages;
      --count_;
    }
    return empty();
  }

 private:
  struct Message {
    std::array<std::byte, kMessageBytes> bytes{};
    uint8_t length = 0;
  };
  std::array<Message, kMessages> messages_{};
  std::vector<std::byte> sealed_;  // with TLS: the record of the first message
  std::size_t first_ = 0;
  std::size_t count_ = 0;
};

}  // namespace migrx
