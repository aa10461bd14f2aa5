#include <algorithm>
#include <iterator>
#include <set>

#include "loader/doctor/check.h"
#include "numa/cpu_list.h"

namespace migrx {
namespace {

std::vector<CpuId> without(const std::vector<CpuId>& cpus, const std::vector<CpuId>& others) {
  std::vector<CpuId> out;
  std::copy_if(cpus.begin(), cpus.end(), std::back_inserter(out),
               [&](CpuId cpu) { return !has(others, cpu); });
  return out;
}

std::string isolate(const CheckInput& in) {
  // All siblings of the planned cores, so that nothing else runs on them; what is isolated already stays so.
  std::set<CpuId> cpus(in.host.isolated.begin(), in.host.isolated.end());
  for (const CpuId cpu : in.planned_cpus()) {
    cpus.insert(cpu);
    if (const auto known = in.host.siblings.find(cpu); known != in.host.siblings.end())
      cpus.insert(known->second.begin(), known->second.end());
  }
  const std::string list = format_cpu_list({cpus.begin(), cpus.end()});
  return kernel_words("cpus", "isolcpus=" + list + " nohz_full=" + list + " rcu_nocbs=" + list);
}

// A host that has no CPU beside the planned ones cannot give any of them away.
bool can_isolate(const CheckInput& in) {
  return without(in.host.online, in.planned_cpus()).size() >= 2;
}

CheckVerdict plan(const CheckInput& in) {
  if (!in.plan) return fail("no plan: " + in.plan_problem);
  return ok(std::to_string(in.plan->threads.size()) + " threads on CPUs " +
            format_cpu_list(in.planned_cpus()) + ", idle " + in.plan->idle);
}

CheckVerdict flags(const CheckInput& in) {
  const auto& flags = in.host.cpu_flags;
  if (flags.empty()) return skipped("/proc/cpuinfo tells no flags");
  const auto lacks = [&](const char* flag) {
    return std::find(flags.begin(), flags.end(), flag) == flags.end();
  };
  for (const char* const flag : {"sse4_2", "ssse3"})
    if (lacks(flag))
      return fail(std::string("the CPU has no ") + flag +
                  (in.host.virtual_machine
                       ? ": give this virtual machine a newer CPU model (host-passthrough)"
                       : ""));
  if (lacks("avx2"))
    return warn(
        std::string("the CPU has no avx2") +
        (in.host.virtual_machine ? ": give this virtual machine a newer CPU model (host-passthrough)" : ""));
  return ok(lacks("avx512f") ? "avx2" : "avx512f");
}

CheckVerdict count(const CheckInput& in) {
  const std::size_t usable = in.host.topology.cpus.size();
  if (usable == 0) return fail("no CPU is left for this process: look at its cpuset and at taskset -p");
  if (usable < 4)
    return warn(std::to_string(usable) +
                " CPUs: poll core, loader and everything else of the host share them");
  return ok(std::to_string(usable) + " CPUs");
}

CheckVerdict cpuset(const CheckInput& in) {
  const std::size_t usable = in.host.topology.cpus.size();
  const std::size_t online = in.host.online.size();
  for (const auto* list : {&in.wish.poll_cpus, &in.wish.loader_cpus})
    for (const CpuId cpu : *list)
      if (in.host.topology.find(cpu) == nullptr)
        return fail("CPU " + std::to_string(cpu.value()) + " is not one that this process may use");
  if (usable < online)
    return warn(std::to_string(usable) + " of " + std::to_string(online) +
                " CPUs are in this process's cpuset: the plan knows only those");
  return ok("all " + std::to_string(online) + " CPUs may be used");
}

CheckVerdict isolation(const CheckInput& in) {
  if (!in.plan) return skipped("no plan");
  const auto missing = without(in.planned_cpus(), in.host.isolated);
  if (missing.empty()) return ok("CPUs " + format_cpu_list(in.planned_cpus()) + " are isolated");
  if (!can_isolate(in))
    return warn("CPUs " + format_cpu_list(missing) +
                " are not isolated, and this host has too few to spare some");
  return warn("CPUs " + format_cpu_list(missing) + " are not isolated; restart the host after the command",
              isolate(in));
}

CheckVerdict nohz(const CheckInput& in) {
  if (!in.plan) return skipped("no plan");
  if (in.plan->idle != "spin") return skipped("the plan's cores do not spin");
  const auto missing = without(in.planned_cpus(), in.host.nohz_full);
  if (missing.empty()) return ok("no tick on CPUs " + format_cpu_list(in.planned_cpus()));
  return warn(
      "CPUs " + format_cpu_list(missing) + " have a scheduler tick; restart the host after the command",
      isolate(in));
}

CheckVerdict rcu(const CheckInput& in) {
  if (!in.plan) return skipped("no plan");
  if (in.plan->idle != "spin") return skipped("the plan's cores do not spin");
  std::vector<CpuId> offloaded = in.host.nohz_full;  // which implies rcu_nocbs
  const std::string& line = in.host.command_line;
  constexpr std::string_view kWord = "rcu_nocbs=";
  if (const std::size_t at = line.find(kWord); at != std::string::npos) {
    const std::string text = line.substr(at + kWord.size());
    const std::string list = text.substr(0, text.find(' '));
    std::vector<CpuId> cpus;
    if (list == "all") return ok("rcu_nocbs=all");
    if (parse_cpu_list(list, cpus).empty()) offloaded.insert(offloaded.end(), cpus.begin(), cpus.end());
  }
  const auto missing = without(in.planned_cpus(), offloaded);
  if (missing.empty()) return ok("callbacks are taken off CPUs " + format_cpu_list(in.planned_cpus()));
  return warn("CPUs " + format_cpu_list(missing) + " run RCU callbacks; restart the host after the command",
              isolate(in));
}

CheckVerdict siblings(const CheckInput& in) {
  if (!in.plan) return skipped("no plan");
  const auto planned = in.planned_cpus();
  std::vector<CpuId> shared, busy;
  for (const CpuId cpu : planned)
    if (const auto known = in.host.siblings.find(cpu); known != in.host.siblings.end())
      for (const CpuId sibling : known->second) {
        if (sibling == cpu) continue;
        if (has(planned, sibling))
          shared.push_back(cpu);
        else if (!has(in.host.isolated, sibling))
          busy.push_back(sibling);
      }
  if (!shared.empty())
    return warn("CPUs " + format_cpu_list(shared) + " of the plan share cores with each other");
  if (!busy.empty())
    return warn("CPUs " + format_cpu_list(busy) +
                    " are siblings of the plan's and not isolated; restart the host after the command",
                can_isolate(in) ? isolate(in) : "");
  return ok("no other work on the plan's cores");
}

CheckVerdict governor(const CheckInput& in) {
  if (!in.plan) return skipped("no plan");
  std::vector<CpuId> slow;
  std::string name;
  bool known = false;
  for (const CpuId cpu : in.planned_cpus())
    if (const auto at = in.host.governor.find(cpu); at != in.host.governor.end()) {
      known = true;
      if (at->second == "performance") continue;
      slow.push_back(cpu);
      name = at->second;
    }
  if (!known) return skipped("no frequency governor here (a virtual machine, or fixed by the firmware)");
  if (slow.empty()) return ok("performance");
  return warn(
      "governor " + name + " on CPUs " + format_cpu_list(slow),
      "for g in /sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor; do echo performance > $g; done");
}

CheckVerdict irqs(const CheckInput& in) {
  if (!in.plan) return skipped("no plan");
  const auto planned = in.planned_cpus();
  const auto elsewhere = without(in.host.online, planned);
  std::string list;
  uint32_t number = 0;
  for (const IrqFacts& irq : in.host.irqs)
    if (std::any_of(irq.cpus.begin(), irq.cpus.end(), [&](CpuId cpu) { return has(planned, cpu); })) {
      ++number;
      list += " " + std::to_string(irq.number);
    }
  if (number == 0) return ok("no device interrupts the plan's CPUs");
  if (elsewhere.empty())
    return warn(std::to_string(number) + " device interrupts on the plan's CPUs, and no other CPU");
  return warn(std::to_string(number) +
                  " device interrupts may come to the plan's CPUs; the kernel keeps those of some "
                  "devices where they are and says so",
              "for i in" + list + "; do echo " + format_cpu_list(elsewhere) +
                  " > /proc/irq/$i/smp_affinity_list; done");
}

CheckVerdict clock(const CheckInput& in) {
  const std::string& source = in.host.clock_source;
  if (source.empty()) return skipped("the kernel does not tell its clock source");
  const std::set<std::string> fast{"tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page"};
  if (fast.contains(source)) return ok(source);
  return warn("clock source " + source + " is read through a device",
              "echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource");
}

CheckVerdict tsc(const CheckInput& in) {
  const auto& flags = in.host.cpu_flags;
  if (flags.empty()) return skipped("/proc/cpuinfo tells no flags");
  for (const char* const flag : {"constant_tsc", "nonstop_tsc"})
    if (std::find(flags.begin(), flags.end(), flag) == flags.end())
      return warn(std::string("the CPU's time stamp counter is not ") + flag +
                  (in.host.virtual_machine
                       ? ": set migratable=off,+invtsc or host-passthrough for this machine"
                       : ""));
  return ok("constant and never stops");
}

CheckVerdict nodes(const CheckInput& in) {
  if (!in.plan) return skipped("no plan");
  std::string far;
  const auto look = [&](NodeId from, const std::string& what) {
    if (from == kAnyNode) return;
    for (const ThreadPlan& thread : in.plan->threads)
      if (thread.node != kAnyNode && thread.node != from) {
        const auto distance = in.host.distance.find({from.value(), thread.node.value()});
        far += (far.empty() ? "" : "; ") + what + " on node " + std::to_string(from.value()) + ", CPU " +
               std::to_string(thread.cpu.value()) + " on node " + std::to_string(thread.node.value()) +
               (distance == in.host.distance.end() ? ""
                                                   : " (distance " + std::to_string(distance->second) + ")");
        return;
      }
  };
  for (const CheckInput::Port& port : in.pci_ports())
    if (port.pci != nullptr) look(port.pci->node, port.address);
  for (const RamSpec& spec : in.wish.ram) look(spec.node, "RAM " + spec.id);
  if (!far.empty())
    return warn(
        far +
        ": choose --poll-cores and --loader-cores on one node, or put the guest's RAM on the port's node "
        "(node= of --ram)");
  return ok(in.host.topology.nodes.size() < 2 ? "one memory node" : "port, cores and RAM are on one node");
}

CheckVerdict balancing(const CheckInput& in) {
  const std::string value = in.host.setting("/proc/sys/kernel/numa_balancing");
  if (value.empty() || value == "0") return ok("off");
  if (in.host.topology.nodes.size() < 2) return ok("on, without effect on one node");
  return warn("on: the kernel unmaps guest pages to see who uses them",
              "echo kernel.numa_balancing=0 > /etc/sysctl.d/60-migrx-numa.conf && sysctl -p "
              "/etc/sysctl.d/60-migrx-numa.conf");
}

constexpr Check kCpuChecks[] = {
    {"placement", "Without a plan for its threads migrx does not start.", plan},
    {"cpu-flags", "DPDK needs SSE4.2, and the page copy is fastest with AVX2 or AVX-512.", flags},
    {"cpu-count", "A poll core and a loader that share a CPU halve each other's rate.", count},
    {"cpuset", "A cpuset hides CPUs, also those on the port's node, from migrx.", cpuset},
    {"cpu-isolation",
     "Another task on a poll core stops reception for a whole time slice, and the port drops.", isolation},
    {"cpu-tick", "The scheduler's tick interrupts a spinning core up to 1000 times a second.", nohz},
    {"cpu-rcu", "RCU callbacks run on the core that queued them, in the middle of a burst.", rcu},
    {"cpu-siblings", "Work on an SMT sibling takes up to half of the core.", siblings},
    {"cpu-governor", "A core that first has to raise its clock is slow when a migration starts.", governor},
    {"irq-affinity", "Each interrupt on a poll core delays the frames after it.", irqs},
    {"clock-source", "Each turn of an agent reads the clock, which must not leave user space.", clock},
    {"tsc", "Time-outs and rates come from a counter that must run at one speed.", tsc},
    {"numa-distance", "Bytes that cross between memory nodes cost bandwidth that all CPUs share.", nodes},
    {"numa-balancing", "Automatic balancing takes page faults on guest RAM while it is written.", balancing},
};

}  // namespace

std::span<const Check> cpu_checks() {
  return kCpuChecks;
}

}  // namespace migrx
