// The control thread's part of COLO: messages on the wire, the lost source, failover into a destination.
#include <gtest/gtest.h>

#include <deque>
#include <vector>

#include "loader/destination/device_state_file.h"
#include "loader/session/session.h"
#include "loader/session/session_control.h"
#include "tests/loader/main_stream_builder.h"

namespace migrx {
namespace {

using test::MainStreamBuilder;
using test::make_page;

constexpr uint64_t kMs = 1'000'000;
constexpr uint64_t kRam = 16 * kPageBytes;

std::vector<std::byte> codes(std::initializer_list<uint8_t> values) {
  std::vector<std::byte> out;
  for (const uint8_t v : values)
    for (const uint8_t b : {uint8_t{0}, uint8_t{0}, uint8_t{0}, v}) out.push_back(static_cast<std::byte>(b));
  return out;
}

class ColoSessionTest : public ::testing::Test {
 protected:
  ColoSessionTest() {
    std::string problem;
    const PageKernels* const kernels = select_page_kernels(problem);
    compress_ = std::make_unique<CompressJobs>(0, 4, *kernels);
    colo_ = std::make_unique<ColoSecondary>(state_file_.events(), blocks_.list(), *kernels,
                                            [] { return uint64_t{1} << 40; });
    EXPECT_EQ(colo_->reserve(), "");
    SessionSettings settings;
    settings.main.x_colo = true;
    settings.now_ns = [this] { return now_; };
    settings.colo = colo_.get();
    session_ = std::make_unique<Session>(settings, blocks_, *colo_, *kernels, *compress_);
    control_ = std::make_unique<SessionControl>(
        *session_, state_file_, [this]() -> Handoff* { return std::exchange(accepted_, nullptr); },
        std::vector<LoaderWorker*>{&worker_}, SessionLimits{});
  }
  void give(MainStreamBuilder& b) {
    buffers_.push_back(b.take());
    main_.push(
        {buffers_.back().data(), nullptr, static_cast<uint32_t>(buffers_.back().size()), StreamEnd::none});
    main_.publish();
  }
  void run(int turns = 20) {
    for (int i = 0; i < turns; ++i) {
      now_ += kMs;
      control_->do_work(now_);
      for (int k = 0; k < 4; ++k) worker_.do_work(now_);
      for (ConnectionCommand command; main_.take_command(command);) {
        if (command.kind == ConnectionCommand::Kind::reset) reset_ = true;
        if (command.kind != ConnectionCommand::Kind::send) continue;
        sent_.insert(sent_.end(), command.bytes.begin(), command.bytes.begin() + command.length);
        main_.bytes_acknowledged.add(command.length);
      }
    }
  }
  void migrate() {
    b_.header().configuration().command(8).ram_start({{"ram", kRam, {}}}).ram_close();
    b_.ram_end().page("ram", 0, make_page(1)).ram_close().device_tail();
    give(b_);
    run();
  }
  void checkpoint(uint64_t seed) {
    b_.be32(1).be32(3).ram_end().page("ram", 0, make_page(seed)).ram_close().u8(0);
    b_.be32(4).be64(3).u8(4).u8(1).u8(0);
    give(b_);
    run();
  }
  [[nodiscard]] bool ram_is(uint64_t seed) const {
    return std::memcmp(blocks_.list().find("ram")->host(), make_page(seed).data(), kPageBytes) == 0;
  }

  uint64_t now_ = 1'000'000'000;
  BlockTable blocks_{1 << 20};
  DeviceStateFile state_file_{""};
  std::unique_ptr<CompressJobs> compress_;
  std::unique_ptr<ColoSecondary> colo_;
  std::unique_ptr<Session> session_;
  std::unique_ptr<SessionControl> control_;
  LoaderWorker worker_{16};
  Handoff main_{256};
  Handoff* accepted_ = &main_;
  std::deque<std::vector<std::byte>> buffers_;
  std::vector<std::byte> sent_;
  bool reset_ = false;
  MainStreamBuilder b_;
};

TEST_F(ColoSessionTest, the_dialogue_is_spoken_on_the_wire_and_ends_by_failover) {
  EXPECT_FALSE(control_->fail_over());
  migrate();
  EXPECT_EQ(session_->state(), SessionState::colo) << session_->error().message();
  checkpoint(2);
  checkpoint(3);
  EXPECT_EQ(sent_, codes({0, 2, 5, 6, 2, 5, 6}));
  EXPECT_EQ(state_file_.bytes(), 0U);
  EXPECT_TRUE(control_->fail_over());
  run();
  EXPECT_TRUE(control_->over());
  EXPECT_TRUE(reset_);
  EXPECT_EQ(session_->state(), SessionState::done);
  EXPECT_EQ(state_file_.verdict(), Verdict::accepted);
  EXPECT_EQ(state_file_.bytes(), 3U + 7);
  EXPECT_TRUE(ram_is(3));
}

TEST_F(ColoSessionTest, a_lost_source_waits_for_the_operators_decision) {
  migrate();
  checkpoint(2);
  b_.be32(1).be32(3).ram_end().page("ram", 0, make_page(9));
  give(b_);
  main_.push_end(StreamEnd::reset);
  main_.publish();
  run(200);
  EXPECT_FALSE(control_->over());
  EXPECT_TRUE(colo_->source_lost());
  EXPECT_EQ(session_->state(), SessionState::colo);
  EXPECT_TRUE(control_->fail_over());
  run();
  EXPECT_EQ(session_->state(), SessionState::done);
  EXPECT_TRUE(ram_is(2));
}

TEST_F(ColoSessionTest, a_primary_that_breaks_the_rules_is_reset_and_the_guest_kept) {
  migrate();
  b_.be32(4);
  give(b_);
  run(50);
  EXPECT_TRUE(reset_);
  EXPECT_EQ(colo_->loss().error_class, ErrorClass::bad_stream);
  EXPECT_EQ(session_->state(), SessionState::colo);
  EXPECT_TRUE(control_->fail_over());
  run();
  EXPECT_EQ(session_->state(), SessionState::done);
  EXPECT_TRUE(ram_is(1));
}

TEST_F(ColoSessionTest, the_operator_may_drop_it) {
  migrate();
  checkpoint(2);
  control_->cancel();
  run(400);
  EXPECT_TRUE(control_->over());
  EXPECT_EQ(session_->error().error_class, ErrorClass::cancelled);
  EXPECT_TRUE(reset_);
}

// Closed inside the initial migration, nothing is there to decide about.
TEST_F(ColoSessionTest, a_source_lost_before_colo_is_an_ordinary_failure) {
  b_.header().configuration().command(8).ram_start({{"ram", kRam, {}}}).ram_close();
  give(b_);
  main_.push_end(StreamEnd::fin);
  main_.publish();
  run(400);
  EXPECT_EQ(session_->state(), SessionState::failed);
  EXPECT_EQ(session_->error().error_class, ErrorClass::truncated);
}

}  // namespace
}  // namespace migrx
