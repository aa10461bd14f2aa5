// Sessions whose own side keeps the source waiting: a worker that looks at nothing for a while, or no room.
#include <gtest/gtest.h>

#include <array>
#include <vector>

#include "tests/loader/session/session_fixture.h"

namespace migrx {
namespace {

using test::bytes_of;
using test::kMs;
using test::MainStreamBuilder;
using test::MultifdStreamBuilder;
using test::Wire;

using LateWorker = test::SessionFixture;

// They may be who is missing (SessionTest.a_connection_whose_worker_is_late_is_not_given_up is about one).
TEST_F(LateWorker, channels_that_it_has_not_read_are_not_missing) {
  SessionLimits limits;
  limits.channels_ns = 100 * kMs;
  start(2, limits);
  MultifdStreamBuilder c;
  c.init(0);
  connect().give(c.bytes, 64);
  run();
  MultifdStreamBuilder d;
  d.init(1);
  connect().give(d.bytes, 64);
  MainStreamBuilder b;
  b.header().configuration().ram_start({{"ram", kRam, {}}}).ram_close();
  connect().give(b.bytes(), 1448);
  for (int i = 0; i < 300; ++i) control_->do_work(now_ += kMs);
  EXPECT_EQ(session_->state(), SessionState::setup) << session_->error().message();
  run();
  EXPECT_EQ(session_->state(), SessionState::precopy) << session_->error().message();
}

// Nor are channels that wait for each other a fault of the source while what it sent is not looked at.
TEST_F(LateWorker, a_barrier_that_waits_for_it_is_no_fault_of_the_source) {
  start(2);
  MainStreamBuilder b;
  b.header().configuration().ram_start({{"ram", kRam, {}}}).multifd_flush().ram_close();
  connect().give(b.bytes(), 1448);
  std::array<Wire*, 2> wires{};
  for (uint8_t i = 0; i < 2; ++i) {
    MultifdStreamBuilder c;
    c.init(i);
    if (i == 0) c.sync(0);
    wires[i] = &connect();
    wires[i]->give(c.bytes, 64);
  }
  run();
  MultifdStreamBuilder late;
  late.sync(0);
  wires[1]->give(late.bytes, 1448);
  for (int i = 0; i < 90'000; i += 10) control_->do_work(now_ += 10 * kMs);
  EXPECT_EQ(session_->state(), SessionState::precopy) << session_->error().message();
  run();
  EXPECT_EQ(session_->barrier().epochs_released(), 1U);
}

// Found by the simulation, seed 901009830: nor while those are not looked at that have not been heard at all.
TEST_F(LateWorker, nor_is_one_that_waits_for_first_bytes_it_has_not_read) {
  start(2);
  MultifdStreamBuilder c;
  c.init(0);
  c.sync(0);
  connect().give(c.bytes, 64);
  run();
  MultifdStreamBuilder d;
  d.init(1);
  d.sync(0);
  connect().give(d.bytes, 64);
  MainStreamBuilder b;
  b.header().configuration().ram_start({{"ram", kRam, {}}}).multifd_flush().ram_close();
  connect().give(b.bytes(), 1448);
  for (int i = 0; i < 90'000; i += 10) control_->do_work(now_ += 10 * kMs);
  EXPECT_EQ(session_->state(), SessionState::setup) << session_->error().message();
  run();
  EXPECT_EQ(session_->barrier().epochs_released(), 1U) << session_->error().message();
}

// Main that waits for channels is looked at, unread as it is: those that never come are missed.
TEST_F(LateWorker, is_not_one_that_looks_at_a_main_waiting_for_its_channels) {
  SessionLimits limits;
  limits.channels_ns = 0;
  start(2, limits);
  MultifdStreamBuilder c;
  c.init(0);
  c.sync(0);
  connect().give(c.bytes, 64);
  MainStreamBuilder b;
  b.header().configuration().ram_start({{"ram", kRam, {}}}).multifd_flush().ram_close();
  connect().give(b.bytes(), 1448);
  run(60'200);
  ASSERT_EQ(session_->state(), SessionState::failed);
  EXPECT_EQ(session_->error().error_class, ErrorClass::timed_out);
}

class SessionRoom : public test::SessionFixture {};

// Found by the simulation, seed 820102504: more strangers spoke at once than a session has room for, on two
// poll cores, and a channel of the source was reset.
TEST_F(SessionRoom, who_finds_no_room_beside_strangers_waits_for_it) {
  start(1);
  std::vector<Wire*> strangers;
  for (int i = 0; i < 8; ++i) {
    strangers.push_back(&connect());
    strangers.back()->give(bytes_of({0xff}), 1);
  }
  Wire& main = connect();
  MainStreamBuilder b;
  b.header().configuration().ram_start({{"ram", kRam, {}}}).ram_close();
  main.give(b.bytes(), 1448);
  Wire& channel = connect();
  MultifdStreamBuilder c;
  c.init(0);
  channel.give(c.bytes, 64);
  run();
  EXPECT_EQ(accepted_.size(), 2U);
  for (Wire* const stranger : strangers) stranger->give(bytes_of({0xff, 0xff, 0xff}), 3);
  run();
  for (Wire* const stranger : strangers) EXPECT_TRUE(stranger->reset);
  EXPECT_FALSE(main.reset);
  EXPECT_FALSE(channel.reset);
  EXPECT_EQ(session_->state(), SessionState::precopy) << session_->error().message();
}

TEST_F(SessionRoom, but_not_when_the_session_ends) {
  start(1);
  for (int i = 0; i < 8; ++i) connect().give(bytes_of({0xff}), 1);
  Wire& late = connect();
  run();
  ASSERT_EQ(accepted_.size(), 1U);
  control_->cancel();
  run(1'400);
  EXPECT_TRUE(late.reset);
  EXPECT_TRUE(control_->over());
}

}  // namespace
}  // namespace migrx
