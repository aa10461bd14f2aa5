// A destination played by the test: a listener on a UNIX socket.
#include "loader/destination/destination_qemu.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>

#include <filesystem>
#include <string>
#include <vector>

#include "loader/main/main_channel.h"
#include "loader/tls/tls_connector.h"
#include "numa/guest_memory.h"
#include "tests/loader/main_stream_builder.h"
#include "tests/loader/tls/test_pki.h"
#include "tests/loader/tls/tls_server.h"

namespace migrx {
namespace {

using test::MainStreamBuilder;
using test::make_page;

constexpr uint64_t kRam = 8 * kPageBytes;
constexpr uint64_t kVga = 4 * kPageBytes;

// Gives the source's stream to a MainChannel whose events go to the destination, as a session does.
class DestinationQemuTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ram_.resize(kRam + kPageBytes);
    vga_.resize(kVga + kPageBytes);
    blocks_.add(std::make_unique<RamBlock>("mem", aligned(ram_), kRam, true, true, kAnyNode));
    blocks_.add(std::make_unique<RamBlock>("vga", aligned(vga_), kVga, false, true, kAnyNode));
    std::string problem;
    kernels_ = select_page_kernels(problem);
    compress_ = std::make_unique<CompressJobs>(0, 1, *kernels_);
    start_anew({});
  }
  void make_destination(DestinationSettings settings) {
    ASSERT_EQ(parse_socket_address("unix:" + path_, settings.address), "");
    destination_ = std::make_unique<DestinationQemu>(std::move(settings), blocks_);
  }
  void start_anew(DestinationSettings settings) {
    make_destination(std::move(settings));
    channel_ = std::make_unique<MainChannel>(settings_, destination_->events(), blocks_, barrier_, *compress_,
                                             *kernels_);
  }
  void TearDown() override {
    for (const int fd : {listener_, peer_})
      if (fd >= 0) ::close(fd);
    std::filesystem::remove(path_);
  }
  static std::byte* aligned(std::vector<std::byte>& memory) {
    return reinterpret_cast<std::byte*>((reinterpret_cast<uintptr_t>(memory.data()) + kPageBytes - 1) &
                                        ~uintptr_t{kPageBytes - 1});
  }
  // The init packets of a source's two multifd channels, each of other bytes.
  std::array<MultifdInitPacket, 2> tell_of_two_channels() {
    std::array<MultifdInitPacket, 2> inits{};
    for (uint8_t i = 0; i < 2; ++i) {
      inits[i].fill(std::byte{static_cast<unsigned char>(0xa0 + i)});
      destination_->on_multifd_init(inits[i]);
    }
    return inits;
  }

  void listen() {
    listener_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::snprintf(address.sun_path, sizeof address.sun_path, "%s", path_.c_str());
    ASSERT_EQ(::bind(listener_, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    ASSERT_EQ(::listen(listener_, 1), 0);
  }
  // The destination answers the PING that stands after the configuration, as QEMU does.
  void feed(const std::vector<std::byte>& bytes) {
    feed_some(bytes);
    ASSERT_TRUE(rest_.empty());
  }
  void feed_some(const std::vector<std::byte>& bytes) {
    Bytes rest{bytes};
    for (int turn = 0; turn < 1000; ++turn) {
      if (channel_->ready()) {
        const ParseResult result = channel_->parse(rest);
        ASSERT_NE(result.status, ParseStatus::failed) << channel_->error().message();
        rest = rest.subspan(result.consumed);
      }
      work();
      if (answers_ && peer_ >= 0 && !answered_ && !got_.empty()) {
        answered_ = true;
        say(make_pong(StreamRewriter::kProofPing));
      }
    }
    rest_.assign(rest.begin(), rest.end());
  }
  // What the destination sends, and what becomes of that which came.
  virtual void say(Bytes bytes) {
    ASSERT_EQ(::send(peer_, bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
  }
  virtual void take(Bytes bytes) { got_.insert(got_.end(), bytes.begin(), bytes.end()); }
  virtual void work() {
    now_ns_ += 1'000'000;
    destination_->do_work(now_ns_);
    if (listener_ >= 0 && peer_ < 0) {
      peer_ = ::accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK);
    }
    std::byte buffer[4096];
    for (ssize_t n; peer_ >= 0 && (n = ::recv(peer_, buffer, sizeof buffer, MSG_DONTWAIT)) > 0;)
      take({buffer, static_cast<std::size_t>(n)});
  }
  void answer(const std::vector<std::byte>& bytes) {
    say(bytes);
    for (int i = 0; i < 5; ++i) work();
  }
  static std::vector<std::byte> shut(uint32_t value) {
    const auto message = make_shut(value);
    return {message.begin(), message.end()};
  }

  std::string path_ = "/tmp/migrx-destination-test-" + std::to_string(::getpid());
  std::vector<std::byte> ram_;
  std::vector<std::byte> vga_;
  RamBlockList blocks_;
  const MainSettings settings_{};
  FlushBarrier barrier_{0};
  const PageKernels* kernels_ = nullptr;
  std::unique_ptr<DestinationQemu> destination_;
  std::unique_ptr<CompressJobs> compress_;
  std::unique_ptr<MainChannel> channel_;
  std::vector<std::byte> got_;
  uint64_t now_ns_ = 1'000'000'000;
  bool answers_ = true;
  bool answered_ = false;
  std::vector<std::byte> rest_;  // of what was fed and not taken
  int listener_ = -1;
  int peer_ = -1;
};

std::vector<std::byte> source_start() {
  MainStreamBuilder b;
  b.header().configuration().open_return_path().ping(7);
  b.ram_start({{"mem", kRam, {}}, {"vga", kVga, {}}}).ram_close();
  return b.take();
}

std::vector<std::byte> source_rest() {
  MainStreamBuilder b;
  b.ram_part().page("mem", 0, make_page(1)).page("vga", kPageBytes, make_page(2)).zero("vga", 0).ram_close();
  b.ram_part().page("mem", kPageBytes, make_page(3)).ram_close();
  b.switchover_start();
  b.ram_end().page("vga", 2 * kPageBytes, make_page(4)).ram_close().device_tail();
  return b.take();
}

std::vector<std::byte> source_stream() {
  std::vector<std::byte> stream = source_start();
  const std::vector<std::byte> rest = source_rest();
  stream.insert(stream.end(), rest.begin(), rest.end());
  return stream;
}

// What the destination must see, written down by hand: no page of `mem`, all of `vga`; `vga` is sent as zero
// before anything has come for it, and a page that is zero still not again.
std::vector<std::byte> expected_start() {
  MainStreamBuilder b;
  b.header().configuration().open_return_path().ping(1);
  b.ram_start({{"mem", kRam, {}}, {"vga", kVga, {}}}).ram_close();
  b.ram_part();
  for (uint64_t at = 0; at < kVga; at += kPageBytes) b.zero("vga", at);
  return b.ram_close().take();
}

std::vector<std::byte> expected_stream() {
  MainStreamBuilder b;
  b.raw(expected_start());
  b.ram_part().page("vga", kPageBytes, make_page(2)).ram_close();
  // A section begins with the block's name again. Without multifd the EOS inside END closes an epoch, so the
  // last page goes out in a PART and END has none left.
  MainStreamBuilder end;
  end.ram_part().page("vga", 2 * kPageBytes, make_page(4)).ram_close().ram_end().ram_close().device_tail();
  return b.raw(end.bytes()).take();
}

// A client of `migrx serve` that is not root: nothing is said before it is known whose process listens.
TEST_F(DestinationQemuTest, another_users_destination_is_refused_before_a_byte_is_said) {
  DestinationSettings settings;
  settings.access = SocketAccess{path_, ::geteuid() + 1};
  start_anew(std::move(settings));
  listen();
  MainStreamBuilder b;
  feed_some(b.header().configuration().bytes());
  EXPECT_EQ(destination_->verdict(), Verdict::refused);
  EXPECT_NE(destination_->error().message().find("only root may name it"), std::string::npos)
      << destination_->error().message();
  EXPECT_TRUE(got_.empty());
}

TEST_F(DestinationQemuTest, a_socket_that_is_held_is_connected_whatever_took_its_place) {
  listen();
  const Descriptor held(::open(path_.c_str(), O_PATH | O_CLOEXEC));
  ASSERT_TRUE(held);
  std::filesystem::remove(path_);
  DestinationSettings settings;
  settings.access = SocketAccess{"/proc/self/fd/" + std::to_string(held.get()), ::geteuid()};
  start_anew(std::move(settings));
  MainStreamBuilder b;
  feed_some(b.header().configuration().bytes());
  EXPECT_EQ(destination_->verdict(), Verdict::pending) << destination_->error().message();
  EXPECT_FALSE(got_.empty());
}

TEST_F(DestinationQemuTest, gets_device_state_and_private_blocks_only) {
  listen();
  feed(source_start());
  EXPECT_EQ(got_, expected_start());
  feed(source_rest());
  EXPECT_EQ(got_, expected_stream());
  EXPECT_EQ(destination_->verdict(), Verdict::pending);
  answer({std::byte{0}, std::byte{2}, std::byte{0}, std::byte{4}, std::byte{0}, std::byte{0}, std::byte{0},
          std::byte{1}});
  EXPECT_EQ(destination_->verdict(), Verdict::pending);
  answer(shut(0));
  EXPECT_EQ(destination_->verdict(), Verdict::accepted);
}

TEST_F(DestinationQemuTest, a_page_that_becomes_zero_again_is_said_to_be_zero) {
  listen();
  feed(source_start());
  MainStreamBuilder b;
  b.ram_part().page("vga", kPageBytes, make_page(2)).zero("vga", 0).ram_close();
  b.ram_part().zero("vga", kPageBytes).ram_close();
  b.ram_part().zero("vga", kPageBytes).ram_close();
  b.ram_end().ram_close().device_tail();
  feed(b.take());
  MainStreamBuilder wanted;
  wanted.raw(expected_start());
  wanted.ram_part().page("vga", kPageBytes, make_page(2)).ram_close();
  MainStreamBuilder rest;  // each section names the block again
  rest.ram_part().zero("vga", kPageBytes).ram_close();
  rest.ram_part().ram_close();  // nothing that the destination does not know
  rest.ram_end().ram_close().device_tail();
  wanted.raw(rest.bytes());
  EXPECT_EQ(got_, wanted.take());
}

// Taken for a verdict it would tell the source that its guest is safe.
TEST_F(DestinationQemuTest, shut_0_before_any_device_state_is_a_refusal) {
  listen();
  MainStreamBuilder b;
  b.header().configuration().ram_start({{"mem", kRam, {}}, {"vga", kVga, {}}}).ram_close();
  feed(b.take());
  answer(shut(0));
  EXPECT_EQ(destination_->verdict(), Verdict::refused);
  EXPECT_NE(destination_->error().message().find("SHUT 0"), std::string::npos);
}

// Before a QEMU has said that it waits there, no page may lie in its memory.
TEST_F(DestinationQemuTest, nothing_of_ram_is_taken_before_the_destination_has_answered) {
  answers_ = false;
  listen();
  feed_some(source_stream());
  EXPECT_FALSE(destination_->proved_waiting());
  EXPECT_FALSE(rest_.empty());
  EXPECT_EQ(blocks_[0].pages_written(), 0U);
  EXPECT_EQ(std::count(ram_.begin(), ram_.end(), std::byte{0}), static_cast<ptrdiff_t>(ram_.size()));
  MainStreamBuilder b;
  b.header().configuration().open_return_path().ping(1);
  EXPECT_EQ(got_, b.take());
  answers_ = true;
  const std::vector<std::byte> rest = rest_;
  feed(rest);
  EXPECT_TRUE(destination_->proved_waiting());
  EXPECT_EQ(blocks_[0].pages_written(), 2U);
  EXPECT_EQ(got_, expected_stream());
}

TEST_F(DestinationQemuTest, another_pong_proves_nothing) {
  answers_ = false;
  listen();
  feed_some(source_stream());
  const auto pong = make_pong(7);
  answer({pong.begin(), pong.end()});
  EXPECT_FALSE(destination_->proved_waiting());
}

TEST_F(DestinationQemuTest, in_the_other_form_each_block_has_its_address) {
  DestinationSettings settings;
  settings.form = HandoffForm::x_ignore_shared;
  settings.addresses = {{"mem", 4096}};
  make_destination(settings);
  channel_ = std::make_unique<MainChannel>(settings_, destination_->events(), blocks_, barrier_, *compress_,
                                           *kernels_);
  listen();
  feed(source_start());
  MainStreamBuilder b;
  b.header().configuration().capabilities({"x-ignore-shared"}).open_return_path().ping(1);
  b.ram_start({{"mem", kRam, {4096}}, {"vga", kVga, {0}}}).ram_close();
  ASSERT_GT(got_.size(), b.size());
  EXPECT_EQ(std::vector<std::byte>(got_.begin(), got_.begin() + static_cast<ptrdiff_t>(b.size())), b.bytes());
}

// What the host has to do for a source that may switch: it goes on as long as the test lets it.
class PlayedRefill final : public MemoryRefill {
 public:
  void begin(bool emptied) override { begun.push_back(emptied); }
  [[nodiscard]] std::optional<std::string> outcome() override { return result; }
  [[nodiscard]] uint64_t bytes_done() const noexcept override { return done; }
  std::vector<bool> begun;
  std::optional<std::string> result;
  uint64_t done = 0;
};

class PostcopyDestinationTest : public DestinationQemuTest {
 protected:
  void SetUp() override {
    DestinationQemuTest::SetUp();
    DestinationSettings settings;
    settings.refill = &refill_;
    settings.on_postcopy = [this] { told_at_ = got_.size(); };
    prepare(std::move(settings));
    listen();
  }
  void prepare(DestinationSettings settings) {
    make_destination(std::move(settings));
    main_settings_.postcopy = Postcopy::relayed;
    channel_ = std::make_unique<MainChannel>(main_settings_, destination_->events(), blocks_, barrier_,
                                             *compress_, *kernels_);
  }
  static std::vector<std::byte> begin() {
    MainStreamBuilder b;
    b.header().configuration().open_return_path().ping(7).advise();
    b.ram_start({{"mem", kRam, {}}, {"vga", kVga, {}}}).ram_close();
    b.ram_part().page("mem", 0, make_page(1)).ram_close();
    return b.take();
  }
  static std::vector<std::byte> behind_the_switch() {
    MainStreamBuilder b;
    b.discard("mem", {{kPageBytes, kPageBytes}}).ping(2).package(60).ping(4);
    return b.take();
  }
  // The destination takes postcopy, and the host has the memory: up to the switch.
  void advise() {
    feed_some(begin());
    const auto pong = make_pong(StreamRewriter::kAdvisePing);
    refill_.result = "";
    answer({pong.begin(), pong.end()});
    const std::vector<std::byte> rest = rest_;
    feed(rest);
  }
  [[nodiscard]] std::vector<std::byte> tail_of_got(std::size_t bytes) const {
    return {got_.end() - static_cast<std::ptrdiff_t>(bytes), got_.end()};
  }

  MainSettings main_settings_;
  PlayedRefill refill_;
  std::optional<std::size_t> told_at_;  // bytes that the destination had when the switch was told
};

TEST_F(PostcopyDestinationTest,
       no_page_is_loaded_before_the_destination_has_emptied_its_memory_and_the_host_has_it_anew) {
  feed_some(begin());
  EXPECT_TRUE(refill_.begun.empty());
  const auto pong = make_pong(StreamRewriter::kAdvisePing);
  answer({pong.begin(), pong.end()});
  EXPECT_EQ(refill_.begun, std::vector<bool>{true});
  std::vector<std::byte> rest = rest_;
  feed_some(rest);
  EXPECT_FALSE(rest_.empty());
  EXPECT_EQ(blocks_[0].pages_written(), 0U);
  // For as long as it grows the source is not waiting for nothing.
  const uint64_t before = destination_->last_sent_ns();
  refill_.done = 1;
  work();
  EXPECT_GT(destination_->last_sent_ns(), before);
  refill_.result = "";
  rest = rest_;
  feed(rest);
  EXPECT_EQ(blocks_[0].pages_written(), 1U);
  EXPECT_EQ(refill_.begun.size(), 1U);
}

TEST_F(PostcopyDestinationTest,
       a_host_whose_memory_has_gone_meanwhile_refuses_while_the_guest_is_at_the_source) {
  feed_some(begin());
  refill_.result = "no hugepages";
  const auto pong = make_pong(StreamRewriter::kAdvisePing);
  answer({pong.begin(), pong.end()});
  EXPECT_EQ(destination_->verdict(), Verdict::refused);
  EXPECT_NE(destination_->error().message().find("no hugepages"), std::string::npos);
}

TEST_F(PostcopyDestinationTest, a_destination_that_ends_at_advise_is_said_to_lack_the_capability) {
  feed_some(begin());
  ::close(peer_);
  peer_ = -1;
  ::close(listener_);
  listener_ = -1;
  work();
  EXPECT_EQ(destination_->verdict(), Verdict::refused);
  EXPECT_NE(destination_->error().message().find("capability postcopy-ram"), std::string::npos)
      << destination_->error().message();
}

TEST_F(PostcopyDestinationTest, from_the_switch_on_both_speak_to_each_other) {
  advise();
  const std::vector<std::byte> stream = behind_the_switch();
  EXPECT_FALSE(told_at_);
  feed(stream);
  ASSERT_TRUE(told_at_);
  EXPECT_EQ(tail_of_got(stream.size()), stream);
  EXPECT_LE(*told_at_ + stream.size(), got_.size()) << "nothing of the switch had left when it was told";
  EXPECT_EQ(destination_->postcopy().discarded_pages, 1U);
  const auto pong = make_pong(2);
  answer({pong.begin(), pong.end()});
  EXPECT_EQ(std::vector<std::byte>(destination_->said().begin(), destination_->said().end()),
            (std::vector<std::byte>{pong.begin(), pong.end()}));
  EXPECT_EQ(destination_->verdict(), Verdict::pending);
  destination_->took_said(pong.size());
  answer(shut(0));
  EXPECT_EQ(destination_->verdict(), Verdict::accepted);
  EXPECT_EQ(destination_->said().size(), 8U);
}

TEST_F(PostcopyDestinationTest, shut_1_is_the_sources_to_hear_and_no_verdict) {
  advise();
  feed(behind_the_switch());
  answer(shut(1));
  EXPECT_EQ(destination_->verdict(), Verdict::pending);
  EXPECT_EQ(destination_->said().size(), 8U);
}

TEST_F(PostcopyDestinationTest, a_broken_connection_is_made_anew_when_the_source_has_said_something) {
  advise();
  feed(behind_the_switch());
  // The listener is still there, so the destination is taken to wait for a preempt channel, too.
  const int preempt = ::accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK);
  ASSERT_GE(preempt, 0);
  for (const int fd : {std::exchange(peer_, -1), preempt}) ::close(fd);
  for (int i = 0; i < 3; ++i) destination_->do_work(now_ns_ += 1'000'000);
  EXPECT_EQ(destination_->verdict(), Verdict::refused);
  destination_->pause();
  EXPECT_EQ(destination_->verdict(), Verdict::pending);
  for (int i = 0; i < 10; ++i) work();
  EXPECT_LT(peer_, 0) << "nobody has resumed";
  destination_->resume();
  for (int i = 0; i < 10; ++i) work();
  EXPECT_LT(peer_, 0) << "the source has said nothing";
  got_.clear();
  MainStreamBuilder b;
  b.u8(8).be16(10).be16(4).str8("mem");
  const std::vector<std::byte> again = b.take();
  EXPECT_EQ(destination_->events().on_tail(again), again.size());
  for (int i = 0; i < 10; ++i) work();
  EXPECT_GE(peer_, 0);
  EXPECT_EQ(got_, again);
  EXPECT_EQ(destination_->postcopy().pauses, 1U);
}

TEST_F(PostcopyDestinationTest,
       memory_that_was_not_taken_before_is_taken_before_the_first_page_whatever_the_source_is) {
  DestinationSettings settings;
  settings.refill = &refill_;
  settings.memory_postponed = true;
  prepare(std::move(settings));
  feed_some(source_stream());
  EXPECT_EQ(refill_.begun, std::vector<bool>{false});
  EXPECT_EQ(blocks_[0].pages_written(), 0U);
  refill_.result = "";
  const std::vector<std::byte> rest = rest_;
  feed(rest);
  EXPECT_EQ(blocks_[0].pages_written(), 2U);
}

// Multifd on at the destination: it reads nothing before its channels are there.
TEST_F(DestinationQemuTest,
       a_destination_with_multifd_on_gets_the_sources_init_packets_and_a_sync_per_section) {
  DestinationSettings settings;
  settings.source_channels = 2;
  make_destination(settings);
  channel_ = std::make_unique<MainChannel>(settings_, destination_->events(), blocks_, barrier_, *compress_,
                                           *kernels_);
  answers_ = false;
  listen();
  const std::array<MultifdInitPacket, 2> inits = tell_of_two_channels();
  feed_some(source_start());
  std::vector<int> channels;
  for (int fd; (fd = ::accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK)) >= 0;) channels.push_back(fd);
  ASSERT_EQ(channels.size(), 2U);
  std::vector<std::byte> got(64 + 1344);
  for (std::size_t i = 0; i < 2; ++i) {
    ASSERT_EQ(::recv(channels[i], got.data(), got.size(), 0), 64);
    EXPECT_EQ(std::memcmp(got.data(), inits[i].data(), 64), 0);
  }
  answers_ = true;
  feed(std::vector<std::byte>(rest_));
  // START and the PART that says that video memory is zero.
  for (std::size_t i = 0; i < 2; ++i) {
    for (int section = 0; section < 2; ++section) {
      ASSERT_EQ(::recv(channels[i], got.data(), 1344, 0), 1344);
      EXPECT_EQ(load_be32(got.data()), 0x11223344U);
      EXPECT_EQ(load_be32(got.data() + 8), 1U);  // MULTIFD_FLAG_SYNC
    }
    EXPECT_LT(::recv(channels[i], got.data(), got.size(), 0), 0);
    ::close(channels[i]);
  }
}

TEST_F(DestinationQemuTest, a_destination_whose_process_ends_before_the_guest_came_ends_the_job) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::pause();
    ::_exit(0);
  }
  DestinationSettings settings;
  settings.process = child;
  make_destination(settings);
  for (int i = 0; i < 5; ++i) destination_->do_work(now_ns_ += 1'000'000);
  EXPECT_EQ(destination_->verdict(), Verdict::pending);
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  for (int i = 0; i < 5; ++i) destination_->do_work(now_ns_ += 1'000'000);
  EXPECT_EQ(destination_->verdict(), Verdict::refused);
  EXPECT_NE(destination_->error().message().find("has ended"), std::string::npos);
}

TEST_F(DestinationQemuTest, abandoned_it_never_connects_again) {
  feed_some(source_stream());
  destination_->abandon();
  listen();
  for (int i = 0; i < 10; ++i) work();
  EXPECT_LT(peer_, 0);
  EXPECT_TRUE(got_.empty());
}

TEST_F(DestinationQemuTest, abandoned_the_destination_sees_the_end) {
  listen();
  feed(source_stream());
  ASSERT_GE(peer_, 0);
  destination_->abandon();
  for (int i = 0; i < 10; ++i) destination_->do_work(now_ns_ += 1'000'000);
  std::byte byte;
  EXPECT_EQ(::recv(peer_, &byte, 1, MSG_DONTWAIT), 0);
}

TEST_F(DestinationQemuTest, memory_mapped_privately_is_refused_before_the_first_byte) {
  const std::string file = "/dev/shm/migrx-destination-test-" + std::to_string(::getpid());
  const int fd = ::open(file.c_str(), O_RDWR | O_CREAT | O_EXCL, 0600);
  ASSERT_GE(fd, 0);
  ASSERT_EQ(::ftruncate(fd, kRam), 0);
  void* const mapping = ::mmap(nullptr, kRam, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
  DestinationSettings settings;
  settings.files = {{"mem", file, file_id_at(file), kRam}};
  ASSERT_EQ(parse_socket_address("unix:" + path_, settings.address), "");
  DestinationQemu destination(std::move(settings), blocks_);
  listen();
  (void)destination.events().on_header(3);
  for (int i = 0; i < 10; ++i) destination.do_work(now_ns_ += 1'000'000);
  EXPECT_EQ(destination.verdict(), Verdict::refused);
  EXPECT_NE(destination.error().message().find("share=on"), std::string::npos)
      << destination.error().message();
  work();
  EXPECT_TRUE(got_.empty());
  ::munmap(mapping, kRam);
  ::close(fd);
  std::filesystem::remove(file);
}

// A file that this process, which listens, has mapped as a destination QEMU would.
class DestinationMemoryTest : public DestinationQemuTest {
 protected:
  void SetUp() override {
    DestinationQemuTest::SetUp();
    fd_ = ::open(file_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    ASSERT_GE(fd_, 0);
    ASSERT_EQ(::ftruncate(fd_, kRam), 0);
    mapping_ = map();
    begin(false);
  }
  void TearDown() override {
    if (mapping_ != nullptr) ::munmap(mapping_, kRam);
    ::close(fd_);
    std::filesystem::remove(file_);
    DestinationQemuTest::TearDown();
  }
  void begin(bool others_allowed) {
    DestinationSettings settings;
    settings.files = {{"mem", file_, file_id_at(file_), kRam, others_allowed}};
    make_destination(std::move(settings));
    channel_ = std::make_unique<MainChannel>(settings_, destination_->events(), blocks_, barrier_, *compress_,
                                             *kernels_);
  }
  [[nodiscard]] void* map() const {
    return ::mmap(nullptr, kRam, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
  }

  const std::string file_ = "/dev/shm/migrx-destination-memory-test-" + std::to_string(::getpid());
  int fd_ = -1;
  void* mapping_ = nullptr;
};

TEST_F(DestinationMemoryTest, it_is_looked_at_once_more_before_the_source_is_told) {
  listen();
  feed(source_stream());
  EXPECT_EQ(destination_->verdict(), Verdict::pending) << destination_->error().message();
  ::munmap(mapping_, kRam);
  mapping_ = nullptr;
  answer(shut(0));
  EXPECT_EQ(destination_->verdict(), Verdict::refused);
  EXPECT_NE(destination_->error().message().find("does not map"), std::string::npos);
}

TEST_F(DestinationMemoryTest, which_is_mapped_still_takes_the_guest) {
  listen();
  feed(source_stream());
  answer(shut(0));
  EXPECT_EQ(destination_->verdict(), Verdict::accepted) << destination_->error().message();
}

// A guest that was started on the file after migrx had claimed it.
TEST_F(DestinationMemoryTest, mapped_by_somebody_else_meanwhile_is_not_written) {
  std::array<int, 2> pipe{};
  ASSERT_EQ(::pipe(pipe.data()), 0);
  const pid_t between = ::fork();
  if (between == 0) {
    const pid_t other = ::fork();
    if (other != 0) ::_exit(0);
    const pid_t self = map() == MAP_FAILED ? 0 : ::getpid();
    (void)!::write(pipe[1], &self, sizeof self);
    ::pause();
    ::_exit(0);
  }
  ::waitpid(between, nullptr, 0);
  pid_t other = 0;
  ASSERT_EQ(::read(pipe[0], &other, sizeof other), static_cast<ssize_t>(sizeof other));
  ASSERT_GT(other, 0);
  listen();
  feed_some(source_stream());
  EXPECT_EQ(destination_->verdict(), Verdict::refused);
  EXPECT_NE(destination_->error().message().find("PID " + std::to_string(other)), std::string::npos)
      << destination_->error().message();
  EXPECT_EQ(blocks_[0].pages_written(), 0U);
  ::kill(other, SIGKILL);
  for (const int fd : pipe) ::close(fd);
}

TEST_F(DestinationQemuTest, shut_1_is_a_refusal) {
  listen();
  feed(source_stream());
  answer(shut(1));
  EXPECT_EQ(destination_->verdict(), Verdict::refused);
  EXPECT_NE(destination_->error().message().find("SHUT 1"), std::string::npos);
}

TEST_F(DestinationQemuTest, an_early_end_is_a_refusal) {
  listen();
  feed(source_stream());
  ::close(std::exchange(peer_, -1));
  ::close(std::exchange(listener_, -1));
  work();
  EXPECT_EQ(destination_->verdict(), Verdict::refused);
  EXPECT_EQ(destination_->error().message().find("tls-creds"), std::string::npos) << "it had answered";
}

// As QEMU 10 with tls-creds does.
TEST_F(DestinationQemuTest, who_hangs_up_on_the_first_bytes_may_expect_tls) {
  answers_ = false;
  listen();
  feed_some(source_stream());
  ASSERT_FALSE(destination_->proved_waiting());
  ::close(std::exchange(peer_, -1));
  ::close(std::exchange(listener_, -1));
  work();
  EXPECT_EQ(destination_->verdict(), Verdict::refused);
  EXPECT_NE(destination_->error().message().find("tls-creds"), std::string::npos)
      << destination_->error().message();
}

TEST_F(DestinationQemuTest, nonsense_on_the_return_path_is_cut_off) {
  listen();
  feed(source_stream());
  answer(std::vector<std::byte>(64, std::byte{0xee}));
  EXPECT_EQ(destination_->verdict(), Verdict::refused);
}

TEST_F(DestinationQemuTest, a_missing_socket_is_waited_for_and_then_refused_with_what_to_do) {
  feed_some(source_stream());  // one second of the test's clock
  EXPECT_EQ(destination_->verdict(), Verdict::pending);
  for (int i = 0; i < 10'000; ++i) work();
  EXPECT_EQ(destination_->verdict(), Verdict::refused);
  EXPECT_NE(destination_->error().message().find("migrate-incoming"), std::string::npos);
}

// The same destination with tls-creds: all that goes over the socket is TLS.
class DestinationTlsTest : public DestinationQemuTest {
 protected:
  void SetUp() override {
    DestinationQemuTest::SetUp();
    pki_.make({.common_name = "destination.example", .file = "server"});
    pki_.make({.common_name = "migrx.example", .file = "client"});
    server_ = std::make_unique<TlsServer>(pki_.dir());
    start_tls("destination.example");
  }
  void TearDown() override {
    destination_.reset();
    DestinationQemuTest::TearDown();
  }
  void start_tls(const std::string& host, uint32_t channels = 0) {
    destination_.reset();
    TlsCredsOptions options;
    ASSERT_EQ(parse_tls_creds("x509:dir=" + pki_.dir(), options, TlsCredsOptions::Endpoint::client), "");
    std::string problem;
    std::vector<std::string> warnings;
    auto store = TlsCredentialStore::open(options, problem, warnings);
    ASSERT_NE(store, nullptr) << problem;
    connector_ = std::make_unique<TlsConnector>(std::move(store), host, "--handoff-tls-hostname");
    DestinationSettings settings;
    settings.security = connector_.get();
    settings.source_channels = channels;
    start_anew(std::move(settings));
  }
  void say(Bytes bytes) override {
    server_->write(bytes);
    flush(peer_, *server_);
  }
  void take(Bytes bytes) override {
    if (deaf_) {
      heard_.insert(heard_.end(), bytes.begin(), bytes.end());
      return;
    }
    server_->take(bytes);
    flush(peer_, *server_);
    got_ = server_->text;
    if (server_->failed) ::close(std::exchange(peer_, -1));
  }
  static void flush(int fd, TlsServer& server) {
    const std::vector<std::byte> out = server.output();
    ASSERT_EQ(::send(fd, out.data(), out.size(), MSG_NOSIGNAL), static_cast<ssize_t>(out.size()));
  }
  void work() override {
    DestinationQemuTest::work();
    if (!server_->open) ::usleep(200);  // its handshake is done by another thread
  }
  void expect_refused(const std::string& what) {
    EXPECT_EQ(destination_->verdict(), Verdict::refused);
    EXPECT_NE(destination_->error().message().find(what), std::string::npos)
        << destination_->error().message();
    EXPECT_FALSE(destination_->proved_waiting());
    EXPECT_EQ(blocks_[0].pages_written(), 0U);
    EXPECT_TRUE(got_.empty()) << "bytes of the guest went to it";
  }

  TestPki pki_;
  std::unique_ptr<TlsServer> server_;
  std::unique_ptr<TlsConnector> connector_;
  bool deaf_ = false;
  std::vector<std::byte> heard_;  // while it was deaf
};

TEST_F(DestinationTlsTest, gets_the_same_stream_and_its_verdict_counts) {
  listen();
  feed(source_stream());
  EXPECT_EQ(got_, expected_stream());
  EXPECT_TRUE(destination_->proved_waiting());
  EXPECT_EQ(destination_->verdict(), Verdict::pending);
  answer(shut(0));
  EXPECT_EQ(destination_->verdict(), Verdict::accepted) << destination_->error().message();
  EXPECT_EQ(connector_->handshakes(), 1U);
}

TEST_F(DestinationTlsTest, all_its_multifd_channels_are_encrypted_and_begin_behind_mains_handshake) {
  start_tls("destination.example", 2);
  answers_ = false;
  listen();
  const std::array<MultifdInitPacket, 2> inits = tell_of_two_channels();
  deaf_ = true;
  feed_some(source_start());
  ASSERT_LT(::accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK), 0)
      << "QEMU takes the first that has shaken hands for main";
  deaf_ = false;
  take(heard_);
  feed_some(std::vector<std::byte>(rest_));
  std::array<std::unique_ptr<TlsServer>, 2> servers;
  std::array<int, 2> channels{};
  for (std::size_t i = 0; i < 2; ++i) {
    channels[i] = ::accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK);
    ASSERT_GE(channels[i], 0);
    servers[i] = std::make_unique<TlsServer>(pki_.dir());
  }
  const auto turn = [&] {
    work();
    ::usleep(200);
    for (std::size_t i = 0; i < 2; ++i) {
      std::array<std::byte, 4096> some;
      for (ssize_t n; (n = ::recv(channels[i], some.data(), some.size(), MSG_DONTWAIT)) > 0;)
        servers[i]->take({some.data(), static_cast<std::size_t>(n)});
      flush(channels[i], *servers[i]);
    }
  };
  for (int i = 0; i < 1000; ++i) turn();
  for (std::size_t i = 0; i < 2; ++i)
    EXPECT_EQ(servers[i]->text, std::vector<std::byte>(inits[i].begin(), inits[i].end()));
  answers_ = true;
  feed(std::vector<std::byte>(rest_));
  for (int i = 0; i < 10; ++i) turn();
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(servers[i]->text.size(), 64 + 2 * 1344U) << "a SYNC for each section";
    ::close(channels[i]);
  }
  EXPECT_EQ(connector_->handshakes(), 3U);
}

// QEMU says "Extra incoming migration connection; ignoring" and closes it; its answer was only late.
TEST_F(DestinationTlsTest, one_that_turns_out_to_want_no_multifd_channels_goes_on_without) {
  start_tls("destination.example", 2);
  answers_ = false;
  listen();
  const MultifdInitPacket init{};
  for (int i = 0; i < 2; ++i) destination_->on_multifd_init(init);
  feed_some(source_start());
  for (int i = 0; i < 2; ++i) {
    const int extra = ::accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK);
    ASSERT_GE(extra, 0);
    ::close(extra);
  }
  for (int i = 0; i < 100; ++i) work();
  ASSERT_EQ(destination_->verdict(), Verdict::pending) << destination_->error().message();
  answers_ = true;
  feed(std::vector<std::byte>(rest_));
  feed(source_rest());
  EXPECT_EQ(got_, expected_stream());
  answer(shut(0));
  EXPECT_EQ(destination_->verdict(), Verdict::accepted) << destination_->error().message();
}

TEST_F(DestinationTlsTest, another_name_is_refused_with_the_option_and_not_a_byte_of_the_guest_is_said) {
  start_tls("other.example");
  listen();
  feed_some(source_stream());
  expect_refused("--handoff-tls-hostname");
}

TEST_F(DestinationTlsTest, one_that_refuses_our_certificate_is_told_apart) {
  pki_.make({.common_name = "migrx.example", .file = "strange", .foreign = true});
  std::filesystem::copy_file(pki_.path("strange-cert.pem"), pki_.path("client-cert.pem"),
                             std::filesystem::copy_options::overwrite_existing);
  std::filesystem::copy_file(pki_.path("strange-key.pem"), pki_.path("client-key.pem"),
                             std::filesystem::copy_options::overwrite_existing);
  TlsCredsOptions options;
  ASSERT_EQ(
      parse_tls_creds("x509:sanity-check=off,dir=" + pki_.dir(), options, TlsCredsOptions::Endpoint::client),
      "");
  std::string problem;
  std::vector<std::string> warnings;
  auto store = TlsCredentialStore::open(options, problem, warnings);
  ASSERT_NE(store, nullptr) << problem;
  destination_.reset();
  connector_ =
      std::make_unique<TlsConnector>(std::move(store), "destination.example", "--handoff-tls-hostname");
  DestinationSettings settings;
  settings.security = connector_.get();
  start_anew(std::move(settings));
  listen();
  feed_some(source_stream());
  expect_refused("client-cert.pem");
}

TEST_F(DestinationTlsTest, one_without_tls_creds_hangs_up_and_is_told_what_to_do) {
  deaf_ = true;
  listen();
  feed_some(source_start());
  ::close(std::exchange(peer_, -1));
  ::close(std::exchange(listener_, -1));
  for (int i = 0; i < 5; ++i) work();
  expect_refused("--handoff-tls off");
}

TEST_F(DestinationTlsTest, one_that_never_answers_is_given_up_in_time) {
  deaf_ = true;
  listen();
  feed_some(source_start());
  EXPECT_EQ(destination_->verdict(), Verdict::pending);
  EXPECT_GE(destination_->wake_fd(), 0);
  now_ns_ += DestinationLink::kHandshakeNs;
  work();
  expect_refused("does not finish the TLS handshake");
}

TEST_F(DestinationTlsTest, abandoned_within_the_handshake_it_sees_the_end_and_nothing_of_the_guest) {
  deaf_ = true;
  listen();
  feed_some(source_start());
  ASSERT_GE(peer_, 0);
  destination_->abandon();
  EXPECT_EQ(destination_->wake_fd(), -1);
  std::byte byte;
  EXPECT_EQ(::recv(peer_, &byte, 1, MSG_DONTWAIT), 0);
  EXPECT_EQ(destination_->do_work(now_ns_ += 1'000'000), 0U);
}

TEST(UnixAddress, form_and_length) {
  std::string path;
  EXPECT_TRUE(parse_unix_address("unix:/run/vm0.sock", path));
  EXPECT_EQ(path, "/run/vm0.sock");
  EXPECT_FALSE(parse_unix_address("/run/vm0.sock", path));
  EXPECT_FALSE(parse_unix_address("unix:", path));
  EXPECT_FALSE(parse_unix_address("unix:/" + std::string(108, 'x'), path));
}

}  // namespace
}  // namespace migrx
