// A small parent that outlives the receiver.
//
// A dead process resets nothing: a source whose receiver was killed waits for TCP's own time-out, many
// minutes, with a return path even with its guest stopped. So the receiver runs in a child; when that dies by
// a signal, the parent removes what it left behind and starts a second child in reset mode, which holds the
// same port and address and resets the lost connections (dataplane/reset_mode.h).
// When the parent is killed, the child gets SIGTERM (PR_SET_PDEATHSIG) and ends the migration in the orderly
// way.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace migrx {

// The child's line to its parent. Paths told here are unlinked by the parent when the child dies by a signal.
class Lifeline {
 public:
  explicit Lifeline(int fd = -1) noexcept : fd_(fd) {}
  // A file or directory that exists from now on and must not outlive a failure.
  void made(std::string_view path) const { tell('+', path); }
  // It is gone, or shall stay after all.
  void keep(std::string_view path) const { tell('-', path); }
  // The source may be connected from now on: reset mode is needed if this process dies.
  void listening() const { tell('L', ""); }
  // A connection that reset mode has to know of, in words that it understands (no NUL). It is forgotten when
  // another one takes its place.
  void connected(uint32_t place, std::string_view connection) const;
  // The one at that place has ended.
  void ended(uint32_t place) const { tell('E', std::to_string(place)); }

 private:
  void tell(char what, std::string_view path) const;
  int fd_;  // -1: nobody listens
};

// Runs `receive` in a child, in this process group, passing SIGTERM and SIGINT on. Returns the exit status
// for the program: the child's, or 1 when it died by a signal (after `reset_mode` has run in a second child,
// with all connections that the first one told of). Must be called while the process has one thread.
int supervise(const std::function<int(const Lifeline&)>& receive,
              const std::function<int(const std::vector<std::string>& connections)>& reset_mode);

}  // namespace migrx
