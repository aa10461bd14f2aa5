// A source whose channels come from another address than main: one behind a NAT, or another host's.
#include <gtest/gtest.h>

#include "tests/loader/session/session_fixture.h"

namespace migrx {
namespace {

using test::kMs;
using test::MainStreamBuilder;
using test::MultifdStreamBuilder;
using test::Wire;

constexpr Ipv4Address kOwnHost{0x0a4d0001};
constexpr Ipv4Address kOtherHost{0x0a4d0009};  // 10.77.0.9

class OtherAddress : public test::SessionFixture {
 protected:
  // Main waits for its one channel; one from another address was refused. `limits`: of the session.
  void come(const SessionLimits& limits = {}) {
    start(1, limits);
    preamble_.header().configuration().ram_start({{"ram", kRam, {}}}).ram_close();
    main_ = &connect();
    main_->handoff.peer_address = kOwnHost;
    main_->give(preamble_.bytes(), 1448);
    run();
    channel_ = &connect_channel(kOtherHost);
  }
  // One that says what main's own channel would.
  Wire& connect_channel(Ipv4Address from) {
    MultifdStreamBuilder c;
    c.init(0);
    c.sync(0);
    Wire& wire = connect();
    wire.handoff.peer_address = from;
    wire.give(c.bytes, 64);
    return wire;
  }
  MainStreamBuilder preamble_;
  Wire* main_ = nullptr;
  Wire* channel_ = nullptr;
};

TEST_F(OtherAddress, a_source_that_has_one_hears_of_source_nat_and_main_is_reset_first) {
  SessionLimits limits;
  limits.channels_ns = 8'000 * kMs;
  come(limits);
  run(7'900);
  EXPECT_FALSE(channel_->reset);
  EXPECT_EQ(session_->state(), SessionState::setup);
  run(200);
  EXPECT_TRUE(main_->reset);
  EXPECT_FALSE(channel_->reset);
  ASSERT_EQ(session_->state(), SessionState::failed);
  EXPECT_NE(session_->error().message().find("10.77.0.9"), std::string::npos) << session_->error().message();
  EXPECT_NE(session_->error().message().find("--source-nat"), std::string::npos);
}

// Found by the simulation (seeds 1011001761, 1011173595, 1011212785): the source's own channel, or its SYN,
// was lost for more than four seconds, and a stranger's channel ended the migration.
TEST_F(OtherAddress, anothers_channel_does_a_source_no_harm_whose_own_comes_late) {
  come();
  run(20'000);
  EXPECT_FALSE(main_->reset);
  EXPECT_EQ(session_->state(), SessionState::setup);
  Wire& own = connect_channel(kOwnHost);
  run(10);
  EXPECT_EQ(session_->state(), SessionState::precopy);
  EXPECT_TRUE(channel_->reset);
  EXPECT_FALSE(main_->reset || own.reset);
}

TEST_F(OtherAddress, more_channels_than_are_missing_cannot_be_its_own) {
  come();
  Wire& second = connect_channel(kOtherHost);
  run(4'100);
  EXPECT_TRUE(channel_->reset && second.reset);
  EXPECT_FALSE(main_->reset);
  EXPECT_EQ(session_->state(), SessionState::setup);
}

TEST_F(OtherAddress, another_hosts_source_does_a_main_that_waits_no_harm) {
  come();
  Wire& another = connect();
  another.handoff.peer_address = kOtherHost;
  another.give(preamble_.bytes(), 1448);
  run(4'100);
  EXPECT_FALSE(main_->reset);
  EXPECT_TRUE(channel_->reset);
  EXPECT_EQ(session_->state(), SessionState::setup);
}

}  // namespace
}  // namespace migrx
