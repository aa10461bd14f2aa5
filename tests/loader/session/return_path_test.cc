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
