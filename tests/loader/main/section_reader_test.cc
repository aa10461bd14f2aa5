// Headers and footers of sections, at every place where a stream may be torn.
#include "loader/main/section_footer.h"
#include "loader/main/section_header.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace migrx {
namespace {

std::vector<std::byte> bytes_of(std::initializer_list<int> values) {
  std::vector<std::byte> bytes;
  for (const int value : values) bytes.push_back(static_cast<std::byte>(value));
  return bytes;
}

// What a reader answers to `stream`, fed in two pieces; how many bytes it left.
struct Answer {
  Step step = Step::need_more;
  std::size_t left = 0;
  StreamError error;
};

template <class Read>
Answer answer_to(const std::vector<std::byte>& stream, std::size_t torn_at, Read read) {
  ByteReader in(512);
  Answer answer;
  in.feed(Bytes{stream}.first(torn_at));
  answer.step = read(in, answer.error);
  if (answer.step == Step::need_more) {
    in.feed(Bytes{stream}.subspan(torn_at - in.available()));
    answer.step = read(in, answer.error);
    answer.left = in.available();
  } else {
    answer.left = in.available() + stream.size() - torn_at;
  }
  return answer;
}

// Section 7, 'ram', instance 1, version 4; then a byte of its body.
const std::vector<std::byte> kStart = bytes_of({0, 0, 0, 7, 3, 'r', 'a', 'm', 0, 0, 0, 1, 0, 0, 0, 4, 0xaa});

TEST(SectionHeader, of_a_start_is_read_wherever_it_is_torn_and_kept_as_it_came) {
  for (std::size_t torn_at = 0; torn_at <= kStart.size(); ++torn_at) {
    SectionHeaderReader reader;
    reader.begin(SectionType::start, 100);
    const Answer answer = answer_to(
        kStart, torn_at, [&](ByteReader& in, StreamError& error) { return reader.read(in, error); });
    ASSERT_EQ(answer.step, Step::done) << torn_at;
    EXPECT_EQ(answer.left, 1U) << torn_at;
    EXPECT_EQ(reader.header().type, SectionType::start);
    EXPECT_EQ(reader.header().section_id, 7U);
    EXPECT_EQ(reader.header().idstr, "ram");
    EXPECT_EQ(reader.header().instance_id, 1U);
    EXPECT_EQ(reader.header().version_id, 4U);
    std::vector<std::byte> whole = bytes_of({1});
    whole.insert(whole.end(), kStart.begin(), kStart.end() - 1);
    EXPECT_TRUE(std::equal(whole.begin(), whole.end(), reader.bytes().begin(), reader.bytes().end()));
  }
}

TEST(SectionHeader, of_a_part_is_its_number_alone) {
  SectionHeaderReader reader;
  reader.begin(SectionType::start, 0);
  ASSERT_EQ(
      answer_to(kStart, 3, [&](ByteReader& in, StreamError& error) { return reader.read(in, error); }).step,
      Step::done);
  reader.begin(SectionType::part, 50);
  const Answer answer = answer_to(bytes_of({0, 0, 1, 2, 9}), 2,
                                  [&](ByteReader& in, StreamError& error) { return reader.read(in, error); });
  EXPECT_EQ(answer.step, Step::done);
  EXPECT_EQ(answer.left, 1U);
  EXPECT_EQ(reader.header().section_id, 258U);
  EXPECT_TRUE(reader.header().idstr.empty());  // nothing of the section before
  EXPECT_EQ(reader.bytes().size(), 5U);
  EXPECT_EQ(reader.at(), 50U);
}

TEST(SectionHeader, has_a_name_of_255_bytes_at_most_and_one_at_least) {
  std::vector<std::byte> longest = bytes_of({0, 0, 0, 7, 255});
  longest.insert(longest.end(), 255, std::byte{'n'});
  longest.insert(longest.end(), 8, std::byte{1});
  SectionHeaderReader reader;
  reader.begin(SectionType::full, 0);
  EXPECT_EQ(
      answer_to(longest, 100, [&](ByteReader& in, StreamError& error) { return reader.read(in, error); })
          .step,
      Step::done);
  EXPECT_EQ(reader.header().idstr.size(), 255U);
  EXPECT_EQ(reader.bytes().size(), 1U + longest.size());
  reader.begin(SectionType::full, 60);
  const Answer empty = answer_to(bytes_of({0, 0, 0, 7, 0}), 1,
                                 [&](ByteReader& in, StreamError& error) { return reader.read(in, error); });
  EXPECT_EQ(empty.step, Step::failed);
  EXPECT_EQ(empty.error.offset, 60U);
}

Answer end_of(SectionFooterReader& reader, const std::vector<std::byte>& stream, std::size_t torn_at) {
  return answer_to(stream, torn_at,
                   [&](ByteReader& in, StreamError& error) { return reader.read(in, 7, "ram", error); });
}

TEST(SectionFooter, the_first_one_tells_whether_there_are_any) {
  const std::vector<std::byte> footer = bytes_of({0x7e, 0, 0, 0, 7, 2});
  for (std::size_t torn_at = 0; torn_at <= footer.size(); ++torn_at) {
    SectionFooterReader reader;
    const Answer answer = end_of(reader, footer, torn_at);
    EXPECT_EQ(answer.step, Step::done) << torn_at;
    EXPECT_EQ(answer.left, 1U) << torn_at;
    EXPECT_TRUE(reader.present());
    // Then each section must have one.
    EXPECT_EQ(end_of(reader, bytes_of({2, 0, 0, 0, 7}), 1).step, Step::failed);
  }
}

TEST(SectionFooter, where_there_is_none_nothing_is_taken) {
  for (const int type : {0, 1, 2, 3, 4, 8}) {
    SectionFooterReader reader;
    const Answer answer = end_of(reader, bytes_of({type, 9}), 1);
    EXPECT_EQ(answer.step, Step::done) << type;
    EXPECT_EQ(answer.left, 2U) << type;
    EXPECT_FALSE(reader.present());
    // What begins the next section is not looked at again, whatever it is.
    EXPECT_EQ(end_of(reader, bytes_of({0x7e, 0, 0, 0, 7}), 1).left, 5U);
  }
}

TEST(SectionFooter, whatever_is_neither_is_refused_where_it_lies) {
  for (const int type : {5, 6, 7, 9, 0x7d, 0x7f, 0xff}) {
    SectionFooterReader reader;
    EXPECT_EQ(end_of(reader, bytes_of({type, 9}), 0).step, Step::failed) << type;
  }
  SectionFooterReader reader;
  const Answer answer = end_of(reader, bytes_of({0x7e, 0, 0, 0, 8}), 2);
  EXPECT_EQ(answer.step, Step::failed);
  EXPECT_EQ(answer.error.found, 8U);
  EXPECT_EQ(answer.error.allowed, 7U);
  EXPECT_EQ(answer.error.offset, 0U);
}

}  // namespace
}  // namespace migrx
