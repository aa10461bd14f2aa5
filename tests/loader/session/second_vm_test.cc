// Whole sessions in memory beside another VM of the same host that migrates to the same port.
#include <gtest/gtest.h>

#include <utility>

#include "tests/loader/session/session_fixture.h"

namespace migrx {
namespace {

using test::bytes_of;
using test::kPong1;
using test::MainStreamBuilder;
using test::make_page;
using test::MultifdStreamBuilder;
using test::Wire;

class SecondVm : public test::SessionFixture {
 protected:
  // With one channel.
  void start_and_soon_reset_who_is_refused() {
    SessionLimits limits;
    limits.refused_ns = 10 * test::kMs;
    start(1, limits);
  }
  // Main and its one channel, at their first barrier; a channel of the second VM has been refused.
  std::pair<Wire*, Wire*> under_way_beside_a_refused_channel() {
    start_and_soon_reset_who_is_refused();
    MainStreamBuilder b;
    b.header().configuration().ram_start({{"ram", kRam, {}}}).multifd_flush();
    Wire& main = connect();
    main.give(b.bytes(), 1448);
    MultifdStreamBuilder own;
    own.init(0);
    Wire& channel = connect();
    channel.give(own.bytes, 64);
    run();
    MultifdStreamBuilder another;
    another.init(1);
    another.sync(0);
    connect().give(b.bytes(), 1448);
    Wire& surplus = connect();
    surplus.give(another.bytes, 64);
    run();
    EXPECT_TRUE(surplus.reset);
    return {&main, &channel};
  }
};

// Nothing of a stream is read before all channels are here: neither memory nor the destination can be another
// guest's.
TEST_F(SecondVm, main_is_not_read_before_its_channels_are_here) {
  start(2);
  MainStreamBuilder b;
  b.header().configuration().open_return_path().ping(1).ram_start({{"ram", kRam, {}}}).ram_close();
  Wire& main = connect();
  main.give(b.bytes(), 1448);
  for (const uint8_t id : {uint8_t{1}, uint8_t{0}}) {
    run();
    EXPECT_EQ(session_->state(), SessionState::setup);
    EXPECT_EQ(session_->main_connection(), nullptr);
    EXPECT_TRUE(main.sent.empty());
    MultifdStreamBuilder c;
    c.init(id);
    c.sync(0);
    connect().give(c.bytes, 64);
  }
  run();
  EXPECT_EQ(session_->state(), SessionState::precopy);
  EXPECT_EQ(main.sent, kPong1);
}

// Of a VM whose main channel's first bytes were lost only the poll core knows, or a connection that has shown
// nothing yet.
TEST_F(SecondVm, main_waits_for_those_who_connected_before_the_last_channel_and_are_silent) {
  test::ToldSilence silence;
  silent_peers_ = &silence;
  start(1);
  MainStreamBuilder b;
  b.header().configuration().ram_start({{"ram", kRam, {}}}).ram_close();
  Wire& main = connect();
  main.handoff.opened_ns = 10;
  main.give(b.bytes(), 1448);
  run();
  EXPECT_EQ(silence.asked, 0U);
  MultifdStreamBuilder c;
  c.init(0);
  Wire& channel = connect();
  channel.handoff.opened_ns = 30;
  channel.give(c.bytes, 64);
  run();
  EXPECT_EQ(silence.asked, 1U) << "asked again before the answer came";
  EXPECT_EQ(session_->state(), SessionState::setup);
  silence.answer = 20;  // the poll core knows one
  run();
  EXPECT_GT(silence.asked, 1U);
  EXPECT_EQ(session_->state(), SessionState::setup);
  Wire& late = connect();  // the loader has it, and it has said too little
  late.handoff.opened_ns = 20;
  late.give(bytes_of({'Q'}), 1);
  silence.answer = UINT64_MAX;
  run();
  EXPECT_EQ(session_->state(), SessionState::setup);
  late.give(bytes_of({'?', '?', '?'}), 3);
  run();
  EXPECT_TRUE(late.reset);
  EXPECT_EQ(session_->state(), SessionState::precopy);
}

TEST_F(SecondVm, a_second_main_before_all_channels_are_here_ends_both) {
  start(1);
  MainStreamBuilder b;
  b.header().configuration().ram_start({{"ram", kRam, {}}}).ram_close();
  Wire& first = connect();
  Wire& second = connect();
  first.give(b.bytes(), 1448);
  second.give(b.bytes(), 1448);
  run(400);
  ASSERT_EQ(session_->state(), SessionState::failed);
  EXPECT_NE(session_->error().message().find("both guests run on"), std::string::npos);
  EXPECT_TRUE(first.reset);
  EXPECT_TRUE(second.reset);
  EXPECT_EQ(blocks_.list().size(), 0U);
}

// Found by playing operators: VM B is sent to the port of VM A by mistake.
TEST_F(SecondVm, another_vm_of_the_same_host_does_not_end_a_migration_that_is_under_way) {
  start_and_soon_reset_who_is_refused();
  MainStreamBuilder b;
  b.header().configuration().ram_start({{"ram", kRam, {}}}).multifd_flush().ram_close();
  Wire& main = connect();
  main.handoff.opened_ns = 10;
  main.give(b.bytes(), 1448);
  MultifdStreamBuilder c;
  c.init(0);
  c.sync(0);
  Wire& channel = connect();
  channel.handoff.opened_ns = 20;
  channel.give(c.bytes, 64);
  run();
  ASSERT_EQ(session_->state(), SessionState::precopy);
  Wire& main_b = connect();
  main_b.handoff.opened_ns = 30;
  main_b.give(b.bytes(), 1448);
  for (uint8_t id = 0; id < 3; ++id) {
    MultifdStreamBuilder d;
    d.init(id);
    d.sync(0);
    Wire& stray = connect();
    stray.handoff.opened_ns = 40;
    stray.give(d.bytes, 64);
    run();
    EXPECT_TRUE(stray.reset);
  }
  EXPECT_TRUE(main_b.reset);
  EXPECT_EQ(session_->state(), SessionState::precopy) << session_->error().message();
  EXPECT_EQ(control_->refused(), 4U);
  b.take();
  b.ram_end().ram_close().device_tail();
  main.give(b.bytes(), 1448);
  c.bytes.clear();
  c.sync(1);
  channel.give(c.bytes, 1448);
  main.end(StreamEnd::fin);
  run();
  EXPECT_EQ(session_->state(), SessionState::done) << session_->error().message();
}

// The source has one channel more than is expected, and that one connected last.
TEST_F(SecondVm, a_source_that_gives_up_because_a_channel_was_refused_hears_which_option) {
  const auto [main, channel] = under_way_beside_a_refused_channel();
  EXPECT_EQ(session_->state(), SessionState::precopy);
  channel->end(StreamEnd::reset);
  main->end(StreamEnd::reset);
  run();
  ASSERT_EQ(session_->state(), SessionState::failed);
  const std::string message = session_->error().message();
  EXPECT_NE(message.find("channel 1 was refused"), std::string::npos) << message;
  EXPECT_NE(message.find("--multifd-channels"), std::string::npos) << message;
}

// A host that pours bytes into the port does not pass for a main channel with pages.
TEST_F(SecondVm, a_strangers_bytes_do_not_end_a_main_that_waits_for_its_channels) {
  start(2);
  MainStreamBuilder b;
  b.header().configuration().ram_start({{"ram", kRam, {}}});
  connect().give(b.bytes(), 1448);
  run(5'100);
  ASSERT_EQ(session_->state(), SessionState::setup);
  Wire& stranger = connect();
  stranger.give(std::vector<std::byte>(300 * 1024, std::byte{0x55}), 1448);
  run();
  EXPECT_TRUE(stranger.reset);
  EXPECT_EQ(session_->state(), SessionState::setup) << session_->error().message();
}

// QEMU 7.2: its other channels stay open, and nothing comes any more.
TEST_F(SecondVm, a_source_that_hangs_because_a_channel_was_refused_is_let_go) {
  start(1);
  MainStreamBuilder b;
  b.header().configuration().ram_start({{"ram", kRam, {}}}).multifd_flush();
  connect().give(b.bytes(), 1448);
  MultifdStreamBuilder c;
  c.init(0);
  connect().give(c.bytes, 64);
  run();
  MultifdStreamBuilder d;
  d.init(1);
  connect().give(d.bytes, 64);
  run(19'900);
  EXPECT_EQ(session_->state(), SessionState::precopy);
  run(200);
  ASSERT_EQ(session_->state(), SessionState::failed);
  const std::string message = session_->error().message();
  EXPECT_NE(message.find("--multifd-channels"), std::string::npos) << message;
}

// Its pages came over channels that were refused: RAM has none of them.
TEST_F(SecondVm, a_main_whose_own_channels_were_refused_never_completes) {
  start(0);
  MainStreamBuilder b;
  b.header().configuration().ram_start({{"ram", kRam, {}}}).ram_close();
  Wire& main = connect();
  main.give(b.bytes(), 1448);
  run();
  MultifdStreamBuilder c;
  c.init(0);
  connect().give(c.bytes, 64);
  run();
  b.take();
  b.ram_part().zero("ram", 0).ram_close().ram_end().ram_close().device_tail();
  main.give(b.bytes(), 1448);
  main.end(StreamEnd::fin);
  run(400);
  ASSERT_EQ(session_->state(), SessionState::failed);
  EXPECT_NE(session_->error().message().find("uses multifd"), std::string::npos);
  EXPECT_EQ(state_file_.verdict(), Verdict::pending);
}

// A stray channel of another VM must not end a migration that brings its pages over main.
TEST_F(SecondVm, one_that_brings_its_pages_itself_completes_beside_a_stray_channel) {
  start(0);
  MainStreamBuilder b;
  b.header().configuration().ram_start({{"ram", kRam, {}}}).ram_close();
  Wire& main = connect();
  main.give(b.bytes(), 1448);
  run();
  MultifdStreamBuilder c;
  c.init(0);
  connect().give(c.bytes, 64);
  run();
  b.take();
  b.ram_part().page("ram", 0, make_page(7)).ram_close().ram_end().ram_close().device_tail();
  main.give(b.bytes(), 1448);
  main.end(StreamEnd::fin);
  run();
  EXPECT_EQ(session_->state(), SessionState::done) << session_->error().message();
}

// A channel of the other VM is refused, and one of the source's own is held up while main waits for it with
// bytes unread: the source is silent because it may send no more. When all is read it has its time.
TEST_F(SecondVm, a_source_that_waits_for_us_is_not_taken_for_one_whose_channel_was_refused) {
  start_and_soon_reset_who_is_refused();
  MainStreamBuilder b;
  b.header().configuration().ram_start({{"ram", kRam, {}}}).multifd_flush().ram_close();
  connect().give(b.bytes(), 1448);
  MultifdStreamBuilder c;
  c.init(0);
  Wire& channel = connect();
  channel.give(c.bytes, 64);
  run();
  MultifdStreamBuilder another;
  another.init(1);
  another.sync(0);
  connect().give(b.bytes(), 1448);
  Wire& refused = connect();
  refused.give(another.bytes, 64);
  run();
  EXPECT_TRUE(refused.reset);
  run(15'000);
  EXPECT_EQ(session_->state(), SessionState::precopy);
  c.bytes.clear();
  c.sync(0);
  channel.give(c.bytes, 1448);
  run(19'900);
  EXPECT_EQ(session_->state(), SessionState::precopy);
  run(200);
  ASSERT_EQ(session_->state(), SessionState::failed);
  EXPECT_NE(session_->error().message().find("--multifd-channels"), std::string::npos);
}

// Found by the simulation, seeds 850073298 and 850083383: all was read, the window had opened, and the source
// was silent because its TCP had lost bytes and waited for a timer that had backed off.
TEST_F(SecondVm, nor_is_one_whose_tcp_has_bytes_to_send_again) {
  const auto [main_wire, channel_wire] = under_way_beside_a_refused_channel();
  Wire& main = *main_wire;
  Wire& channel = *channel_wire;
  const auto answers = [&] {
    for (int i = 0; i < 25'000; i += 1'000) {
      main.handoff.heard_ns.set(now_);
      channel.handoff.heard_ns.set(now_);
      run(1'000);
    }
  };
  channel.handoff.bytes_shown.set(channel.handoff.bytes_received.read() + 1);
  answers();
  EXPECT_EQ(session_->state(), SessionState::precopy) << session_->error().message();
  // It comes; and then there is nothing any more.
  MultifdStreamBuilder c;
  c.sync(0);
  channel.give(c.bytes, 1448);
  EXPECT_LT(channel.handoff.bytes_shown.read(), channel.handoff.bytes_received.read());
  answers();
  ASSERT_EQ(session_->state(), SessionState::failed);
  EXPECT_NE(session_->error().message().find("--multifd-channels"), std::string::npos);
}

// Nobody knows what it has to send.
TEST_F(SecondVm, nor_one_of_whose_connections_has_not_answered) {
  const auto [main, channel] = under_way_beside_a_refused_channel();
  channel->handoff.heard_ns.set(now_);
  for (int i = 0; i < 30'000; i += 1'000) {
    main->handoff.heard_ns.set(now_);
    run(1'000);
  }
  EXPECT_EQ(session_->state(), SessionState::precopy) << session_->error().message();
  channel->handoff.heard_ns.set(now_);
  run(10);
  EXPECT_EQ(session_->state(), SessionState::failed);
}

}  // namespace
}  // namespace migrx
