#include "loader/app/session_commands.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <array>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

#include "loader/control/control_client.h"
#include "loader/stream/printable.h"

namespace migrx {
namespace {

using Json = nlohmann::json;

void complain(const std::string& text) {
  std::fprintf(stderr, "migrx: %s\n", printable(text, /*lines=*/true).c_str());
}

// nullopt: the operator has been told; `exit_status` is what it means.
std::optional<Json> ask(const std::string& socket, const std::string& command, const Json& arguments,
                        int& exit_status) {
  exit_status = 2;
  std::string problem;
  const std::unique_ptr<ControlClient> client = ControlClient::connect(socket, problem);
  if (client == nullptr) {
    complain(problem);
    return std::nullopt;
  }
  ControlAnswer answer = client->call(command, arguments);
  if (const auto* const error = std::get_if<ControlError>(&answer)) {
    complain(error->sentence);
    if (!client->gone() && error->error_class != control_class::kGeneric) exit_status = 1;
    return std::nullopt;
  }
  exit_status = 0;
  return std::get<Json>(std::move(answer));
}

std::string cell(const Json& session, const char* member) {
  const auto found = session.is_object() ? session.find(member) : session.end();
  if (!session.is_object() || found == session.end() || found->is_null()) return "-";
  return printable(found->is_string() ? found->get<std::string>() : found->dump());
}

}  // namespace

void add_socket_option(CLI::App& command, std::string& socket) {
  command.add_option("--via", socket, "UNIX socket at which the daemon listens")
      ->type_name("SOCKET")
      ->capture_default_str();
}

std::string session_table(const Json& sessions) {
  constexpr std::array kColumns{"id", "state", "port", "uid", "progress"};
  std::vector<std::array<std::string, kColumns.size()>> rows{{"ID", "STATE", "PORT", "UID", "PROGRESS"}};
  if (sessions.is_array())
    for (const Json& session : sessions) {
      auto& row = rows.emplace_back();
      for (std::size_t i = 0; i < kColumns.size(); ++i) row[i] = cell(session, kColumns[i]);
    }
  std::array<std::size_t, kColumns.size()> widths{};
  for (const auto& row : rows)
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  std::string text;
  for (const auto& row : rows) {
    for (std::size_t i = 0; i + 1 < row.size(); ++i) text += fmt::format("{:<{}}  ", row[i], widths[i]);
    text += row.back() + "\n";
  }
  return text;
}

void add_list_command(CLI::App& app, int& exit_status) {
  struct Options {
    std::string socket = kControlSocketPath;
    bool json = false;
  };
  auto options = std::make_shared<Options>();
  CLI::App* const command = app.add_subcommand("list", "list the migrations that a daemon receives");
  add_socket_option(*command, options->socket);
  command->add_flag("--json", options->json, "print the daemon's answer as JSON");
  command->callback([options, &exit_status] {
    const auto sessions = ask(options->socket, "query-sessions", Json::object(), exit_status);
    if (!sessions) return;
    const std::string text = options->json
                                 ? sessions->dump(2, ' ', false, Json::error_handler_t::replace) + "\n"
                                 : session_table(*sessions);
    std::fputs(text.c_str(), stdout);
  });
}

void add_cancel_command(CLI::App& app, int& exit_status) {
  struct Options {
    std::string socket = kControlSocketPath;
    std::string id;
  };
  auto options = std::make_shared<Options>();
  CLI::App* const command =
      app.add_subcommand("cancel", "cancel a migration that a daemon receives, as a signal would");
  command->add_option("ID", options->id, "of the migration, as migrx list shows it")->required();
  add_socket_option(*command, options->socket);
  command->callback([options, &exit_status] {
    const auto answer = ask(options->socket, "session-cancel", {{"id", options->id}}, exit_status);
    if (!answer) return;
    if (const std::string text = cell(*answer, "text"); text != "-") std::printf("%s\n", text.c_str());
  });
}

}  // namespace migrx
