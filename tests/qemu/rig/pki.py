"""Certificates and keys for TLS, made with certtool and psktool as docs/tls.md says, once for a run of the matrix."""

import os
import shutil
import subprocess

from .leftovers import made_once
from .network import RECEIVER
from .runner import Skip

_AUTHORITY = "cn = \"authority of the tests\"\nca\ncert_signing_key\nexpiration_days = 30\n"
_COMMON = "signing_key\nencryption_key\nexpiration_days = 30\n"
_SERVER = "cn = \"receiver\"\nip_address = \"%s\"\ntls_www_server\n" % RECEIVER + _COMMON
_CLIENT = "country = GB\norganization = Example\ncn = \"source.example\"\ntls_www_client\n" + _COMMON
_state = {}


def _make(folder, name, template, authority=None):
    info = os.path.join(folder, name + ".info")
    key, certificate = os.path.join(folder, name + "-key.pem"), os.path.join(folder, name + "-cert.pem")
    with open(info, "w", encoding="ascii") as file:
        file.write(template)
    subprocess.run(["certtool", "--generate-privkey", "--key-type", "rsa", "--bits", "2048", "--outfile", key],
                   check=True, capture_output=True)
    signer = ["--generate-certificate", "--load-ca-certificate", os.path.join(authority, "ca-cert.pem"),
              "--load-ca-privkey", os.path.join(authority, "ca-key.pem")] if authority else ["--generate-self-signed"]
    subprocess.run(["certtool", *signer, "--load-privkey", key, "--template", info, "--outfile", certificate],
                   check=True, capture_output=True)


def folder(strange_client=False):
    """A folder with everything both sides need; `strange_client`: its client's certificate is somebody else's."""
    if shutil.which("certtool") is None:
        raise Skip("needs certtool")
    if strange_client not in _state:
        name = "pki-of-another-authority" if strange_client else "pki"
        ca = os.path.join(folder(), "ca-cert.pem") if strange_client else None
        _state[strange_client] = made_once(name, lambda path: _make_all(path, ca), shutil.rmtree)
    return _state[strange_client]


def _make_all(path, other_ca):
    """`other_ca`: what the client believes in its place, so that it knows the receiver's authority and is not known."""
    _make(path, "ca", _AUTHORITY)
    _make(path, "server", _SERVER, path)
    _make(path, "client", _CLIENT, path)
    if other_ca:
        shutil.copy(other_ca, path)
    with open(os.path.join(path, "keys.psk"), "w", encoding="ascii") as file:
        file.write("qemu:%s\n" % os.urandom(32).hex())


def own_folder(where, address=RECEIVER):
    """A folder of one test's own that its credentials may change in, and a server's pair for `address` in it."""
    path = os.path.join(where, "pki")
    shutil.copytree(folder(), path)
    if address != RECEIVER:
        renew_server(path, address)
    return path


def renew_server(path, address=RECEIVER):
    """A new pair for the server, as a renewal makes it: the old files are written over."""
    _make(path, "server", _SERVER.replace(RECEIVER, address), path)


def source_arguments(kind, path=None):
    """QEMU's arguments for a source: an object tls0 of `kind`, x509 or psk."""
    creds = {"x509": "tls-creds-x509,sanity-check=off", "psk": "tls-creds-psk"}[kind]
    return ["-object", "%s,id=tls0,endpoint=client,dir=%s" % (creds, path or folder())]


def destination_arguments(kind):
    """The same for a destination."""
    creds = {"x509": "tls-creds-x509", "psk": "tls-creds-psk"}[kind]
    return ["-object", "%s,id=tls0,endpoint=server,dir=%s" % (creds, folder())]
