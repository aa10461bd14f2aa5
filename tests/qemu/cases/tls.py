"""Migrations over TLS: every channel is encrypted, and RAM must equal the source's all the same."""

import contextlib
import os

from rig import pki
from rig.network import RECEIVER, Network
from rig.runner import Case, expect
from rig.transfer import Transfer, need

VERSIONS = ("7.2", "10", "newest")
PARAMETERS = {"tls_creds": "tls0"}


def _check(report, transfer):
    tls = report.get("tls")
    expect(tls is not None, "the report says nothing of TLS")
    expect(tls["handshakes"] == transfer.channels + 1, "%d handshakes for %d channels", tls["handshakes"],
           transfer.channels + 1)
    # Up to 10 a QEMU sends each page in a record of its own; 11 fills records, a short packet's header and pages share one.
    # Records of multifd channels that hold nothing but pages need no copy, unless they are compressed.
    pages = sum(channel["normal_pages"] for channel in report["channels"] if channel["name"] != "main")
    straight = tls["straight_pages"]
    expect(straight >= 0.9 * pages if transfer.compression == "none" else straight == 0, "%d of %d pages straight",
           straight, pages)
    expect(tls["records"] > straight / 4, "%d records", tls["records"])
    return tls["session"]


def _over_tls(kind, version, creds="", **settings):
    """A whole transfer with credentials of `kind`."""
    def run(folder):
        need(version)
        path = pki.folder()
        transfer = Transfer(version, extra=lambda _folder: pki.source_arguments(kind),
                            parameters={**PARAMETERS, **settings.pop("parameters", {})},
                            receiver_extra=("--tls-creds", "%s:dir=%s%s" % (kind, path, creds)), check=_check,
                            **settings)
        return transfer.run(folder)
    return run


def _changed(version, address, change, warning, reloads):
    """Credentials that change while migrx waits: `change` gets the folder. `address`: of the pair at the start."""
    def run(folder):
        need(version)
        path = pki.own_folder(folder, address)

        def check(report, transfer):
            _check(report, transfer)
            told = [text for text in report["warnings"] if "credentials" in text]
            expect(report["tls"]["reloads"] == reloads, "%d reloads", report["tls"]["reloads"])
            expect(bool(told) == bool(warning) and all(warning in text for text in told), "warnings %r", told)
            return report["tls"]["session"]

        return Transfer(version, channels=2, extra=lambda _folder: pki.source_arguments("x509"), parameters=PARAMETERS,
                        receiver_extra=("--tls-creds", "x509:dir=" + path), ready=lambda _files: change(path),
                        check=check).run(folder)
    return run


def _write_over(path):
    with open(os.path.join(path, "server-cert.pem"), "w", encoding="ascii") as file:
        file.write("half a certificate\n")


def _refused(version, source_arguments, receiver_extra, warning, parameters=PARAMETERS, channels=2):
    """A source that must not get in: it says failed, its guest runs on, and migrx has told the operator why."""
    def run(folder):
        need(version)
        pki.folder()
        transfer = Transfer(version, channels=channels, extra=lambda _folder: source_arguments(),
                            parameters=parameters, receiver_extra=receiver_extra())
        with contextlib.ExitStack() as stack:
            network = stack.enter_context(Network(transfer.mtu))
            source = transfer.start_source(folder, stack, network)
            options, _files = transfer.ram_files(folder, source)
            receiver = transfer.start_receiver(folder, stack, network, options)
            source.migrate(receiver.uri)
            source.wait_migration(("failed",), timeout=60)
            expect(source.goes_on() or source.running(), "the source's guest does not run on")
            expect(receiver.alive(), "migrx ended: %s", receiver.log()[-2000:])
            receiver.signal()
            receiver.wait(30)
            expect(warning in receiver.log(), "migrx does not say %r: %s", warning, receiver.log()[-2000:])
    return run


def _receiver_tls(more=()):
    return lambda: ("--tls-creds", "x509:dir=" + pki.folder(), *more)


def cases():
    """The cases of this file."""
    for version in VERSIONS:
        for kind in ("x509", "psk"):
            quick = kind == "x509" or version == "10"
            yield Case("tls-%s-multifd-4-dirty-%s" % (kind, version), _over_tls(kind, version, channels=4, dirty_s=1.5),
                       quick)
            yield Case("tls-%s-precopy-%s" % (kind, version), _over_tls(kind, version, dirty_s=1.5),
                       kind == "x509" and version == "7.2")
        for method in ("zlib", "zstd"):
            yield Case("tls-multifd-%s-%s" % (method, version),
                       _over_tls("x509", version, channels=2, compression=method, dirty_s=1.0), False)
        yield Case("tls-multifd-16-%s" % version, _over_tls("x509", version, channels=16), False)
        yield Case("tls-no-return-path-%s" % version,
                   _over_tls("x509", version, channels=2, return_path=False), False)
        yield Case("tls-xbzrle-%s" % version,
                   _over_tls("x509", version, dirty_s=2.0, capabilities={"xbzrle": True},
                             receiver_capabilities=("xbzrle",)), False)
        yield Case("tls-mtu1500-%s" % version, _over_tls("x509", version, channels=2, mtu=1500), version == "10")
        yield Case("tls-1.2-%s" % version,
                   _over_tls("x509", version, ",priority=NORMAL:-VERS-TLS1.3", channels=2), False)
        yield Case("tls-aes128-%s" % version,
                   _over_tls("x509", version, ",priority=NORMAL:-CIPHER-ALL:+AES-128-GCM", channels=2), False)
        yield Case("tls-stranger-%s" % version,
                   _refused(version, lambda: pki.source_arguments("x509", pki.folder(strange_client=True)),
                            _receiver_tls(), "TLS"), version == "10")
        yield Case("tls-not-named-%s" % version,
                   _refused(version, lambda: pki.source_arguments("x509"),
                            _receiver_tls(("--tls-authz", "CN=somebody.else")), "--tls-authz"), version == "10")
        yield Case("tls-source-without-%s" % version,
                   _refused(version, lambda: [], _receiver_tls(), "set tls-creds there", parameters={}),
                   version == "7.2")
    # The pair at the start is not for the address, and a source refuses it: only a renewed one lets it go through.
    yield Case("tls-renewed-10", _changed("10", "192.0.2.99", pki.renew_server, None, 1))
    yield Case("tls-renewed-badly-10", _changed("10", RECEIVER, _write_over, "server-cert.pem", 0))
    yield Case("tls-lossy-10", _over_tls("x509", "10", channels=2, impair={"seed": 3, "loss": 0.01}), False)
