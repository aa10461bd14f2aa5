// Guest RAM as files: one RAM block is one named file on hugetlbfs or tmpfs, which a destination QEMU
// maps as well.
//
// Rules that keep other people's memory safe:
// - A file that existed is never truncated, shrunk or punched: under a live mapping that would zero a guest's
// RAM.
// - A file that may hold old bytes (it existed, and has blocks) is cleared by stores before it is used: QEMU
// keeps
//   stale pages, and pages that a balloon gave back are never sent.
// - Only files made here are unlinked, only on failure or when asked, and only while their path still leads
// to them.
// - A file that another process maps is neither cleared nor taken for zeros: that process may be the
// destination QEMU, and then nothing is written before it has proved to wait (loader/destination/); who else
// it may be, the caller judges.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "numa/file_claim.h"
#include "numa/ids.h"
#include "numa/memory_budget.h"
#include "numa/ram_spec.h"

namespace migrx {

class GuestMemory {
 public:
  // Opens or makes the file, or takes the one that is given open (which may also be a memfd; it is never
  // removed here), claims it (numa/file_claim.h), maps it shared, binds it to its node. nullptr: `problem`
  // says what to do, and no byte of the file was changed. Waits some seconds for another migrx that is
  // ending, and no longer than `go_on` (nullptr: always) is true.
  [[nodiscard]] static std::unique_ptr<GuestMemory> open(const RamSpec& spec, std::string& problem,
                                                         const std::function<bool()>& go_on = nullptr);
  ~GuestMemory();
  GuestMemory(const GuestMemory&) = delete;
  GuestMemory& operator=(const GuestMemory&) = delete;

  // Faults in every page, clearing old bytes (numa/populate.h), by one process for each of `cpus`; charge_to
  // is the folder of the control group that pays, empty for ours. `go_on` is called from the calling thread
  // with bytes done so far; false ends it. Empty: done, and every page lies on the node that was asked for;
  // otherwise what to do.
  [[nodiscard]] std::string prefault(const std::vector<CpuId>& cpus, const std::string& charge_to,
                                     const std::function<bool(uint64_t)>& go_on);
  // The same while a source waits that may switch to postcopy: without transparent hugepages, so that single
  // pages can be given back. emptied: somebody has punched holes into the file since it was opened, so that
  // what is missing is zero, and what is there is to stay. A write to what is missing would be SIGBUS where
  // memory has gone meanwhile: this is an error.
  [[nodiscard]] std::string take_again(const std::vector<CpuId>& cpus, const std::string& charge_to,
                                       bool emptied, const std::function<bool(uint64_t)>& go_on);
  // The mapping is given up: whoever touches it from now on is ended by SIGSEGV, and the file is somebody
  // else's alone. No thread may be about to touch it. Takes some 0.1 s for each GiB in pages of 4 KiB.
  void give_up() noexcept;
  // prefault() could not join the control group: its pages are charged to ours.
  [[nodiscard]] bool charged_here() const noexcept { return charged_here_; }
  // How much of the mapping the kernel holds by huge pages, of hugetlbfs or transparent ones.
  [[nodiscard]] uint64_t huge_mapped_bytes() const;
  // What of it has no memory yet, as the file system tells.
  [[nodiscard]] MemoryNeed need() const;

  [[nodiscard]] std::byte* data() const noexcept { return data_; }
  [[nodiscard]] uint64_t length() const noexcept { return length_; }        // of the block
  [[nodiscard]] uint64_t mapped_bytes() const noexcept { return mapped_; }  // whole pages of the file system
  [[nodiscard]] uint64_t page_bytes() const noexcept { return page_bytes_; }  // of the file system
  // Reads as zeros until written: made here, without blocks, or cleared; not so when somebody else maps it.
  [[nodiscard]] bool fresh() const noexcept { return users().empty(); }
  // Other processes that map the file.
  [[nodiscard]] const std::vector<FileUser>& users() const noexcept { return claim_.users(); }
  [[nodiscard]] std::string users_text() const { return claim_.users_text(); }
  [[nodiscard]] bool cleared() const noexcept { return must_clear_; }
  // Somebody else who can write the file can also cut it, and whoever touches what is missing then gets
  // SIGBUS (mapping_guard.h): true of every file but a memfd that was sealed against it.
  [[nodiscard]] bool may_shrink() const;
  [[nodiscard]] bool made_here() const noexcept { return made_here_; }
  [[nodiscard]] NodeId node() const noexcept { return node_; }
  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  [[nodiscard]] const FileId& id() const noexcept { return id_; }
  // The file's first bytes, as far as it has them; how many. Nothing is faulted in.
  [[nodiscard]] std::size_t read_head(std::span<std::byte> into) const noexcept;
  // The file stays when this object goes.
  void keep() noexcept { keep_ = true; }
  // Removes the file if it was made here.
  void unlink() noexcept;

 private:
  GuestMemory() = default;
  [[nodiscard]] std::string fault_in(const std::vector<CpuId>& cpus, const std::string& charge_to, bool clear,
                                     const std::function<bool(uint64_t)>& go_on);
  std::string path_;
  int fd_ = -1;
  FileId id_;
  FileClaim claim_;
  std::byte* data_ = nullptr;
  uint64_t length_ = 0;
  uint64_t mapped_ = 0;
  uint64_t page_bytes_ = 4096;
  NodeId node_ = kAnyNode;
  bool made_here_ = false;
  bool must_clear_ = false;
  bool keep_ = false;
  bool charged_here_ = false;
};

// What a file of --ram would need, found without making or opening it for writing; nothing is reserved.
// Nothing: `problem` says what is wrong.
[[nodiscard]] std::optional<MemoryNeed> memory_need_of(const RamSpec& spec, std::string& problem);

// Memory of this process for a block without a file. Zero until written; faulted in page by page, by whoever
// writes, unless populate() did it before.
class PrivateMemory {
 public:
  [[nodiscard]] static std::unique_ptr<PrivateMemory> allocate(uint64_t bytes, std::string& problem);
  ~PrivateMemory();
  PrivateMemory(const PrivateMemory&) = delete;
  PrivateMemory& operator=(const PrivateMemory&) = delete;
  [[nodiscard]] std::byte* data() const noexcept { return data_; }
  // Faults all of it in, on `node` (kAnyNode: anywhere). False: `problem` says why the host does not have it.
  [[nodiscard]] bool populate(NodeId node, std::string& problem);

 private:
  PrivateMemory(std::byte* data, uint64_t bytes) : data_(data), bytes_(bytes) {}
  std::byte* data_;
  uint64_t bytes_;
};

}  // namespace migrx
