// Reset mode under arbitrary lists of lost connections, segments, ARP and time. Input: how many were lost,
// two bytes for each, then 4 bytes per step. A round of probes asks everybody who is not gone, at an address
// that ARP has given, and ends; the next one comes when it is due, and nothing makes more probes than a few a
// round. It is over exactly when it may be.
#include <algorithm>
#include <array>
#include <cstdlib>
#include <vector>

#include "dataplane/reset_mode.h"
#include "tests/fuzz/fuzz_target.h"

namespace migrx::test {
namespace {

constexpr uint32_t kLostMax = 12;

void require(bool holds) {
  if (!holds) std::abort();
}

FourTuple tuple_of(uint8_t which) {
  return {Ipv4Address{0x0a4d0001}, Ipv4Address{0x0a4d0002}, static_cast<uint16_t>(40000 + which % 16), 4444};
}
Ipv4Address hop_of(uint8_t which) {
  return {0x0a4d0000U + which % 4U};
}

// What is known of one lost connection.
struct Expected {
  FourTuple tuple;
  IpAddress hop;
  std::vector<EthernetAddress> macs;  // that it may be at
  bool told = false;
  bool gone = false;
  bool asked = false;  // in this round
};

class Process {
 public:
  explicit Process(const ResetModeConfig& config) : config_(config), mode_(config) {
    for (const LostConnection& lost : config.lost)
      peers_.push_back({lost.tuple, lost.next_hop, {lost.link.remote_mac}});
    mode_.start(now_);
  }

  void segment(uint8_t which, bool rst) {
    mode_.on_segment(tuple_of(which), rst, now_);
    bool asked = false;
    for (Expected& peer : peers_) {
      if (peer.tuple != tuple_of(which)) continue;
      asked = peer.told || peer.gone;
      (rst ? peer.gone : peer.told) = true;
    }
    if (!asked) heard_ = now_;
  }

  void arp(uint8_t which, uint8_t first, uint8_t last) {
    EthernetAddress mac;
    mac.bytes[0] = std::byte{first};
    mac.bytes[5] = std::byte{last};
    const bool by_its_port = which < 200;
    mode_.on_neighbour(by_its_port ? tuple_of(0).local_ip : Ipv4Address{1}, hop_of(which), mac);
    if (first % 2 != 0 || !by_its_port) return;
    for (Expected& peer : peers_)
      if (peer.hop == hop_of(which)) peer.macs.push_back(mac);
  }

  // At most so many probes; a round that is cut short goes on with the next call. True: there were no more.
  bool poll(uint32_t most) {
    for (uint32_t n = 0; n < most; ++n) {
      const auto probe = mode_.poll_output(now_);
      if (!probe.has_value()) {
        end_of_round();
        return true;
      }
      require(++probes_ <= 3 * kLostMax * (2 + (now_ - begun_) / config_.probe_ns));
      require(probe->to != nullptr);
      if (probe->kind == ResetMode::Probe::Kind::who_has) continue;
      bool known = false;
      for (Expected& peer : peers_) {
        if (peer.gone || peer.tuple != probe->to->tuple || peer.hop != probe->to->next_hop) continue;
        known = known ||
                std::find(peer.macs.begin(), peer.macs.end(), probe->to->link.remote_mac) != peer.macs.end();
        peer.asked = true;
      }
      require(known);
    }
    return false;
  }
  void poll_all() { require(poll(3 * kLostMax + 1)); }

  void pass(uint64_t ms) {
    now_ += ms * kNsPerMs;
    check();
  }

  void check() const {
    const bool all_told =
        std::all_of(peers_.begin(), peers_.end(), [](const Expected& p) { return p.told || p.gone; });
    require(mode_.over(now_) ==
            (now_ - begun_ >= config_.max_ns || (all_told && now_ - heard_ >= config_.quiet_ns)));
  }

 private:
  void end_of_round() {
    if (now_ < due_) return;
    for (Expected& peer : peers_) {
      require(peer.asked || peer.gone);
      peer.asked = false;
    }
    due_ = now_ + config_.probe_ns;
  }

  const ResetModeConfig config_;
  ResetMode mode_;
  std::vector<Expected> peers_;
  uint64_t now_ = 5 * kNsPerSecond;
  const uint64_t begun_ = now_;
  uint64_t heard_ = now_;
  uint64_t due_ = now_;
  uint64_t probes_ = 0;
};

}  // namespace

std::vector<std::vector<std::byte>> fuzz_seeds() {
  std::vector<std::vector<std::byte>> seeds;
  const auto add = [&seeds](std::initializer_list<uint8_t> bytes) {
    std::vector<std::byte> seed;
    for (const uint8_t byte : bytes) seed.push_back(std::byte{byte});
    seeds.push_back(std::move(seed));
  };
  // Nobody; two of one source, told, one of them gone; three behind two hops, one of which moves.
  add({0, 4, 0, 0, 0, 3, 100, 30, 0});
  add({2, 1,   1,  2, 1,                                                             //
       4, 0,   0,  0, 0, 1, 0, 0, 0, 2, 0, 0, 1, 1, 0, 0, 3, 100, 6, 0, 4, 0, 0, 0,  //
       3, 100, 31, 0});
  add({3, 1,   1,   2, 2, 3,   2,                                                                   //
       5, 3,   0,   0, 2, 2,   4,   9, 4, 0, 0, 0, 2, 2, 5, 9, 4, 0, 0, 0, 1, 2, 0, 0, 5, 1, 0, 0,  //
       3, 255, 255, 0, 3, 255, 255, 0});
  return seeds;
}

}  // namespace migrx::test

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  using namespace migrx::test;
  if (size < 1) return 0;
  migrx::ResetModeConfig config;
  std::size_t at = 1;
  for (uint32_t n = data[0] % (kLostMax + 1); n > 0 && at + 2 <= size; --n, at += 2)
    config.lost.push_back({tuple_of(data[at]), {}, hop_of(data[at + 1])});
  Process process{config};
  for (; at + 4 <= size && at < 4 * 500; at += 4) {
    const uint8_t* const step = data + at;
    switch (step[0] % 6) {
      case 0:
      case 1:
        process.segment(step[1], step[0] % 6 == 1);
        break;
      case 2:
        process.arp(step[1], step[2], step[3]);
        break;
      case 3:
        process.pass(uint64_t{step[1]} * step[2]);
        break;
      case 4:
        process.poll_all();
        break;
      default:
        static_cast<void>(process.poll(step[1] % 8U));
        break;
    }
    process.check();
  }
  return 0;
}
