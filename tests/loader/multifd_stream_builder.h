// Writes what a QEMU source sends on one multifd channel, in the plainest way: an oracle that shares no code
// with the parser. Field by field from QEMU's migration/multifd.c (multifd_send_initial_packet,
// multifd_send_fill_packet) and multifd-zlib.c, -zstd.c, -qpl.c, -uadk.c.
#pragma once

#include <zlib.h>
#include <zstd.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

namespace migrx::test {

enum class MultifdMethod { none, zlib, zstd, qpl, uadk };

// One channel's bytes. Sources differ by age: `old_source` writes what QEMU up to 8.2 does (pages_alloc
// always 128, a stale next_packet_size where there is no payload, zero_pages unused).
class MultifdStreamBuilder {
 public:
  using Buffer = std::vector<std::byte>;
  static constexpr std::size_t kPage = 4096;

  explicit MultifdStreamBuilder(MultifdMethod method = MultifdMethod::none, int level = 1,
                                bool old_source = false)
      : method_(method), level_(level), old_source_(old_source) {
    if (method == MultifdMethod::zlib && deflateInit(&zlib_, level) != Z_OK)
      throw std::runtime_error("deflateInit");
    if (method == MultifdMethod::zstd) {
      zstd_ = ZSTD_createCCtx();
      ZSTD_CCtx_setParameter(zstd_, ZSTD_c_compressionLevel, level);
    }
  }
  ~MultifdStreamBuilder() {
    if (method_ == MultifdMethod::zlib) deflateEnd(&zlib_);
    ZSTD_freeCCtx(zstd_);
  }
  MultifdStreamBuilder(const MultifdStreamBuilder&) = delete;
  MultifdStreamBuilder& operator=(const MultifdStreamBuilder&) = delete;

  // The stream so far; tests may damage it.
  Buffer bytes;

  // 64 bytes, once, first. uuid: 16 bytes or empty.
  void init(uint8_t id, const Buffer& uuid = {}) {
    be32(0x11223344);
    be32(1);
    for (std::size_t i = 0; i < 16; ++i) bytes.push_back(i < uuid.size() ? uuid[i] : std::byte{0});
    bytes.push_back(std::byte{id});
    fill(39);
  }

  struct Header {
    uint32_t magic = 0x11223344;
    uint32_t version = 1;
    uint32_t flags = 0;
    uint32_t pages_alloc = 128;
    uint32_t normal_pages = 0;
    uint32_t next_packet_size = 0;
    uint64_t packet_num = 0;
    uint32_t zero_pages = 0;
    std::string ramblock;
    std::vector<uint64_t> offsets;
  };
  // 1344 bytes, whatever the counts say.
  void header(const Header& h) {
    const std::size_t begin = bytes.size();
    bytes.reserve(begin + 1344);
    be32(h.magic);
    be32(h.version);
    be32(h.flags);
    be32(h.pages_alloc);
    be32(h.normal_pages);
    be32(h.next_packet_size);
    be64(h.packet_num);
    be32(h.zero_pages);
    fill(28);
    for (std::size_t i = 0; i < 256; ++i)
      bytes.push_back(i < h.ramblock.size() ? static_cast<std::byte>(h.ramblock[i]) : std::byte{0});
    for (std::size_t i = 0; i < 128; ++i) be64(i < h.offsets.size() ? h.offsets[i] : 0);
    if (bytes.size() - begin != 1344) throw std::logic_error("header size");
  }

  // No pages.
  void sync(uint64_t packet_num) {
    Header h;
    h.flags = 1;
    h.packet_num = packet_num;
    h.pages_alloc = old_source_ ? 128 : 0;
    h.next_packet_size = old_source_ ? 524288 : 0;
    header(h);
  }
  // What a source up to 8.2 sends behind a SYNC that carried data.
  void empty_trailer(uint64_t packet_num) {
    Header h;
    h.packet_num = packet_num;
    h.next_packet_size = 524288;
    header(h);
  }

  // Content of the page at an offset of the block.
  using Page = std::function<const std::byte*(uint64_t offset)>;
  void pages(uint64_t packet_num, const std::string& ramblock, const std::vector<uint64_t>& normal,
             const Page& page, const std::vector<uint64_t>& zero = {}, bool with_sync = false) {
    Buffer payload = encode(normal, page);
    Header h;
    h.flags = method_flag() | (with_sync ? 1U : 0U);
    h.normal_pages = static_cast<uint32_t>(normal.size());
    h.zero_pages = static_cast<uint32_t>(zero.size());
    h.next_packet_size = static_cast<uint32_t>(payload.size());
    h.packet_num = packet_num;
    h.ramblock = ramblock;
    h.offsets = normal;
    h.offsets.insert(h.offsets.end(), zero.begin(), zero.end());
    header(h);
    bytes.insert(bytes.end(), payload.begin(), payload.end());
  }

  [[nodiscard]] uint32_t method_flag() const {
    switch (method_) {
      case MultifdMethod::none:
        return 0;
      case MultifdMethod::zlib:
        return 2;
      case MultifdMethod::zstd:
        return 4;
      case MultifdMethod::qpl:
        return 8;
      case MultifdMethod::uadk:
        return 16;
    }
    return 0;
  }

  // The payload of one packet; zlib and zstd continue their stream.
  Buffer encode(const std::vector<uint64_t>& normal, const Page& page) {
    Buffer out;
    if (normal.empty()) return out;
    switch (method_) {
      case MultifdMethod::none:
        for (const uint64_t offset : normal) out.insert(out.end(), page(offset), page(offset) + kPage);
        break;
      case MultifdMethod::zlib:
        for (std::size_t i = 0; i < normal.size(); ++i)
          zlib_page(out, page(normal[i]), i + 1 == normal.size() ? Z_SYNC_FLUSH : Z_NO_FLUSH);
        break;
      case MultifdMethod::zstd:
        for (std::size_t i = 0; i < normal.size(); ++i)
          zstd_page(out, page(normal[i]), i + 1 == normal.size() ? ZSTD_e_flush : ZSTD_e_continue);
        break;
      case MultifdMethod::qpl:
      case MultifdMethod::uadk:
        per_page(out, normal, page);
        break;
    }
    return out;
  }

  // One stream of `size` bytes; window_bits as zlib's deflateInit2 takes them (15: zlib, -15: raw).
  static Buffer deflate_whole(const std::byte* data, std::size_t size, int level, int window_bits) {
    z_stream z{};
    if (deflateInit2(&z, level, Z_DEFLATED, window_bits, 8, Z_DEFAULT_STRATEGY) != Z_OK)
      throw std::runtime_error("deflateInit2");
    Buffer out(deflateBound(&z, size) + 64);
    z.next_in = const_cast<Bytef*>(reinterpret_cast<const Bytef*>(data));
    z.avail_in = static_cast<uInt>(size);
    z.next_out = reinterpret_cast<Bytef*>(out.data());
    z.avail_out = static_cast<uInt>(out.size());
    const int result = deflate(&z, Z_FINISH);
    out.resize(z.total_out);
    deflateEnd(&z);
    if (result != Z_STREAM_END) throw std::runtime_error("deflate");
    return out;
  }

  void be32(uint32_t v) {
    for (int shift = 24; shift >= 0; shift -= 8) bytes.push_back(static_cast<std::byte>(v >> shift & 0xff));
  }
  void be64(uint64_t v) {
    be32(static_cast<uint32_t>(v >> 32));
    be32(static_cast<uint32_t>(v));
  }
  void fill(std::size_t n) { bytes.insert(bytes.end(), n, std::byte{0}); }

 private:
  void zlib_page(Buffer& out, const std::byte* data, int flush) {
    zlib_.next_in = const_cast<Bytef*>(reinterpret_cast<const Bytef*>(data));
    zlib_.avail_in = kPage;
    std::byte chunk[8192];
    do {
      zlib_.next_out = reinterpret_cast<Bytef*>(chunk);
      zlib_.avail_out = sizeof chunk;
      const int result = deflate(&zlib_, flush);
      if (result != Z_OK && result != Z_BUF_ERROR) throw std::runtime_error("deflate");
      out.insert(out.end(), chunk, chunk + (sizeof chunk - zlib_.avail_out));
    } while (zlib_.avail_out == 0);
  }
  void zstd_page(Buffer& out, const std::byte* data, ZSTD_EndDirective flush) {
    ZSTD_inBuffer in{data, kPage, 0};
    std::byte chunk[8192];
    std::size_t left = 0;
    do {
      ZSTD_outBuffer to{chunk, sizeof chunk, 0};
      left = ZSTD_compressStream2(zstd_, &to, &in, flush);
      if (ZSTD_isError(left)) throw std::runtime_error("ZSTD_compressStream2");
      out.insert(out.end(), chunk, chunk + to.pos);
    } while (in.pos < in.size || (flush == ZSTD_e_flush && left > 0));
  }
  void per_page(Buffer& out, const std::vector<uint64_t>& normal, const Page& page) {
    std::vector<Buffer> parts;
    for (const uint64_t offset : normal) {
      Buffer part = deflate_whole(page(offset), kPage, level_, method_ == MultifdMethod::qpl ? -15 : 15);
      if (part.size() >= kPage) part.assign(page(offset), page(offset) + kPage);
      parts.push_back(std::move(part));
    }
    for (const Buffer& part : parts)
      for (int shift = 24; shift >= 0; shift -= 8)
        out.push_back(static_cast<std::byte>(part.size() >> shift & 0xff));
    for (const Buffer& part : parts) out.insert(out.end(), part.begin(), part.end());
  }

  MultifdMethod method_;
  int level_;
  bool old_source_;
  z_stream zlib_{};
  ZSTD_CCtx* zstd_ = nullptr;
};

}  // namespace migrx::test
