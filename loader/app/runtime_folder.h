// The runtime folder. A process that stays after a receiver gave up (linger.h) announces itself there, and a
// new receiver that needs the same port or address takes over from it.
//
//   NAME.lost   the record (lost_record.h): all that is left when that process is killed as well
//   NAME.sock   its socket: "take" and the answer is the record as it is now with a descriptor of the process
//               (pidfd); "taken" and it ends at once. "show": the record only
//
// A path in the file system, not an abstract socket: those belong to a network namespace, while a PCI port
// belongs to the host. A socket that refuses connections is a dead process's: it is bound under another name
// and renamed when it listens.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "loader/app/lost_record.h"
#include "numa/descriptor.h"

namespace migrx {

// /run/migrx for root, else $XDG_RUNTIME_DIR/migrx; empty when there is neither.
[[nodiscard]] std::string default_runtime_folder();
// The folder of --runtime-dir; empty: the default one.
[[nodiscard]] std::string runtime_folder_of(const std::string& option);
// The same, made when it is missing; empty when there is none or it cannot be used: then receivers cannot
// tell each other what memory they take, and each sees what is free now.
[[nodiscard]] std::string usable_runtime_folder(const std::string& option);

class RuntimeFolder {
 public:
  // Makes the folder when it is missing (0700). nullopt, and why, when it cannot be used: it belongs to
  // another user, or others may write there.
  [[nodiscard]] static std::optional<RuntimeFolder> open(const std::string& path, std::string& problem);

  struct Announcement {
    std::string name;
    Descriptor socket;  // listens
  };
  // Writes the record and listens. nullopt, and why.
  [[nodiscard]] std::optional<Announcement> announce(const LostRecord& record, std::string& problem) const;
  void withdraw(const std::string& name) const noexcept;

  // Takes over from every process that holds a port or address of `ours` (nothing else in it is looked at).
  // `adopt` is called with each list before its process lets go of it; all of these processes have ended when
  // this returns, killed if need be. Throws SetupError when one neither answers nor can be identified.
  void take_over(const LostRecord& ours,
                 const std::function<void(const std::vector<LostConnection>&)>& adopt) const;

  [[nodiscard]] const std::string& path() const noexcept { return path_; }

 private:
  RuntimeFolder(std::string path, Descriptor folder) : path_(std::move(path)), folder_(std::move(folder)) {}
  [[nodiscard]] std::vector<std::string> records() const;
  [[nodiscard]] std::optional<LostRecord> read(const std::string& name) const;
  [[nodiscard]] Descriptor connect(const std::string& name, int& error) const;

  std::string path_;
  Descriptor folder_;
};

// The other side of take_over(): serves one client of an announcement's socket. `now`: the record as it is.
// True: it has been taken, and this process must end at once.
[[nodiscard]] bool serve_takeover(const Descriptor& client, const std::function<LostRecord()>& now);

}  // namespace migrx
