#include "loader/ram/xbzrle.h"

namespace migrx {
namespace {

// Reads a run length at *p; returns the bytes it took, 0: it has a third byte. At least two bytes
// must be readable.
std::size_t read_run(const std::byte* p, uint32_t& run) noexcept {
  const uint32_t low = std::to_integer<uint32_t>(p[0]);
  if (low < 0x80) {
    run = low;
    return 1;
  }
  const uint32_t high = std::to_integer<uint32_t>(p[1]);
  if (high >= 0x80) return 0;
  run = (low & 0x7f) | high << 7;
  return 2;
}

}  // namespace

const char* to_string(XbzrleStatus status) noexcept {
  switch (status) {
    case XbzrleStatus::ok:
      return "ok";
    case XbzrleStatus::too_long:
      return "the patch is longer than a page";
    case XbzrleStatus::truncated_pair:
      return "the patch ends inside a pair of runs";
    case XbzrleStatus::bad_run_length:
      return "a run length is zero or has more than two bytes";
    case XbzrleStatus::beyond_page:
      return "a run passes the end of the page";
  }
  return "?";
}

XbzrleStatus xbzrle_apply(std::byte* page, Bytes encoded) noexcept {
  if (encoded.size() > kPageBytes) return XbzrleStatus::too_long;
  const std::byte* p = encoded.data();
  const std::byte* const end = p + encoded.size();
  uint32_t position = 0;
  bool first = true;
  while (p != end) {
    uint32_t run = 0;
    // A pair has at least three bytes, so two are there for either run length, whichever form it has.
    if (end - p < 2) return XbzrleStatus::truncated_pair;
    std::size_t taken = read_run(p, run);
    if (taken == 0 || (run == 0 && !first)) return XbzrleStatus::bad_run_length;
    p += taken;
    first = false;
    if (run > kPageBytes - position) return XbzrleStatus::beyond_page;
    position += run;

    if (end - p < 2) return XbzrleStatus::truncated_pair;
    taken = read_run(p, run);
    if (taken == 0 || run == 0) return XbzrleStatus::bad_run_length;
    p += taken;
    if (run > kPageBytes - position) return XbzrleStatus::beyond_page;
    if (run > static_cast<std::size_t>(end - p)) return XbzrleStatus::truncated_pair;
    std::memcpy(page + position, p, run);
    position += run;
    p += run;
  }
  return XbzrleStatus::ok;
}

}  // namespace migrx
