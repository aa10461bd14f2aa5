// The fixed-size parts of a multifd channel's stream: the init packet and the header of a RAM packet. Pure
// functions of bytes; the channel's state machine is multifd_channel.h.
//
//   channel := init(64) packet*        packet := header(1344) payload[next_packet_size if normal_pages > 0]
#pragma once

#include <array>
#include <string_view>

#include "dataplane/handoff/byte_order.h"
#include "loader/ram/ram_block.h"
#include "loader/stream/error.h"
#include "loader/stream/multifd_id.h"

namespace migrx {

inline constexpr uint32_t kMultifdMagic = 0x11223344;
inline constexpr uint32_t kMultifdVersion = 1;
inline constexpr uint32_t kMultifdChannelsMax = 255;  // QEMU: multifd-channels is a uint8

// QEMU migration/multifd.h: MULTIFD_PACKET_SIZE (512 KiB) of pages per packet.
inline constexpr uint32_t kMultifdPagesMax = 512 * 1024 / kPageBytes;
inline constexpr std::size_t kMultifdInitBytes = 64;
inline constexpr std::size_t kMultifdPrefixBytes =
    12;  // magic, version, flags: common to all kinds of packet
inline constexpr std::size_t kMultifdFixedBytes = 320;
inline constexpr std::size_t kMultifdHeaderBytes = kMultifdFixedBytes + 8 * std::size_t{kMultifdPagesMax};
inline constexpr std::size_t kMultifdBodyBytes = kMultifdHeaderBytes - kMultifdPrefixBytes;
inline constexpr std::size_t kMultifdDeviceHeaderBytes = 276;
inline constexpr std::size_t kMultifdDeviceBodyBytes = kMultifdDeviceHeaderBytes - kMultifdPrefixBytes;
// A compressed payload. QEMU's buffers end at compressBound(MULTIFD_PACKET_SIZE) and the like, far
// below 1 MiB.
inline constexpr uint32_t kMultifdPayloadMax = 1024 * 1024;

namespace multifd_flag {
inline constexpr uint32_t kSync = 0x01;
inline constexpr uint32_t kZlib = 0x02;
inline constexpr uint32_t kZstd = 0x04;
inline constexpr uint32_t kQpl = 0x08;
inline constexpr uint32_t kUadk = 0x10;
inline constexpr uint32_t kQatzip = 0x20;
inline constexpr uint32_t kDeviceState = 0x40;
inline constexpr uint32_t kCompressionMask = 0x3e;
inline constexpr uint32_t kKnown = 0x7f;
}  // namespace multifd_flag

// The parameter multifd-compression, with QEMU's names.
enum class MultifdCompression : uint8_t { none, zlib, zstd, qpl, uadk, qatzip };
[[nodiscard]] const char* to_string(MultifdCompression method) noexcept;
// False: no such method; `method` stays.
bool parse_multifd_compression(std::string_view name, MultifdCompression& method) noexcept;
[[nodiscard]] uint32_t multifd_flags_of(MultifdCompression method) noexcept;
// The method that these flags announce, in words ("zlib", "none", "0x6").
[[nodiscard]] std::array<char, 16> multifd_flags_name(uint32_t flags) noexcept;

using MultifdUuid = std::array<std::byte, 16>;

struct MultifdInit {
  MultifdUuid uuid{};
  MultifdId id{0};
};

struct MultifdPacket {
  uint32_t flags = 0;
  uint32_t normal_pages = 0;
  uint32_t zero_pages = 0;
  uint32_t payload_bytes = 0;          // 0 if there are no normal pages, whatever next_packet_size says
  uint64_t packet_num = 0;             // informative
  std::string_view ramblock;           // points into the header; empty without pages
  const std::byte* offsets = nullptr;  // normal_pages + zero_pages x be64 in the header, not yet checked

  [[nodiscard]] bool has_pages() const noexcept { return normal_pages + zero_pages > 0; }
  [[nodiscard]] bool sync() const noexcept { return (flags & multifd_flag::kSync) != 0; }
};

// All of these return an error without class when the bytes are fine. `offset`: stream offset of the packet.

// 64 bytes. Checks magic, version.
StreamError parse_multifd_init(const std::byte* bytes, uint64_t offset, MultifdInit& out) noexcept;
// 12 bytes: magic, version, and that there are no flags but known ones in a legal combination.
StreamError parse_multifd_prefix(const std::byte* bytes, uint64_t offset, uint32_t& flags) noexcept;
// The kMultifdBodyBytes of a RAM packet after its prefix. Counts, next_packet_size, flags against the
// configured method. Block name and offsets are only delimited: they need the block list.
StreamError parse_multifd_body(uint32_t flags, const std::byte* body, uint64_t offset,
                               MultifdCompression configured, MultifdPacket& out) noexcept;
// The kMultifdDeviceBodyBytes of a device-state packet after its prefix: such a packet is refused.
StreamError refuse_device_state(const std::byte* body, uint64_t offset) noexcept;

}  // namespace migrx
