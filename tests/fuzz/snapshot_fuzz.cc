// A file as migrx load reads it: a plain stream or a mapped-ram snapshot with its bitmaps and pages. Input: a
// bit that says whether two threads read it, 15 that divide the rest into what stands at the file's beginning
// and what stands behind the pages; between them lie kPages pages at the 64th KiB. Two blocks have guard
// pages around them. Threads, files and mappings cost more than reading does: what can be is used again.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "loader/destination/device_state_file.h"
#include "loader/snapshot/file_loader.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/multifd_target.h"
#include "tests/loader/main_stream_builder.h"

namespace {

constexpr uint64_t kPages = 10;
constexpr uint64_t kSmall = 2;
constexpr uint64_t kPagesAt = 64 << 10;
constexpr uint64_t kPagesEnd = kPagesAt + kPages * migrx::kPageBytes;

// A file in memory; gone with its descriptor, empty behind clear().
class MemoryFile {
 public:
  MemoryFile() : fd_(::memfd_create("snapshot", MFD_CLOEXEC)) {}
  ~MemoryFile() { ::close(fd_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  void clear() const {
    migrx::test::require_that(::ftruncate(fd_, 0) == 0, "a file in memory can be emptied");
  }
  void put(migrx::Bytes bytes, uint64_t at) const {
    migrx::test::require_that(::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(at)) ==
                                  static_cast<ssize_t>(bytes.size()),
                              "a file in memory takes everything");
  }
  [[nodiscard]] std::string path() const { return "/proc/self/fd/" + std::to_string(fd_); }

 private:
  int fd_;
};

constexpr unsigned kTwoThreads = 0x80;

std::vector<std::byte> input_of(unsigned threads, const std::vector<std::byte>& head,
                                const std::vector<std::byte>& rest) {
  std::vector<std::byte> input{static_cast<std::byte>(threads | head.size() >> 8),
                               static_cast<std::byte>(head.size() & 0xff)};
  input.insert(input.end(), head.begin(), head.end());
  input.insert(input.end(), rest.begin(), rest.end());
  return input;
}

}  // namespace

namespace migrx::test {

std::vector<std::vector<std::byte>> fuzz_seeds() {
  MainStreamBuilder plain;
  plain.header()
      .configuration()
      .ram_start({{"mem", kPages * kPageBytes, {}}, {"small", kSmall * kPageBytes, {}}})
      .ram_close();
  plain.ram_part().page("mem", kPageBytes, make_page(5)).ram_close().ram_end().ram_close().device_tail();

  MainStreamBuilder head;
  head.header().configuration().capabilities({"mapped-ram"});
  head.section_start(2, "ram", 0, 4).be64((kPages + kSmall) * kPageBytes | MainStreamBuilder::kMemSize);
  head.str8("mem").be64(kPages * kPageBytes);
  head.be32(1).be64(kPageBytes).be64(head.size() + 16).be64(kPagesAt);
  for (int i = 0; i < 8; ++i) head.u8(i == 0 ? 0xaa : i == 1 ? 0x03 : 0);
  // The second block's bitmap and pages stand behind the first one's pages, the pages at the next page
  // boundary.
  MainStreamBuilder rest;
  rest.str8("small").be64(kSmall * kPageBytes);
  rest.be32(1).be64(kPageBytes).be64(kPagesEnd + rest.size() + 16).be64(kPagesEnd + kPageBytes);
  rest.u8(1);
  while (rest.size() < (1 + kSmall) * kPageBytes) rest.u8(0);
  rest.eos().footer(2).ram_end().ram_close().device_tail();
  return {input_of(0, plain.bytes(), {}), input_of(0, head.bytes(), rest.bytes()),
          input_of(kTwoThreads, head.bytes(), rest.bytes())};
}

}  // namespace migrx::test

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  using namespace migrx;
  if (size < 2) return 0;
  const Bytes input{reinterpret_cast<const std::byte*>(data) + 2, size - 2};
  const std::size_t split =
      std::min<std::size_t>(std::size_t{data[0] & ~kTwoThreads} << 8 | data[1], input.size());
  static const MemoryFile file;
  static const std::vector<std::byte> pages(kPages * kPageBytes, std::byte{0x5a});
  file.clear();
  file.put(input.first(split), 0);
  if (split < input.size()) {
    file.put(pages, kPagesAt);
    file.put(input.subspan(split), kPagesEnd);
  }

  constexpr uint64_t kPrivateMax = 1 << 20;
  static const test::GuardedMemory memory(kPages * kPageBytes);
  static const test::GuardedMemory small(kSmall * kPageBytes);
  std::memset(memory.data(), 0, memory.size());
  std::memset(small.data(), 0, small.size());
  BlockTable blocks(kPrivateMax);
  blocks.list().add(
      std::make_unique<RamBlock>("mem", memory.data(), kPages * kPageBytes, true, true, kAnyNode));
  blocks.list().add(
      std::make_unique<RamBlock>("small", small.data(), kSmall * kPageBytes, true, false, kAnyNode));
  const PageKernels& kernels = *supported_page_kernels().back();
  CompressJobs compress(0, 1, kernels);
  DeviceStateFile destination("", {}, {}, 4096);
  FileLoadSettings settings;
  settings.readers = (data[0] & kTwoThreads) != 0 ? 2 : 1;
  settings.main.xbzrle = settings.main.compress = true;
  settings.now_ns = [] { return uint64_t{1}; };
  SnapshotInput input_file(file.path(), 0);
  StreamError error = input_file.open([] { return false; }, settings.now_ns, 0);
  if (!error)
    error = FileLoader(settings, input_file, blocks, destination, kernels, compress).run([](uint64_t) {
      return false;
    });
  if (error) test::require_that(!error.message().empty(), "an error says something");
  return 0;
}
