// Sessions that cannot go on: each ends with its reason after its time, in bounded memory.
#include <gtest/gtest.h>

#include "tests/loader/session/session_fixture.h"

namespace migrx {
namespace {

using test::bytes_of;
using test::kMs;
using test::MainStreamBuilder;
using test::MultifdStreamBuilder;

// A destination QEMU that reads nothing, or that has just read something.
class SlowDestination final : public Destination, private MainEvents {
 public:
  [[nodiscard]] MainEvents& events() noexcept override { return *this; }
  uint32_t do_work(uint64_t) override { return 0; }
  [[nodiscard]] Verdict verdict() const noexcept override { return Verdict::pending; }
  [[nodiscard]] const StreamError& error() const noexcept override { return error_; }
  void source_ended() override {}
  void abandon() override { abandoned = true; }
  [[nodiscard]] uint64_t last_sent_ns() const noexcept override { return sent_ns; }
  uint64_t sent_ns = 0;
  bool abandoned = false;
  bool takes_all = false;

 private:
  [[nodiscard]] bool writable() noexcept override { return takes_all; }
  StreamError on_header(uint32_t) override { return {}; }
  StreamError on_configuration(const Configuration&) override { return {}; }
  StreamError on_command(MigCommand, Bytes) override { return {}; }
  StreamError on_ram_start(const SectionHeader&, std::span<const BlockEntry>) override { return {}; }
  void on_ram_section_begin(SectionType, uint32_t) noexcept override {}
  void on_ram_section_end(SectionType, uint32_t, bool) noexcept override {}
  void on_epoch_closed(Epoch) noexcept override {}
  void on_ram_complete() noexcept override {}
  void on_other_section_begin(const SectionHeader&) noexcept override {}
  [[nodiscard]] std::size_t on_verbatim(Bytes) noexcept override { return 0; }
  void on_other_section_end(const SectionHeader&) noexcept override {}
  [[nodiscard]] std::size_t on_tail(Bytes bytes) noexcept override { return takes_all ? bytes.size() : 0; }
  StreamError error_;
};

class SessionStarvation : public test::SessionFixture {
 protected:
  static SessionLimits short_limits() {
    SessionLimits limits;
    limits.stall_ns = 100 * kMs;
    return limits;
  }
  static MainStreamBuilder up_to_ram_end() {
    MainStreamBuilder b;
    b.header().configuration().open_return_path().ram_start({{"ram", kRam, {}}}).ram_close();
    b.ram_end().ram_close();
    return b;
  }
  SlowDestination slow_;

  void expect_timed_out(const std::string& words) {
    ASSERT_EQ(session_->state(), SessionState::failed);
    EXPECT_EQ(session_->error().error_class, ErrorClass::timed_out);
    EXPECT_NE(session_->error().message().find(words), std::string::npos) << session_->error().message();
  }
};

// One channel alone: nobody but main waits for it.
TEST_F(SessionStarvation, a_channel_that_never_reaches_its_sync_ends_the_session) {
  start(1, short_limits());
  MainStreamBuilder b;
  b.header().configuration().ram_start({{"ram", kRam, {}}}).multifd_flush().ram_close();
  connect().give(b.bytes(), 1448);
  MultifdStreamBuilder c;
  c.init(0);
  connect().give(c.bytes, 64);
  run(90);
  EXPECT_EQ(session_->state(), SessionState::precopy);
  run(40);
  expect_timed_out("multifd 0 met 0");
}

TEST_F(SessionStarvation, bytes_of_strangers_do_not_keep_a_stalled_session_alive) {
  start(1, short_limits());
  MainStreamBuilder b;
  b.header().configuration().ram_start({{"ram", kRam, {}}}).multifd_flush().ram_close();
  connect().give(b.bytes(), 1448);
  MultifdStreamBuilder c;
  c.init(0);
  connect().give(c.bytes, 64);
  run(10);
  for (int i = 0; i < 15; ++i) {
    connect().give(bytes_of({0xff}), 1);
    run(10);
  }
  expect_timed_out("multifd 0 met 0");
}

TEST_F(SessionStarvation, a_stall_timeout_of_zero_waits_for_ever) {
  SessionLimits limits;
  limits.stall_ns = limits.identify_ns = limits.channels_ns = 0;
  start(1, limits);
  MainStreamBuilder b;
  b.header().configuration().ram_start({{"ram", kRam, {}}}).multifd_flush().ram_close();
  connect().give(b.bytes(), 1448);
  MultifdStreamBuilder c;
  c.init(0);
  connect().give(c.bytes, 64);
  test::Wire& silent = connect();
  run(500);
  now_ += 3'600'000 * kMs;
  run(5);
  EXPECT_EQ(session_->state(), SessionState::precopy);
  EXPECT_FALSE(silent.reset);
}

// Without a destination QEMU, device state that stops in its midst is damaged, or the link is away: that ends
// by itself.
class SessionDeviceState : public SessionStarvation {
 protected:
  // All but the last bytes have come.
  void begin() {
    destination_ = &state_;
    start(0);
    MainStreamBuilder b = up_to_ram_end();
    b.device_tail(5000);
    all_ = b.take();
    main_ = &connect();
    main_->handoff.heard_ns.set(now_);
    main_->give(Bytes{all_}.first(all_.size() - kLast), 1448);
    run();
    ASSERT_EQ(session_->state(), SessionState::device_state);
  }
  static constexpr std::size_t kLast = 100;
  DeviceStateFile state_{"", {.stall_ns = 60'000 * kMs}};
  std::vector<std::byte> all_;
  test::Wire* main_ = nullptr;
};

TEST_F(SessionDeviceState, is_not_damaged_because_the_link_is_away) {
  begin();
  run(65'000);
  ASSERT_EQ(session_->state(), SessionState::device_state) << session_->error().message();
  main_->handoff.heard_ns.set(now_);
  main_->give(Bytes{all_}.last(kLast), 1448);
  run();
  EXPECT_TRUE(control_->telling());
  main_->end(StreamEnd::fin);
  run();
  EXPECT_EQ(session_->state(), SessionState::done) << session_->error().message();
}

TEST_F(SessionDeviceState, is_damaged_when_a_source_within_reach_brings_no_more) {
  begin();
  for (int s = 0; s < 59; ++s) {
    main_->handoff.heard_ns.set(now_);
    run(1'000);
  }
  EXPECT_EQ(session_->state(), SessionState::device_state) << session_->error().message();
  main_->handoff.heard_ns.set(now_);
  run(2'000);
  expect_timed_out("VM description");
}

// A destination QEMU that hangs: main waits, its window closes, and the source's guest must not wait for
// ever.
TEST_F(SessionStarvation, a_destination_that_takes_nothing_ends_the_session) {
  destination_ = &slow_;
  start(0, short_limits());
  connect().give(up_to_ram_end().bytes(), 100);
  run(90);
  EXPECT_NE(session_->state(), SessionState::failed);
  run(40);
  expect_timed_out("took no byte");
  EXPECT_TRUE(slow_.abandoned);
}

// One that is slow is waited for: what leaves for it is progress.
TEST_F(SessionStarvation, a_destination_that_is_slow_is_waited_for) {
  destination_ = &slow_;
  start(0, short_limits());
  connect().give(up_to_ram_end().bytes(), 100);
  for (int i = 0; i < 20; ++i) {
    run(50);
    slow_.sent_ns = now_;
  }
  EXPECT_NE(session_->state(), SessionState::failed);
  run(150);
  expect_timed_out("took no byte");
}

// One that has been sent everything and hangs: the source's guest stands still all the while.
TEST_F(SessionStarvation, a_destination_that_never_says_it_has_the_guest_ends_the_session) {
  slow_.takes_all = true;
  destination_ = &slow_;
  SessionLimits limits = short_limits();
  limits.destination_ns = 500 * kMs;
  start(0, limits);
  MainStreamBuilder b = up_to_ram_end();
  b.device_tail();
  test::Wire& main = connect();
  main.give(b.bytes(), 1448);
  run(490);
  EXPECT_EQ(session_->state(), SessionState::device_state);
  run(40);
  expect_timed_out("--destination-timeout");
  EXPECT_TRUE(slow_.abandoned);
  EXPECT_FALSE(main.sent.empty());  // SHUT 1
}

TEST_F(SessionStarvation, a_destination_timeout_of_zero_waits_for_ever) {
  slow_.takes_all = true;
  destination_ = &slow_;
  SessionLimits limits = short_limits();
  limits.destination_ns = 0;
  start(0, limits);
  MainStreamBuilder b = up_to_ram_end();
  b.device_tail();
  connect().give(b.bytes(), 1448);
  run(500);
  now_ += 3'600'000 * kMs;
  run(5);
  EXPECT_EQ(session_->state(), SessionState::device_state);
}

// A source that says nothing while nobody waits is no fault, however long it takes.
TEST_F(SessionStarvation, a_quiet_source_is_no_fault) {
  start(0, short_limits());
  MainStreamBuilder b;
  b.header().configuration().ram_start({{"ram", kRam, {}}}).ram_close().ram_part().ram_close();
  connect().give(b.bytes(), 1448);
  run(1000);
  EXPECT_EQ(session_->state(), SessionState::precopy);
}

// A source that is cancelled in its setup may stand still until its destination closes.
TEST_F(SessionStarvation, one_that_is_quiet_before_its_first_page_is) {
  start(0, short_limits());
  MainStreamBuilder b;
  b.header().configuration().ram_start({{"ram", kRam, {}}}).ram_close();
  connect().give(b.bytes(), 1448);
  run(1000);
  EXPECT_EQ(session_->state(), SessionState::failed);
  EXPECT_EQ(session_->error().error_class, ErrorClass::timed_out);
}

}  // namespace
}  // namespace migrx
