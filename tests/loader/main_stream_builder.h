// Writes main-channel streams as a QEMU source would, for tests: independent of the parser, so that the two
// can disagree. Every call appends to bytes(); nothing is checked, wrong streams are as easy to make as right
// ones.
#pragma once

#include <zlib.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace migrx::test {

// A page whose content depends on its seed; never all zero.
inline std::vector<std::byte> make_page(uint64_t seed, std::size_t bytes = 4096) {
  std::vector<std::byte> page(bytes);
  uint64_t x = seed * 0x9e3779b97f4a7c15ULL + 1;
  for (std::byte& b : page) {
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    b = static_cast<std::byte>(x >> 24);
  }
  page[0] = std::byte{0x5a};
  return page;
}

// The reference encoder of XBZRLE patches: plain, byte by byte (QEMU docs/devel/migration/ and
// migration/xbzrle.c describe the format: alternating lengths of unchanged and changed runs, ULEB128 of at
// most two bytes).
inline std::vector<std::byte> encode_xbzrle(std::span<const std::byte> before,
                                            std::span<const std::byte> after) {
  std::vector<std::byte> out;
  const auto put_length = [&out](std::size_t n) {
    if (n < 0x80) {
      out.push_back(static_cast<std::byte>(n));
    } else {
      out.push_back(static_cast<std::byte>((n & 0x7f) | 0x80));
      out.push_back(static_cast<std::byte>(n >> 7));
    }
  };
  std::size_t at = 0;
  while (at < after.size()) {
    std::size_t same = at;
    while (same < after.size() && before[same] == after[same]) ++same;
    if (same == after.size()) break;
    std::size_t changed = same;
    while (changed < after.size() && before[changed] != after[changed]) ++changed;
    put_length(same - at);
    put_length(changed - same);
    out.insert(out.end(), after.begin() + static_cast<std::ptrdiff_t>(same),
               after.begin() + static_cast<std::ptrdiff_t>(changed));
    at = changed;
  }
  return out;
}

class MainStreamBuilder {
 public:
  using Self = MainStreamBuilder;

  static constexpr uint64_t kZero = 0x002, kMemSize = 0x004, kPage = 0x008, kEos = 0x010, kContinue = 0x020,
                            kXbzrle = 0x040, kHook = 0x080, kCompressPage = 0x100, kMultifdFlush = 0x200;

  struct Block {
    std::string idstr;
    uint64_t used_length = 0;
    std::vector<uint64_t> extra;  // be64 fields behind the length: page size, mr->addr
  };

  [[nodiscard]] const std::vector<std::byte>& bytes() const { return bytes_; }
  [[nodiscard]] std::size_t size() const { return bytes_.size(); }
  std::vector<std::byte> take() { return std::exchange(bytes_, {}); }

  // ---- Pieces
  Self& u8(uint64_t v) { return number(v, 1); }
  Self& be16(uint64_t v) { return number(v, 2); }
  Self& be32(uint64_t v) { return number(v, 4); }
  Self& be64(uint64_t v) { return number(v, 8); }
  Self& text(std::string_view s) {
    for (const char c : s) bytes_.push_back(static_cast<std::byte>(c));
    return *this;
  }
  Self& str8(std::string_view s) { return u8(s.size()).text(s); }
  Self& raw(std::span<const std::byte> b) {
    bytes_.insert(bytes_.end(), b.begin(), b.end());
    return *this;
  }

  // ---- Top grammar
  Self& header(uint32_t version = 3) { return be32(0x5145564d).be32(version); }
  Self& configuration(std::string_view machine = "pc-i440fx-10.0") {
    return u8(0x07).be32(machine.size()).text(machine);
  }
  Self& subsection(std::string_view name, uint32_t version = 1) { return u8(0x05).str8(name).be32(version); }
  Self& capabilities(const std::vector<std::string>& names) {
    subsection("configuration/capabilities").be32(names.size());
    for (const std::string& name : names) str8(name);
    return *this;
  }
  Self& target_page_bits(uint32_t bits) { return subsection("configuration/target-page-bits").be32(bits); }
  Self& uuid(std::span<const std::byte> sixteen) { return subsection("configuration/uuid").raw(sixteen); }
  Self& command(uint16_t cmd, std::span<const std::byte> payload = {}) {
    return u8(0x08).be16(cmd).be16(payload.size()).raw(payload);
  }
  Self& open_return_path() { return command(1); }
  Self& ping(uint32_t value) { return u8(0x08).be16(2).be16(4).be32(value); }
  Self& switchover_start() { return command(11); }

  // ---- Postcopy. page_sizes: of all blocks, OR-ed.
  Self& advise(uint64_t page_sizes = 4096, uint64_t target_page = 4096) {
    return u8(0x08).be16(3).be16(16).be64(page_sizes).be64(target_page);
  }
  // ranges: (start, length) in bytes.
  Self& discard(std::string_view block, const std::vector<std::pair<uint64_t, uint64_t>>& ranges) {
    u8(0x08).be16(6).be16(3 + block.size() + 16 * ranges.size()).u8(0).str8(block).u8(0);
    for (const auto& [start, length] : ranges) be64(start).be64(length);
    return *this;
  }
  // LISTEN, device state and RUN are in it; here so many bytes.
  Self& package(std::size_t state_bytes) {
    u8(0x08).be16(7).be16(4).be32(state_bytes);
    for (std::size_t i = 0; i < state_bytes; ++i) u8(i * 11 % 253);
    return *this;
  }

  Self& section_start(uint32_t id, std::string_view idstr, uint32_t instance, uint32_t version) {
    return u8(0x01).be32(id).str8(idstr).be32(instance).be32(version);
  }
  Self& section_full(uint32_t id, std::string_view idstr, uint32_t instance, uint32_t version) {
    return u8(0x04).be32(id).str8(idstr).be32(instance).be32(version);
  }
  Self& section_part(uint32_t id) { return u8(0x02).be32(id); }
  Self& section_end(uint32_t id) { return u8(0x03).be32(id); }
  Self& footer(uint32_t id) { return footers ? u8(0x7e).be32(id) : *this; }

  // ---- RAM section
  // --------------------------------------------------------------------------------------------- START up to
  // and including the block list.
  Self& ram_start(const std::vector<Block>& blocks) {
    section_start(ram_id, "ram", 0, 4);
    uint64_t total = 0;
    for (const Block& block : blocks) total += block.used_length;
    be64(total | kMemSize);
    for (const Block& block : blocks) {
      str8(block.idstr).be64(block.used_length);
      for (const uint64_t field : block.extra) be64(field);
    }
    last_block_.clear();
    return *this;
  }
  Self& ram_part() { return section_part(ram_id); }
  Self& ram_end() { return section_end(ram_id); }
  // A record word with the block's name, or CONTINUE when it is the last one's, as QEMU's save_page_header.
  Self& page_header(std::string_view idstr, uint64_t offset, uint64_t flag) {
    if (idstr == last_block_) return be64(offset | flag | kContinue);
    last_block_ = idstr;
    return be64(offset | flag).str8(idstr);
  }
  Self& page(std::string_view idstr, uint64_t offset, std::span<const std::byte> content) {
    return page_header(idstr, offset, kPage).raw(content);
  }
  Self& zero(std::string_view idstr, uint64_t offset, uint8_t fill = 0) {
    return page_header(idstr, offset, kZero).u8(fill);
  }
  Self& xbzrle(std::string_view idstr, uint64_t offset, std::span<const std::byte> patch) {
    return page_header(idstr, offset, kXbzrle).u8(1).be16(patch.size()).raw(patch);
  }
  Self& compressed(std::string_view idstr, uint64_t offset, std::span<const std::byte> page, int level = 1) {
    std::vector<std::byte> out(compressBound(static_cast<uLong>(page.size())));
    uLongf length = static_cast<uLongf>(out.size());
    compress2(reinterpret_cast<Bytef*>(out.data()), &length, reinterpret_cast<const Bytef*>(page.data()),
              static_cast<uLong>(page.size()), level);
    out.resize(length);
    return page_header(idstr, offset, kCompressPage).be32(out.size()).raw(out);
  }
  Self& multifd_flush() { return be64(kMultifdFlush); }
  Self& eos() { return be64(kEos); }
  Self& ram_close() { return eos().footer(ram_id); }

  // First FULL section, EOF and VM description as behind a RAM END.
  Self& device_tail(std::size_t state_bytes = 64) {
    section_full(5, "timer", 0, 2);
    for (std::size_t i = 0; i < state_bytes; ++i) u8(i * 7 % 251);
    footer(5);
    const std::string_view json = "{\"page_size\": 4096, \"devices\": []}";
    return u8(0x00).u8(0x06).be32(json.size()).text(json);
  }

  uint32_t ram_id = 2;
  bool footers = true;

 private:
  Self& number(uint64_t v, int size) {
    for (int shift = (size - 1) * 8; shift >= 0; shift -= 8)
      bytes_.push_back(static_cast<std::byte>(v >> shift));
    return *this;
  }

  std::vector<std::byte> bytes_;
  std::string last_block_;  // survives across sections, as in QEMU
};

}  // namespace migrx::test
