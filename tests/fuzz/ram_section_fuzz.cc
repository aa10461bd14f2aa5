// Records of the RAM section behind a valid block list, so that every input gets that far. Input: a byte of
// piece size, the bodies of the sections.
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/main_target.h"
#include "tests/loader/main_stream_builder.h"

namespace migrx::test {

std::vector<std::vector<std::byte>> fuzz_seeds() {
  MainStreamBuilder b;
  b.u8(90);
  auto patched = make_page(1);
  patched[5] ^= std::byte{1};
  patched[4000] ^= std::byte{1};
  b.page("ram", 0, make_page(1)).page("ram", 4096, make_page(2)).zero("ram", 8192).zero("rom", 0).ram_close();
  b.ram_part().xbzrle("ram", 0, encode_xbzrle(make_page(1), patched)).multifd_flush().ram_close();
  b.ram_part()
      .compressed("rom", 4096, std::vector<std::byte>(4096, std::byte{7}))
      .compressed("ram", 0, make_page(3));
  b.ram_close().ram_end().ram_close();
  return {b.take()};
}

}  // namespace migrx::test

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  using namespace migrx;
  if (size < 1) return 0;
  MainSettings settings;
  settings.xbzrle = true;
  settings.compress = true;
  test::MainStreamBuilder b;
  b.header()
      .configuration()
      .ram_start({{"ram", 16 * kPageBytes, {}}, {"rom", 2 * kPageBytes, {}}})
      .ram_close()
      .ram_part();
  test::FuzzChannel channel(settings);
  test::require(channel.feed(b.bytes(), SIZE_MAX));
  channel.feed({reinterpret_cast<const std::byte*>(data) + 1, size - 1}, 1 + std::size_t{data[0]} * 16);
  channel.end();
  return 0;
}
