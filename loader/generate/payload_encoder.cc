#include "loader/generate/payload_encoder.h"

#include <zlib.h>
#include <zstd.h>

#include <array>
#include <stdexcept>

namespace migrx {
namespace {

class ZlibEncoder final : public PayloadEncoder {
 public:
  explicit ZlibEncoder(int level) {
    if (deflateInit(&stream_, level) != Z_OK) throw std::runtime_error("zlib does not start");
  }
  ~ZlibEncoder() override { deflateEnd(&stream_); }
  ZlibEncoder(const ZlibEncoder&) = delete;
  ZlibEncoder& operator=(const ZlibEncoder&) = delete;

  std::vector<std::byte> encode(const GuestImage& image, const std::vector<PageVersion>& pages) override {
    std::vector<std::byte> out;
    std::array<std::byte, kGuestPageBytes> page;
    for (std::size_t i = 0; i < pages.size(); ++i) {
      image.read(pages[i], 0, page);
      stream_.next_in = reinterpret_cast<Bytef*>(page.data());
      stream_.avail_in = kGuestPageBytes;
      const int flush = i + 1 == pages.size() ? Z_SYNC_FLUSH : Z_NO_FLUSH;
      do {
        const std::size_t at = out.size();
        out.resize(at + 2 * kGuestPageBytes);
        stream_.next_out = reinterpret_cast<Bytef*>(out.data() + at);
        stream_.avail_out = 2 * kGuestPageBytes;
        const int result = deflate(&stream_, flush);
        if (result != Z_OK && result != Z_BUF_ERROR) throw std::runtime_error("zlib does not compress");
        out.resize(out.size() - stream_.avail_out);
      } while (stream_.avail_out == 0);
    }
    return out;
  }

 private:
  z_stream stream_{};
};

class ZstdEncoder final : public PayloadEncoder {
 public:
  explicit ZstdEncoder(int level) : context_(ZSTD_createCCtx()) {
    if (context_ == nullptr ||
        ZSTD_isError(ZSTD_CCtx_setParameter(context_.get(), ZSTD_c_compressionLevel, level)) != 0)
      throw std::runtime_error("zstd does not start");
  }

  std::vector<std::byte> encode(const GuestImage& image, const std::vector<PageVersion>& pages) override {
    std::vector<std::byte> out;
    std::array<std::byte, kGuestPageBytes> page;
    for (std::size_t i = 0; i < pages.size(); ++i) {
      image.read(pages[i], 0, page);
      const ZSTD_EndDirective directive = i + 1 == pages.size() ? ZSTD_e_flush : ZSTD_e_continue;
      ZSTD_inBuffer in{page.data(), page.size(), 0};
      std::size_t left = 0;
      do {
        const std::size_t at = out.size();
        out.resize(at + 2 * kGuestPageBytes);
        ZSTD_outBuffer to{out.data() + at, 2 * kGuestPageBytes, 0};
        left = ZSTD_compressStream2(context_.get(), &to, &in, directive);
        if (ZSTD_isError(left) != 0) throw std::runtime_error("zstd does not compress");
        out.resize(at + to.pos);
      } while (in.pos < in.size || (directive == ZSTD_e_flush && left > 0));
    }
    return out;
  }

 private:
  struct Free {
    void operator()(ZSTD_CCtx* context) const noexcept { ZSTD_freeCCtx(context); }
  };
  std::unique_ptr<ZSTD_CCtx, Free> context_;
};

}  // namespace

std::optional<MultifdMethod> parse_multifd_method(std::string_view name) noexcept {
  if (name == "none") return MultifdMethod::none;
  if (name == "zlib") return MultifdMethod::zlib;
  if (name == "zstd") return MultifdMethod::zstd;
  return std::nullopt;
}

uint32_t method_flag(MultifdMethod method) noexcept {
  switch (method) {
    case MultifdMethod::none:
      return 0;
    case MultifdMethod::zlib:
      return 0x02;
    case MultifdMethod::zstd:
      return 0x04;
  }
  return 0;
}

std::unique_ptr<PayloadEncoder> make_payload_encoder(MultifdMethod method, int level) {
  switch (method) {
    case MultifdMethod::none:
      return nullptr;
    case MultifdMethod::zlib:
      return std::make_unique<ZlibEncoder>(level);
    case MultifdMethod::zstd:
      return std::make_unique<ZstdEncoder>(level);
  }
  return nullptr;
}

}  // namespace migrx
