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
#include "tests/loader/destination/destination_fixture.h"
#include "tests/loader/main_stream_builder.h"
#include "tests/loader/tls/test_pki.h"
#include "tests/loader/tls/tls_server.h"

namespace migrx {
namespace {

using test::DestinationQemuTest;
using test::kRam;
using test::kVga;
using test::MainStreamBuilder;
using test::make_page;
using test::source_rest;
using test::source_start;
using test::source_stream;

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
