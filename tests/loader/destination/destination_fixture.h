// A destination played by the test: a listener on a UNIX socket, and the source's stream given to a
// MainChannel whose events go to the destination, as a session does.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "loader/destination/destination_qemu.h"
#include "loader/main/main_channel.h"
#include "tests/loader/main_stream_builder.h"

namespace migrx::test {

inline constexpr uint64_t kRam = 8 * kPageBytes;
inline constexpr uint64_t kVga = 4 * kPageBytes;

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

inline std::vector<std::byte> source_start() {
  MainStreamBuilder b;
  b.header().configuration().open_return_path().ping(7);
  b.ram_start({{"mem", kRam, {}}, {"vga", kVga, {}}}).ram_close();
  return b.take();
}

inline std::vector<std::byte> source_rest() {
  MainStreamBuilder b;
  b.ram_part().page("mem", 0, make_page(1)).page("vga", kPageBytes, make_page(2)).zero("vga", 0).ram_close();
  b.ram_part().page("mem", kPageBytes, make_page(3)).ram_close();
  b.switchover_start();
  b.ram_end().page("vga", 2 * kPageBytes, make_page(4)).ram_close().device_tail();
  return b.take();
}

inline std::vector<std::byte> source_stream() {
  std::vector<std::byte> stream = source_start();
  const std::vector<std::byte> rest = source_rest();
  stream.insert(stream.end(), rest.begin(), rest.end());
  return stream;
}

}  // namespace migrx::test
