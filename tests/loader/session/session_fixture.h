// Whole sessions in memory: connections whose bytes the test gives, one worker, the control thread's part,
// and a clock that only the test moves.
#pragma once

#include <gtest/gtest.h>

#include <deque>
#include <memory>
#include <vector>

#include "loader/destination/device_state_file.h"
#include "loader/session/session.h"
#include "loader/session/session_control.h"
#include "tests/loader/main_stream_builder.h"
#include "tests/loader/multifd_stream_builder.h"

namespace migrx::test {

inline constexpr uint64_t kMs = 1'000'000;

// One connection as its poll core would hold it: accepts sends, counts them acknowledged when told to.
struct Wire {
  Handoff handoff{256};
  std::vector<std::byte> sent;
  bool reset = false;
  bool closed = false;
  bool reads = true;  // its TCP acknowledges what is sent
  std::deque<std::vector<std::byte>> buffers;

  void give(Bytes bytes, std::size_t piece) {
    for (std::size_t at = 0; at < bytes.size(); at += piece) {
      const std::size_t n = std::min(piece, bytes.size() - at);
      buffers.emplace_back(bytes.begin() + static_cast<std::ptrdiff_t>(at),
                           bytes.begin() + static_cast<std::ptrdiff_t>(at + n));
      ASSERT_GT(handoff.writable(), 0U);
      handoff.push({buffers.back().data(), &buffers.back(), static_cast<uint32_t>(n), StreamEnd::none});
      handoff.bytes_received.add(n);
    }
    handoff.publish();
  }
  void end(StreamEnd why) {
    handoff.push_end(why);
    handoff.publish();
  }
  void take_commands() {
    ConnectionCommand command;
    while (handoff.take_command(command)) {
      if (command.kind == ConnectionCommand::Kind::reset) reset = true;
      if (command.kind == ConnectionCommand::Kind::close) closed = true;
      if (command.kind == ConnectionCommand::Kind::send) {
        sent.insert(sent.end(), command.bytes.begin(), command.bytes.begin() + command.length);
        if (reads) handoff.bytes_acknowledged.add(command.length);
      }
    }
    std::array<void*, 64> home;
    uint32_t count = 0;
    handoff.reclaim(home, count);
  }
};

// The poll cores answer an ask() when the test says so.
class ToldSilence final : public SilentPeers {
 public:
  void ask() noexcept override { ++asked; }
  [[nodiscard]] std::optional<uint64_t> oldest_ns() const noexcept override { return answer; }
  uint32_t asked = 0;
  std::optional<uint64_t> answer;
};

class SessionFixture : public ::testing::Test {
 protected:
  static constexpr uint64_t kRam = 64 * kPageBytes;

  // One that is there already ends first: the worker must let go of its channels.
  void start(uint32_t channels, SessionLimits limits = {}) {
    if (control_ != nullptr) {
      control_->cancel();
      run(1'600);
    }
    SessionSettings settings;
    settings.main = settings_;
    settings.main.multifd_channels = channels;
    settings.now_ns = [this] { return now_; };
    settings.connections_max = 8;
    settings.source_nat = source_nat_;
    settings.silent_peers = silent_peers_;
    settings.urgent_pages = urgent_pages_;
    std::string problem;
    const PageKernels* const kernels = select_page_kernels(problem);
    ASSERT_NE(kernels, nullptr) << problem;
    compress_ = std::make_unique<CompressJobs>(0, 4, *kernels);
    session_ = std::make_unique<Session>(settings, blocks_, destination_->events(), *kernels, *compress_);
    control_ = std::make_unique<SessionControl>(
        *session_, *destination_,
        [this]() -> Handoff* {
          if (accepted_.empty()) return nullptr;
          Handoff* const next = accepted_.front();
          accepted_.pop_front();
          return next;
        },
        std::vector<LoaderWorker*>{&worker_}, limits);
  }
  Wire& connect() {
    wires_.push_back(std::make_unique<Wire>());
    accepted_.push_back(&wires_.back()->handoff);
    return *wires_.back();
  }
  void run(int turns = 20) {
    for (int i = 0; i < turns; ++i) {
      now_ += kMs;
      control_->do_work(now_);
      for (int k = 0; k < 4; ++k) worker_.do_work(now_);
      for (const auto& wire : wires_) wire->take_commands();
    }
  }
  static std::vector<std::byte> with_header(MainStreamBuilder& b, bool return_path) {
    b.header().configuration();
    if (return_path) b.open_return_path().ping(1);
    return b.take();
  }

  MainSettings settings_;
  SourceNat source_nat_;
  SilentPeers* silent_peers_ = nullptr;
  UrgentPages* urgent_pages_ = nullptr;
  uint64_t now_ = 1'000'000'000;
  BlockTable blocks_{1 << 20};
  DeviceStateFile state_file_{""};
  Destination* destination_ = &state_file_;
  std::unique_ptr<CompressJobs> compress_;
  std::unique_ptr<Session> session_;
  std::unique_ptr<SessionControl> control_;
  LoaderWorker worker_{16};
  std::deque<Handoff*> accepted_;
  std::vector<std::unique_ptr<Wire>> wires_;
};

inline std::vector<std::byte> bytes_of(std::initializer_list<int> values) {
  std::vector<std::byte> out;
  for (const int v : values) out.push_back(static_cast<std::byte>(v));
  return out;
}

// The answer to PING 1.
inline const std::vector<std::byte> kPong1 = bytes_of({0, 2, 0, 4, 0, 0, 0, 1});

}  // namespace migrx::test
