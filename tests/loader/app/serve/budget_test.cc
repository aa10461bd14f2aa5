#include "loader/app/serve/budget.h"

#include <gtest/gtest.h>

namespace migrx {
namespace {

constexpr Budget kWhole{4, 100, 1000};

TEST(Budget, what_fits_exactly_is_taken) {
  EXPECT_EQ(no_room(kWhole, {3, 90, 900}, {1, 10, 100}), "");
}

TEST(Budget, each_part_is_refused_by_its_own_numbers) {
  EXPECT_NE(no_room(kWhole, {4, 0, 0}, {1, 1, 1}).find("4 of 4 migrations"), std::string::npos);
  const std::string places = no_room(kWhole, {1, 95, 0}, {1, 6, 1});
  EXPECT_NE(places.find("95 of 100 connections"), std::string::npos) << places;
  EXPECT_NE(places.find("may need 6"), std::string::npos) << places;
  EXPECT_NE(places.find("--connections-max"), std::string::npos) << places;
  const std::string memory = no_room({4, 100, 8 << 20}, {1, 10, 7 << 20}, {1, 1, 2 << 20});
  EXPECT_NE(memory.find("7 of 8 MiB"), std::string::npos) << memory;
}

// What is asked for is somebody else's word: it may be any number.
TEST(Budget, nothing_wraps) {
  EXPECT_NE(no_room(kWhole, {1, 1, 1}, {1, 1, UINT64_MAX}), "");
  EXPECT_NE(no_room(kWhole, {1, UINT64_MAX, 1}, {1, UINT64_MAX, 1}), "");
  EXPECT_NE(no_room({UINT32_MAX, 1, 1}, {UINT32_MAX, 0, 0}, {UINT32_MAX, 0, 0}), "");
}

Room room(const Budget& promised, const Budget& asked, WaitingLine line, bool wait, std::string& why) {
  why.clear();
  return room_for(kWhole, promised, asked, line, wait, why);
}

TEST(Budget, who_would_rather_wait_is_not_refused) {
  std::string why;
  EXPECT_EQ(room({3, 0, 0}, {1, 1, 1}, {}, false, why), Room::now);
  EXPECT_EQ(room({3, 0, 0}, {1, 1, 1}, {}, true, why), Room::now);
  EXPECT_EQ(room({4, 0, 0}, {1, 1, 1}, {}, false, why), Room::none);
  EXPECT_NE(why.find("--wait"), std::string::npos) << why;
  EXPECT_EQ(room({4, 0, 0}, {1, 1, 1}, {}, true, why), Room::later);
  EXPECT_NE(why.find("4 of 4"), std::string::npos) << why;
}

TEST(Budget, nobody_overtakes_who_waits) {
  std::string why;
  EXPECT_EQ(room({1, 0, 0}, {1, 1, 1}, {2, 2, 0}, false, why), Room::none);
  EXPECT_NE(why.find("2 migrations wait"), std::string::npos) << why;
  EXPECT_EQ(room({1, 0, 0}, {1, 1, 1}, {2, 2, 0}, true, why), Room::later);
}

TEST(Budget, who_waits_for_a_port_takes_nobodys_room_and_waits_for_that) {
  std::string why;
  EXPECT_EQ(room({1, 0, 0}, {1, 1, 1}, {1, 0, 0}, false, why), Room::now);
  why = "the port";
  EXPECT_EQ(room_for(kWhole, {1, 0, 0}, {1, 1, 1}, {}, true, why), Room::later);
  EXPECT_EQ(why, "the port");
  EXPECT_EQ(room_for(kWhole, {1, 0, 0}, {1, 1, 1}, {}, false, why), Room::none);
}

TEST(Budget, what_never_fits_waits_for_nothing) {
  std::string why;
  for (const bool wait : {true, false}) {
    EXPECT_EQ(room({4, 50, 0}, {1, 101, 1}, {}, wait, why), Room::none);
    EXPECT_EQ(why.find("--wait"), std::string::npos) << why;
  }
  EXPECT_NE(why.find("may need 101"), std::string::npos) << why;
}

TEST(Budget, those_who_wait_are_bounded) {
  std::string why;
  EXPECT_EQ(room({4, 0, 0}, {1, 1, 1}, {kWaitingMax - 1, 1, 0}, true, why), Room::later);
  EXPECT_EQ(room({4, 0, 0}, {1, 1, 1}, {kWaitingMax, 1, 0}, true, why), Room::none);
  EXPECT_NE(why.find("128 migrations wait"), std::string::npos) << why;
  EXPECT_EQ(room({4, 0, 0}, {1, 1, 1}, {20, 20, kWaitingOfUserMax}, true, why), Room::none);
  EXPECT_NE(why.find("16 migrations wait already for this user"), std::string::npos) << why;
}

}  // namespace
}  // namespace migrx
