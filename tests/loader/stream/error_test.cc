#include "loader/stream/error.h"

#include <gtest/gtest.h>

#include <set>

namespace migrx {
namespace {

TEST(StreamError, names_channel_offset_field_values_and_what_to_do) {
  StreamError error =
      make_error_values(ErrorClass::bad_stream, 4711, "RAM section: offset", 9, 8, "look there");
  error.channel = ChannelName{MultifdId{3}};
  EXPECT_EQ(error.message(), "multifd 3: byte 4711: RAM section: offset: found 9, allowed 8: look there");
  error = make_error(ErrorClass::io, 0, "file", "%s is %d", "this", 5);
  EXPECT_EQ(error.message(), "unidentified: byte 0: file: this is 5");
  error.channel = ChannelName::main();
  error.text[0] = '\0';
  EXPECT_EQ(error.message(), "main: byte 0: file");
}

TEST(StreamError, is_an_error_unless_of_class_none) {
  EXPECT_FALSE(StreamError{});
  EXPECT_TRUE(make_error(ErrorClass::cancelled, 0, "operator", "%s", ""));
}

TEST(StreamError, a_text_too_long_is_cut) {
  const std::string endless(10'000, 'x');
  const StreamError error = make_error(ErrorClass::io, 0, "file", "%s", endless.c_str());
  EXPECT_EQ(std::string(error.text.data()), endless.substr(0, error.text.size() - 1));
  const StreamError values = make_error_values(ErrorClass::io, 0, "file", 1, 2, endless.c_str());
  EXPECT_EQ(std::string(values.text.data()), endless.substr(0, values.text.size() - 1));
}

TEST(StreamError, each_class_has_a_name_of_its_own_for_the_report) {
  std::set<std::string> names;
  for (const ErrorClass error_class :
       {ErrorClass::none, ErrorClass::bad_stream, ErrorClass::truncated, ErrorClass::mismatch,
        ErrorClass::unsupported, ErrorClass::io, ErrorClass::timed_out, ErrorClass::cancelled})
    names.insert(to_string(error_class));
  EXPECT_EQ(names.size(), 8U);
  EXPECT_EQ(names.count("?"), 0U);
}

}  // namespace
}  // namespace migrx
