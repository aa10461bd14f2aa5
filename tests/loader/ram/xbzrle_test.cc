#include "loader/ram/xbzrle.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "tests/loader/guarded_memory.h"

namespace migrx {
namespace {

using Buffer = std::vector<std::byte>;
using test::GuardedMemory;

Buffer bytes_of(std::initializer_list<int> values) {
  Buffer out;
  for (const int v : values) out.push_back(static_cast<std::byte>(v));
  return out;
}

void put_run(Buffer& out, std::size_t run) {
  if (run < 0x80) {
    out.push_back(static_cast<std::byte>(run));
  } else {
    out.push_back(static_cast<std::byte>((run & 0x7f) | 0x80));
    out.push_back(static_cast<std::byte>(run >> 7));
  }
}

// The format, byte by byte.
Buffer naive_encode(const Buffer& before, const Buffer& after) {
  Buffer out;
  std::size_t at = 0;
  for (;;) {
    std::size_t same = at;
    while (same < after.size() && before[same] == after[same]) ++same;
    if (same == after.size()) return out;
    std::size_t differs = same;
    while (differs < after.size() && before[differs] != after[differs]) ++differs;
    put_run(out, same - at);
    put_run(out, differs - same);
    out.insert(out.end(), after.begin() + static_cast<std::ptrdiff_t>(same),
               after.begin() + static_cast<std::ptrdiff_t>(differs));
    at = differs;
  }
}

// The rules, without regard to speed: false where a decoder must refuse.
bool naive_decode(Buffer& page, const Buffer& encoded) {
  if (encoded.size() > page.size()) return false;
  std::size_t at = 0, position = 0;
  const auto run = [&](std::size_t& value) {
    if (encoded.size() - at < 2) return false;
    value = std::to_integer<std::size_t>(encoded[at++]);
    if (value < 0x80) return true;
    const std::size_t high = std::to_integer<std::size_t>(encoded[at++]);
    value = (value & 0x7f) + high * 128;
    return high < 0x80;
  };
  for (bool first = true; at < encoded.size(); first = false) {
    std::size_t zrun = 0, nzrun = 0;
    if (!run(zrun) || (zrun == 0 && !first) || position + zrun > page.size()) return false;
    position += zrun;
    if (!run(nzrun) || nzrun == 0 || position + nzrun > page.size() || at + nzrun > encoded.size())
      return false;
    for (std::size_t i = 0; i < nzrun; ++i) page[position++] = encoded[at++];
  }
  return true;
}

TEST(Xbzrle, a_patch_seen_from_qemu_10) {
  Buffer page(kPageBytes, std::byte{0x11});
  Buffer want = page;
  for (const std::size_t at : {std::size_t{0x000}, std::size_t{0x123}, std::size_t{0xffc}}) {
    want[at] = std::byte{0x15};
    want[at + 1] = std::byte{0x34};
  }
  const Buffer patch =
      bytes_of({0x00, 0x02, 0x15, 0x34, 0xa1, 0x02, 0x02, 0x15, 0x34, 0xd7, 0x1d, 0x02, 0x15, 0x34});
  EXPECT_EQ(xbzrle_apply(page.data(), patch), XbzrleStatus::ok);
  EXPECT_EQ(page, want);
}

TEST(Xbzrle, random_changes_come_out_as_encoded) {
  std::mt19937 random(5);
  GuardedMemory memory(kPageBytes);
  for (int round = 0; round < 300; ++round) {
    Buffer before(kPageBytes);
    for (std::byte& b : before) b = static_cast<std::byte>(random());
    Buffer after = before;
    for (auto changes = random() % 40; changes > 0; --changes) {
      const std::size_t at = random() % kPageBytes;
      const std::size_t n = std::min<std::size_t>(random() % 50, kPageBytes - at);
      for (std::size_t i = 0; i < n; ++i) after[at + i] = static_cast<std::byte>(random());
    }
    const Buffer patch = naive_encode(before, after);
    if (patch.size() > kPageBytes) continue;
    std::copy(before.begin(), before.end(), memory.data());
    ASSERT_EQ(xbzrle_apply(memory.data(), patch), XbzrleStatus::ok);
    ASSERT_TRUE(std::equal(after.begin(), after.end(), memory.data()));
  }
}

TEST(Xbzrle, damaged_patches_are_judged_as_by_the_rules_and_stay_inside_the_page) {
  std::mt19937 random(6);
  GuardedMemory memory(kPageBytes);
  int refused = 0;
  for (int round = 0; round < 20000; ++round) {
    Buffer patch;
    for (auto pairs = random() % 6; pairs > 0; --pairs) {
      put_run(patch, random() % (random() % 4 == 0 ? 0x4000 : 300));
      const std::size_t n = random() % (random() % 4 == 0 ? 0x3000 : 40);
      put_run(patch, n);
      patch.resize(patch.size() + n % 500, std::byte{0x5a});
    }
    for (auto flips = random() % 3; flips > 0 && !patch.empty(); --flips)
      patch[random() % patch.size()] ^= static_cast<std::byte>(1U << random() % 8);
    Buffer page(kPageBytes, std::byte{1});
    std::copy(page.begin(), page.end(), memory.data());
    const bool legal = naive_decode(page, patch);
    GuardedMemory in(patch.size() + 1);
    std::copy(patch.begin(), patch.end(), in.end() - patch.size());
    const XbzrleStatus status = xbzrle_apply(memory.data(), {in.end() - patch.size(), patch.size()});
    ASSERT_EQ(status == XbzrleStatus::ok, legal) << round << " " << to_string(status);
    if (legal) {
      ASSERT_TRUE(std::equal(page.begin(), page.end(), memory.data()));
    }
    refused += legal ? 0 : 1;
  }
  EXPECT_GT(refused, 1000);
  EXPECT_LT(refused, 19000);
}

TEST(Xbzrle, each_rule_has_its_status) {
  Buffer page(kPageBytes);
  const auto apply = [&](const Buffer& patch) { return xbzrle_apply(page.data(), patch); };
  EXPECT_EQ(apply({}), XbzrleStatus::ok);
  EXPECT_EQ(apply(Buffer(kPageBytes + 1)), XbzrleStatus::too_long);
  EXPECT_EQ(apply(bytes_of({5})), XbzrleStatus::truncated_pair);
  EXPECT_EQ(apply(bytes_of({5, 1})), XbzrleStatus::truncated_pair);
  EXPECT_EQ(apply(bytes_of({5, 2, 9})), XbzrleStatus::truncated_pair);
  EXPECT_EQ(apply(bytes_of({5, 0, 9})), XbzrleStatus::bad_run_length);
  EXPECT_EQ(apply(bytes_of({0, 1, 9, 0, 1, 9})), XbzrleStatus::bad_run_length);
  EXPECT_EQ(apply(bytes_of({0x85, 0x80, 1, 9})), XbzrleStatus::bad_run_length);
  EXPECT_EQ(apply(bytes_of({0x80, 0x20, 1, 9})), XbzrleStatus::beyond_page);
  EXPECT_EQ(apply(bytes_of({0x81, 0x20, 1, 9})), XbzrleStatus::beyond_page);
  EXPECT_EQ(apply(bytes_of({0xff, 0x1f, 1, 9})), XbzrleStatus::ok);
  EXPECT_EQ(page[kPageBytes - 1], std::byte{9});
  EXPECT_EQ(apply(bytes_of({0xff, 0x1f, 2, 9, 9})), XbzrleStatus::beyond_page);
}

}  // namespace
}  // namespace migrx
