// `session-add`: the options of `migrx receive` that belong to one migration, as JSON. Names, checks and
// messages are the command line's, since the same definitions read both.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "loader/app/receive_options.h"
#include "loader/control/client_files.h"
#include "loader/control/control_service.h"
#include "numa/descriptor.h"
#include "numa/ram_spec.h"

namespace CLI {
class App;
}

namespace migrx {

// To whom an option of `migrx receive` belongs when a daemon does the receiving.
enum class OptionOwner : uint8_t {
  session,  // a migration: it may be in a request
  root,     // a migration, and names something of the host's: only root may ask for it
  host,     // the daemon's own command line has it
  client,   // whoever asks sees to it
};
// name: without dashes. nullopt: there is no such option.
[[nodiscard]] std::optional<OptionOwner> owner_of_option(std::string_view name);

// One migration as it was asked for.
struct SessionArguments {
  ReceiveOptions options;          // what belongs to the host has its default, and means nothing
  std::optional<uint16_t> listen;  // nullopt: a port of the daemon's range is to be chosen
  std::vector<RamSpec> ram;        // of options.ram
  // What `given` of these leads to, and what has to be removed when nothing comes of it
  // (ClientFiles::remove).
  std::vector<ClientFile> files;
};

// Reads the arguments and checks what can be checked without this host. descriptors: how many came with the
// request; each must be named by one --ram, as fd:N. nullopt: `out` is filled but for `files`.
[[nodiscard]] std::optional<ControlError> parse_session_arguments(const nlohmann::json& arguments,
                                                                  std::size_t descriptors,
                                                                  const ControlPeer& peer,
                                                                  SessionArguments& out);

// Fills `files`, and `given` of `ram`: the descriptors that came with the request, and, for a client that is
// not root, what it named by path, opened with its rights. Files of root's paths are left to
// GuestMemory::open(). What was made before something was refused is removed. Blocks while paths are walked.
[[nodiscard]] std::optional<ControlError> open_session_files(std::vector<Descriptor> came,
                                                             const ControlPeer& peer,
                                                             const ClientFiles& client_files,
                                                             SessionArguments& out);

// The other direction: what stood on the command line of `migrx receive --via`, as arguments of session-add.
// files: descriptors of this process that are to go with it, in the place of fd:N. Empty: done; otherwise
// what is wrong.
[[nodiscard]] std::string session_arguments_of(const CLI::App& receive, nlohmann::json& arguments,
                                               std::vector<int>& files);

}  // namespace migrx
