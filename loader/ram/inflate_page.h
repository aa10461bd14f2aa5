// One independent deflate stream, one page: COMPRESS_PAGE records of the main channel, and the per-page
// multifd methods.
#pragma once

#include <memory>

#include "dataplane/handoff/byte_order.h"
#include "loader/ram/kernels/page_kernels.h"
#include "loader/ram/ram_block.h"

struct inflate_state;  // ISA-L

namespace migrx {

enum class PageFormat : uint8_t {
  zlib,         // RFC 1950: two bytes of header, Adler-32 after the data
  raw_deflate,  // RFC 1951
};

enum class InflateStatus : uint8_t {
  ok,
  corrupt,       // not a deflate stream, or its header or checksum is wrong
  not_finished,  // the input ends before the stream does
  wrong_size,    // the stream holds more or less than a page
  input_left,    // bytes after the end of the stream
};
[[nodiscard]] const char* to_string(InflateStatus status) noexcept;

// QEMU's bound for a COMPRESS_PAGE record: zlib's compressBound(kPageBytes) (QEMU migration/ram-compress.c).
inline constexpr uint32_t kCompressedPageBytesMax =
    kPageBytes + (kPageBytes >> 12) + (kPageBytes >> 14) + (kPageBytes >> 25) + 13;
static_assert(kCompressedPageBytesMax == 4110);

// The decoder's state (about 100 KiB, allocated once). One per worker; any number of pages one
// after the other.
class PageInflater {
 public:
  // kernels must outlive it.
  explicit PageInflater(const PageKernels& kernels);
  ~PageInflater();
  PageInflater(const PageInflater&) = delete;
  PageInflater& operator=(const PageInflater&) = delete;

  // Decodes `in`, which must be exactly one stream of exactly one page, and stores the page at `page`
  // (page-aligned) by full-line stores: the caller fences. On any status but ok nothing has been written.
  // Decoding goes through a buffer that stays in the first-level cache, because look-back into guest memory
  // would read what another writer of the same page may be storing there, and because stores past the cache
  // are cheaper than the misses.
  InflateStatus inflate(PageFormat format, Bytes in, std::byte* page) noexcept;

 private:
  // One byte more than a page, so that a longer stream shows.
  static constexpr std::size_t kOutBytes = kPageBytes + 1;
  const PageKernels* kernels_;
  std::unique_ptr<inflate_state> state_;
  std::unique_ptr<std::byte[]> out_;
};

}  // namespace migrx
