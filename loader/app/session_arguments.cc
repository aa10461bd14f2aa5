#include "loader/app/session_arguments.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <charconv>
#include <nlohmann/json.hpp>
#include <utility>

#include "loader/app/destinations.h"

namespace migrx {
namespace {

using Json = nlohmann::json;

struct OwnedOption {
  std::string_view name;
  OptionOwner owner;
};
constexpr std::array kOptions{
    OwnedOption{"ram", OptionOwner::session},
    OwnedOption{"unlink", OptionOwner::session},
    OwnedOption{"private-ram-max", OptionOwner::session},
    OwnedOption{"no-memory-check", OptionOwner::root},  // the kernel may then kill any process
    OwnedOption{"memory-cgroup", OptionOwner::root},    // whose memory it is
    OwnedOption{"handoff", OptionOwner::session},
    OwnedOption{"destination-pid", OptionOwner::session},
    OwnedOption{"handoff-form", OptionOwner::session},
    OwnedOption{"no-handoff", OptionOwner::session},
    OwnedOption{"qmp", OptionOwner::session},
    OwnedOption{"handoff-tls-creds", OptionOwner::root},  // as tls-creds
    OwnedOption{"handoff-tls-hostname", OptionOwner::session},
    OwnedOption{"handoff-tls", OptionOwner::session},
    OwnedOption{"multifd-channels", OptionOwner::session},
    OwnedOption{"multifd-compression", OptionOwner::session},
    OwnedOption{"no-postcopy", OptionOwner::session},
    OwnedOption{"expect-postcopy", OptionOwner::session},
    OwnedOption{"capability", OptionOwner::session},
    OwnedOption{"multifd-flush-after-each-section", OptionOwner::session},
    OwnedOption{"switchover-ack-legacy", OptionOwner::session},
    OwnedOption{"uuid", OptionOwner::session},
    OwnedOption{"tls-creds", OptionOwner::root},  // files that the daemon reads by itself, again and again
    OwnedOption{"tls-authz", OptionOwner::root},
    OwnedOption{"wait", OptionOwner::session},
    OwnedOption{"listen", OptionOwner::session},
    OwnedOption{"allow", OptionOwner::session},
    OwnedOption{"source-nat", OptionOwner::session},
    OwnedOption{"identify-timeout", OptionOwner::session},
    OwnedOption{"channels-timeout", OptionOwner::session},
    OwnedOption{"stall-timeout", OptionOwner::session},
    OwnedOption{"destination-timeout", OptionOwner::session},
    OwnedOption{"port", OptionOwner::host},
    OwnedOption{"address", OptionOwner::host},
    OwnedOption{"mtu", OptionOwner::host},
    OwnedOption{"gateway", OptionOwner::host},
    OwnedOption{"no-probe", OptionOwner::host},
    OwnedOption{"link-timeout", OptionOwner::host},
    OwnedOption{"vlan", OptionOwner::host},
    OwnedOption{"pool-mbufs", OptionOwner::host},
    OwnedOption{"window", OptionOwner::host},
    OwnedOption{"eal", OptionOwner::host},
    OwnedOption{"poll-cores", OptionOwner::host},
    OwnedOption{"loader-cores", OptionOwner::host},
    OwnedOption{"link", OptionOwner::host},
    OwnedOption{"idle", OptionOwner::host},
    OwnedOption{"peer-timeout", OptionOwner::host},
    OwnedOption{"linger", OptionOwner::host},
    OwnedOption{"runtime-dir", OptionOwner::host},
    OwnedOption{"dump-blocks", OptionOwner::host},  // files that the daemon would write
    OwnedOption{"metrics", OptionOwner::host},
    OwnedOption{"telemetry", OptionOwner::host},
    OwnedOption{"no-supervisor", OptionOwner::host},
    OwnedOption{"forward", OptionOwner::host},  // a daemon forwards nothing
    OwnedOption{"forward-range", OptionOwner::host},
    OwnedOption{"report", OptionOwner::client},
    OwnedOption{"quiet", OptionOwner::client},
    OwnedOption{"ready-fd", OptionOwner::client},
    OwnedOption{"via", OptionOwner::client},
};

ControlError wrong(std::string sentence) {
  return {control_class::kArguments, std::move(sentence)};
}

ControlError forbidden(std::string sentence) {
  return {control_class::kNotPermitted, std::move(sentence)};
}

bool is_flag(const CLI::Option& option) {
  return option.get_items_expected_max() == 0;
}

bool may_repeat(const CLI::Option& option) {
  return option.get_expected_max() > 1;
}

// A value as a word of a command line. Empty: `out` is it.
std::string word_of(const CLI::Option& option, const Json& value, std::string& out) {
  if (value.is_string())
    out = value.get<std::string>();
  else if (value.is_number())
    out = value.dump();
  else if (value.is_boolean() && option.get_type_name() == "BOOLEAN")
    out = value.get<bool>() ? "true" : "false";
  else
    return "is a string or a number";
  if (out.empty()) return "is empty";
  if (std::any_of(out.begin(), out.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20; }))
    return "has control characters";
  return {};
}

std::string words_of(const CLI::Option& option, const std::string& name, const Json& value,
                     std::vector<std::string>& out) {
  if (is_flag(option)) {
    if (!value.is_boolean()) return "is true or false";
    if (value.get<bool>()) out.push_back("--" + name);
    return {};
  }
  if (value.is_array() && !may_repeat(option)) return "takes one value, not an array";
  for (const Json& one : value.is_array() ? value : Json::array({value})) {
    std::string word;
    if (std::string problem = word_of(option, one, word); !problem.empty()) return problem;
    out.push_back("--" + name + "=" + word);
  }
  return {};
}

std::optional<ControlError> words_of(const CLI::App& app, const Json& arguments, const ControlPeer& peer,
                                     std::vector<std::string>& words) {
  for (const auto& [name, value] : arguments.items()) {
    const std::optional<OptionOwner> owner = owner_of_option(name);
    const CLI::Option* const option = owner ? app.get_option_no_throw("--" + name) : nullptr;
    if (option == nullptr || owner == OptionOwner::client)
      return wrong("there is no argument \"" + name +
                   "\": arguments are the options of migrx receive, without the dashes");
    if (owner == OptionOwner::host)
      return wrong("\"" + name + "\" belongs to the host, and is set where the daemon is started");
    if (owner == OptionOwner::root && !peer.root()) return forbidden("only root may give \"" + name + "\"");
    if (const std::string problem = words_of(*option, name, value, words); !problem.empty())
      return wrong("\"" + name + "\" " + problem);
  }
  return std::nullopt;
}

std::optional<ControlError> read_ram(std::size_t descriptors, const ControlPeer& peer,
                                     SessionArguments& out) {
  std::vector<bool> named(descriptors);
  for (const std::string& text : out.options.ram) {
    RamSpec& spec = out.ram.emplace_back();
    if (std::string problem = parse_ram_spec(text, spec, static_cast<uint32_t>(descriptors));
        !problem.empty()) {
      if (descriptors == 0 && text.find("=fd:") != std::string::npos)
        problem = "--ram " + text + ": no descriptor came with the request";
      return wrong(std::move(problem));
    }
    if (spec.number) {
      if (named[*spec.number]) return wrong("--ram " + text + ": another one has this descriptor");
      named[*spec.number] = true;
    }
    if (peer.root()) continue;
    if (spec.owner) return forbidden("--ram " + text + ": only root may give owner=");
    if (spec.in_use_allowed) return forbidden("--ram " + text + ": only root may give in-use=allow");
  }
  for (std::size_t i = 0; i < named.size(); ++i)
    if (!named[i])
      return wrong(fmt::format("descriptor {} came with the request, and no --ram names fd:{}", i, i));
  return std::nullopt;
}

// "mem=fd:7,size=64M" -> 7, and its place in the text. nullopt: it names no descriptor.
std::optional<std::string_view> descriptor_in(std::string_view ram) {
  const std::size_t equals = ram.find('=');
  if (equals == std::string_view::npos || !ram.substr(equals + 1).starts_with("fd:")) return std::nullopt;
  ram.remove_prefix(equals + 4);
  return ram.substr(0, ram.find(','));
}

}  // namespace

std::optional<OptionOwner> owner_of_option(std::string_view name) {
  for (const OwnedOption& option : kOptions)
    if (option.name == name) return option.owner;
  return std::nullopt;
}

std::optional<ControlError> parse_session_arguments(const Json& arguments, std::size_t descriptors,
                                                    const ControlPeer& peer, SessionArguments& out) {
  out = {};
  CLI::App app("session-add");
  add_receive_options(app, out.options);
  app.set_help_flag();
  for (const char* const name : {"--port", "--address"}) app.get_option(name)->required(false);
  std::vector<std::string> words;
  if (auto error = words_of(app, arguments, peer, words)) return error;
  std::reverse(words.begin(), words.end());  // as CLI11 wants them
  try {
    app.parse(std::move(words));
  } catch (const CLI::ParseError& error) {
    return wrong(error.what());
  }
  if (app.count("--listen") > 0) out.listen = out.options.listen;
  if (out.listen == uint16_t{0}) return wrong("--listen 0: a source cannot connect to that");
  if (auto error = read_ram(descriptors, peer, out)) return error;
  std::string problem = check_destination_options(out.options);
  if (problem.empty()) problem = check_stream_options(out.options);
  const std::vector<std::string>& capabilities = out.options.capabilities;
  if (problem.empty() && std::find(capabilities.begin(), capabilities.end(), "x-colo") != capabilities.end())
    problem =
        "capability x-colo: a daemon has no word for failing over, without which a lost source is a lost "
        "guest: use migrx receive with a port of its own (docs/colo.md)";
  if (!problem.empty()) return wrong(std::move(problem));
  return std::nullopt;
}

std::optional<ControlError> open_session_files(std::vector<Descriptor> came, const ControlPeer& peer,
                                               const ClientFiles& client_files, SessionArguments& out) {
  for (RamSpec& spec : out.ram) {
    ClientFile file;
    if (spec.number) {
      file.file = std::move(came.at(*spec.number));
    } else if (peer.root()) {
      continue;
    } else if (const std::string problem = client_files.open(peer, spec.path, spec.mode, file);
               !problem.empty()) {
      for (const ClientFile& made : out.files) client_files.remove(peer, made);
      out.files.clear();
      return forbidden("--ram " + spec.id + ": " + problem);
    }
    spec.given = GivenFile{file.file.get(), file.before};
    out.files.push_back(std::move(file));
  }
  return std::nullopt;
}

std::string session_arguments_of(const CLI::App& receive, Json& arguments, std::vector<int>& files) {
  arguments = Json::object();
  files.clear();
  for (const CLI::Option* const option : receive.get_options()) {
    if (option->count() == 0 || option->get_lnames().empty()) continue;
    const std::string& name = option->get_lnames().front();
    const std::optional<OptionOwner> owner = owner_of_option(name);
    if (owner == OptionOwner::client) continue;
    if (!owner || owner == OptionOwner::host)
      return "--" + name +
             " belongs to the host, and is set where the daemon is started: leave it out with --via";
    if (is_flag(*option)) {
      arguments[name] = option->as<bool>();  // --unlink=false is a flag, too
      continue;
    }
    if (!may_repeat(*option)) {
      arguments[name] = option->results().back();
      continue;
    }
    for (std::string text : option->results()) {
      if (const auto digits = name == "ram" ? descriptor_in(text) : std::nullopt) {
        int fd = -1;
        const auto [end, error] = std::from_chars(digits->data(), digits->data() + digits->size(), fd);
        if (error != std::errc{} || end != digits->data() + digits->size() || ::fcntl(fd, F_GETFD) < 0)
          return "--ram " + text + ": this process has no such descriptor";
        const auto at = static_cast<std::size_t>(digits->data() - text.data());
        text.replace(at, digits->size(), std::to_string(files.size()));
        files.push_back(fd);
      }
      arguments[name].push_back(text);
    }
  }
  return {};
}

}  // namespace migrx
