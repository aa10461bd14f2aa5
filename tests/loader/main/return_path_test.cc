#include "loader/main/return_path.h"

#include <gtest/gtest.h>

#include <vector>

namespace migrx {
namespace {

std::vector<std::byte> bytes(std::initializer_list<int> values) {
  std::vector<std::byte> out;
  for (const int v : values) out.push_back(static_cast<std::byte>(v));
  return out;
}

// The bytes seen from QEMU destinations: 00 02 00 04 00 00 00 01 and 00 01 00 04 00 00 00 00.
TEST(ReturnPath, builders_write_the_bytes_qemu_writes) {
  const auto pong = make_pong(1);
  EXPECT_EQ(bytes({0, 2, 0, 4, 0, 0, 0, 1}), std::vector<std::byte>(pong.begin(), pong.end()));
  const auto shut = make_shut(0);
  EXPECT_EQ(bytes({0, 1, 0, 4, 0, 0, 0, 0}), std::vector<std::byte>(shut.begin(), shut.end()));
  const auto ack = make_switchover_ack();
  EXPECT_EQ(bytes({0, 7, 0, 0}), std::vector<std::byte>(ack.begin(), ack.end()));
}

TEST(ReturnPath, reader_takes_messages_torn_at_every_byte) {
  const auto stream = bytes({0, 2, 0, 4, 0, 0, 0, 9, 0, 7, 0, 0, 0, 1, 0, 4, 0, 0, 0, 3});
  for (std::size_t step = 1; step <= stream.size(); ++step) {
    ReturnPathReader reader;
    std::vector<ReturnPathMessage> seen;
    for (std::size_t at = 0; at < stream.size(); at += step) {
      reader.feed(Bytes(stream).subspan(at, std::min(step, stream.size() - at)));
      ReturnPathMessage message;
      while (reader.next(message)) seen.push_back(message);
      ASSERT_FALSE(reader.error());
    }
    ASSERT_EQ(3u, seen.size()) << step;
    EXPECT_EQ(ReturnPathType::pong, seen[0].type);
    EXPECT_EQ(9u, seen[0].value);
    EXPECT_EQ(ReturnPathType::switchover_ack, seen[1].type);
    EXPECT_EQ(ReturnPathType::shut, seen[2].type);
    EXPECT_EQ(3u, seen[2].value);
    EXPECT_TRUE(reader.shut_seen());
    EXPECT_FALSE(reader.mid_message());
  }
}

TEST(ReturnPath, reader_refuses_wrong_lengths_types_and_anything_behind_shut) {
  const struct {
    std::vector<std::byte> stream;
    ErrorClass expected;
  } cases[] = {
      {bytes({0, 2, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0}), ErrorClass::bad_stream},  // PONG of length 8
      {bytes({0, 1, 0, 0}), ErrorClass::bad_stream},                          // SHUT without its value
      {bytes({0, 7, 0, 1, 0}), ErrorClass::bad_stream},                       // ACK with payload
      {bytes({0, 0, 0, 0}), ErrorClass::bad_stream},                          // INVALID
      {bytes({0, 8, 0, 0}), ErrorClass::bad_stream},                          // unknown
      {bytes({0xff, 0xff, 0xff, 0xff}), ErrorClass::bad_stream},              // noise
      {bytes({0, 4, 0, 12}), ErrorClass::unsupported},                        // REQ_PAGES
      {bytes({0, 1, 0, 4, 0, 0, 0, 0, 0, 2, 0, 4}), ErrorClass::bad_stream},  // PONG behind SHUT
  };
  for (const auto& c : cases) {
    ReturnPathReader reader;
    reader.feed(c.stream);
    ReturnPathMessage message;
    while (reader.next(message)) {
    }
    EXPECT_EQ(c.expected, reader.error().error_class) << reader.error().message();
    EXPECT_FALSE(reader.next(message));
  }
}

TEST(ReturnPath, reader_knows_when_it_is_inside_a_message) {
  const auto stream = bytes({0, 2, 0, 4, 0, 0});
  ReturnPathReader reader;
  ReturnPathMessage message;
  EXPECT_FALSE(reader.mid_message());
  reader.feed(stream);
  EXPECT_FALSE(reader.next(message));
  EXPECT_TRUE(reader.mid_message());
}

}  // namespace
}  // namespace migrx
