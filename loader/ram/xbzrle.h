// XBZRLE: the difference between two versions of a page (QEMU migration/xbzrle.c, xbzrle_decode_buffer).
//
//   body := pair+     pair := zrun nzrun data[nzrun]     zrun, nzrun := n < 0x80, or (n & 0x7f)|0x80, n >> 7
//
// zrun bytes stay as they are, nzrun bytes are replaced. What follows the last pair stays as it is.
#pragma once

#include "dataplane/handoff/byte_order.h"
#include "loader/ram/ram_block.h"

namespace migrx {

enum class XbzrleStatus : uint8_t {
  ok,
  too_long,        // more encoded bytes than a page has
  truncated_pair,  // the encoded bytes end inside a pair
  bad_run_length,  // a run length of three bytes, or zero where it must not be
  beyond_page,     // position + run passes the end of the page
};
[[nodiscard]] const char* to_string(XbzrleStatus status) noexcept;

// Patches the kPageBytes at `page` in place. Never writes outside of them; on any status but ok the page may
// have been patched in part (such an error ends the session, and its RAM is worthless then). An empty patch
// changes nothing.
XbzrleStatus xbzrle_apply(std::byte* page, Bytes encoded) noexcept;

}  // namespace migrx
