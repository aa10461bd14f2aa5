// multifd-compression=zlib: one zlib stream per channel for the whole
// migration (QEMU migration/multifd-zlib.c).
//
//   first packet: 78 xx deflate-blocks… 00 00 ff ff      later ones: deflate-blocks… 00 00 ff ff
//
// The header comes once, every packet ends with Z_SYNC_FLUSH, no Adler-32 ever comes: so the two header bytes
// are checked here and the rest is raw deflate to ISA-L, which then need not compute a checksum nobody sends.
//
// Two buffers:
// - Input is gathered, since each call of isal_inflate moves up to 32 KiB of history, whatever it is
//   given. Called once per 1448-byte segment it decoded 14 % slower than from 64 KiB pieces; larger
//   pieces gained nothing.
// - Output goes to a private buffer and from there to the pages by full-line stores. Decoding straight into
//   guest memory is no faster (docs/performance.md), and would be wrong: the look-back window would be guest
//   pages, and a 7.2 source may queue a page twice in one epoch on two channels (QEMU migration/ram.c). The
//   other channel's worker would change the window while this one reads it, and so spoil pages that are not
//   sent again.
#pragma once

#include "loader/multifd/decoder.h"
#include "loader/multifd/run_writer.h"

struct inflate_state;  // ISA-L

namespace migrx {

class ZlibDecoder final : public PageDecoder {
 public:
  explicit ZlibDecoder(const PageKernels& kernels);
  ~ZlibDecoder() override;
  DecodeStatus begin(std::span<const PageRun> runs, uint32_t payload_bytes) noexcept override;
  DecodeStatus feed(Bytes piece) noexcept override;
  DecodeStatus finish() noexcept override;

 private:
  static constexpr uint32_t kInBytes = 64 * 1024;
  static constexpr uint32_t kOutBytes = 128 * 1024;

  DecodeStatus read_header() noexcept;
  DecodeStatus inflate(Bytes in) noexcept;

  const std::unique_ptr<inflate_state> state_;
  const std::unique_ptr<std::byte[]> in_;
  const std::unique_ptr<std::byte[]> out_;
  RunWriter pages_;

  uint32_t gathered_ = 0;  // bytes waiting in in_
  bool header_seen_ = false;
  uint32_t payload_left_ = 0;  // bytes of the packet's payload not yet fed
};

}  // namespace migrx
