// Messages of a destination QEMU on the return path. Input: a byte of piece size, the bytes.
#include <algorithm>
#include <cstdlib>

#include "loader/main/return_path.h"
#include "tests/fuzz/fuzz_target.h"

namespace migrx::test {

std::vector<std::vector<std::byte>> fuzz_seeds() {
  std::vector<std::byte> input{std::byte{3}};
  const auto append = [&input](const auto& message) {
    input.insert(input.end(), message.begin(), message.end());
  };
  append(make_pong(1));
  append(make_switchover_ack());
  append(make_shut(0));
  return {input};
}

}  // namespace migrx::test

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  using namespace migrx;
  if (size < 1) return 0;
  const std::size_t step = 1 + std::size_t{data[0]};
  Bytes left{reinterpret_cast<const std::byte*>(data) + 1, size - 1};
  ReturnPathReader reader;
  bool shut = false;
  while (!left.empty() && !reader.error()) {
    const std::size_t n = std::min(step, left.size());
    reader.feed(left.first(n));
    left = left.subspan(n);
    ReturnPathMessage message;
    while (reader.next(message)) {
      if (shut) std::abort();  // nothing is behind SHUT
      shut = message.type == ReturnPathType::shut;
    }
  }
  if (shut != reader.shut_seen()) std::abort();
  return 0;
}
