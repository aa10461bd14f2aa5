#include "loader/snapshot/snapshot_input.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>

namespace migrx {
namespace {

class SnapshotInputTest : public ::testing::Test {
 protected:
  void TearDown() override { std::filesystem::remove_all(path_); }
  void write(const std::string& text) const {
    std::ofstream(path_, std::ios::binary | std::ios::trunc) << text;
  }
  static StreamError open(SnapshotInput& input, bool cancel = false) {
    return input.open([cancel] { return cancel; }, [] { return uint64_t{1}; }, 0);
  }
  static std::string text_of(SnapshotInput& input) {
    std::string text;
    std::array<std::byte, 7> buffer{};
    for (;;) {
      const SnapshotInput::Result result = input.read(buffer);
      if (result.status == SnapshotInput::Status::end) return text;
      EXPECT_NE(result.status, SnapshotInput::Status::failed);
      text.append(reinterpret_cast<const char*>(buffer.data()), result.bytes);
    }
  }
  static std::string save_image(const std::string& xml, const std::string& stream) {
    std::string image = "LibvirtQemudSave";
    for (const uint32_t field : {2U, static_cast<uint32_t>(xml.size()), 0U, 0U})
      image.append(reinterpret_cast<const char*>(&field), sizeof field);
    image.resize(LibvirtSaveImage::kHeaderBytes);
    return image + xml + stream;
  }

  const std::string path_ = "/dev/shm/migrx-snapshot-input-test-" + std::to_string(::getpid());
  const std::string stream_ = "QEVM" + std::string(10'000, 'x');
};

TEST_F(SnapshotInputTest, a_file_from_an_offset_on) {
  write(std::string(500, '-') + stream_);
  SnapshotInput input(path_, 500);
  ASSERT_FALSE(open(input));
  EXPECT_TRUE(input.seekable());
  EXPECT_EQ(text_of(input), stream_);
  input.seek(504);
  EXPECT_EQ(text_of(input), stream_.substr(4));
  SnapshotInput beyond(path_, 1'000'000);
  EXPECT_EQ(open(beyond).error_class, ErrorClass::truncated);
  SnapshotInput far(path_, UINT64_MAX);
  EXPECT_EQ(open(far).error_class, ErrorClass::truncated);
}

TEST_F(SnapshotInputTest, the_stream_in_a_save_image_also_through_a_pipe) {
  const std::string image = save_image(std::string(5000, 'm'), stream_);
  write(image);
  SnapshotInput file(path_, 0);
  ASSERT_FALSE(open(file));
  ASSERT_TRUE(file.libvirt());
  EXPECT_FALSE(file.libvirt()->was_running);
  EXPECT_EQ(text_of(file), stream_);
  std::filesystem::remove(path_);

  ASSERT_EQ(::mkfifo(path_.c_str(), 0600), 0);
  const int writer = ::open(path_.c_str(), O_RDWR | O_CLOEXEC);
  const std::string all = "some" + image;
  ASSERT_EQ(::write(writer, all.data(), all.size()), static_cast<ssize_t>(all.size()));
  SnapshotInput pipe(path_, 4);
  ASSERT_FALSE(open(pipe));
  ::close(writer);
  EXPECT_FALSE(pipe.seekable());
  ASSERT_TRUE(pipe.libvirt());
  EXPECT_EQ(text_of(pipe), stream_);
}

TEST_F(SnapshotInputTest, a_save_image_without_its_stream) {
  const std::string whole = save_image("<domain/>", stream_);
  for (std::size_t size = 16; size < whole.size() - stream_.size() + 4; ++size) {
    write(whole.substr(0, size));
    SnapshotInput input(path_, 0);
    EXPECT_EQ(open(input).error_class, ErrorClass::truncated) << size;
  }
  write(save_image("xml", save_image("xml", stream_)));
  SnapshotInput nested(path_, 0);
  EXPECT_EQ(open(nested).error_class, ErrorClass::bad_stream);
}

TEST_F(SnapshotInputTest, what_holds_no_bytes_is_refused_without_opening_it) {
  for (const char* const path : {"/dev/shm", "/dev/zero", "/dev/null", "/nonexistent/file"}) {
    SnapshotInput input(path, 0);
    const StreamError error = open(input);
    EXPECT_EQ(error.error_class, ErrorClass::io) << path;
    EXPECT_NE(error.message().find(path), std::string::npos) << error.message();
  }
  const int socket = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path_.c_str(), sizeof address.sun_path - 1);
  ASSERT_EQ(::bind(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  SnapshotInput input(path_, 0);
  EXPECT_NE(open(input).message().find("socket"), std::string::npos);
  ::close(socket);
}

TEST_F(SnapshotInputTest, who_waits_for_a_writer_hears_signals) {
  ASSERT_EQ(::mkfifo(path_.c_str(), 0600), 0);
  SnapshotInput input(path_, 0);  // nobody has it open for writing
  EXPECT_EQ(open(input, true).error_class, ErrorClass::cancelled);
}

}  // namespace
}  // namespace migrx
