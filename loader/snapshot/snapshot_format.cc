#include "loader/snapshot/snapshot_format.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <string_view>

namespace migrx {
namespace {

using namespace std::string_view_literals;

constexpr std::string_view kQemuMagic = "QEVM"sv;
constexpr std::string_view kLibvirtMagic = "LibvirtQemudSave"sv;
constexpr std::string_view kLibvirtPartialMagic = "LibvirtQemudPart"sv;
constexpr uint32_t kLibvirtVersionMax = 3;
// Its index is the number in the header. 4 is lzop; 6 (version 3) is mapped-ram, which is no compression.
constexpr std::array kLibvirtPrograms{"", "gzip", "bzip2", "xz", "lzop", "zstd", ""};

struct Compression {
  std::string_view magic;
  const char* program;  // decompresses with -dc
};
constexpr std::array kCompressions{Compression{"\x1f\x8b"sv, "gzip"},
                                   Compression{"\x28\xb5\x2f\xfd"sv, "zstd"},
                                   Compression{"\xfd\x37\x7a\x58\x5a\x00"sv, "xz"},
                                   Compression{"BZh"sv, "bzip2"},
                                   Compression{"\x89LZO\x00\x0d\x0a\x1a\x0a"sv, "lzop"},
                                   Compression{"\x04\x22\x4d\x18"sv, "lz4"}};

struct Foreign {
  std::string_view magic;
  const char* name;
  const char* advice;
};
constexpr std::array kForeign{
    Foreign{"QFI\xfb"sv, "a qcow2 disk image",
            "is a qcow2 disk image; the RAM of its internal snapshots (savevm) can only be loaded by the "
            "QEMU that "
            "has the disk: start that with -loadvm NAME, then `migrate file:FILE` and load FILE"},
    Foreign{
        "\x7f"
        "ELF"sv,
        "an ELF file",
        "is an ELF file: a core (virsh dump, dump-guest-memory) has no device state and cannot be continued; "
        "use virsh save or `migrate file:FILE`"},
    Foreign{"KDUMP   "sv, "a kdump core",
            "is a kdump core, which has no device state and cannot be continued; use virsh save or "
            "`migrate file:FILE`"},
    Foreign{"<domain"sv, "domain XML",
            "is domain XML; give the save image that libvirt wrote (virsh save DOMAIN FILE)"},
};

std::string_view text_of(Bytes bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

StreamError refusal(ErrorClass error_class, const SnapshotName& name, const std::string& text) {
  StreamError error = make_error(error_class, name.offset, "file", "%s %s",
                                 name.path == "-" ? "standard input" : name.path.c_str(), text.c_str());
  error.channel = ChannelName::main();
  return error;
}

// The command that decompresses what stands `skip` bytes into the input.
std::string decompress_command(const SnapshotName& name, uint64_t skip, const char* program) {
  if (name.pipe || name.path == "-")
    return skip == 0
               ? fmt::format("put `{} -dc |` in front of `migrx load -`", program)
               : fmt::format("put `tail -c +{} | {} -dc |` in front of `migrx load -`", skip + 1, program);
  if (skip == 0)
    return fmt::format("{} -dc < {} | migrx load - …, with the same options", program, shell_word(name.path));
  return fmt::format("tail -c +{} {} | {} -dc | migrx load - …, with the same options", skip + 1,
                     shell_word(name.path), program);
}

// The configuration section stands in the first few hundred bytes and names mapped-ram when that is on; the
// parser then checks the section properly.
bool announces_mapped_ram(Bytes head) {
  constexpr std::string_view kName("\x0amapped-ram", 11);
  return text_of(head).find(kName) != std::string_view::npos;
}

SnapshotFormat recognise_libvirt(Bytes head, const SnapshotName& name) {
  SnapshotFormat format;
  const std::optional<LibvirtSaveImage> image = parse_libvirt_save_image(head);
  if (!image) {
    format.error = refusal(ErrorClass::truncated, name, "ends inside the header of a libvirt save image");
    return format;
  }
  if (image->partial) {
    format.error = refusal(ErrorClass::truncated, name,
                           "is a libvirt save image that libvirt did not finish: save the guest again");
  } else if (image->version == 0 || image->version > kLibvirtVersionMax) {
    format.error = refusal(
        ErrorClass::unsupported, name,
        fmt::format(
            "is a libvirt save image of version {}; migrx knows 1 to {}: restore it with virsh restore",
            image->version, kLibvirtVersionMax));
  } else if (image->xml_bytes > LibvirtSaveImage::kXmlBytesMax) {
    format.error = refusal(
        ErrorClass::bad_stream, name,
        fmt::format("is a damaged libvirt save image: its header names {} bytes of XML", image->xml_bytes));
  } else if (const char* const program = image->compression_program(); program == nullptr) {
    format.error = refusal(
        ErrorClass::unsupported, name,
        fmt::format("is a libvirt save image with compression {}, which migrx does not know: restore it "
                    "with virsh restore",
                    image->compression));
  } else if (*program != '\0') {
    format.error =
        refusal(ErrorClass::unsupported, name,
                fmt::format("is a libvirt save image compressed by {}: {}", program,
                            decompress_command(name, name.offset + image->stream_offset(), program)));
  } else {
    format.libvirt = image;
  }
  return format;
}

}  // namespace

const char* LibvirtSaveImage::compression_program() const noexcept {
  return compression < kLibvirtPrograms.size() ? kLibvirtPrograms[compression] : nullptr;
}

std::optional<LibvirtSaveImage> parse_libvirt_save_image(Bytes head) noexcept {
  const std::string_view text = text_of(head);
  const bool partial = text.starts_with(kLibvirtPartialMagic);
  if (head.size() < LibvirtSaveImage::kHeaderBytes || (!partial && !text.starts_with(kLibvirtMagic)))
    return std::nullopt;
  // version, length of the XML, was running, compression; a version that is no number of ours is one of a
  // host of the other byte order, as libvirt takes it, too.
  std::array<uint32_t, 4> fields{};
  std::memcpy(fields.data(), head.data() + kLibvirtMagic.size(), sizeof fields);
  if (fields[0] > kLibvirtVersionMax && __builtin_bswap32(fields[0]) <= kLibvirtVersionMax)
    for (uint32_t& field : fields) field = __builtin_bswap32(field);
  LibvirtSaveImage image;
  image.version = fields[0];
  image.xml_bytes = fields[1];
  image.was_running = fields[2] != 0;
  image.compression = image.version < 2 ? 0 : fields[3];  // version 1 has no such field
  image.partial = partial;
  return image;
}

SnapshotFormat recognise_snapshot(Bytes head, const SnapshotName& name) {
  const std::string_view text = text_of(head);
  SnapshotFormat format;
  if (text.starts_with(kQemuMagic)) {
    format.mapped_ram = announces_mapped_ram(head);
    if (format.mapped_ram && name.pipe)
      format.error =
          refusal(ErrorClass::unsupported, name,
                  "is a mapped-ram snapshot, whose pages lie all over the file: a pipe cannot seek, "
                  "write it to a file and load that");
    return format;
  }
  if (text.starts_with(kLibvirtMagic) || text.starts_with(kLibvirtPartialMagic))
    return recognise_libvirt(head, name);
  for (const Compression& compression : kCompressions)
    if (text.starts_with(compression.magic)) {
      format.error = refusal(ErrorClass::unsupported, name,
                             fmt::format("is compressed by {}: {}", compression.program,
                                         decompress_command(name, name.offset, compression.program)));
      return format;
    }
  for (const Foreign& foreign : kForeign)
    if (text.starts_with(foreign.magic)) {
      format.error = refusal(ErrorClass::unsupported, name, foreign.advice);
      return format;
    }
  if (head.size() < kQemuMagic.size()) {
    const bool cut = kQemuMagic.starts_with(text) && !head.empty();
    format.error = refusal(ErrorClass::truncated, name,
                           head.empty() ? "is empty, or ends before --offset"
                           : cut        ? "ends inside the magic number of a migration stream"
                                        : "is too short for a migration stream");
    return format;
  }
  std::string begins;
  for (std::size_t i = 0; i < kQemuMagic.size(); ++i)
    begins += fmt::format("{}{:02x}", i == 0 ? "" : " ", std::to_integer<unsigned>(head[i]));
  format.error =
      refusal(ErrorClass::bad_stream, name,
              fmt::format("is no migration stream: it begins with {}, QEMU's with 51 45 56 4d (QEVM); if the "
                          "stream begins later in the file, say where with --offset",
                          begins));
  return format;
}

std::string saved_content(Bytes head) {
  const std::string_view text = text_of(head);
  if (text.starts_with(kQemuMagic)) return "a migration stream";
  if (text.starts_with(kLibvirtMagic) || text.starts_with(kLibvirtPartialMagic))
    return "a libvirt save image";
  for (const Compression& compression : kCompressions)
    if (text.starts_with(compression.magic)) return fmt::format("what {} compressed", compression.program);
  for (const Foreign& foreign : kForeign)
    if (text.starts_with(foreign.magic)) return foreign.name;
  return {};
}

std::string describe(const LibvirtSaveImage& image) {
  return fmt::format("libvirt save image, version {}, of a {} guest", image.version,
                     image.was_running ? "running" : "paused");
}

std::string shell_word(const std::string& text) {
  constexpr std::string_view kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./,:=@%+-";
  if (!text.empty() && text.front() != '-' && text.find_first_not_of(kPlain) == std::string::npos)
    return text;
  std::string word = text.starts_with('-') ? "'./" : "'";
  for (const char c : text) word += c == '\'' ? "'\\''" : std::string(1, c);
  return word + "'";
}

}  // namespace migrx
