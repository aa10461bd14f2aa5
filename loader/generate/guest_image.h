// The made-up guest whose RAM `migrx generate` sends: every page of every round is a function of the seed, so
// that nothing is stored, a byte can be produced again for a retransmission, and a check with the same
// settings knows what the receiver must hold.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace migrx {

inline constexpr uint32_t kGuestPageBytes = 4096;

struct GuestImageSettings {
  uint64_t seed = 1;
  uint64_t pages = 0;
  uint32_t zero_percent = 0;          // of pages
  uint32_t compressible_percent = 0;  // text; what remains is random bytes
  uint32_t rounds = 1;                // passes over RAM, the first and the last included; at least 1
  uint32_t dirty_percent = 0;         // of pages that a later round sends again, with new content
  // Pages with the same number modulo a hash share their bytes but for the stamps. Small: stays in the
  // caches, for speed. Large: nothing repeats within a compressor's window.
  uint32_t pool_pages = 256;
};

// A page as some round sends it.
struct PageVersion {
  uint64_t page = 0;
  uint32_t version = 0;  // the round that wrote it
};

// Immutable after construction; any thread.
class GuestImage {
 public:
  explicit GuestImage(const GuestImageSettings& settings);

  [[nodiscard]] const GuestImageSettings& settings() const noexcept { return settings_; }
  [[nodiscard]] uint64_t bytes() const noexcept { return settings_.pages * kGuestPageBytes; }
  // Whether round `round` (from 0) sends the page. Round 0 sends all.
  [[nodiscard]] bool is_sent(uint64_t page, uint32_t round) const noexcept;
  // The version a receiver holds when the last round is over.
  [[nodiscard]] PageVersion last_version(uint64_t page) const noexcept;
  [[nodiscard]] bool is_zero(PageVersion page) const noexcept;
  // Bytes [offset, offset + out.size()) of a page; they lie within it.
  void read(PageVersion page, uint32_t offset, std::span<std::byte> out) const noexcept;

 private:
  [[nodiscard]] uint64_t hash(uint64_t a, uint64_t b) const noexcept;
  [[nodiscard]] const std::byte* pool_page(uint64_t hashed) const noexcept;

  const GuestImageSettings settings_;
  const uint64_t key_;
  std::unique_ptr<std::byte[]> random_;
  std::unique_ptr<std::byte[]> text_;
};

}  // namespace migrx
