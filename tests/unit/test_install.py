# SPDX-License-Identifier: MIT
"""Copies for /usr/local/lib: whole, whatever was interrupted before. Ownership is in tests/live."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pktdrop import install


def package(site: Path, name: str, metadata: str | None) -> None:
    """Put a package where pip does; without metadata, as pip leaves it when it is ended in between."""
    (site / name).mkdir(parents=True)
    (site / name / "__init__.py").write_text("")
    about = site / f"{name}-1.0.dist-info"
    about.mkdir()
    if metadata is not None:
        (about / "METADATA").write_text(metadata)


@pytest.mark.parametrize("metadata", [None, "", "Metadata-Version: 2.1\n"])
def test_a_package_that_pip_had_only_begun(tmp_path: Path, metadata: str | None) -> None:
    """It has no name yet, which hinders no other one."""
    site = tmp_path / "lib/python3.11/site-packages"
    package(site, "textual", "Metadata-Version: 2.1\nName: textual\nVersion: 1.0\n")
    package(site, "rich", metadata)
    assert [one.metadata["Name"] for one in install._drawn_by(tmp_path)] == ["textual"]


def test_a_copy_is_on_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a power failure leaves the name and empty files, which no later bootstrap would mend."""
    seen: list[list[str]] = []
    monkeypatch.setattr(os, "sync", lambda: seen.append(sorted(path.name for path in tmp_path.iterdir())))
    install._write(tmp_path, "1-abc", {"pktdrop/one.py": b"ONE = 1\n"})
    assert seen == [[".1-abc.new"]]
    assert (tmp_path / "1-abc/pktdrop/one.py").read_bytes() == b"ONE = 1\n"
