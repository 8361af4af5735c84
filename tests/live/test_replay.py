# SPDX-License-Identifier: MIT
"""A run with real drops, made again from its Looks in a file."""

from __future__ import annotations

import json
from pathlib import Path

from pktdrop.demo.causes import CAUSES
from pktdrop.host.namespaces import Namespaces
from pktdrop.kernel.tracer import Tracer
from pktdrop.model.lookfile import from_json
from pktdrop.observe.observer import Observer
from tests.kit.provoked import send
from tests.kit.recording import Recorder, outputs, read_back
from tests.kit.trace import total

CLOSED = next(cause for cause in CAUSES if cause.name == "udp_closed_port")
STEPS, LOST = 3, 40


def test_all_that_a_run_shows_follows_from_its_looks(tmp_path: Path) -> None:
    """What trace, top, diagnose and counters show is the same, byte for byte, where nothing can be asked any more."""
    namespaces = Namespaces()
    with CLOSED.net() as net, Tracer(namespaces) as tracer:
        traffic = CLOSED.build(net)
        recorder = Recorder(Observer(namespaces, tracer))
        shown = outputs(recorder, STEPS, tmp_path / "first", between=lambda: send(traffic, lose=LOST, spare=3, cpu=0))
        name, inode = net[CLOSED.role].name, net[CLOSED.role].inode
    assert from_json(recorder.lines[-1]) == recorder.asked
    assert outputs(read_back(recorder.lines, tmp_path / "looks"), STEPS, tmp_path / "again") == shown
    summary = json.loads(shown["json"].splitlines()[-1])
    assert total([drop for drop in summary["drops"] if drop["netns"] == inode]) >= STEPS * LOST
    assert name in shown["json"]
    assert "nobody listens on" in shown["diagnosis"]
