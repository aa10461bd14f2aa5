// One connection's bytes from the moment they are made until they are acknowledged. Pages are kept as
// names, not as bytes: a page's bytes are written into the frame when it is sent, and once more when it
// is sent again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <vector>

#include "loader/generate/guest_image.h"

namespace migrx {

// Single thread. The image is not owned.
class ChannelStream {
 public:
  explicit ChannelStream(const GuestImage& image) : image_(image) {}

  // `head`, then the pages whole.
  void append(std::vector<std::byte> head, std::vector<PageVersion> pages = {});
  // One past the last byte there is; offset 0 is the stream's first.
  [[nodiscard]] uint64_t end() const noexcept { return end_; }
  // Bytes that have not been released.
  [[nodiscard]] uint64_t backlog() const noexcept { return end_ - released_; }
  // Writes bytes [offset, offset + out.size()). Precondition: released so far <= offset, and the end
  // is not passed.
  void read(uint64_t offset, std::span<std::byte> out) noexcept;
  // One past the last byte of the head or page that `offset` lies in. Precondition: as of read(),
  // before the end.
  [[nodiscard]] uint64_t element_end(uint64_t offset) noexcept;
  // Bytes before `offset` will not be read again.
  void release(uint64_t offset) noexcept;

 private:
  void find(uint64_t offset) noexcept;

  struct Piece {
    uint64_t begin = 0;
    uint64_t end = 0;
    std::vector<std::byte> head;
    std::vector<PageVersion> pages;
  };
  const GuestImage& image_;
  std::deque<Piece> pieces_;
  uint64_t end_ = 0;
  uint64_t released_ = 0;
  std::size_t last_ = 0;  // where the last read() ended: the next one most often goes on there
};

}  // namespace migrx
