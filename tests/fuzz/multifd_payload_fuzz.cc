// Compressed payloads behind valid headers, so that every input reaches a decoder. Input: a byte for the
// method, a byte of piece size, a byte of page count; then the payloads, each a big-endian 16-bit length and
// as many bytes.
#include <random>

#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/multifd_target.h"
#include "tests/loader/multifd_stream_builder.h"

namespace migrx::test {

std::vector<std::vector<std::byte>> fuzz_seeds() {
  std::vector<std::vector<std::byte>> seeds;
  for (const MultifdMethod method :
       {MultifdMethod::zlib, MultifdMethod::zstd, MultifdMethod::qpl, MultifdMethod::uadk}) {
    MultifdStreamBuilder b(method);
    std::vector<std::byte> page(MultifdStreamBuilder::kPage);
    std::mt19937 random(2);
    std::vector<std::byte> seed{static_cast<std::byte>(static_cast<int>(method) - 1), std::byte{90},
                                std::byte{1}};
    for (int packet = 0; packet < 3; ++packet) {
      const std::vector<std::byte> payload = b.encode({0, 0x1000}, [&](uint64_t offset) {
        for (std::size_t i = 0; i < page.size(); ++i)
          page[i] = static_cast<std::byte>(offset == 0 ? i / 16 : random() % 3);
        return page.data();
      });
      seed.push_back(static_cast<std::byte>(payload.size() >> 8));
      seed.push_back(static_cast<std::byte>(payload.size() & 0xff));
      seed.insert(seed.end(), payload.begin(), payload.end());
    }
    seeds.push_back(seed);
  }
  return seeds;
}

}  // namespace migrx::test

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  using namespace migrx;
  if (size < 3) return 0;
  const auto method = static_cast<test::MultifdMethod>(1 + data[0] % 4);
  const std::size_t piece = 1 + std::size_t{data[1]} * 16;
  const uint32_t pages = 1 + data[2] % 128;
  test::MultifdStreamBuilder b;
  b.init(0);
  b.sync(0);
  for (std::size_t at = 3; at + 2 < size;) {
    const std::size_t length =
        std::min<std::size_t>(std::size_t{data[at]} << 8 | data[at + 1], size - at - 2);
    test::MultifdStreamBuilder::Header h;
    h.flags = 1U << static_cast<int>(method);
    h.normal_pages = pages;
    h.next_packet_size = static_cast<uint32_t>(length);
    h.ramblock = "mem";
    // Two runs and a page apart.
    for (uint32_t i = 0; i < pages; ++i)
      h.offsets.push_back(((i + 64) % 128 + (i == 0 ? 1 : 0)) * uint64_t{kPageBytes});
    b.header(h);
    const auto* const payload = reinterpret_cast<const std::byte*>(data) + at + 2;
    b.bytes.insert(b.bytes.end(), payload, payload + length);
    at += 2 + length;
  }
  test::FuzzMultifd channel(static_cast<MultifdCompression>(method));
  channel.feed(b.bytes, piece);
  return 0;
}
