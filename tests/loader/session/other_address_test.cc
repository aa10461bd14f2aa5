// A source whose channels come from another address than main: one behind a NAT, or another host's.
#include <gtest/gtest.h>

#include "tests/loader/session/session_fixture.h"

namespace migrx {
namespace {

using test::MainStreamBuilder;
using test::MultifdStreamBuilder;
using test::Wire;

class OtherAddress : public test::SessionFixture {
 protected:
  // Main waits; its one channel came from another address, and was refused. `somebody_elses`: a main channel
  // too.
  void come(bool somebody_elses) {
    start(1);
    MainStreamBuilder b;
    b.header().configuration().ram_start({{"ram", kRam, {}}}).ram_close();
    main_ = &connect();
    main_->handoff.peer_address = Ipv4Address{0x0a4d0001};
    main_->give(b.bytes(), 1448);
    run();
    MultifdStreamBuilder c;
    c.init(0);
    c.sync(0);
    channel_ = &connect();
    channel_->handoff.peer_address = Ipv4Address{0x0a4d0009};
    channel_->give(c.bytes, 64);
    if (somebody_elses) {
      Wire& another = connect();
      another.handoff.peer_address = Ipv4Address{0x0a4d0009};
      another.give(b.bytes(), 1448);
    }
    run(4'100);
  }
  Wire* main_ = nullptr;
  Wire* channel_ = nullptr;
};

TEST_F(OtherAddress, a_source_that_has_one_hears_of_source_nat_and_main_is_reset_first) {
  come(false);
  EXPECT_TRUE(main_->reset);
  EXPECT_FALSE(channel_->reset);
  ASSERT_EQ(session_->state(), SessionState::failed);
  EXPECT_NE(session_->error().message().find("10.77.0.9"), std::string::npos) << session_->error().message();
  EXPECT_NE(session_->error().message().find("--source-nat"), std::string::npos);
}

TEST_F(OtherAddress, another_hosts_source_does_a_main_that_waits_no_harm) {
  come(true);
  EXPECT_FALSE(main_->reset);
  EXPECT_TRUE(channel_->reset);
  EXPECT_EQ(session_->state(), SessionState::setup);
}

}  // namespace
}  // namespace migrx
