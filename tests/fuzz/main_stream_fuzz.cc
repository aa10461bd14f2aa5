// The main channel's whole grammar. Input: a byte of settings, a byte of piece size, the stream.
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/main_target.h"
#include "tests/loader/main_stream_builder.h"

namespace migrx::test {
namespace {

enum Setting : unsigned {
  kXbzrle = 1,
  kCompress = 2,
  kColo = 4,
  kMappedRam = 8,
  kIgnoreShared = 16,
  kSnapshot = 32,
  kPostcopy = 64,
  kMultifd = 128,
};

std::vector<std::byte> with(unsigned settings, unsigned piece, const MainStreamBuilder& b) {
  std::vector<std::byte> input(2 + b.size());
  input[0] = static_cast<std::byte>(settings);
  input[1] = static_cast<std::byte>(piece);
  std::copy(b.bytes().begin(), b.bytes().end(), input.begin() + 2);
  return input;
}

}  // namespace

std::vector<std::vector<std::byte>> fuzz_seeds() {
  std::vector<std::vector<std::byte>> seeds;
  {
    MainStreamBuilder b;
    b.header()
        .configuration()
        .target_page_bits(12)
        .capabilities({"xbzrle"})
        .open_return_path()
        .ping(1)
        .command(3);
    b.section_start(1, "block", 0, 1).be64(2).footer(1);
    b.ram_start({{"ram", 4 * 4096, {}}, {"rom", 4096, {}}}).ram_close();
    b.section_full(4, "x/virtio-mem-device-early", 0, 1);
    b.be64(0).be64(64 << 21).be64(1 << 21).be32(0).be64(0).be64(3).footer(4);
    b.section_start(3, "dirty-bitmap", 0, 1).u8(0x1c).str8("disk").str8("bm").be32(16).u8(1).u8(1).footer(3);
    b.ram_part().page("ram", 0, make_page(1)).zero("ram", 4096).xbzrle("ram", 0, {}).ram_close();
    b.section_part(1).be64(0x09).str8("disk").be64(4 << 9 | 4).be64(2).footer(1);
    b.section_part(3).u8(0x40).be64(0).be32(8).be64(8).be64(5).u8(0x21).footer(3);
    b.switchover_start().ram_end().zero("rom", 0).ram_close();
    b.section_end(1).be64(2).footer(1).section_end(3).u8(1).footer(3).device_tail();
    seeds.push_back(with(kXbzrle | kColo, 40, b));
  }
  {
    MainStreamBuilder b;
    b.footers = false;
    b.header().ram_start({{"ram", 2 * 4096, {}}}).ram_close();
    b.ram_part().compressed("ram", 0, make_page(2)).ram_close();
    b.device_tail();
    seeds.push_back(with(kCompress | kSnapshot, 255, b));
  }
  {
    MainStreamBuilder b;
    b.header().configuration().open_return_path().ram_start({{"ram", 4096, {}}}).multifd_flush().ram_close();
    b.ram_part().multifd_flush().ram_close().ram_end().multifd_flush().ram_close().device_tail();
    seeds.push_back(with(kMultifd, 3, b));
  }
  {
    MainStreamBuilder b;
    b.header().configuration().capabilities({"mapped-ram"}).section_start(2, "ram", 0, 4);
    b.be64(8192 | MainStreamBuilder::kMemSize)
        .str8("ram")
        .be64(8192)
        .be32(1)
        .be64(4096)
        .be64(200)
        .be64(1 << 20);
    b.ram_close().ram_end().ram_close().device_tail();
    seeds.push_back(with(kMappedRam, 9, b));
  }
  {
    MainStreamBuilder b;
    b.header().configuration().capabilities({"x-ignore-shared"}).uuid(std::vector<std::byte>(16));
    b.command(8).ram_start({{"ram", 4096, {0}}}).ram_close().ram_end().ram_close().device_tail();
    seeds.push_back(with(kIgnoreShared | kColo, 1, b));
  }
  {
    MainStreamBuilder b;
    b.header().configuration().open_return_path().advise(4096 | 2 << 20);
    b.ram_start({{"ram", 4 * 4096, {}}, {"rom", 4096, {}}}).ram_close();
    b.ram_part().page("ram", 0, make_page(7)).ram_close();
    b.discard("ram", {{0, 4096}, {8192, 8192}}).ping(2).package(20).ram_part().ram_close().u8(0);
    seeds.push_back(with(kPostcopy, 11, b));
  }
  return seeds;
}

}  // namespace migrx::test

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  using namespace migrx;
  if (size < 2) return 0;
  MainSettings settings;
  settings.xbzrle = (data[0] & test::kXbzrle) != 0;
  settings.compress = (data[0] & test::kCompress) != 0;
  settings.x_colo = (data[0] & test::kColo) != 0;
  settings.mapped_ram = (data[0] & test::kMappedRam) != 0;
  settings.x_ignore_shared = (data[0] & test::kIgnoreShared) != 0;
  settings.background_snapshot = (data[0] & test::kSnapshot) != 0;
  if ((data[0] & test::kPostcopy) != 0) settings.postcopy = Postcopy::relayed;
  settings.multifd_channels = (data[0] & test::kMultifd) != 0 ? 2 : 0;
  test::FuzzChannel channel(settings);
  channel.feed({reinterpret_cast<const std::byte*>(data) + 2, size - 2}, 1 + std::size_t{data[1]} * 16);
  channel.end();
  return 0;
}
