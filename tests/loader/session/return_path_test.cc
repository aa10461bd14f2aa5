// What the source is told, whatever it asks: nothing is lost, and main waits.
#include <gtest/gtest.h>

#include "loader/main/return_path.h"
#include "loader/session/return_path_queue.h"
#include "tests/loader/session/session_fixture.h"

namespace migrx {
namespace {

using test::bytes_of;
using test::kMs;
using test::MainStreamBuilder;
using test::Wire;

class ReturnPathFlood : public test::SessionFixture {
 protected:
  // Pings with the values 0 to count-1 in one write, then everything up to the device state.
  void ping(uint32_t count) {
    MainStreamBuilder b;
    b.header().configuration().open_return_path();
    for (uint32_t i = 0; i < count; ++i) b.ping(i);
    b.ram_start({{"ram", kRam, {}}}).ram_close().ram_end().ram_close().device_tail();
    stream_ = b.take();
    main_ = &connect();
    main_->give(stream_, 1448);
  }
  static std::vector<std::byte> answers(uint32_t count) {
    std::vector<std::byte> out;
    for (uint32_t i = 0; i < count; ++i) {
      const std::array<std::byte, 8> pong = make_pong(i);
      out.insert(out.end(), pong.begin(), pong.end());
    }
    return out;
  }
  std::vector<std::byte> stream_;
  Wire* main_ = nullptr;
  std::vector<std::unique_ptr<DeviceStateFile>> state_;
};

// Seen with 20: 16 answers came; with 400: 208.
TEST_F(ReturnPathFlood, every_ping_of_one_write_is_answered_and_shut_comes_last) {
  for (const uint32_t count : {1U, 20U, 400U}) {
    state_.push_back(std::make_unique<DeviceStateFile>(""));
    destination_ = state_.back().get();
    start(0);
    ping(count);
    run(static_cast<int>(count) + 40);
    std::vector<std::byte> expected = answers(count);
    const std::array<std::byte, 8> shut = make_shut(0);
    expected.insert(expected.end(), shut.begin(), shut.end());
    EXPECT_EQ(main_->sent.size(), expected.size()) << count;
    EXPECT_EQ(main_->sent, expected) << count;
    // The worker lets go of this session's channels before the next one takes its place.
    session_->finish();
    worker_.do_work(now_);
    ASSERT_EQ(worker_.serving(), 0U);
  }
}

// The poll core takes no command for a long time: nothing is lost, and main stands still meanwhile.
TEST_F(ReturnPathFlood, main_waits_while_its_answers_find_no_room) {
  start(0);
  ping(400);
  for (int i = 0; i < 200; ++i) {
    now_ += kMs;
    control_->do_work(now_);
    worker_.do_work(now_);
  }
  EXPECT_EQ(session_->state(), SessionState::setup);
  EXPECT_TRUE(main_->sent.empty());
  run(440);
  EXPECT_EQ(main_->sent.size(), answers(400).size() + 8);
  EXPECT_EQ(session_->state(), SessionState::device_state);
}

TEST_F(ReturnPathFlood, shut_1_of_a_failed_session_is_not_lost_behind_them) {
  SessionLimits limits;
  limits.abort_ns = 1000 * kMs;
  start(0, limits);
  MainStreamBuilder b;
  b.header().configuration().open_return_path();
  for (uint32_t i = 0; i < 30; ++i) b.ping(i);
  b.u8(0x55);  // no section
  Wire& main = connect();
  main.give(b.bytes(), 1448);
  for (int i = 0; i < 10; ++i) {
    now_ += kMs;
    control_->do_work(now_);
    worker_.do_work(now_);
  }
  ASSERT_EQ(session_->state(), SessionState::failed);
  run(400);
  const std::array<std::byte, 8> shut = make_shut(1);
  ASSERT_GE(main.sent.size(), shut.size());
  EXPECT_TRUE(std::equal(shut.begin(), shut.end(), main.sent.end() - 8));
  EXPECT_TRUE(main.reset);
}

// Takes everything, and says SWITCHOVER_ACK as often as the test lets it.
class AckingDestination final : public Destination, private MainEvents {
 public:
  uint32_t acks = 0;

  MainEvents& events() noexcept override { return *this; }
  uint32_t do_work(uint64_t) override { return 0; }
  [[nodiscard]] Verdict verdict() const noexcept override { return Verdict::pending; }
  [[nodiscard]] const StreamError& error() const noexcept override { return error_; }
  void source_ended() override {}
  void abandon() override {}
  [[nodiscard]] std::optional<uint32_t> switchover_acks() const noexcept override { return acks; }

 private:
  [[nodiscard]] bool writable() noexcept override { return true; }
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
  StreamError error_;
};

class SwitchoverAck : public test::SessionFixture {
 protected:
  // What a source of this machine type hears behind its OPEN_RETURN_PATH.
  std::vector<std::byte> heard_by(const char* machine) {
    start(0);
    MainStreamBuilder b;
    b.header().configuration(machine).open_return_path().ram_start({{"ram", kRam, {}}}).ram_close();
    main_ = &connect();
    main_->give(b.bytes(), 1448);
    run();
    return main_->sent;
  }
  static std::vector<std::byte> acks(uint32_t count) {
    std::vector<std::byte> out;
    for (uint32_t i = 0; i < count; ++i)
      for (const std::byte byte : make_switchover_ack()) out.push_back(byte);
    return out;
  }
  Wire* main_ = nullptr;
};

TEST_F(SwitchoverAck, a_source_up_to_11_0_waits_for_one) {
  settings_.switchover_ack = true;
  EXPECT_EQ(heard_by("pc-q35-11.0"), acks(1));
  EXPECT_FALSE(control_->take_warning().has_value());
}

// One too many ends the return path of QEMU 11.1 ("pending num underflowed"), and nothing ever finishes.
TEST_F(SwitchoverAck, a_source_since_11_1_is_sent_none_that_no_device_asked_for) {
  settings_.switchover_ack = true;
  EXPECT_EQ(heard_by("pc-i440fx-11.1"), acks(0));
}

TEST_F(SwitchoverAck, none_goes_out_without_the_capability) {
  EXPECT_EQ(heard_by("pc-q35-11.0"), acks(0));
}

TEST_F(SwitchoverAck, a_machine_type_without_a_release_gets_one_and_the_operator_a_warning) {
  settings_.switchover_ack = true;
  EXPECT_EQ(heard_by("microvm"), acks(1));
  const std::optional<std::string> warning = control_->take_warning();
  ASSERT_TRUE(warning.has_value());
  EXPECT_NE(warning->find("--switchover-ack-legacy off"), std::string::npos) << *warning;
  EXPECT_FALSE(control_->take_warning().has_value()) << "once";
}

TEST_F(SwitchoverAck, the_option_overrides_what_the_machine_type_tells) {
  settings_.switchover_ack = true;
  settings_.switchover_ack_legacy = false;
  EXPECT_EQ(heard_by("microvm"), acks(0));
  EXPECT_FALSE(control_->take_warning().has_value());
}

TEST_F(SwitchoverAck, the_option_turns_it_on_for_a_new_machine_type) {
  settings_.switchover_ack = true;
  settings_.switchover_ack_legacy = true;
  EXPECT_EQ(heard_by("pc-i440fx-11.1"), acks(1));
}

TEST_F(SwitchoverAck, with_a_destination_its_word_alone_is_passed_on_as_often_as_it_comes) {
  AckingDestination qemu;
  destination_ = &qemu;
  settings_.switchover_ack = true;
  EXPECT_EQ(heard_by("pc-q35-10.0"), acks(0)) << "it has not said it";
  qemu.acks = 1;
  run();
  EXPECT_EQ(main_->sent, acks(1));
  qemu.acks = 40;  // more than the queue has places
  run(100);
  EXPECT_EQ(main_->sent, acks(40));
}

// QEMU closes its connection as soon as it has read SHUT 0; with x-colo on it waits for checkpoints instead.
TEST_F(SwitchoverAck, a_source_that_stays_although_it_was_told_is_named) {
  SessionLimits limits;
  limits.farewell_ns = 50 * kMs;
  start(0, limits);
  MainStreamBuilder b;
  b.header().configuration("pc-i440fx-11.1").open_return_path().ram_start({{"ram", kRam, {}}}).ram_close();
  b.ram_end().ram_close().device_tail();
  connect().give(b.bytes(), 1448);
  run(40);
  EXPECT_FALSE(control_->take_warning().has_value());
  run(60);
  const std::optional<std::string> warning = control_->take_warning();
  ASSERT_TRUE(warning.has_value());
  EXPECT_NE(warning->find("x-colo-lost-heartbeat"), std::string::npos) << *warning;
}

TEST(ReturnPathQueue, keeps_order_and_two_places) {
  Handoff connection(16);
  ReturnPathQueue queue;
  uint32_t put = 0;
  for (; queue.has_room(); ++put) queue.put(make_pong(put));
  EXPECT_EQ(put, ReturnPathQueue::kMessages - ReturnPathQueue::kReserved);
  queue.put(make_switchover_ack());
  queue.put(make_shut(0));
  EXPECT_FALSE(queue.flush(nullptr));
  EXPECT_TRUE(queue.flush(&connection));
  ConnectionCommand command;
  for (uint32_t i = 0; i < put; ++i) {
    ASSERT_TRUE(connection.take_command(command));
    EXPECT_EQ(load_be32(command.bytes.data() + 4), i);
  }
  ASSERT_TRUE(connection.take_command(command));
  EXPECT_EQ(command.length, 4);
  ASSERT_TRUE(connection.take_command(command));
  EXPECT_EQ(load_be16(command.bytes.data()), 1);
  EXPECT_TRUE(queue.empty());
}

}  // namespace
}  // namespace migrx
