// Resumable reading of fixed-size fields from a stream that may be torn at any byte.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>

#include "dataplane/handoff/byte_order.h"

namespace migrx {

// A parser is a switch over "what comes next"; each case takes the bytes it needs and returns need_more when
// they are not there yet. take() keeps what there was, so that the same case can simply be entered again with
// more bytes:
//
//   case State::record_word:
//     if ((p = in.take(8)) == nullptr) return need_more;
//
// Invariant: carried_ > 0 only between a failed take(n) and its repetition with the same n.
class ByteReader {
 public:
  // carry_max: the largest n that take() will ever be asked for. Allocates once, here.
  explicit ByteReader(std::size_t carry_max)
      : carry_max_(carry_max), carry_(std::make_unique<std::byte[]>(carry_max)) {}

  // The next piece of the stream. What was not used of the one before must come again.
  void feed(Bytes piece) noexcept {
    fed_ += piece.size() - available();
    next_ = piece.data();
    end_ = next_ + piece.size();
  }
  [[nodiscard]] std::size_t available() const noexcept { return static_cast<std::size_t>(end_ - next_); }

  // n bytes side by side, in place where possible; valid until the next call. nullptr: not all here yet.
  [[nodiscard]] const std::byte* take(std::size_t n) noexcept {
    if (carried_ == 0 && available() >= n) [[likely]] {
      const std::byte* const p = next_;
      next_ += n;
      return p;
    }
    const std::size_t add = std::min(n - carried_, available());
    if (add > 0) std::memcpy(carry_.get() + carried_, next_, add);
    carried_ += add;
    next_ += add;
    if (carried_ < n) return nullptr;
    carried_ = 0;
    return carry_.get();
  }

  // As much as lies side by side, at most `max` bytes; empty: nothing left of this piece.
  [[nodiscard]] Bytes take_some(std::size_t max) noexcept {
    const Bytes some{next_, std::min(max, available())};
    next_ += some.size();
    return some;
  }

  // The next byte, without using it up; nullopt: not here yet. Precondition: carried() == 0.
  [[nodiscard]] std::optional<std::byte> peek() const noexcept {
    return next_ != end_ ? std::optional(*next_) : std::nullopt;
  }
  // What take_some() would give, without using it up; skip() then uses up as much of it as was wanted.
  // Precondition: carried() == 0.
  [[nodiscard]] Bytes peek_some(std::size_t max) const noexcept {
    return {next_, std::min(max, available())};
  }
  void skip(std::size_t n) noexcept { next_ += n; }

  // n bytes of the stream went another way. Precondition: available() == 0 and carried() == 0.
  void pass(std::size_t n) noexcept { fed_ += n; }

  // Position in the stream of the next field.
  [[nodiscard]] uint64_t offset() const noexcept { return fed_ - available() - carried_; }
  // Bytes of an unfinished field that have been put aside.
  [[nodiscard]] std::size_t carried() const noexcept { return carried_; }
  [[nodiscard]] std::size_t carry_max() const noexcept { return carry_max_; }

 private:
  // Using something up moves next_ alone. Compilers turn changes of neighbouring fields into one wider
  // read-modify-write, and a load that is wider than the store before it waits until every earlier store has
  // left the core: here those are a whole segment's non-temporal ones.
  const std::byte* next_ = nullptr;
  const std::byte* end_ = nullptr;
  uint64_t fed_ = 0;  // stream offset of end_
  std::size_t carried_ = 0;
  const std::size_t carry_max_;
  const std::unique_ptr<std::byte[]> carry_;
};

}  // namespace migrx
