// Compressed multifd payloads: bytes in, pages out. One decoder per channel, because zlib
// and zstd streams run on from packet to packet (QEMU migration/multifd-zlib.c,
// multifd-zstd.c, multifd-qpl.c, multifd-uadk.c).
#pragma once

#include <array>
#include <memory>
#include <span>

#include "loader/multifd/multifd_packet.h"
#include "loader/ram/page_writer.h"

namespace migrx {

// Guest memory side by side: one or more whole pages.
struct PageRun {
  std::byte* dst = nullptr;
  uint32_t bytes = 0;  // a multiple of kPageBytes, at most 512 KiB
};

enum class DecodeStatus : uint8_t {
  ok,
  corrupt,           // the library refused it
  stream_ended,      // the per-channel stream has an end, which QEMU never writes
  too_little,        // the payload is used up before all pages are filled
  too_much,          // the payload holds more than the pages
  bad_length,        // a per-page length is impossible, or their sum is not next_packet_size
  window_too_large,  // zstd asks for more than DecoderLimits allows
  out_of_memory,     // the decoder could not get the window that the stream asks for
};
[[nodiscard]] const char* to_string(DecodeStatus status) noexcept;

// Hot: no allocation after the first packet (libzstd sizes its window then).
class PageDecoder {
 public:
  virtual ~PageDecoder() = default;
  // A packet begins: its payload of payload_bytes (1..kMultifdPayloadMax) fills the runs in order. The runs
  // stay valid until finish() or a status other than ok, after which the decoder must not be used.
  virtual DecodeStatus begin(std::span<const PageRun> runs, uint32_t payload_bytes) noexcept = 0;
  // The next piece of the payload, used up entirely.
  virtual DecodeStatus feed(Bytes piece) noexcept = 0;
  // All payload_bytes have been fed. ok: every page is stored (not yet fenced).
  virtual DecodeStatus finish() noexcept = 0;
};

struct DecoderLimits {
  // libzstd's window: 2^n bytes of memory per channel. zstd levels up to 19 need 23, level 20 needs 25.
  int zstd_window_log_max = 27;
};

// nullptr for none (payloads are the pages) and for methods that are not supported: ask is_supported().
[[nodiscard]] std::unique_ptr<PageDecoder> make_page_decoder(MultifdCompression method,
                                                             const PageKernels& kernels,
                                                             const DecoderLimits& limits = {});
// qatzip is not: its container depends on a library default of the source's host.
[[nodiscard]] bool is_supported(MultifdCompression method) noexcept;

}  // namespace migrx
