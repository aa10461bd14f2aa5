// Multicast listener discovery (RFC 3810): switches that snoop pass a group's frames to those ports alone
// where somebody has asked for them, and solicitations for our addresses go to groups. Pure.
#pragma once

#include <cstdint>
#include <span>

#include "dataplane/wire/icmp6.h"

namespace migrx {

inline constexpr uint32_t kMldGroupsMax = 8;
inline constexpr uint32_t kMldFrameBytesMax = 14 + 4 + kIpv6HeaderBytes + 8 + 8 + kMldGroupsMax * 20;

// A query of a router or switch (either version) about all groups, or about one of `groups`.
[[nodiscard]] bool is_mld_query(const Icmp6View& view, std::span<const IpAddress> groups) noexcept;

// A report that `groups`, of which the first kMldGroupsMax count, are listened to, whoever sends. source: a
// link-local address, or `::`, which routers pass over and switches do not (RFC 3810 section 5.2.13). `link`:
// our address and the tag. Returns the frame's length; 0: `out` is too small.
[[nodiscard]] uint32_t build_mld_report(const IpAddress& source, std::span<const IpAddress> groups,
                                        const FrameAddress& link, MutableBytes out) noexcept;

}  // namespace migrx
