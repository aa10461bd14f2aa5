#include "loader/generate/guest_image.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>

namespace migrx {
namespace {

// SplitMix64's finalizer (Steele, Lea, Flood 2014): every bit of the input changes half of the output's.
constexpr uint64_t mix(uint64_t z) noexcept {
  z += 0x9e3779b97f4a7c15ULL;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

// Which questions are asked of a page; different ones must have independent answers.
enum class Salt : uint64_t { dirty = 1, content = 2, random_pool = 3, text_pool = 4 };

// Four per page, so that a slice of a packet that lands in the wrong place shows wherever it was cut.
constexpr uint32_t kStampEvery = 1024;
struct Stamp {
  uint64_t page;
  uint32_t version;
  uint32_t position;
};
static_assert(sizeof(Stamp) == 16);

constexpr std::array<std::string_view, 32> kWords{
    "page",   "guest",  "memory",  "kernel",  "buffer", "0x0000",     "return", "static",
    "the",    "of",     "channel", "struct",  "error",  "length",     "offset", "value",
    "socket", "thread", "table",   "section", "and",    "descriptor", "if",     "while",
    "void",   "const",  "uint64",  "flags",   "mutex",  "queue",      "device", "state"};

void fill_random(std::byte* out, std::size_t size, uint64_t state) {
  for (std::size_t i = 0; i + 8 <= size; i += 8) {
    const uint64_t value = mix(state++);
    std::memcpy(out + i, &value, 8);
  }
}

// Words and numbers: zlib makes about a third of it, as of sources and logs.
void fill_text(std::byte* out, std::size_t size, uint64_t state) {
  std::size_t at = 0;
  while (at < size) {
    const uint64_t value = mix(state++);
    std::array<char, 24> number;
    std::string_view word = kWords[value % kWords.size()];
    if (value >> 62 == 0) {
      std::size_t digits = 0;
      for (uint64_t rest = value >> 8 & 0xffffff; rest > 0; rest /= 10)
        number[digits++] = static_cast<char>('0' + rest % 10);
      word = {number.data(), digits};
    }
    const std::size_t n = std::min(word.size(), size - at);
    std::memcpy(out + at, word.data(), n);
    at += n;
    if (at < size) out[at++] = value >> 60 == 0xf ? std::byte{'\n'} : std::byte{' '};
  }
}

}  // namespace

GuestImage::GuestImage(const GuestImageSettings& settings) : settings_(settings), key_(mix(settings.seed)) {
  const std::size_t size = std::size_t{settings_.pool_pages} * kGuestPageBytes;
  if (settings_.zero_percent + settings_.compressible_percent < 100) {
    random_ = std::make_unique<std::byte[]>(size);
    fill_random(random_.get(), size, hash(static_cast<uint64_t>(Salt::random_pool), 0));
  }
  if (settings_.compressible_percent > 0) {
    text_ = std::make_unique<std::byte[]>(size);
    fill_text(text_.get(), size, hash(static_cast<uint64_t>(Salt::text_pool), 0));
  }
}

uint64_t GuestImage::hash(uint64_t a, uint64_t b) const noexcept {
  return mix(mix(key_ ^ a) ^ b);
}

bool GuestImage::is_sent(uint64_t page, uint32_t round) const noexcept {
  if (round == 0) return true;
  const uint64_t hashed = hash(page * 4 + static_cast<uint64_t>(Salt::dirty), round);
  return hashed % 100 < settings_.dirty_percent;
}

PageVersion GuestImage::last_version(uint64_t page) const noexcept {
  for (uint32_t round = settings_.rounds; round > 1; --round)
    if (is_sent(page, round - 1)) return {page, round - 1};
  return {page, 0};
}

bool GuestImage::is_zero(PageVersion page) const noexcept {
  return hash(page.page * 4 + static_cast<uint64_t>(Salt::content), page.version) % 100 <
         settings_.zero_percent;
}

const std::byte* GuestImage::pool_page(uint64_t hashed) const noexcept {
  const bool text = hashed % 100 < settings_.zero_percent + settings_.compressible_percent;
  const uint64_t which = (hashed >> 32) % settings_.pool_pages;
  return (text ? text_.get() : random_.get()) + which * kGuestPageBytes;
}

void GuestImage::read(PageVersion page, uint32_t offset, std::span<std::byte> out) const noexcept {
  if (out.empty()) return;
  const uint64_t hashed = hash(page.page * 4 + static_cast<uint64_t>(Salt::content), page.version);
  if (hashed % 100 < settings_.zero_percent) {
    std::memset(out.data(), 0, out.size());
    return;
  }
  std::memcpy(out.data(), pool_page(hashed) + offset, out.size());
  const auto end = offset + static_cast<uint32_t>(out.size());
  for (uint32_t position = offset / kStampEvery * kStampEvery; position < end; position += kStampEvery) {
    const Stamp stamp{page.page, page.version, position};
    const uint32_t from = std::max(position, offset);
    const uint32_t to = std::min<uint32_t>(position + sizeof stamp, end);
    if (from < to)
      std::memcpy(out.data() + (from - offset),
                  reinterpret_cast<const std::byte*>(&stamp) + (from - position), to - from);
  }
}

}  // namespace migrx
