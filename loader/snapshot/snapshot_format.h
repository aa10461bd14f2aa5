// What a file is, by its first bytes: a migration stream, a libvirt save image around one, or something else
// for which there is a command. Pure: bytes in, words out.
//
// A libvirt save image (`virsh save`, `managedsave`, the memory file of an external snapshot)
// is a header of 92 bytes in the host's byte order, domain XML and cookie of the length that
// the header names, and then QEMU's stream, perhaps compressed (libvirt
// src/qemu/qemu_saveimage.h, virQEMUSaveHeader; docs/snapshots.md).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "loader/stream/byte_reader.h"
#include "loader/stream/error.h"

namespace migrx {

// The header of a libvirt save image.
struct LibvirtSaveImage {
  static constexpr std::size_t kHeaderBytes = 92;
  // Domain XML, some KiB with all devices, and room that libvirt leaves for editing it.
  static constexpr uint32_t kXmlBytesMax = 16 << 20;

  uint32_t version = 0;
  uint32_t xml_bytes = 0;  // XML, cookie and padding
  bool was_running = false;
  uint32_t compression = 0;  // 0: none; see compression_program()
  bool partial = false;      // libvirt did not finish it

  // Where QEMU's stream begins, from the header's first byte on.
  [[nodiscard]] uint64_t stream_offset() const noexcept { return kHeaderBytes + uint64_t{xml_bytes}; }
  // The program that wrote the stream, which takes `-dc`; "" for an uncompressed image, nullptr: unknown.
  [[nodiscard]] const char* compression_program() const noexcept;
};

// nullopt: `head`, the first bytes of a file, is no whole header of a save image.
[[nodiscard]] std::optional<LibvirtSaveImage> parse_libvirt_save_image(Bytes head) noexcept;

// What to call the input, and how to speak of it in a command.
struct SnapshotName {
  std::string path;   // "-": standard input
  bool pipe = false;  // its bytes come once, in order
  uint64_t offset = 0;
};

// Bytes of the head that recognise_snapshot() wants, as far as the file has them.
constexpr std::size_t kSnapshotHeadBytes = 4096;

struct SnapshotFormat {
  StreamError error;  // nothing that can be loaded as it is; the text says what to do
  std::optional<LibvirtSaveImage> libvirt;
  bool mapped_ram = false;  // QEMU's stream says so; only known without `libvirt`
};

// `head`: what stands where the stream, or the header of a save image, is expected.
[[nodiscard]] SnapshotFormat recognise_snapshot(Bytes head, const SnapshotName& name);

// What a file that begins with `head` holds, "a migration stream" for one, when that is a guest which was
// saved, or data that may be one. Empty: nothing of the kind.
[[nodiscard]] std::string saved_content(Bytes head);

// "plain stream", "libvirt save image, version 2".
[[nodiscard]] std::string describe(const LibvirtSaveImage& image);

// A word for a POSIX shell.
[[nodiscard]] std::string shell_word(const std::string& text);

}  // namespace migrx
