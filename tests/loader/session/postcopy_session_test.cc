// A session in postcopy: a wire between two QEMUs that nothing of migrx's cuts, and one that is mended when
// it breaks.
#include <gtest/gtest.h>

#include "loader/main/return_path.h"
#include "tests/loader/session/session_fixture.h"

namespace migrx {
namespace {

using test::bytes_of;
using test::kMs;
using test::MainStreamBuilder;
using test::Wire;

// Takes everything the source says, and says what the test lets it.
class PostcopyDestination final : public Destination, private MainEvents, public UrgentPages {
 public:
  MainEvents& events() noexcept override { return *this; }
  uint32_t do_work(uint64_t) override { return 0; }
  [[nodiscard]] Verdict verdict() const noexcept override { return verdict_now; }
  [[nodiscard]] const StreamError& error() const noexcept override { return error_; }
  void source_ended() override {}
  void abandon() override { ++abandoned; }
  [[nodiscard]] std::optional<uint32_t> switchover_acks() const noexcept override { return 0; }
  [[nodiscard]] Bytes said() const noexcept override { return says; }
  void took_said(std::size_t n) override {
    says.erase(says.begin(), says.begin() + static_cast<std::ptrdiff_t>(n));
  }
  [[nodiscard]] UrgentPages* urgent_pages() noexcept override { return this; }
  void pause() override {
    ++paused;
    says.clear();
    verdict_now = Verdict::pending;
  }
  void resume() override { ++resumed; }
  [[nodiscard]] bool lost() const noexcept override { return gone; }
  std::size_t write(Bytes bytes) noexcept override {
    const std::size_t n = std::min(bytes.size(), urgent_room);
    urgent.insert(urgent.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(n));
    urgent_room -= n;
    return n;
  }
  [[nodiscard]] bool has_room() const noexcept override { return urgent_room > 0; }
  [[nodiscard]] bool wanted() const noexcept override { return preempts; }
  void refuse() {
    verdict_now = Verdict::refused;
    error_ = make_error(ErrorClass::io, 0, "destination QEMU", "closed the connection");
  }

  Verdict verdict_now = Verdict::pending;
  std::vector<std::byte> says;
  std::vector<std::byte> got;  // from the switch on
  std::vector<std::byte> urgent;
  std::size_t urgent_room = SIZE_MAX;
  bool gone = false;
  bool preempts = true;
  int abandoned = 0;
  int paused = 0;
  int resumed = 0;

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
  StreamError on_postcopy() override { return {}; }
  void on_other_section_begin(const SectionHeader&) noexcept override {}
  std::size_t on_verbatim(Bytes bytes) noexcept override { return bytes.size(); }
  void on_other_section_end(const SectionHeader&) noexcept override {}
  std::size_t on_tail(Bytes bytes) noexcept override {
    got.insert(got.end(), bytes.begin(), bytes.end());
    return bytes.size();
  }
  StreamError error_;
};

class PostcopySession : public test::SessionFixture {
 protected:
  void SetUp() override {
    settings_.postcopy = Postcopy::relayed;
    destination_ = &there_;
    urgent_pages_ = &there_;
  }
  // Up to the switch and the package.
  void switch_over(SessionLimits limits = {}) {
    start(0, limits);
    MainStreamBuilder b;
    b.header().configuration().open_return_path().ping(1).advise();
    b.ram_start({{"ram", kRam, {}}}).ram_close().ram_part().zero("ram", 0).ram_close();
    MainStreamBuilder rest;
    rest.discard("ram", {{0, kPageBytes}}).ping(2).package(50);
    switch_ = rest.bytes();
    main_ = &connect();
    main_->give(b.bytes(), 1448);
    main_->give(switch_, 1448);
    run();
    ASSERT_EQ(session_->state(), SessionState::postcopy) << session_->error().message();
    ASSERT_TRUE(control_->relaying());
    ASSERT_EQ(there_.got, switch_);
    main_->sent.clear();
    there_.got.clear();
  }
  // A connection's break, until everything is ready for the next.
  void break_main() {
    main_->end(StreamEnd::reset);
    run();
    ASSERT_TRUE(control_->paused());
    ASSERT_EQ(session_->state(), SessionState::postcopy_paused);
    ASSERT_EQ(there_.paused, 1);
  }
  static std::vector<std::byte> recv_bitmap() {
    MainStreamBuilder b;
    b.u8(8).be16(10).be16(4).str8("ram");
    return b.take();
  }
  void shut_0() {
    const auto shut = make_shut(0);
    there_.says.assign(shut.begin(), shut.end());
    there_.verdict_now = Verdict::accepted;
  }

  PostcopyDestination there_;
  std::vector<std::byte> switch_;
  Wire* main_ = nullptr;
};

TEST_F(PostcopySession, what_each_says_gets_to_the_other_and_shut_0_ends_it) {
  switch_over();
  there_.says = bytes_of({0, 4, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0});
  const std::vector<std::byte> request = there_.says;
  run(2);
  EXPECT_EQ(main_->sent, request);
  const std::vector<std::byte> page = bytes_of({1, 2, 3, 4, 5});
  main_->give(page, 2);
  run(2);
  EXPECT_EQ(there_.got, page);
  shut_0();
  run();
  EXPECT_EQ(main_->sent.size(), request.size() + 8);
  EXPECT_TRUE(control_->telling());
  main_->end(StreamEnd::fin);
  run(40);
  EXPECT_EQ(session_->state(), SessionState::done);
  EXPECT_FALSE(control_->source_unsure());
  EXPECT_TRUE(control_->over());
  EXPECT_FALSE(main_->reset);
}

// A bitmap of a large guest: many times what a command ring holds.
TEST_F(PostcopySession, much_that_the_destination_says_at_once_gets_through_in_order) {
  switch_over();
  there_.says.resize(50'000);
  for (std::size_t i = 0; i < there_.says.size(); ++i) there_.says[i] = static_cast<std::byte>(i * 7 % 251);
  const std::vector<std::byte> wanted = there_.says;
  run(200);
  EXPECT_EQ(main_->sent, wanted);
}

TEST_F(PostcopySession, no_silence_and_no_error_of_a_multifd_channel_or_of_ours_ends_it) {
  SessionLimits limits;
  limits.stall_ns = 10 * kMs;
  limits.destination_ns = 10 * kMs;
  limits.identify_ns = 10 * kMs;
  switch_over(limits);
  run(500);
  session_->fail(make_error(ErrorClass::io, 0, "guest memory", "lost"));
  control_->cancel();
  run(50);
  EXPECT_EQ(session_->state(), SessionState::postcopy);
  EXPECT_FALSE(control_->cancellable());
  EXPECT_FALSE(main_->reset);
  EXPECT_EQ(there_.abandoned, 0);
  EXPECT_TRUE(main_->sent.empty());
}

TEST_F(PostcopySession, a_source_that_hears_shut_0_and_ends_at_once_is_no_failure) {
  switch_over();
  main_->reads = false;
  shut_0();
  run(3);
  main_->end(StreamEnd::reset);
  run(40);
  EXPECT_EQ(session_->state(), SessionState::done);
  EXPECT_TRUE(control_->source_unsure());
  EXPECT_EQ(there_.abandoned, 0);
}

// ---- A connection breaks

TEST_F(PostcopySession, the_end_of_the_sources_connection_pauses_both_and_the_source_resumes) {
  switch_over();
  break_main();
  EXPECT_TRUE(main_->reset);
  EXPECT_EQ(there_.resumed, 1);
  const std::vector<std::byte> resume = recv_bitmap();
  Wire& again = connect();
  again.give(resume, 3);
  run();
  ASSERT_TRUE(control_->relaying());
  EXPECT_EQ(session_->state(), SessionState::postcopy);
  EXPECT_EQ(there_.got, resume);
  there_.says = bytes_of({0, 5});
  run(2);
  EXPECT_EQ(again.sent, bytes_of({0, 5}));
  shut_0();
  run(3);
  again.end(StreamEnd::fin);
  run(40);
  EXPECT_EQ(session_->state(), SessionState::done);
}

TEST_F(PostcopySession, the_end_of_the_destinations_connection_resets_the_source_so_that_it_pauses) {
  switch_over();
  there_.refuse();
  run();
  EXPECT_TRUE(main_->reset);
  EXPECT_TRUE(control_->paused());
  EXPECT_EQ(there_.paused, 1);
}

// The link is away: the source's TCP has given up, and ours has not noticed.
TEST_F(PostcopySession, a_source_that_resumes_proves_that_its_old_connection_is_gone) {
  switch_over();
  const std::vector<std::byte> resume = recv_bitmap();
  Wire& again = connect();
  again.give(resume, 100);
  run(3);
  EXPECT_TRUE(main_->reset);
  main_->end(StreamEnd::local);
  run();
  EXPECT_TRUE(control_->relaying());
  EXPECT_EQ(there_.got, resume);
}

TEST_F(PostcopySession, it_breaks_and_is_mended_again_and_again) {
  switch_over();
  const std::vector<std::byte> resume = recv_bitmap();
  for (int round = 1; round <= 20; ++round) {
    main_->end(StreamEnd::reset);
    run();
    ASSERT_TRUE(control_->paused()) << round;
    main_ = &connect();
    main_->give(resume, 4);
    run();
    ASSERT_TRUE(control_->relaying()) << round;
    EXPECT_LE(session_->channels().size(), 2U);
  }
}

TEST_F(PostcopySession, a_destination_that_has_ended_ends_it_and_says_what_there_is_left) {
  switch_over();
  there_.gone = true;
  there_.refuse();
  run(40);
  EXPECT_TRUE(control_->over());
  EXPECT_EQ(session_->state(), SessionState::failed);
  EXPECT_TRUE(session_->in_postcopy());
  EXPECT_NE(session_->error().message().find("end neither QEMU"), std::string::npos)
      << session_->error().message();
}

TEST_F(PostcopySession, a_paused_one_ends_when_the_operator_wants_it) {
  switch_over();
  break_main();
  control_->cancel();
  run(10);
  EXPECT_TRUE(control_->paused());
  control_->leave_paused();
  run(40);
  EXPECT_TRUE(control_->over());
  EXPECT_EQ(session_->state(), SessionState::failed);
}

TEST_F(PostcopySession, a_stranger_does_not_resume_it) {
  switch_over();
  break_main();
  const std::vector<std::byte> resume = recv_bitmap();
  wires_.push_back(std::make_unique<Wire>());
  Wire& stranger = *wires_.back();
  stranger.handoff.peer_address = Ipv4Address{0x0a000063};
  accepted_.push_back(&stranger.handoff);
  stranger.give(resume, 100);
  run();
  EXPECT_TRUE(control_->paused());
  EXPECT_TRUE(stranger.reset);
}

TEST_F(PostcopySession, another_vm_beside_it_is_refused) {
  switch_over();
  MainStreamBuilder b;
  const std::vector<std::byte> stream = with_header(b, true);
  Wire& other = connect();
  other.give(stream, 100);
  run(40);
  EXPECT_TRUE(other.reset);
  EXPECT_TRUE(control_->relaying());
  EXPECT_FALSE(main_->reset);
}

// ---- The preempt channel

TEST_F(PostcopySession, urgent_pages_go_their_own_way_and_wait_for_room) {
  switch_over();
  there_.urgent_room = 3;
  Wire& preempt = connect();
  const std::vector<std::byte> record = bytes_of({0, 0, 0, 0, 0, 0, 0x10, 0x08, 3, 'r', 'a', 'm'});
  preempt.give(record, 5);
  run();
  EXPECT_EQ(there_.urgent.size(), 3U);
  there_.urgent_room = SIZE_MAX;
  run();
  EXPECT_EQ(there_.urgent, record);
  EXPECT_FALSE(preempt.reset);
  EXPECT_TRUE(there_.got.empty());
  // A second one is nobody's.
  Wire& other = connect();
  other.give(record, 100);
  run(40);
  EXPECT_TRUE(other.reset);
}

// Otherwise the guest would wait for ever, and nobody would know why.
TEST_F(PostcopySession, urgent_pages_for_a_destination_without_preempt_are_refused) {
  there_.preempts = false;
  switch_over();
  Wire& preempt = connect();
  const std::vector<std::byte> record = bytes_of({0, 0, 0, 0, 0, 0, 0x10, 0x08});
  preempt.give(record, 100);
  run(40);
  EXPECT_TRUE(preempt.reset);
  EXPECT_TRUE(control_->relaying());
}

TEST_F(PostcopySession, the_preempt_channel_is_made_anew_with_the_others) {
  switch_over();
  Wire& preempt = connect();
  const std::vector<std::byte> record = bytes_of({0, 0, 0, 0, 0, 0, 0x10, 0x08});
  preempt.give(record, 100);
  run();
  main_->end(StreamEnd::reset);
  preempt.end(StreamEnd::reset);
  run();
  ASSERT_TRUE(control_->paused());
  const std::vector<std::byte> resume = recv_bitmap();
  connect().give(resume, 100);
  connect().give(record, 100);
  run();
  EXPECT_TRUE(control_->relaying());
  EXPECT_EQ(there_.urgent.size(), 2 * record.size());
}

}  // namespace
}  // namespace migrx
