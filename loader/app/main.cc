// The migrx program.
#include "dataplane/dpdk/tap.h"
#include "loader/app/command_line.h"
#include "loader/app/inherited_descriptors.h"

int main(int argc, char** argv) {
  migrx::hold_standard_descriptors();
  migrx::block_tap_signals();  // before any thread is made
  return migrx::run_command_line(argc, argv);
}
