#include "loader/snapshot/file_loader.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "loader/destination/device_state_file.h"
#include "tests/loader/main_stream_builder.h"

namespace migrx {
namespace {

using test::MainStreamBuilder;
using test::make_page;

constexpr uint64_t kPages = 100;
constexpr uint64_t kPagesAt = 1 << 20;

class FileLoaderTest : public ::testing::Test {
 protected:
  void TearDown() override { std::filesystem::remove(path_); }

  void write(const std::vector<std::byte>& bytes) {
    std::ofstream out(path_, std::ios::binary | std::ios::trunc);
    out.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  }
  StreamError load(uint64_t offset = 0) {
    blocks_ = std::make_unique<BlockTable>(16 << 20);
    std::string problem;
    const PageKernels* const kernels = select_page_kernels(problem);
    CompressJobs compress(0, 1, *kernels);
    DeviceStateFile destination("");
    FileLoadSettings settings;
    settings.readers = 3;
    settings.now_ns = [this] { return now_ns_ += now_step_ns_; };
    settings.stall_ns = stall_ns_;
    settings.cpus = cpus_;
    // No test needs many turns: a load without an end fails, instead of going on for ever.
    auto cancelled = [this, turns = 0](uint64_t position) mutable {
      return position >= cancel_at_ || ++turns > 1'000'000;
    };
    SnapshotInput input(path_, offset);
    if (StreamError refused =
            input.open([&] { return cancelled(input.position()); }, settings.now_ns, stall_ns_))
      return refused;
    FileLoader loader(settings, input, *blocks_, destination, *kernels, compress);
    const StreamError error = loader.run(cancelled);
    machine_ = loader.source_machine();
    bytes_read_ = loader.bytes_read();
    if (loader.page_reader() != nullptr) pages_read_ = loader.page_reader()->counters().pages_read.load();
    return error;
  }
  [[nodiscard]] const std::byte* page(uint64_t i) const {
    return blocks_->list().find("mem")->host() + i * kPageBytes;
  }

  // A snapshot as QEMU lays it out: bitmap behind the header, pages at the next MiB. Odd pages are in the
  // file.
  static std::vector<std::byte> mapped_ram(uint64_t bitmap_shift = 0, uint64_t pages_offset = kPagesAt) {
    MainStreamBuilder b;
    b.header().configuration().capabilities({"mapped-ram"});
    b.section_start(2, "ram", 0, 4).be64(kPages * kPageBytes | MainStreamBuilder::kMemSize);
    b.str8("mem").be64(kPages * kPageBytes);
    const uint64_t bitmap_at = b.size() + 28;
    b.be32(1).be64(kPageBytes).be64(bitmap_at + bitmap_shift).be64(pages_offset);
    for (uint64_t i = 0; i < 16; ++i) b.u8(i < kPages / 8 ? 0xaaU : i == kPages / 8 ? 0x0aU : 0U);
    std::vector<std::byte> file = b.take();
    file.resize(kPagesAt + kPages * kPageBytes);
    for (uint64_t i = 0; i < kPages; ++i) {
      // What stands in the file for a page whose bit is clear means nothing.
      const auto content = make_page(i);
      std::copy(content.begin(), content.end(),
                file.begin() + static_cast<std::ptrdiff_t>(kPagesAt + i * kPageBytes));
    }
    MainStreamBuilder rest;
    rest.eos().footer(2).ram_end().ram_close().device_tail();
    file.insert(file.end(), rest.bytes().begin(), rest.bytes().end());
    return file;
  }

  std::string path_ = "/dev/shm/migrx-file-loader-test-" + std::to_string(::getpid());
  std::vector<CpuId> cpus_;
  uint64_t cancel_at_ = UINT64_MAX;
  uint64_t now_ns_ = 1, now_step_ns_ = 0, stall_ns_ = 0;
  std::string machine_;
  uint64_t bytes_read_ = 0, pages_read_ = 0;

  std::unique_ptr<BlockTable> blocks_;
};

std::vector<std::byte> plain_stream() {
  MainStreamBuilder b;
  b.header().configuration().ram_start({{"mem", 4 * kPageBytes, {}}}).ram_close();
  b.ram_part().page("mem", kPageBytes, make_page(5)).ram_close().ram_end().ram_close().device_tail();
  return b.take();
}

TEST_F(FileLoaderTest, plain_stream_also_behind_an_offset) {
  std::vector<std::byte> bytes = plain_stream();
  write(bytes);
  StreamError error = load();
  EXPECT_FALSE(error) << error.message();
  EXPECT_EQ(0, std::memcmp(page(1), make_page(5).data(), kPageBytes));
  bytes.insert(bytes.begin(), 777, std::byte{0xff});
  write(bytes);
  error = load(777);
  EXPECT_FALSE(error) << error.message();
  EXPECT_EQ(0, std::memcmp(page(1), make_page(5).data(), kPageBytes));
}

// Found by fuzzing: what stood behind the device state was offered to a destination that took nothing more.
TEST_F(FileLoaderTest, what_follows_an_accepted_device_state_is_left_alone) {
  constexpr std::size_t kMib = 1 << 20;
  MainStreamBuilder b;
  b.header().configuration().ram_start({{"mem", 4 * kPageBytes, {}}}).ram_close();
  b.ram_part().page("mem", kPageBytes, make_page(5)).ram_close().ram_end().ram_close();
  MainStreamBuilder smallest;
  smallest.device_tail(0);
  // It ends where a read of the file does: the destination has all of it, and nothing else yet.
  b.device_tail(kMib - b.size() - smallest.size());
  std::vector<std::byte> bytes = b.take();
  ASSERT_EQ(bytes.size(), kMib);
  bytes.resize(8 * kMib);
  write(bytes);
  const StreamError error = load();
  EXPECT_FALSE(error) << error.message();
  EXPECT_LT(bytes_read_, 8 * kMib);
  EXPECT_EQ(0, std::memcmp(page(1), make_page(5).data(), kPageBytes));
}

TEST_F(FileLoaderTest, a_stream_cut_anywhere_before_its_device_state_is_truncated) {
  const std::vector<std::byte> whole = plain_stream();
  MainStreamBuilder tail;
  tail.device_tail();
  for (std::size_t n = 0; n <= whole.size() - tail.size();
       n += n > 200 && n + 300 < whole.size() - tail.size() ? 97U : 1U) {
    write({whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(n)});
    const StreamError error = load();
    ASSERT_EQ(error.error_class, ErrorClass::truncated) << n;
  }
}

TEST_F(FileLoaderTest, mapped_ram_pages_by_the_bitmap_only) {
  write(mapped_ram());
  const StreamError error = load();
  ASSERT_FALSE(error) << error.message();
  const std::vector<std::byte> zero(kPageBytes);
  for (uint64_t i = 0; i < kPages; ++i)
    ASSERT_EQ(0, std::memcmp(page(i), i % 2 == 1 ? make_page(i).data() : zero.data(), kPageBytes)) << i;
}

TEST_F(FileLoaderTest, mapped_ram_that_ends_inside_a_page_is_truncated) {
  std::vector<std::byte> file = mapped_ram();
  file.resize(kPagesAt + 51 * kPageBytes + 100);
  write(file);
  EXPECT_EQ(load().error_class, ErrorClass::truncated);
}

TEST_F(FileLoaderTest, mapped_ram_headers_that_cannot_be_right_are_refused) {
  // Where the bitmap lies is the header's word, as in QEMU; that it lies in the file, and the pages behind
  // it, is ours.
  for (const auto& [bitmap_shift, pages_offset] : {std::pair<uint64_t, uint64_t>{1ULL << 40, kPagesAt},
                                                   {0, kPagesAt + 1},
                                                   {0, 0},
                                                   {0, UINT64_MAX - 4095}}) {
    write(mapped_ram(bitmap_shift, pages_offset));
    EXPECT_TRUE(load()) << bitmap_shift << " " << pages_offset;
  }
}

TEST_F(FileLoaderTest, tells_what_it_read) {
  const std::vector<std::byte> bytes = plain_stream();
  write(bytes);
  ASSERT_FALSE(load());
  EXPECT_EQ(machine_, "pc-i440fx-10.0");
  EXPECT_EQ(bytes_read_, bytes.size());
  cpus_ = {CpuId{0}};  // the first reader is bound, the others run anywhere
  write(mapped_ram());
  ASSERT_FALSE(load());
  EXPECT_EQ(pages_read_, kPages / 2);
}

TEST_F(FileLoaderTest, an_operator_may_end_it_at_any_position) {
  write(plain_stream());
  for (const uint64_t at : {0U, 1U}) {
    cancel_at_ = at;
    const StreamError error = load();
    EXPECT_EQ(error.error_class, ErrorClass::cancelled) << at;
    EXPECT_EQ(error.channel, ChannelName::main());
  }
}

TEST_F(FileLoaderTest, what_cannot_be_opened_is_refused_by_its_name) {
  for (const char* const path : {"/tmp", "/dev/null", "/nonexistent/file"}) {
    SnapshotInput input(path, 0);
    const StreamError error = input.open([] { return false; }, [] { return uint64_t{1}; }, 0);
    EXPECT_EQ(error.error_class, ErrorClass::io) << path;
    EXPECT_NE(error.message().find(path), std::string::npos) << error.message();
  }
}

TEST_F(FileLoaderTest, a_pipe_is_read_as_it_comes) {
  ASSERT_EQ(::mkfifo(path_.c_str(), 0600), 0);
  std::thread writer([this] {
    const int fd = ::open(path_.c_str(), O_WRONLY | O_CLOEXEC);
    for (const std::byte byte : plain_stream()) {
      ASSERT_EQ(::write(fd, &byte, 1), 1);
    }
    ::close(fd);
  });
  const StreamError error = load();
  writer.join();
  EXPECT_FALSE(error) << error.message();
  EXPECT_EQ(0, std::memcmp(page(1), make_page(5).data(), kPageBytes));
}

TEST_F(FileLoaderTest, a_pipe_whose_writer_says_nothing_is_given_up) {
  ASSERT_EQ(::mkfifo(path_.c_str(), 0600), 0);
  const int other_end = ::open(path_.c_str(), O_RDWR | O_CLOEXEC);
  ASSERT_GE(other_end, 0);
  const std::vector<std::byte> whole = plain_stream();
  // Before its first byte, behind what recognition wants, and inside the stream.
  for (const std::size_t bytes : {std::size_t{0}, std::size_t{100}, kSnapshotHeadBytes + 1}) {
    ASSERT_EQ(::write(other_end, whole.data(), bytes), static_cast<ssize_t>(bytes));
    stall_ns_ = 5'000'000'000;
    now_step_ns_ = 1'000'000'000;
    const StreamError error = load();
    EXPECT_EQ(error.error_class, ErrorClass::timed_out) << bytes << error.message();
    EXPECT_NE(error.message().find("--stall-timeout"), std::string::npos) << error.message();
  }
  ::close(other_end);
}

// A destination that accepts and never reads: its events can take nothing more from some point on.
class DeafDestination final : public Destination {
 public:
  explicit DeafDestination(int looks) : events_(looks) {}
  MainEvents& events() noexcept override { return events_; }
  uint32_t do_work(uint64_t /*now_ns*/) override { return 0; }
  [[nodiscard]] Verdict verdict() const noexcept override { return Verdict::pending; }
  [[nodiscard]] const StreamError& error() const noexcept override { return error_; }
  void source_ended() override {}
  void abandon() override { abandoned = true; }
  bool abandoned = false;

 private:
  class Events final : public MainEvents {
   public:
    explicit Events(int looks) : looks_(looks) {}
    [[nodiscard]] bool writable() noexcept override { return --looks_ > 0; }
    StreamError on_header(uint32_t) override { return {}; }
    StreamError on_configuration(const Configuration&) override { return {}; }
    StreamError on_command(MigCommand, Bytes) override { return {}; }
    StreamError on_ram_start(const SectionHeader&, std::span<const BlockEntry>) override { return {}; }
    void on_ram_section_begin(SectionType, uint32_t) noexcept override {}
    void on_ram_section_end(SectionType, uint32_t, bool) noexcept override {}
    void on_epoch_closed(Epoch) noexcept override {}
    void on_ram_complete() noexcept override {}
    void on_other_section_begin(const SectionHeader&) noexcept override {}
    [[nodiscard]] std::size_t on_verbatim(Bytes bytes) noexcept override { return bytes.size(); }
    void on_other_section_end(const SectionHeader&) noexcept override {}
    [[nodiscard]] std::size_t on_tail(Bytes bytes) noexcept override { return bytes.size(); }

   private:
    int looks_;
  };
  Events events_;
  StreamError error_;
};

TEST_F(FileLoaderTest, a_destination_that_takes_nothing_is_given_up) {
  write(plain_stream());
  BlockTable blocks(1 << 20);
  std::string problem;
  const PageKernels* const kernels = select_page_kernels(problem);
  CompressJobs compress(0, 1, *kernels);
  // Somewhere in the stream, and behind its end.
  for (const auto& [looks, option] :
       {std::pair{3, "--stall-timeout"}, {1'000'000, "--destination-timeout"}}) {
    DeafDestination destination(looks);
    FileLoadSettings settings;
    settings.now_ns = [now = uint64_t{0}]() mutable { return now += 1'000'000'000; };
    SnapshotInput input(path_, 0);
    ASSERT_FALSE(input.open([] { return false; }, settings.now_ns, 0));
    FileLoader loader(settings, input, blocks, destination, *kernels, compress);
    const StreamError error = loader.run([turns = 0](uint64_t) mutable { return ++turns > 100'000; });
    EXPECT_EQ(error.error_class, ErrorClass::timed_out) << error.message();
    EXPECT_NE(error.message().find(option), std::string::npos) << error.message();
    EXPECT_TRUE(destination.abandoned);
  }
}

TEST_F(FileLoaderTest, pages_are_loaded_with_turns_and_a_cancel_among_them_leaves_the_rest) {
  write(mapped_ram());
  cancel_at_ = kPagesAt / 2;  // never reached by the stream before its pages are there
  const StreamError error = load();
  EXPECT_EQ(error.error_class, ErrorClass::cancelled) << error.message();
}

TEST_F(FileLoaderTest, nothing_there) {
  EXPECT_EQ(load().error_class, ErrorClass::io);
  write({});
  EXPECT_EQ(load().error_class, ErrorClass::truncated);
}

}  // namespace
}  // namespace migrx
