"""The certificate authority that pods are handed for reporting progress."""

import os
from pathlib import Path

import pytest

from lmft_operator.main import Authority

ONE = "-----BEGIN CERTIFICATE-----\nQUJD\nREVG\n-----END CERTIFICATE-----\n"
OTHER = ONE.replace("QUJD", "WFla")

FILES = [
    (ONE.encode(), ONE),
    ((ONE + OTHER).encode(), ONE + OTHER),
    (f"# Prüfstelle für Übungen\n{ONE}".encode(), ONE),
    (f"# Prüfstelle\n{ONE}# zweite Stelle: Köln\n{OTHER}".encode("latin-1"), ONE + OTHER),
    (ONE.replace("\n", "\r\n").encode(), ONE),
    (b"", None),
    (b"\xff\xfe no certificate", None),
    (b"-----BEGIN PRIVATE KEY-----\nQUJD\n-----END PRIVATE KEY-----\n", None),
]


@pytest.mark.parametrize(("content", "handed"), FILES)
def test_pods_are_handed_the_certificates_of_a_file_whatever_else_it_holds(tmp_path: Path, content, handed):
    file = tmp_path / "ca.crt"
    file.write_bytes(content)
    assert Authority(file)() == handed


def test_a_file_that_comes_changes_or_cannot_be_read_stops_nothing(tmp_path: Path):
    file = tmp_path / "ca.crt"
    authority = Authority(file)
    assert authority() is None
    file.write_text(ONE)
    assert authority() == ONE
    file.write_text(OTHER)
    os.utime(file, (1, 1))
    assert authority() == OTHER
    file.unlink()
    file.mkdir()
    assert authority() is None
