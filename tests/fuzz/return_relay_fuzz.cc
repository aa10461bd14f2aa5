// What a destination QEMU says in postcopy, passed on to the source. Input: a byte of piece size, the bytes.
#include <algorithm>
#include <cstdlib>
#include <memory>

#include "loader/destination/return_relay.h"
#include "tests/fuzz/fuzz_target.h"

namespace migrx::test {
namespace {

constexpr uint64_t kBlockPages = 40;

void append_number(std::vector<std::byte>& to, uint64_t value, int bytes) {
  for (int shift = (bytes - 1) * 8; shift >= 0; shift -= 8)
    to.push_back(static_cast<std::byte>(value >> shift));
}

}  // namespace

std::vector<std::vector<std::byte>> fuzz_seeds() {
  std::vector<std::byte> input{std::byte{5}};
  const auto message = [&input](uint64_t type, uint64_t length) {
    append_number(input, type, 2);
    append_number(input, length, 2);
  };
  const auto name = [&input] {
    append_number(input, 3, 1);
    append_number(input, 0x6d656d, 3);  // "mem"
  };
  message(3, 16);
  append_number(input, 0x3000, 8);
  append_number(input, 4096, 4);
  name();
  message(4, 12);
  append_number(input, 0x5000, 8);
  append_number(input, 4096, 4);
  message(5, 4);
  name();
  append_number(input, 8, 8);
  append_number(input, 0x0102030405060708, 8);
  append_number(input, 0x0123456789abcdef, 8);
  message(6, 4);
  append_number(input, 1, 4);
  message(1, 4);
  append_number(input, 0, 4);
  return {input};
}

}  // namespace migrx::test

// Whole or in pieces it comes to the same: nothing is added or left out, and bits are only ever added.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  using namespace migrx;
  if (size < 1) return 0;
  static std::vector<std::byte> memory(test::kBlockPages * kPageBytes);
  RamBlockList blocks;
  blocks.add(std::make_unique<RamBlock>("mem", memory.data(), memory.size(), true, true, kAnyNode));
  DiscardedPages discarded;
  discarded.prepare(blocks);
  discarded.add("mem", 3, 9);
  const std::size_t step = 1 + std::size_t{data[0]};
  const Bytes all{reinterpret_cast<const std::byte*>(data) + 1, size - 1};
  ReturnRelay whole;
  std::vector<std::byte> wanted;
  const bool good = whole.feed(all, &discarded, wanted);
  ReturnRelay pieces;
  std::vector<std::byte> got;
  bool went_on = true;
  for (Bytes left = all; went_on && !left.empty(); left = left.subspan(std::min(step, left.size())))
    went_on = pieces.feed(left.first(std::min(step, left.size())), &discarded, got);
  if (good != went_on || got != wanted || wanted.size() > all.size()) std::abort();
  if (whole.requests() != pieces.requests() || whole.shut() != pieces.shut()) std::abort();
  for (std::size_t i = 0; i < wanted.size(); ++i)
    if ((wanted[i] & all[i]) != all[i]) std::abort();
  if (!good && whole.error().message().empty()) std::abort();
  return 0;
}
