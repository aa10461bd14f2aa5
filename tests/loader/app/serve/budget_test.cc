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

}  // namespace
}  // namespace migrx
