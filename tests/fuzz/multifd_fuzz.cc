// A whole multifd channel. Input: a byte for the configured method, a byte of piece size, the channel's
// stream.
#include <random>

#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/multifd_target.h"
#include "tests/loader/multifd_stream_builder.h"

namespace migrx::test {

std::vector<std::vector<std::byte>> fuzz_seeds() {
  std::vector<std::vector<std::byte>> seeds;
  for (const MultifdMethod method : {MultifdMethod::none, MultifdMethod::zlib, MultifdMethod::zstd,
                                     MultifdMethod::qpl, MultifdMethod::uadk}) {
    MultifdStreamBuilder b(method);
    std::vector<std::byte> page(MultifdStreamBuilder::kPage);
    std::mt19937 random(1);
    const auto content = [&](uint64_t offset) {
      for (std::size_t i = 0; i < page.size(); ++i)
        page[i] = static_cast<std::byte>(offset % 8192 == 0 ? i / 16 : random() % 3);
      return page.data();
    };
    b.bytes.push_back(static_cast<std::byte>(method));
    b.bytes.push_back(std::byte{90});
    b.init(1);
    b.sync(0);
    b.pages(1, "mem", {0x1000, 0x2000, 0x81000}, content, {0x3000});
    b.pages(2, "small", {0x2000}, content, {0}, true);
    b.empty_trailer(2);
    b.pages(3, "mem", {0x1000}, content);
    b.sync(4);
    seeds.push_back(b.bytes);
  }
  return seeds;
}

}  // namespace migrx::test

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  using namespace migrx;
  if (size < 2) return 0;
  test::FuzzMultifd channel(static_cast<MultifdCompression>(data[0] % 5));
  channel.feed({reinterpret_cast<const std::byte*>(data) + 2, size - 2}, 1 + std::size_t{data[1]} * 16);
  return 0;
}
