#include "loader/multifd/multifd_packet.h"

#include <cstdio>

namespace migrx {
namespace {

// Where a packet's body begins: after magic, version and flags, which parse_multifd_prefix() has seen.
constexpr std::size_t kBody = kMultifdPrefixBytes;

// Positions in MultiFDInit_t, MultiFDPacket_t and MultiFDPacketDeviceState_t
// (QEMU migration/multifd.c, multifd.h).
namespace init_at {
constexpr std::size_t kMagic = 0, kVersion = 4, kUuid = 8, kId = 24;
}
namespace at {
constexpr std::size_t kMagic = 0, kVersion = 4, kFlags = 8;
// In the body:
constexpr std::size_t kPagesAlloc = 12 - kBody, kNormalPages = 16 - kBody, kNextPacketSize = 20 - kBody,
                      kPacketNum = 24 - kBody, kZeroPages = 32 - kBody, kRamblock = 64 - kBody,
                      kRamblockBytes = 256, kOffsets = 320 - kBody;
static_assert(kRamblock + kRamblockBytes == kOffsets && kOffsets + kBody == kMultifdFixedBytes);
}  // namespace at
namespace device_at {
constexpr std::size_t kIdstr = 12 - kBody, kInstance = 268 - kBody;
}

constexpr std::array kMethods{MultifdCompression::none, MultifdCompression::zlib, MultifdCompression::zstd,
                              MultifdCompression::qpl,  MultifdCompression::uadk, MultifdCompression::qatzip};

StreamError check_magic_version(const std::byte* bytes, uint64_t offset, const char* magic_field,
                                const char* version_field) noexcept {
  static_assert(init_at::kMagic == at::kMagic && init_at::kVersion == at::kVersion);
  const uint32_t magic = load_be32(bytes + at::kMagic);
  if (magic != kMultifdMagic)
    return make_error_values(ErrorClass::bad_stream, offset, magic_field, magic, kMultifdMagic,
                             "the stream is corrupt, or this is not a QEMU multifd channel");
  const uint32_t version = load_be32(bytes + at::kVersion);
  if (version != kMultifdVersion)
    return make_error_values(ErrorClass::unsupported, offset, version_field, version, kMultifdVersion,
                             "multifd protocol version");
  return {};
}

}  // namespace

const char* to_string(MultifdCompression method) noexcept {
  switch (method) {
    case MultifdCompression::none:
      return "none";
    case MultifdCompression::zlib:
      return "zlib";
    case MultifdCompression::zstd:
      return "zstd";
    case MultifdCompression::qpl:
      return "qpl";
    case MultifdCompression::uadk:
      return "uadk";
    case MultifdCompression::qatzip:
      return "qatzip";
  }
  return "?";
}

bool parse_multifd_compression(std::string_view name, MultifdCompression& method) noexcept {
  for (const MultifdCompression candidate : kMethods)
    if (name == to_string(candidate)) {
      method = candidate;
      return true;
    }
  return false;
}

uint32_t multifd_flags_of(MultifdCompression method) noexcept {
  switch (method) {
    case MultifdCompression::none:
      return 0;
    case MultifdCompression::zlib:
      return multifd_flag::kZlib;
    case MultifdCompression::zstd:
      return multifd_flag::kZstd;
    case MultifdCompression::qpl:
      return multifd_flag::kQpl;
    case MultifdCompression::uadk:
      return multifd_flag::kUadk;
    case MultifdCompression::qatzip:
      return multifd_flag::kQatzip;
  }
  return 0;
}

std::array<char, 16> multifd_flags_name(uint32_t flags) noexcept {
  std::array<char, 16> name{};
  for (const MultifdCompression method : kMethods)
    if (multifd_flags_of(method) == (flags & multifd_flag::kCompressionMask)) {
      std::snprintf(name.data(), name.size(), "%s", to_string(method));
      return name;
    }
  std::snprintf(name.data(), name.size(), "0x%x", flags & multifd_flag::kCompressionMask);
  return name;
}

StreamError parse_multifd_init(const std::byte* bytes, uint64_t offset, MultifdInit& out) noexcept {
  if (const StreamError error =
          check_magic_version(bytes, offset, "multifd init packet: magic", "multifd init packet: version"))
    return error;
  std::memcpy(out.uuid.data(), bytes + init_at::kUuid, out.uuid.size());
  out.id = MultifdId{std::to_integer<uint32_t>(bytes[init_at::kId])};
  return {};
}

StreamError parse_multifd_prefix(const std::byte* bytes, uint64_t offset, uint32_t& flags) noexcept {
  // A packet has a place for each page of 512 KiB, so with smaller pages its end, zeros after a packet
  // without pages, stands where the next one was expected.
  if (load_be32(bytes + at::kMagic) == 0)
    return make_error_values(
        ErrorClass::unsupported, offset, "multifd packet: magic", 0, kMultifdMagic,
        "the source's machine has smaller pages than 4 KiB (Arm boards such as vexpress-a9), or "
        "the stream is corrupt");
  if (const StreamError error =
          check_magic_version(bytes, offset, "multifd packet: magic", "multifd packet: version"))
    return error;
  flags = load_be32(bytes + at::kFlags);
  if ((flags & ~multifd_flag::kKnown) != 0)
    return make_error(ErrorClass::unsupported, offset, "multifd packet: flags",
                      "unknown flags 0x%x; a source newer than this program, or a corrupt stream",
                      flags & ~multifd_flag::kKnown);
  if ((flags & multifd_flag::kDeviceState) != 0 && (flags & multifd_flag::kSync) != 0)
    return make_error(ErrorClass::bad_stream, offset, "multifd packet: flags",
                      "SYNC and DEVICE_STATE exclude each other (flags 0x%x)", flags);
  return {};
}

StreamError parse_multifd_body(uint32_t flags, const std::byte* bytes, uint64_t offset,
                               MultifdCompression configured, MultifdPacket& out) noexcept {
  out = MultifdPacket{};
  out.flags = flags;
  out.packet_num = load_be64(bytes + at::kPacketNum);
  const uint32_t pages_alloc = load_be32(bytes + at::kPagesAlloc);
  const uint32_t normal = load_be32(bytes + at::kNormalPages);
  const uint32_t zero = load_be32(bytes + at::kZeroPages);
  if (pages_alloc > kMultifdPagesMax)
    return make_error_values(ErrorClass::mismatch, offset, "multifd packet: pages_alloc", pages_alloc,
                             kMultifdPagesMax,
                             "the source has smaller pages than 4 KiB, or the stream is corrupt");
  // No sum is formed before its parts are known to be small.
  if (normal > pages_alloc)
    return make_error_values(ErrorClass::bad_stream, offset, "multifd packet: normal_pages", normal,
                             pages_alloc);
  if (zero > pages_alloc - normal)
    return make_error_values(ErrorClass::bad_stream, offset, "multifd packet: zero_pages", zero,
                             pages_alloc - normal);
  out.normal_pages = normal;
  out.zero_pages = zero;

  if (normal > 0) {
    // Without normal pages the compression flags may be there or not, and next_packet_size is stale in
    // sources up to 8.1: both are looked at only here.
    if ((out.flags & multifd_flag::kCompressionMask) != multifd_flags_of(configured))
      return make_error(ErrorClass::mismatch, offset, "multifd packet: flags",
                        "parameter multifd-compression is %s at the source and %s here",
                        multifd_flags_name(out.flags).data(), to_string(configured));
    const uint32_t payload = load_be32(bytes + at::kNextPacketSize);
    if (configured == MultifdCompression::none) {
      if (payload != uint64_t{normal} * kPageBytes)
        return make_error_values(ErrorClass::bad_stream, offset, "multifd packet: next_packet_size", payload,
                                 uint64_t{normal} * kPageBytes);
    } else if (payload == 0 || payload > kMultifdPayloadMax) {
      return make_error_values(ErrorClass::bad_stream, offset, "multifd packet: next_packet_size", payload,
                               kMultifdPayloadMax, "at least 1 byte");
    }
    out.payload_bytes = payload;
  }

  if (out.has_pages()) {
    const char* const name = reinterpret_cast<const char*>(bytes + at::kRamblock);
    const std::size_t length = ::strnlen(name, at::kRamblockBytes);
    if (length == at::kRamblockBytes)
      return make_error(ErrorClass::bad_stream, offset, "multifd packet: ramblock",
                        "the block name has no end within 256 bytes");
    out.ramblock = {name, length};
    out.offsets = bytes + at::kOffsets;
  }
  return {};
}

StreamError refuse_device_state(const std::byte* bytes, uint64_t offset) noexcept {
  const char* const name = reinterpret_cast<const char*>(bytes + device_at::kIdstr);
  const int length = static_cast<int>(::strnlen(name, at::kRamblockBytes - 1));
  // The name comes from the wire: only printable characters are repeated.
  std::array<char, 256> shown{};
  for (int i = 0; i < length; ++i)
    shown[static_cast<std::size_t>(i)] = name[i] >= ' ' && name[i] <= '~' ? name[i] : '?';
  return make_error(
      ErrorClass::unsupported, offset, "multifd device-state packet",
      "VFIO multifd device state of %.64s instance %u; set x-migration-multifd-transfer=off for that "
      "device at the source",
      shown.data(), load_be32(bytes + device_at::kInstance));
}

}  // namespace migrx
