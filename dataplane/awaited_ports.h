// Local ports at which somebody may begin to listen at any moment: what comes first may be a source's SYN. An
// RST would end its migration, and silence costs it a second, after which its kernel asks again (RFC 6298
// section 2: 1 s).
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

namespace migrx {

// One thread says which ports are awaited; poll cores ask.
class AwaitedPorts {
 public:
  // ---- Whoever finds listeners
  void set(uint16_t port, bool awaited) noexcept {
    if (awaited)
      word(awaited_, port).fetch_or(bit(port), std::memory_order_relaxed);
    else
      word(awaited_, port).fetch_and(~bit(port), std::memory_order_relaxed);
  }
  [[nodiscard]] bool awaited(uint16_t port) const noexcept {
    return (awaited_[port / kBits].load(std::memory_order_relaxed) & bit(port)) != 0;
  }
  // A SYN was left unanswered there since the last call.
  [[nodiscard]] bool take_asked(uint16_t port) noexcept {
    if ((asked_[port / kBits].load(std::memory_order_relaxed) & bit(port)) == 0) return false;
    word(asked_, port).fetch_and(~bit(port), std::memory_order_relaxed);
    return true;
  }

  // ---- A poll core
  // A SYN came to a port on which no tenant listens. True: it is to be left unanswered.
  [[nodiscard]] bool leave_unanswered(uint16_t port) noexcept {
    if (!awaited(port)) return false;
    word(asked_, port).fetch_or(bit(port), std::memory_order_relaxed);
    return true;
  }

 private:
  static constexpr uint32_t kBits = 64;
  using Bits = std::array<std::atomic<uint64_t>, 65536 / kBits>;
  static std::atomic<uint64_t>& word(Bits& bits, uint16_t port) noexcept { return bits[port / kBits]; }
  static uint64_t bit(uint16_t port) noexcept { return uint64_t{1} << (port % kBits); }

  Bits awaited_{};
  Bits asked_{};
};

}  // namespace migrx
