#include "loader/tls/psk_keys.h"

#include <gtest/gtest.h>

namespace migrx {
namespace {

TEST(PskKeys, lines_are_read_as_psktool_writes_them) {
  PskKeys keys;
  ASSERT_EQ(keys.parse("# made by hand: yes\n\nqemu:00fF\r\nqemu:1111\n#0a0b:22\nno colon\nlast:33"), "");
  ASSERT_NE(keys.find("qemu"), nullptr);
  EXPECT_EQ(*keys.find("qemu"), (std::vector<uint8_t>{0x00, 0xff})) << "the first line of a user counts";
  ASSERT_NE(keys.find("\n\v"), nullptr);
  EXPECT_EQ(*keys.find("\n\v"), std::vector<uint8_t>{0x22});
  ASSERT_NE(keys.find("last"), nullptr);
  EXPECT_EQ(keys.find("nobody"), nullptr);
  EXPECT_EQ(keys.find(""), nullptr);
}

TEST(PskKeys, what_is_no_key_is_refused_with_its_line_and_without_the_secret) {
  for (const char* const text : {"a:11\nb:123\n", "a:11\nb:\n", "a:11\nb:12x4\n", "a:11\n:1234\n"}) {
    PskKeys keys;
    const std::string problem = keys.parse(text);
    EXPECT_NE(problem.find("line 2"), std::string::npos) << text << problem;
    EXPECT_EQ(problem.find("12"), std::string::npos) << problem;
  }
  for (const char* const text : {"", "\n\n", "# nothing\n", "no colon"}) {
    PskKeys keys;
    EXPECT_NE(keys.parse(text).find("psktool"), std::string::npos) << text;
  }
}

}  // namespace
}  // namespace migrx
