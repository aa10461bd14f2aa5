#include "loader/app/receive_via.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "loader/app/inherited_descriptors.h"
#include "loader/app/remote_session.h"
#include "loader/app/report.h"
#include "loader/app/session_arguments.h"
#include "loader/app/signals.h"
#include "loader/app/terminal.h"
#include "loader/control/control_client.h"
#include "numa/clock.h"

namespace migrx {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kPollOnTerminalMs = 500;
constexpr uint64_t kPollMs = 2050;  // a little longer than what a Terminal leaves between two plain lines

uint64_t now_ms() {
  return monotonic_ns() / 1'000'000;
}

void tell(RemoteSession& session, Terminal& terminal, int ready_fd) {
  while (const auto warning = session.take_warning()) terminal.warn(*warning);
  if (const auto line = session.take_ready()) tell_ready(*line, ready_fd, terminal);
  const auto progress = session.take_progress();
  if (!progress) return;
  // The daemon has no terminal: what does not fit is cut here.
  const unsigned width = terminal.width();
  if (terminal.due())
    terminal.progress(width > 0 && progress->size() >= width ? progress->substr(0, width - 1) : *progress);
}

int tell_end(const RemoteSession& session, const ReceiveOptions& options, Terminal& terminal) {
  const std::string words = session.summary().empty() ? session.outcome() : session.summary();
  if (session.exit_status() == 0)
    terminal.say(words);
  else
    terminal.warn(words);
  if (!options.report || !session.report().is_object()) return session.exit_status();
  const std::string text = session.report().dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
  if (const std::string problem = write_report_text(*options.report, text); !problem.empty()) {
    terminal.warn("warning: " + problem + "; the report follows");
    std::fprintf(stderr, "%s\n", text.c_str());
  }
  return session.exit_status();
}

// Until it is over, or the daemon is gone.
int follow(ControlClient& client, RemoteSession& session, const ReceiveOptions& options,
           const SignalWatch& signals, Terminal& terminal) {
  while (!session.over()) {
    while (auto request = session.request(now_ms())) {
      const uint64_t number = client.send(request->command, request->arguments);
      if (number == 0) break;
      session.sent(number, now_ms());
    }
    const auto wait_ms = static_cast<int>(session.due_ms(now_ms()) - now_ms());
    const auto message = client.next(wait_ms, signals.fd());
    if (const auto* const reply = std::get_if<ControlReply>(&message)) session.on_reply(*reply, now_ms());
    if (const auto* const event = std::get_if<ControlEvent>(&message)) session.on_event(*event);
    for (int number; (number = signals.wait(0)) != 0;) {
      if (number == SIGUSR1)
        terminal.warn("SIGUSR1: there is no failover through a daemon");
      else
        session.on_signal();
    }
    tell(session, terminal, options.ready_fd);
    if (client.gone() && std::holds_alternative<std::monostate>(message)) {
      terminal.warn(session.lost_text());
      return 1;
    }
  }
  return tell_end(session, options, terminal);
}

}  // namespace

void add_via_option(CLI::App& receive, std::string& socket) {
  receive
      .add_option(
          "--via", socket,
          "let the daemon that listens at this UNIX socket receive, over its ports; options of a host "
          "are the daemon's then, and --listen is chosen when it is not given")
      ->type_name("SOCKET")
      ->group("Daemon")
      ->trigger_on_parse()
      ->each([&receive](const std::string&) {
        for (const char* const name : {"--port", "--address"}) receive.get_option(name)->required(false);
      });
}

int receive_via(const std::string& socket, const CLI::App& receive, const ReceiveOptions& options) {
  const SignalWatch signals;
  StandardTerminal terminal(options.quiet);
  const auto refuse = [&](const std::string& problem) {
    terminal.warn(problem);
    return 2;
  };
  Json arguments;
  std::vector<int> files;
  std::string problem = session_arguments_of(receive, arguments, files);
  if (problem.empty() && options.report) problem = check_report_path(*options.report);
  if (!problem.empty()) return refuse(problem);
  const std::unique_ptr<ControlClient> client = ControlClient::connect(socket, problem);
  if (client == nullptr) return refuse(problem);
  const ControlAnswer added = client->call("session-add", arguments, files);
  if (const auto* const error = std::get_if<ControlError>(&added)) return refuse(error->sentence);
  const Json& session = std::get<Json>(added);
  const auto id = session.is_object() ? session.find("id") : session.end();
  const auto port = session.is_object() ? session.find("port") : session.end();
  if (!session.is_object() || id == session.end() || !id->is_string() || port == session.end() ||
      !port->is_number_unsigned())
    return refuse("the daemon's answer to session-add is not of the form it has");
  RemoteSession remote(id->get<std::string>(), static_cast<uint16_t>(port->get<uint64_t>()),
                       terminal.width() > 0 ? kPollOnTerminalMs : kPollMs);
  return follow(*client, remote, options, signals, terminal);
}

}  // namespace migrx
