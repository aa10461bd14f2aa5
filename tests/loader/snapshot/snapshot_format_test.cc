#include "loader/snapshot/snapshot_format.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace migrx {
namespace {

using namespace std::string_view_literals;

std::vector<std::byte> bytes_of(std::string_view text) {
  std::vector<std::byte> bytes(text.size());
  if (!text.empty()) std::memcpy(bytes.data(), text.data(), text.size());
  return bytes;
}

std::vector<std::byte> save_image(uint32_t version, uint32_t xml_bytes, uint32_t compression,
                                  bool swapped = false, std::string_view magic = "LibvirtQemudSave"sv) {
  std::vector<std::byte> bytes = bytes_of(magic);
  for (const uint32_t field : {version, xml_bytes, 1U, compression}) {
    const uint32_t stored = swapped ? __builtin_bswap32(field) : field;
    const std::size_t at = bytes.size();
    bytes.resize(at + 4);
    std::memcpy(bytes.data() + at, &stored, 4);
  }
  bytes.resize(LibvirtSaveImage::kHeaderBytes);
  return bytes;
}

SnapshotFormat recognise(const std::vector<std::byte>& head, bool pipe = false, std::string path = "a file") {
  return recognise_snapshot(head, {std::move(path), pipe, 0});
}

TEST(SnapshotFormat, a_stream_of_qemu) {
  EXPECT_FALSE(recognise(bytes_of("QEVM\0\0\0\x03"sv)).error);
  EXPECT_FALSE(recognise(bytes_of("QEVM\0\0\0\x03"sv)).mapped_ram);
  EXPECT_TRUE(recognise(bytes_of("QEVM\0\0\0\x03xx\x0amapped-ram"sv)).mapped_ram);
}

TEST(SnapshotFormat, pages_all_over_a_file_do_not_come_through_a_pipe) {
  const SnapshotFormat format = recognise(bytes_of("QEVM\0\0\0\x03xx\x0amapped-ram"sv), true, "-");
  EXPECT_EQ(format.error.error_class, ErrorClass::unsupported);
  EXPECT_NE(format.error.message().find("standard input"), std::string::npos);
  EXPECT_NE(format.error.message().find("write it to a file"), std::string::npos);
}

TEST(SnapshotFormat, a_libvirt_save_image_of_either_byte_order) {
  for (const bool swapped : {false, true}) {
    const SnapshotFormat format = recognise(save_image(2, 1000, 0, swapped));
    ASSERT_FALSE(format.error) << format.error.message();
    ASSERT_TRUE(format.libvirt);
    EXPECT_EQ(format.libvirt->stream_offset(), 1092U);
    EXPECT_TRUE(format.libvirt->was_running);
    EXPECT_EQ(describe(*format.libvirt), "libvirt save image, version 2, of a running guest");
  }
}

TEST(SnapshotFormat, a_compressed_save_image_comes_with_its_command) {
  const std::vector<std::pair<uint32_t, std::string>> programs{
      {1, "gzip"}, {2, "bzip2"}, {3, "xz"}, {4, "lzop"}, {5, "zstd"}};
  for (const auto& [number, program] : programs) {
    const std::string text = recognise(save_image(2, 8, number)).error.message();
    EXPECT_NE(text.find("tail -c +101 'a file' | " + program + " -dc | migrx load -"), std::string::npos)
        << text;
    const std::string piped = recognise(save_image(2, 8, number), true, "-").error.message();
    EXPECT_NE(piped.find("`tail -c +101 | " + program + " -dc |`"), std::string::npos) << piped;
  }
  EXPECT_FALSE(recognise(save_image(1, 8, 5)).error) << "version 1 has no such field";
}

TEST(SnapshotFormat, a_save_image_that_cannot_be_right) {
  EXPECT_EQ(recognise(save_image(2, 8, 0, false, "LibvirtQemudPart")).error.error_class,
            ErrorClass::truncated);
  EXPECT_EQ(recognise(save_image(4, 8, 0)).error.error_class, ErrorClass::unsupported);
  EXPECT_EQ(recognise(save_image(0, 8, 0)).error.error_class, ErrorClass::unsupported);
  EXPECT_EQ(recognise(save_image(2, 8, 7)).error.error_class, ErrorClass::unsupported);
  EXPECT_EQ(recognise(save_image(2, UINT32_MAX, 0)).error.error_class, ErrorClass::bad_stream);
  std::vector<std::byte> cut = save_image(2, 8, 0);
  for (std::size_t size = 16; size < cut.size(); ++size)
    EXPECT_EQ(recognise({cut.begin(), cut.begin() + static_cast<std::ptrdiff_t>(size)}).error.error_class,
              ErrorClass::truncated);
}

TEST(SnapshotFormat, other_files_are_named_with_what_to_do) {
  const std::vector<std::pair<std::string_view, std::string>> files{
      {"\x1f\x8b\x08\0"sv, "gzip -dc < 'a file' | migrx load -"},
      {"\x28\xb5\x2f\xfd\x04"sv, "zstd -dc < 'a file' | migrx load -"},
      {"\xfd"
       "7zXZ\0"sv,
       "xz -dc < 'a file' | migrx load -"},
      {"BZh9"sv, "bzip2 -dc < 'a file' | migrx load -"},
      {"\x04\x22\x4d\x18"sv, "lz4 -dc < 'a file' | migrx load -"},
      {"QFI\xfb\0\0\0\x03"sv, "-loadvm"},
      {"\x7f"
       "ELF"sv,
       "virsh save"},
      {"KDUMP   "sv, "virsh save"},
      {"<domain type="sv, "save image"},
      {"root:x:0:0"sv, "no migration stream"}};
  for (const auto& [head, advice] : files) {
    const SnapshotFormat format = recognise(bytes_of(head));
    EXPECT_TRUE(format.error);
    EXPECT_NE(format.error.message().find(advice), std::string::npos) << format.error.message();
    EXPECT_NE(format.error.message().find("a file"), std::string::npos) << format.error.message();
  }
}

// Such a file is never taken for guest RAM, which would be cleared.
TEST(SnapshotFormat, a_saved_guest_is_known_by_its_first_bytes) {
  for (const auto& [head, content] : std::vector<std::pair<std::string_view, std::string>>{
           {"QEVM\0\0\0\3"sv, "a migration stream"},
           {"LibvirtQemudSave\2\0\0\0"sv, "a libvirt save image"},
           {"LibvirtQemudPart\2\0\0\0"sv, "a libvirt save image"},
           {"\x28\xb5\x2f\xfd\x04"sv, "what zstd compressed"},
           {"QFI\xfb\0\0\0\x03"sv, "a qcow2 disk image"},
           {"KDUMP   "sv, "a kdump core"},
           {"\x53\xff\x00\xf0\x53\xff\x00\xf0"sv, ""},  // interrupt vectors: a PC's first page
           {"\0\0\0\0\0\0\0\0"sv, ""},
           {"QEV"sv, ""},
           {""sv, ""}})
    EXPECT_EQ(saved_content(bytes_of(head)), content) << head;
}

TEST(SnapshotFormat, too_short) {
  for (const std::string_view head : {""sv, "Q"sv, "QEV"sv, "ab"sv})
    EXPECT_EQ(recognise(bytes_of(head)).error.error_class, ErrorClass::truncated) << head;
}

TEST(SnapshotFormat, a_word_of_a_command_is_one_word) {
  EXPECT_EQ(shell_word("/var/lib/vm0.save"), "/var/lib/vm0.save");
  EXPECT_EQ(shell_word("a b"), "'a b'");
  EXPECT_EQ(shell_word("it's; rm -r *"), "'it'\\''s; rm -r *'");
  EXPECT_EQ(shell_word("-x"), "'./-x'");
  EXPECT_EQ(shell_word(""), "''");
}

}  // namespace
}  // namespace migrx
