// --no-handoff: device state that does not end, or ends wrongly, is bounded in time and bytes.
#include "loader/destination/device_state_file.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/loader/main_stream_builder.h"

namespace migrx {
namespace {

constexpr uint64_t kSecond = 1'000'000'000;

class DeviceStateFileTest : public ::testing::Test {
 protected:
  static std::vector<std::byte> tail() {
    test::MainStreamBuilder b;
    b.device_tail(5000);
    return b.take();
  }
  // What main's worker does; returns the bytes taken.
  static std::size_t give(DeviceStateFile& file, Bytes bytes) { return file.events().on_tail(bytes); }
  static void end_ram(DeviceStateFile& file) { file.events().on_ram_complete(); }
  DeviceStateLimits limits_{.stall_ns = 10 * kSecond, .bytes_max = 8 << 20};
};

TEST_F(DeviceStateFileTest, whole_state_is_accepted_at_its_last_byte) {
  DeviceStateFile file("", limits_);
  end_ram(file);
  const std::vector<std::byte> whole = tail();
  EXPECT_EQ(give(file, Bytes{whole}.first(whole.size() - 1)), whole.size() - 1);
  file.do_work(kSecond);
  EXPECT_EQ(file.verdict(), Verdict::pending);
  give(file, Bytes{whole}.last(1));
  file.do_work(2 * kSecond);
  EXPECT_EQ(file.verdict(), Verdict::accepted);
}

// Any bit of what marks the end may be wrong: the magic, the length, or bytes that are missing.
TEST_F(DeviceStateFileTest, a_damaged_end_is_refused_after_its_time) {
  const std::vector<std::byte> whole = tail();
  const std::size_t json = std::string_view("{\"page_size\": 4096, \"devices\": []}").size();
  for (std::size_t back = json; back < json + 7; ++back) {  // '{', be32, 06, 00
    SCOPED_TRACE(back);
    DeviceStateFile file("", limits_);
    end_ram(file);
    std::vector<std::byte> damaged = whole;
    damaged[damaged.size() - back] ^= std::byte{0x10};
    give(file, damaged);
    file.do_work(kSecond);
    file.source_silent(10 * kSecond - 1);
    EXPECT_EQ(file.verdict(), Verdict::pending);
    file.source_silent(10 * kSecond);
    ASSERT_EQ(file.verdict(), Verdict::refused);
    EXPECT_EQ(file.error().error_class, ErrorClass::timed_out);
    EXPECT_EQ(file.error().offset, whole.size());
    EXPECT_NE(file.error().message().find("VM description"), std::string::npos) << file.error().message();
  }
}

TEST_F(DeviceStateFileTest, state_that_never_begins_is_refused_after_its_time) {
  DeviceStateFile file("", limits_);
  end_ram(file);
  file.do_work(kSecond);
  file.do_work(1000 * kSecond);  // the session tells what counts as silence
  file.source_silent(10 * kSecond - 1);
  EXPECT_EQ(file.verdict(), Verdict::pending);
  file.source_silent(10 * kSecond);
  EXPECT_EQ(file.verdict(), Verdict::refused);
}

TEST_F(DeviceStateFileTest, what_was_accepted_stays_so) {
  DeviceStateFile file("", limits_);
  end_ram(file);
  give(file, tail());
  file.do_work(kSecond);
  file.source_silent(100 * kSecond);
  EXPECT_EQ(file.verdict(), Verdict::accepted);
}

TEST_F(DeviceStateFileTest, state_without_end_is_cut_off) {
  DeviceStateFile file("", limits_);
  end_ram(file);
  const std::vector<std::byte> noise(3 << 20, std::byte{6});
  uint64_t taken = 0;
  for (uint64_t turn = 1; file.verdict() == Verdict::pending; ++turn) {
    ASSERT_LT(turn, 20U);
    const std::size_t n = give(file, noise);
    EXPECT_LE(n, 1U << 20) << "more than the queue holds";
    taken += n;
    file.do_work(turn * kSecond);
  }
  EXPECT_EQ(file.verdict(), Verdict::refused);
  EXPECT_EQ(file.error().error_class, ErrorClass::bad_stream);
  EXPECT_LE(file.bytes(), limits_.bytes_max);
  EXPECT_LE(taken, limits_.bytes_max + (1U << 20));
}

}  // namespace
}  // namespace migrx
