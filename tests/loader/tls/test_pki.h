// Certificates, keys and PSK files as an operator would make them with certtool and psktool, in a folder of
// their own.
#pragma once

#include <ctime>
#include <string>

namespace migrx {

class TestPki {
 public:
  TestPki();
  ~TestPki();
  TestPki(const TestPki&) = delete;
  TestPki& operator=(const TestPki&) = delete;

  struct Wish {
    std::string common_name;
    std::string file;  // stem: FILE-cert.pem and FILE-key.pem
    bool is_ca = false;
    bool foreign = false;  // signed by an authority that nobody knows
    long begins_in_s = -3600;
    long ends_in_s = 86400;
    unsigned purpose_client = 0;  // critical purpose "client" alone
  };
  // Signed by the folder's authority, which is made first.
  void make(const Wish& wish);
  void revoke(const std::string& file);  // ca-crl.pem names FILE-cert.pem
  void write(const std::string& name, const std::string& text) const;
  [[nodiscard]] const std::string& dir() const { return dir_; }
  [[nodiscard]] std::string path(const std::string& name) const { return dir_ + "/" + name; }

 private:
  struct Authority;
  std::string dir_;
  Authority* authority_;
  Authority* stranger_;
};

}  // namespace migrx
