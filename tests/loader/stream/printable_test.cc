#include "loader/stream/printable.h"

#include <gtest/gtest.h>

#include "loader/stream/error.h"

namespace migrx {
namespace {

TEST(Printable, ordinary_text_stays_as_it_is) {
  EXPECT_EQ(printable("0000:00:03.0/virtio-net 'a' ~"), "0000:00:03.0/virtio-net 'a' ~");
  EXPECT_EQ(printable("Größe \xe2\x82\xac"), "Größe \xe2\x82\xac");
}

TEST(Printable, nothing_that_steers_a_terminal_passes) {
  EXPECT_EQ(printable("a\x1b[2J\x07z"), "a?[2J?z");
  EXPECT_EQ(printable(std::string_view("\0\r\n\t\x7f", 5)), "?????");
  EXPECT_EQ(printable("one\ntwo\r", true), "one\ntwo?");
  // C1: as UTF-8, and as bytes that are none.
  EXPECT_EQ(printable("\xc2\x9b"
                      "1m"),
            "??1m");
  EXPECT_EQ(printable("\x9b"
                      "1m\xff"),
            "?1m?");
  // Right-to-left override, zero width space, an overlong escape, a surrogate, a torn sequence.
  EXPECT_EQ(printable("\xe2\x80\xae|\xe2\x80\x8b|\xc0\x9b|\xed\xa0\x80|\xe2\x82"), "???|???|??|???|??");
}

TEST(Printable, every_byte_alone_is_printable_or_a_question_mark) {
  for (int b = 0; b < 256; ++b) {
    const char c = static_cast<char>(b);
    const std::string out = printable({&c, 1});
    EXPECT_EQ(out, b >= 0x20 && b < 0x7f ? std::string(1, c) : "?") << b;
  }
}

// By construction: whoever formats an error of names from the wire need not think of it.
TEST(Printable, an_errors_text_is) {
  const StreamError error =
      make_error(ErrorClass::bad_stream, 0, "section", "device '%s'", "\x1b]0;gone\x07");
  EXPECT_STREQ(error.text.data(), "device '?]0;gone?'");
  const StreamError values = make_error_values(ErrorClass::bad_stream, 0, "x", 1, 2, "\x1b[31m");
  EXPECT_STREQ(values.text.data(), "?[31m");
  // Cut off inside a character.
  const StreamError longest =
      make_error(ErrorClass::bad_stream, 0, "x", "%s\xe2\x82\xac", std::string(317, 'a').c_str());
  EXPECT_EQ(longest.message().find('\xe2'), std::string::npos);
}

}  // namespace
}  // namespace migrx
