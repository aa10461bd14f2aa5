#include "loader/tls/credential_store.h"

#include <gtest/gtest.h>

#include <ctime>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "tests/loader/tls/test_pki.h"

namespace migrx {
namespace {

class TlsCredentialStoreTest : public testing::Test {
 protected:
  void SetUp() override { pki_.make({.common_name = "server", .file = "server"}); }
  void open(const std::string& creds = "x509") {
    TlsCredsOptions options;
    ASSERT_EQ(parse_tls_creds(creds + ":dir=" + pki_.dir(), options), "");
    std::string problem;
    store_ = TlsCredentialStore::open(options, problem, warnings_);
    ASSERT_NE(store_, nullptr) << problem;
    first_ = store_->current(now_, warnings_);
    ASSERT_TRUE(warnings_.empty()) << warnings_[0];
  }
  const TlsCredentials* current() {
    warnings_.clear();
    last_ = store_->current(now_, warnings_);
    return last_.get();
  }
  // As `cp` does it: the file's inode stays.
  void write(const std::string& name, const std::string& text) { pki_.write(name, text); }
  std::string read(const std::string& name) {
    std::ifstream file(pki_.path(name));
    return {std::istreambuf_iterator<char>(file), {}};
  }

  TestPki pki_;
  std::unique_ptr<TlsCredentialStore> store_;
  std::shared_ptr<const TlsCredentials> first_;
  std::shared_ptr<const TlsCredentials> last_;
  std::vector<std::string> warnings_;
  int64_t now_ = std::time(nullptr);
};

TEST_F(TlsCredentialStoreTest, files_that_did_not_change_are_not_read_again) {
  open();
  EXPECT_EQ(current(), first_.get());
  EXPECT_EQ(store_->reloads(), 0U);
}

TEST_F(TlsCredentialStoreTest, a_renewed_pair_is_used_for_the_next_connection) {
  open();
  pki_.make({.common_name = "server", .file = "server", .ends_in_s = 20 * 86400});
  EXPECT_NE(current(), first_.get());
  EXPECT_TRUE(warnings_.empty());
  EXPECT_EQ(store_->reloads(), 1U);
  EXPECT_GT(last_->lifetimes()[0].ends_unix_s, first_->lifetimes()[0].ends_unix_s);
  EXPECT_EQ(current(), last_.get());
  EXPECT_EQ(store_->reloads(), 1U);
}

TEST_F(TlsCredentialStoreTest, a_folder_that_is_swapped_by_its_link_is_seen) {
  const std::string link = pki_.path("link");
  std::filesystem::create_directory(pki_.path("old"));
  for (const char* const name : {"ca-cert.pem", "server-cert.pem", "server-key.pem"})
    std::filesystem::copy_file(pki_.path(name), pki_.path("old") + "/" + name);
  std::filesystem::create_directory_symlink(pki_.path("old"), link);
  TlsCredsOptions options;
  ASSERT_EQ(parse_tls_creds("x509:dir=" + link, options), "");
  std::string problem;
  store_ = TlsCredentialStore::open(options, problem, warnings_);
  ASSERT_NE(store_, nullptr) << problem;
  const auto before = store_->current(now_, warnings_);
  std::filesystem::remove(link);
  std::filesystem::create_directory_symlink(pki_.dir(), link);
  EXPECT_NE(current(), before.get());
}

// Each way to break a set: the old one stays, one warning is given, and a good set is used again.
TEST_F(TlsCredentialStoreTest, a_broken_set_keeps_the_old_one_and_warns_once) {
  const std::string certificate = read("server-cert.pem");
  const std::string key = read("server-key.pem");
  const struct {
    const char* name;
    void (*harm)(TestPki&);
    const char* why;
  } cases[] = {
      {"no certificate", [](TestPki& pki) { pki.write("server-cert.pem", "nothing"); }, "server-cert.pem"},
      {"empty key", [](TestPki& pki) { pki.write("server-key.pem", ""); }, "server-key.pem"},
      {"key gone", [](TestPki& pki) { std::filesystem::remove(pki.path("server-key.pem")); },
       "server-key.pem"},
      {"another key",
       [](TestPki& pki) {
         pki.make({.common_name = "other", .file = "other"});
         std::filesystem::copy_file(pki.path("other-key.pem"), pki.path("server-key.pem"),
                                    std::filesystem::copy_options::overwrite_existing);
       },
       "is not the key of"},
      {"expired", [](TestPki& pki) { pki.make({.common_name = "s", .file = "server", .ends_in_s = -5}); },
       "expired"},
      {"foreign", [](TestPki& pki) { pki.make({.common_name = "s", .file = "server", .foreign = true}); },
       "ca-cert.pem"},
      {"half a list", [](TestPki& pki) { pki.write("ca-crl.pem", "-----BEGIN X509 CRL-----\n"); },
       "ca-crl.pem"},
  };
  for (const auto& c : cases) {
    open();
    c.harm(pki_);
    EXPECT_EQ(current(), first_.get()) << c.name;
    ASSERT_EQ(warnings_.size(), 1U) << c.name;
    EXPECT_NE(warnings_[0].find(c.why), std::string::npos) << c.name << ": " << warnings_[0];
    now_ += 2;  // it is tried again, and says nothing new
    EXPECT_EQ(current(), first_.get()) << c.name;
    EXPECT_TRUE(warnings_.empty()) << c.name;
    EXPECT_EQ(store_->reloads(), 0U) << c.name;
    std::filesystem::remove(pki_.path("ca-crl.pem"));
    write("server-cert.pem", certificate);
    write("server-key.pem", key);
    now_ += 2;
    EXPECT_NE(current(), first_.get()) << c.name;
    EXPECT_TRUE(warnings_.empty()) << c.name;
  }
}

TEST_F(TlsCredentialStoreTest, a_pair_whose_time_has_yet_to_come_is_used_when_it_has) {
  open();
  pki_.make({.common_name = "server", .file = "server", .begins_in_s = 3});
  EXPECT_EQ(current(), first_.get());
  ASSERT_EQ(warnings_.size(), 1U);
  while (std::time(nullptr) < now_ + 4) {
    const timespec some{0, 100'000'000};
    ::nanosleep(&some, nullptr);
  }
  now_ = std::time(nullptr);
  EXPECT_NE(current(), first_.get());
}

TEST_F(TlsCredentialStoreTest, a_list_of_revoked_certificates_does_not_go_in_silence) {
  pki_.make({.common_name = "thief", .file = "thief"});
  pki_.revoke("thief");
  open();
  std::filesystem::remove(pki_.path("ca-crl.pem"));
  EXPECT_EQ(current(), first_.get());
  ASSERT_EQ(warnings_.size(), 1U);
  EXPECT_NE(warnings_[0].find("ca-crl.pem"), std::string::npos);
  EXPECT_TRUE(last_->has_revocations());
  pki_.revoke("thief");
  EXPECT_NE(current(), first_.get());
  EXPECT_TRUE(last_->has_revocations());
}

TEST_F(TlsCredentialStoreTest, who_waits_until_a_certificate_ends_hears_of_it_once) {
  open();
  const int64_t begins = first_->lifetimes()[0].begins_unix_s;
  const int64_t ends = first_->lifetimes()[0].ends_unix_s;
  now_ = ends - (ends - begins) / 3 + 10;
  EXPECT_EQ(current(), first_.get());
  ASSERT_EQ(warnings_.size(), 1U);
  EXPECT_NE(warnings_[0].find("renew it"), std::string::npos);
  (void)current();
  EXPECT_TRUE(warnings_.empty());
  now_ = ends + 1;
  (void)current();
  ASSERT_EQ(warnings_.size(), 1U);
  EXPECT_NE(warnings_[0].find("has ended"), std::string::npos);
}

TEST_F(TlsCredentialStoreTest, keys_of_psk_are_read_again_and_broken_ones_are_not_used) {
  write("keys.psk", "qemu:0011\n");
  open("psk");
  write("keys.psk", "qemu:0011\nother:zz\n");
  EXPECT_EQ(current(), first_.get());
  ASSERT_EQ(warnings_.size(), 1U);
  EXPECT_NE(warnings_[0].find("line 2"), std::string::npos) << warnings_[0];
  EXPECT_EQ(warnings_[0].find("zz"), std::string::npos) << "a key is in no message";
  write("keys.psk", "qemu:001122\n");
  EXPECT_NE(current(), first_.get());
  EXPECT_EQ(store_->reloads(), 1U);
}

}  // namespace
}  // namespace migrx
