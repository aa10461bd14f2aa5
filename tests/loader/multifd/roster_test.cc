#include "loader/multifd/multifd_roster.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "loader/multifd/decoder.h"

namespace migrx {
namespace {

MultifdInit channel(uint8_t id, uint8_t guest = 7) {
  MultifdInit init;
  init.id = id;
  init.uuid.fill(std::byte{guest});
  return init;
}

TEST(MultifdRoster, each_id_once_and_all_of_one_guest) {
  MultifdRoster roster(2);
  EXPECT_FALSE(roster.uuid().has_value());
  EXPECT_FALSE(roster.claim(channel(1), 0));
  EXPECT_EQ(roster.claimed(), 1U);
  EXPECT_EQ(roster.uuid(), channel(1).uuid);

  const StreamError twice = roster.claim(channel(1), 5);
  EXPECT_EQ(twice.error_class, ErrorClass::bad_stream);
  EXPECT_EQ(twice.offset, 5U);
  EXPECT_STREQ(twice.field, "multifd init packet: id");

  const StreamError stranger = roster.claim(channel(0, 8), 0);
  EXPECT_EQ(stranger.error_class, ErrorClass::mismatch);
  EXPECT_STREQ(stranger.field, "multifd init packet: uuid");

  const StreamError beyond = roster.claim(channel(2), 0);
  EXPECT_EQ(beyond.error_class, ErrorClass::mismatch);
  EXPECT_NE(beyond.message().find("multifd-channels is 2 here"), std::string::npos) << beyond.message();

  EXPECT_EQ(roster.claimed(), 1U);
  EXPECT_FALSE(roster.claim(channel(0), 0));
  EXPECT_EQ(roster.claimed(), 2U);
}

TEST(DecodeStatus, each_says_something_of_its_own) {
  std::set<std::string> texts;
  for (const DecodeStatus status :
       {DecodeStatus::ok, DecodeStatus::corrupt, DecodeStatus::stream_ended, DecodeStatus::too_little,
        DecodeStatus::too_much, DecodeStatus::bad_length, DecodeStatus::window_too_large,
        DecodeStatus::out_of_memory})
    texts.insert(to_string(status));
  EXPECT_EQ(texts.size(), 8U);
  EXPECT_EQ(texts.count("?"), 0U);
}

TEST(PageDecoder, none_where_payloads_are_pages_or_not_supported) {
  const PageKernels& kernels = *supported_page_kernels().front();
  for (const MultifdCompression method : {MultifdCompression::none, MultifdCompression::qatzip})
    EXPECT_EQ(make_page_decoder(method, kernels, {}), nullptr);
  for (const MultifdCompression method : {MultifdCompression::zlib, MultifdCompression::zstd,
                                          MultifdCompression::qpl, MultifdCompression::uadk}) {
    EXPECT_TRUE(is_supported(method));
    EXPECT_NE(make_page_decoder(method, kernels, {}), nullptr);
  }
  EXPECT_FALSE(is_supported(MultifdCompression::qatzip));
}

}  // namespace
}  // namespace migrx
