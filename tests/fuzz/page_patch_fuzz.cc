// XBZRLE patches and single compressed pages. Input: a byte that chooses, the encoded bytes. The page lies
// between guard pages; a refused compressed page must have written nothing.
#include "loader/ram/inflate_page.h"
#include "loader/ram/xbzrle.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/multifd_target.h"
#include "tests/loader/multifd_stream_builder.h"

namespace migrx::test {

std::vector<std::vector<std::byte>> fuzz_seeds() {
  std::vector<std::byte> page(kPageBytes);
  for (std::size_t i = 0; i < page.size(); ++i) page[i] = static_cast<std::byte>(i * i / 77);
  std::vector<std::vector<std::byte>> seeds;
  std::vector<std::byte> patch{std::byte{0}};
  for (const int value : {0x00, 0x02, 0x15, 0x34, 0xa1, 0x02, 0x02, 0x15, 0x34, 0xd7, 0x1d, 0x02, 0x15, 0x34})
    patch.push_back(static_cast<std::byte>(value));
  seeds.push_back(patch);
  for (const int raw : {0, 1}) {
    std::vector<std::byte> seed{static_cast<std::byte>(1 + raw)};
    const auto deflated =
        MultifdStreamBuilder::deflate_whole(page.data(), page.size(), 6, raw != 0 ? -15 : 15);
    seed.insert(seed.end(), deflated.begin(), deflated.end());
    seeds.push_back(seed);
  }
  return seeds;
}

}  // namespace migrx::test

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  using namespace migrx;
  if (size < 1) return 0;
  constexpr std::byte kFill{0x3c};
  const test::GuardedMemory memory(kPageBytes);
  std::fill(memory.data(), memory.end(), kFill);
  const Bytes encoded{reinterpret_cast<const std::byte*>(data) + 1, size - 1};
  if (data[0] % 3 == 0) {
    test::require_that(to_string(xbzrle_apply(memory.data(), encoded)) != nullptr, "every status has words");
    return 0;
  }
  PageInflater inflater(*supported_page_kernels().back());
  const PageFormat format = data[0] % 3 == 1 ? PageFormat::zlib : PageFormat::raw_deflate;
  if (inflater.inflate(format, encoded, memory.data()) != InflateStatus::ok)
    test::require_that(std::all_of(memory.data(), memory.end(), [](std::byte b) { return b == kFill; }),
                       "a refused page writes nothing");
  return 0;
}
