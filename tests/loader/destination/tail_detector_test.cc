#include "loader/destination/tail_detector.h"

#include <gtest/gtest.h>

#include <string>

namespace migrx {
namespace {

Bytes bytes_of(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

std::string description(const std::string& json) {
  std::string out{'\0', '\x06', '\0', '\0', '\0', static_cast<char>(json.size())};
  return out + json;
}

TEST(TailDetector, ends_with_the_vm_description_whatever_the_split) {
  const std::string tail =
      std::string("\x04 device state \0\x06 more", 22) + description("{\"devices\": []}");
  for (std::size_t split = 1; split < tail.size(); ++split) {
    TailDetector detector;
    detector.feed(bytes_of(tail.substr(0, split)));
    EXPECT_FALSE(detector.complete()) << split;
    detector.feed(bytes_of(tail.substr(split)));
    EXPECT_TRUE(detector.complete()) << split;
  }
}

TEST(TailDetector, one_byte_at_a_time_is_complete_at_the_last_only) {
  const std::string tail = "abc" + description("{\"a\": 1}");
  TailDetector detector;
  for (std::size_t i = 0; i < tail.size(); ++i) {
    detector.feed(bytes_of(tail.substr(i, 1)));
    EXPECT_EQ(detector.complete(), i + 1 == tail.size()) << i;
  }
}

TEST(TailDetector, a_pattern_by_chance_is_taken_back_when_more_comes) {
  TailDetector detector;
  detector.feed(bytes_of("x" + description("{}")));
  EXPECT_TRUE(detector.complete());
  detector.feed(bytes_of("y"));
  EXPECT_FALSE(detector.complete());
  detector.feed(bytes_of(description("{\"b\": 2}")));
  EXPECT_TRUE(detector.complete());
}

}  // namespace
}  // namespace migrx
