// A small parent that outlives the receiver.
//
// A dead process resets nothing: a source whose receiver is gone waits for TCP's own time-out, many minutes,
// with a return path even with its guest stopped. So the receiver runs in a child that tells its parent of
// each connection. When it ends, by a signal or because it gave up, and peers may not know, the parent starts
// the process that tells them (linger.h), and gives out the exit status at once.
//
// The child is a process group of its own: a signal for the group reaches the parent alone, which passes it
// on once. When the parent is killed, the child gets SIGTERM (PR_SET_PDEATHSIG) and ends as that signal says.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "numa/file_id.h"

namespace migrx {

// The child's line to its parent. Files told here are unlinked by the parent when the child dies by a signal.
class Lifeline {
 public:
  explicit Lifeline(int fd = -1) noexcept : fd_(fd) {}
  // A file that exists from now on and must not outlive a failure. Its path may lead elsewhere by then: a
  // file that took its place is somebody else's, and stays.
  void made(std::string_view path, const FileId& file) const;
  // It is gone, or shall stay after all.
  void keep(std::string_view path) const { tell('-', path); }
  // The source may be connected from now on: reset mode is needed if this process dies.
  void listening() const { tell('L', ""); }
  // A connection that reset mode has to know of, in words that it understands (no NUL). It is forgotten when
  // another one takes its place.
  void connected(uint32_t place, std::string_view connection) const;
  // The connection at that place has ended, and its peer knows.
  void ended(uint32_t place) const { tell('E', std::to_string(place)); }
  // The exit status for the program, should this process be killed from now on: it tells where the guest is.
  void if_killed(int exit_status) const { tell('S', std::to_string(exit_status)); }
  // There is a parent that listens; it resets the connections that are left.
  [[nodiscard]] bool held() const noexcept;

 private:
  void tell(char what, std::string_view path) const;
  int fd_;  // -1: there is no parent
};

struct Supervision {
  // In the child; its result is the program's exit status.
  std::function<int(const Lifeline&)> receive;
  // What the child left, and how it ended.
  struct Legacy {
    std::vector<std::string> connections;  // as connected() was told
    bool killed = false;                   // it may have had more, of which it could not tell
  };
  // Called in the parent when the child is gone and connections are left, or may be. Returns a sentence for
  // the operator.
  std::function<std::string(const Legacy&)> leave;
  // Descriptors that the child alone keeps: a reader at their other end must see when the child ends.
  std::vector<int> of_child{};
};

// Runs `receive` in a child and passes SIGTERM, SIGINT, SIGHUP and SIGUSR1 on, those excepted that were
// ignored at the start (nohup). SIGABRT, of a manager's watchdog, ends the child as SIGKILL would. Returns
// the exit status for the program: the child's, or what if_killed() said last (1: it said nothing). Must be
// called while the process has one thread.
int supervise(const Supervision& supervision);

}  // namespace migrx
