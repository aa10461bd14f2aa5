#include "loader/destination/destination_setup.h"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <span>
#include <sstream>
#include <string_view>

namespace migrx {
namespace {

// On at the destination these would make it wait for something that migrx does itself, or read the stream
// differently (QEMU migration/options.c).
constexpr std::array<std::string_view, 3> kMustBeOff{"multifd", "mapped-ram", "x-colo"};
// QEMU has them and x-ignore-shared exclude each other.
constexpr std::array<std::string_view, 2> kPostcopy{"postcopy-ram", "postcopy-preempt"};

bool is_one_of(std::span<const std::string_view> names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// The id of a block's backend stands last in its name: alone, after "/objects/" (machine types up to 3.1),
// or after a device's path ("0000:00:05.0/shm").
std::string object_id(const std::string& idstr) {
  return idstr.substr(idstr.rfind('/') + 1);
}

// The block lies in a BAR: "0000:00:02.0/iv". A bridge on the way has a place of its own before the device's.
bool belongs_to_pci_device(const std::string& idstr) {
  const auto hex = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
  constexpr std::string_view kForm = "xxxx:xx:xx.x/";
  if (idstr.size() < kForm.size()) return false;
  for (std::size_t i = 0; i < kForm.size(); ++i)
    if (kForm[i] == 'x' ? !hex(idstr[i]) : idstr[i] != kForm[i]) return false;
  return true;
}

// QEMU up to 8.0 ignores every shared backend, later ones only those in named
// files (system/physmem.c, qemu_ram_is_named_file).
bool ignores_anonymous(const std::string& version) {
  int major = 0;
  int minor = 0;
  if (std::sscanf(version.c_str(), "%d.%d", &major, &minor) != 2) return true;
  return major < 8 || (major == 8 && minor == 0);
}

bool same_file(const std::string& a, const std::string& b) {
  struct stat first {};
  struct stat second {};
  return ::stat(a.c_str(), &first) == 0 && ::stat(b.c_str(), &second) == 0 && first.st_dev == second.st_dev &&
         first.st_ino == second.st_ino;
}

// What both halves need of the conversation.
class Conversation {
 public:
  Conversation(QmpCommands& qmp, HandoffForm form) : qmp_(qmp), form_(form) { out_.version = qmp_.version(); }

 protected:
  // False: out_.problem says why.
  bool ask(const std::string& name, const std::string& arguments = "") {
    if (std::string error = qmp_.command(name, arguments, result_); !error.empty())
      return refuse(std::move(error));
    return true;
  }
  bool refuse(std::string why) {
    out_.problem = "destination QEMU: " + std::move(why);
    return false;
  }
  bool unexpected(const char* name) {
    return refuse(std::string(name) + ": the answer is not of the form QEMU gives");
  }

  bool still_waits() {
    if (!ask("query-status")) return false;
    const auto status = parse_qmp_member(result_, "status");
    if (!status) return unexpected("query-status");
    if (*status != "inmigrate")
      return refuse("its state is " + *status + ", not inmigrate: start it with -S -incoming defer");
    if (!ask("query-migrate")) return false;
    const auto migration = parse_qmp_member(result_, "status");  // absent: there was none yet
    if (migration && *migration != "none")
      return refuse("its migration is " + *migration + " already: start it anew with -S -incoming defer");
    if (has_qmp_member(result_, "socket-address"))
      return refuse("it waits on a socket already: leave migrate-incoming to --qmp, or leave --qmp out");
    return true;
  }

  QmpCommands& qmp_;
  const HandoffForm form_;
  std::string result_;
  DestinationSetup out_;
};

class Inspection : public Conversation {
 public:
  Inspection(QmpCommands& qmp, const std::vector<SetupBlock>& blocks, HandoffForm form, bool tls)
      : Conversation(qmp, form), blocks_(blocks), tls_(tls) {}

  DestinationSetup run() {
    (void)(check_waiting() && check_tls() && check_memory() && ask_addresses());
    return std::move(out_);
  }

 private:
  // Either would take the first bytes for something else.
  bool check_tls() {
    if (!ask("query-migrate-parameters")) return false;
    if (!has_qmp_member(result_, "max-bandwidth")) return unexpected("query-migrate-parameters");
    const auto creds = parse_qmp_member(result_, "tls-creds");
    const bool expected = creds && !creds->empty();
    if (expected && !tls_)
      return refuse("its tls-creds is " + *creds +
                    ", and the guest would be handed over without TLS: give --handoff-tls-creds (and "
                    "--handoff-tls on, when the source has no tls-creds), or migrate_set_parameter tls-creds "
                    "\"\" there");
    if (!expected && tls_)
      return refuse(
          "it has no tls-creds, and the guest would be handed over with TLS: migrate_set_parameter tls-creds "
          "ID there, or --handoff-tls off here");
    return true;
  }

  bool check_waiting() {
    if (!still_waits()) return false;
    if (qmp_.started_stopped() == false)
      out_.warnings.emplace_back(
          "the destination was started without -S: its guest runs as soon as it has loaded everything, "
          "before the source has been told; start it with -S, and give it cont when the source says "
          "completed: then two guests can never run");
    return true;
  }

  bool check_memory() {
    if (!ask("query-memdev")) return false;
    auto memdevs = parse_memdevs(result_);
    if (!memdevs) return unexpected("query-memdev");
    for (Memdev& memdev : *memdevs)
      if (!ask_share(memdev)) return false;
    for (const SetupBlock& block : blocks_)
      if (!check_block(block, *memdevs)) return false;
    if (form_ == HandoffForm::plain) return true;  // pages of other blocks are sent
    for (const Memdev& memdev : *memdevs) {
      const bool ours = std::any_of(blocks_.begin(), blocks_.end(), [&](const SetupBlock& block) {
        return object_id(block.idstr) == memdev.id;
      });
      if (!memdev.share.value_or(false) || ours || memdev.id.empty() || !ignored(memdev.id)) continue;
      return refuse("memory backend " + memdev.id +
                    " is share=on, so it would expect no pages for it: name its file with --ram " +
                    block_in(memdev.id) + "=PATH, or give it share=off");
    }
    return true;
  }

  // The name of the block that lies in a backend: where a device owns the block, the device's place is before
  // the backend's id. The backend's id where QEMU does not tell.
  std::string block_in(const std::string& id) {
    std::string answer;
    if (!qmp_.command("human-monitor-command", "{\"command-line\": \"info ramblock\"}", answer).empty())
      return id;
    const auto table = parse_qmp_string(answer);
    if (!table) return id;
    std::istringstream lines(*table);
    for (std::string line, name; std::getline(lines, line);)
      if (std::istringstream(line) >> name && name.size() > id.size() && name.ends_with("/" + id))
        return name;
    return id;
  }

  // query-memdev says it since 6.1; the backend itself knows it since 2.1. One without an id is none of ours.
  bool ask_share(Memdev& memdev) {
    if (memdev.share || memdev.id.empty()) return true;
    if (!ask_property(memdev.id, "share")) return false;
    memdev.share = parse_qmp_bool(result_);
    return memdev.share ? true : unexpected("qom-get");
  }

  bool ask_property(const std::string& id, const char* property) {
    return ask("qom-get",
               "{\"path\": " + qmp_quote("/objects/" + id) + ", \"property\": " + qmp_quote(property) + "}");
  }

  // Whether QEMU would expect no pages for this shared backend.
  bool ignored(const std::string& id) {
    if (ignores_anonymous(out_.version)) return true;
    std::string mem_path;
    return qmp_
        .command("qom-get", "{\"path\": " + qmp_quote("/objects/" + id) + ", \"property\": \"mem-path\"}",
                 mem_path)
        .empty();
  }

  bool check_block(const SetupBlock& block, const std::vector<Memdev>& memdevs) {
    const std::string id = object_id(block.idstr);
    const auto memdev =
        std::find_if(memdevs.begin(), memdevs.end(), [&](const Memdev& known) { return known.id == id; });
    if (memdev == memdevs.end())
      return refuse("it has no memory backend " + id + ": give it -object memory-backend-file,id=" + id +
                    ",share=on,mem-path=" + block.path + " as at the source");
    if (!memdev->share.value_or(false))
      return refuse("memory backend " + block.idstr + " lacks share=on: give it that");
    if (memdev->size != block.bytes)
      return refuse("memory backend " + block.idstr + " has " + std::to_string(memdev->size) +
                    " bytes, --ram says " + std::to_string(block.bytes) +
                    ": make size= there and here the source's");
    if (block.node >= 0 && !memdev->host_nodes.empty() &&
        std::find(memdev->host_nodes.begin(), memdev->host_nodes.end(), block.node) ==
            memdev->host_nodes.end())
      return refuse("memory backend " + block.idstr + " is bound to other host nodes than node=" +
                    std::to_string(block.node) + " of --ram: make host-nodes= and node= agree");
    if (!ask_property(id, "mem-path"))
      return refuse("memory backend " + block.idstr + " is no memory-backend-file: give it " +
                    "-object memory-backend-file,id=" + id + ",share=on,mem-path=" + block.path);
    const auto mem_path = parse_qmp_string(result_);
    if (!mem_path) return unexpected("qom-get");
    if (!same_file(*mem_path, block.path))
      return refuse("memory backend " + block.idstr + " lies in " + *mem_path + ", --ram says " + block.path +
                    ": make mem-path= and --ram name one file");
    return true;
  }

  // What the operator gave is taken; a single block begins at 0 in any case, but asking costs nothing.
  bool ask_addresses() {
    if (blocks_.empty() || form_ == HandoffForm::plain) return true;
    if (!ask("human-monitor-command", "{\"command-line\": \"info mtree\"}")) return false;
    const auto mtree = parse_qmp_string(result_);
    if (!mtree) return unexpected("human-monitor-command");
    for (const SetupBlock& block : blocks_) {
      auto offset = find_region_offset(*mtree, block.idstr);
      if (!offset) offset = find_region_offset(*mtree, object_id(block.idstr));
      if (block.addr) {
        out_.addresses[block.idstr] = *block.addr;
        if (offset && *offset != *block.addr)
          out_.warnings.push_back("block " + block.idstr +
                                  ": --ram says addr=" + std::to_string(*block.addr) + ", the destination " +
                                  std::to_string(*offset));
      } else if (offset) {
        out_.addresses[block.idstr] = *offset;
      } else if (belongs_to_pci_device(block.idstr)) {
        out_.addresses[block.idstr] = 0;  // its BAR is not mapped before the device's state is there
      } else {
        out_.warnings.push_back("block " + block.idstr +
                                ": info mtree of the destination does not show it; if it "
                                "complains about mismatched GPAs, give --ram its addr=");
      }
    }
    return true;
  }

  const std::vector<SetupBlock>& blocks_;
  const bool tls_;
};

class Arming : public Conversation {
 public:
  Arming(QmpCommands& qmp, const std::string& uri, SourceCapabilities source, HandoffForm form,
         const std::vector<SharedFile>& files)
      : Conversation(qmp, form), uri_(uri), source_(source), files_(files) {}

  DestinationSetup run() {
    if (still_waits() && has_our_files() && set_capabilities())
      (void)ask("migrate-incoming", "{\"uri\": " + qmp_quote(uri_) + "}");
    return std::move(out_);
  }

 private:
  // Whose path leads elsewhere by now, the destination may have opened before or after that.
  bool has_our_files() {
    const std::string replaced = file_replaced(files_);
    const std::optional<pid_t> process = qmp_.process();
    if (replaced.empty() || !process) return true;
    const PeerMemory memory = check_process_memory(*process, files_);
    return memory.problem.empty() || refuse(memory.problem);
  }

  bool set_capabilities() {
    if (!ask("query-migrate-capabilities")) return false;
    const auto states = parse_capability_states(result_);
    if (!states) return unexpected("query-migrate-capabilities");
    std::string list = std::string("{\"capability\": \"x-ignore-shared\", \"state\": ") +
                       (form_ == HandoffForm::x_ignore_shared ? "true}" : "false}");
    for (const auto& [name, on] : *states)
      if (on && (is_one_of(kMustBeOff, name) ||
                 (form_ == HandoffForm::x_ignore_shared && is_one_of(kPostcopy, name)))) {
        list += ", {\"capability\": " + qmp_quote(name) + ", \"state\": false}";
        out_.warnings.push_back("capability " + name +
                                " was on at the destination and has been turned off: migrx does that part");
      }
    if (source_.postcopy_ram) list += ", {\"capability\": \"postcopy-ram\", \"state\": true}";
    if (source_.postcopy_preempt) list += ", {\"capability\": \"postcopy-preempt\", \"state\": true}";
    if (source_.switchover_ack)
      list +=
          ", {\"capability\": \"return-path\", \"state\": true}"  // without which QEMU refuses the other
          ", {\"capability\": \"switchover-ack\", \"state\": true}";
    return ask("migrate-set-capabilities", "{\"capabilities\": [" + list + "]}");
  }

  const std::string& uri_;
  const SourceCapabilities source_;
  const std::vector<SharedFile>& files_;
};

}  // namespace

DestinationSetup inspect_destination(QmpCommands& qmp, const std::vector<SetupBlock>& blocks,
                                     HandoffForm form, bool tls) {
  return Inspection(qmp, blocks, form, tls).run();
}

DestinationSetup arm_destination(QmpCommands& qmp, const std::string& uri, SourceCapabilities source,
                                 HandoffForm form, const std::vector<SharedFile>& files) {
  return Arming(qmp, uri, source, form, files).run();
}

std::string disarm_destination(QmpCommands& qmp) {
  std::string result;
  return qmp.command("migrate-set-capabilities",
                     R"({"capabilities": [{"capability": "x-ignore-shared", "state": false}]})", result);
}

}  // namespace migrx
