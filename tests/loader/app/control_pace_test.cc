#include "loader/app/control_pace.h"

#include <gtest/gtest.h>

namespace migrx {
namespace {

TEST(ControlPace, looks_again_at_once_behind_work) {
  ControlPace pace;
  for (const SessionState state :
       {SessionState::precopy, SessionState::switchover, SessionState::device_state})
    EXPECT_EQ(pace.pause_us(state, 1), 0);
}

TEST(ControlPace, looks_more_often_once_the_guest_stands_still) {
  ControlPace pace;
  EXPECT_EQ(pace.pause_us(SessionState::precopy, 0), ControlPace::kOrdinaryUs);
  EXPECT_EQ(pace.pause_us(SessionState::switchover, 0), ControlPace::kSwitchoverUs);
  EXPECT_EQ(pace.pause_us(SessionState::switchover, 0), ControlPace::kSwitchoverUs);
  EXPECT_EQ(pace.pause_us(SessionState::device_state, 0), ControlPace::kDeviceStateUs);
}

TEST(ControlPace, a_gap_in_device_state_delays_what_follows_by_no_more_than_its_length) {
  ControlPace pace;
  int waited_us = 0;
  for (int look = 0; look < 20; ++look) {
    const int pause = pace.pause_us(SessionState::device_state, 0);
    EXPECT_LE(pause, waited_us + ControlPace::kDeviceStateUs);
    EXPECT_LE(pause, ControlPace::kDeviceStateUsMax);
    waited_us += pause;
  }
  EXPECT_EQ(pace.pause_us(SessionState::device_state, 0), ControlPace::kDeviceStateUsMax);
}

TEST(ControlPace, bytes_of_device_state_bring_the_short_pauses_back) {
  ControlPace pace;
  for (int look = 0; look < 10; ++look) (void)pace.pause_us(SessionState::device_state, 0);
  EXPECT_EQ(pace.pause_us(SessionState::device_state, 3), 0);
  EXPECT_EQ(pace.pause_us(SessionState::device_state, 0), ControlPace::kDeviceStateUs);
}

}  // namespace
}  // namespace migrx
