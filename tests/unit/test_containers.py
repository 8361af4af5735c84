# SPDX-License-Identifier: MIT
"""Containers, pods and units, by cgroups and files of runtimes: as they are, and as others would have them."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pktdrop.host.containers import Containers
from pktdrop.model.container import Container
from pktdrop.rules.runtimes import FILES, RUNTIMES, SHAPES, Runtimes

DATA = Path(__file__).parents[1] / "data/containers"
ID = "c4719afa76fa448b5eca99e6736885846501d17956f2fcb2de5c916d723f3a87"
UID = "3f2a9c14-7b61-4e0d-9a55-0c1d2e3f4a5b"
PROCESS = 812
WEB = {"id": ID, "name": "web-1"}
CART = {"id": ID, "name": "cart", "pod": "cart-7f9", "pod_namespace": "shop"}
PAUSE = {**CART, "name": None}
CASES: dict[str, tuple[str, dict[str, object]]] = {
    "docker-systemd-v2": ("docker web-1", {"runtime": "docker", **WEB}),
    "docker-cgroupfs-v1": ("docker web-1", {"runtime": "docker", **WEB}),
    "docker-snap": ("docker web-1", {"runtime": "docker", **WEB}),
    "docker-rootless": (
        "docker c4719afa76fa of user 1000",
        {"runtime": "docker", "id": ID, "unit": "user@1000.service", "user": 1000},
    ),
    "docker-kubelet": (
        "pod shop/cart-7f9",
        {"runtime": "docker", **CART, "name": f"k8s_cart_cart-7f9_shop_{UID}_0", "pod_uid": UID},
    ),
    "containerd-systemd-v2": ("pod shop/cart-7f9", {"runtime": "containerd", **CART, "pod_uid": UID}),
    "containerd-systemd-v1": ("pod shop/cart-7f9", {"runtime": "containerd", **PAUSE, "pod_uid": UID}),
    "containerd-cgroupfs-v1": ("pod shop/cart-7f9", {"runtime": "containerd", **CART, "pod_uid": UID}),
    "containerd-cgroupfs-v2": (
        "pod shop/cart-7f9",
        {"runtime": "containerd", **PAUSE, "pod_uid": "d2c1b0a9f8e7d6c5b4a3928170615243"},
    ),
    "containerd-unset-driver": (
        "pod shop/cart-7f9",
        {"runtime": "containerd", **CART, "pod_uid": UID, "unit": "containerd.service"},
    ),
    "containerd-k3s": ("pod shop/cart-7f9", {"runtime": "containerd", **CART, "pod_uid": UID}),
    "containerd-microk8s": ("pod shop/cart-7f9", {"runtime": "containerd", **CART, "pod_uid": UID}),
    "nerdctl": ("containerd web-1", {"runtime": "containerd", **WEB}),
    "cri-o-systemd-v2": ("pod shop/cart-7f9", {"runtime": "cri-o", **CART, "pod_uid": UID}),
    "cri-o-cgroupfs-v1": ("pod shop/cart-7f9", {"runtime": "cri-o", **CART, "pod_uid": UID}),
    "kind-node": ("docker web-1", {"runtime": "docker", **WEB}),
    "podman-systemd-v2": ("podman web-1", {"runtime": "podman", **WEB}),
    "podman-cgroupfs-v1": ("podman web-1", {"runtime": "podman", **WEB}),
    "podman-rootless": (
        "podman web-1 of user 1000",
        {"runtime": "podman", **WEB, "unit": "user@1000.service", "user": 1000},
    ),
    "podman-quadlet": ("podman web-1", {"runtime": "podman", **WEB, "unit": "web.service"}),
    "lxc-v2": ("lxc mail", {"runtime": "lxc", "name": "mail"}),
    "lxc-v1": ("lxc mail", {"runtime": "lxc", "name": "mail"}),
    "nspawn": ("nspawn web-1", {"runtime": "nspawn", "name": "web-1"}),
    "machine": ("machine build-1", {"runtime": "machine", "name": "build-1"}),
    "unit": ("unit nginx.service", {"unit": "nginx.service"}),
    "unit-template-v1": ("unit openvpn@office.service", {"unit": "openvpn@office.service"}),
    "unit-of-user": ("unit syncthing.service of user 1000", {"unit": "syncthing.service", "user": 1000}),
    "session": ("unit session-3.scope", {"unit": "session-3.scope"}),
}


@pytest.fixture(name="copied")
def _copied(tmp_path: Path) -> Callable[[str], Path]:
    """Gives a copy of a case whose files are the running user's alone, as runtimes have them; a checkout may not."""

    def copy(case: str) -> Path:
        tree = tmp_path / case
        shutil.copytree(DATA / case, tree)
        (tree / "root").mkdir(exist_ok=True)
        for path in (tree, *tree.rglob("*")):
            path.chmod(0o700 if path.is_dir() else 0o600)
        return tree

    return copy


def find(tree: Path) -> Container | None:
    """What the process of a case is in."""
    return Containers(tree / "proc", tree / "root").of_process(PROCESS)


def test_every_case_is_expected() -> None:
    """No directory of the data is left out."""
    assert sorted([*CASES, "root"]) == sorted(path.name for path in DATA.iterdir())


@pytest.mark.parametrize("case", CASES)
def test_a_process_in_a_container(case: str, copied: Callable[[str], Path]) -> None:
    """What it is in is named as the runtime calls it, with all that its files tell."""
    label, parts = CASES[case]
    found = find(copied(case))
    assert found == Container(**{"runtime": None, **parts})  # type: ignore[arg-type]
    assert str(found) == label


def test_a_process_in_nothing(copied: Callable[[str], Path]) -> None:
    """At the root there is nothing; and of a process that is not there nothing is known."""
    tree = copied("root")
    assert find(tree) is None
    assert Containers(tree / "proc", tree / "root").of_process(999) is None


def test_without_files_the_id_is_shown(copied: Callable[[str], Path]) -> None:
    """Of a container whose files cannot be read, the ID is what docker(1) and podman(1) show of it."""
    tree = copied("containerd-cgroupfs-v1")
    shutil.rmtree(tree / "root")
    found = find(tree)
    assert found == Container(None, id=ID, pod_uid=UID)
    assert str(found) == "container c4719afa76fa"


def test_every_row_is_used() -> None:
    """Each row of both tables is proven by a case; and each runtime has a shape."""
    texts = [(DATA / case / f"proc/{PROCESS}/cgroup").read_bytes() for case in CASES]
    paths = [path for text in texts for path in Runtimes.cgroup_paths(text)]
    rare = {"lxc.payload/{name}"}  # of LXC 3.1 alone
    rows = (Path(__file__).parents[2] / "pktdrop/data/runtimes.tsv").read_text().splitlines()
    templates = [row.split("\t")[1] for row in rows if row and not row.startswith("#")][1:]
    unused = {
        template
        for template, shape in zip(templates, SHAPES.load(), strict=True)
        if not any(shape.pattern.search(path) for path in paths)
    }
    assert unused == rare
    there = [str(path.relative_to(DATA).as_posix()).partition("/root")[2] for path in DATA.rglob("config*.json")]
    assert {row.path for row in FILES.load()} == {path.replace(ID, "{id}") for path in there}
    assert {shape.runtime for shape in SHAPES.load()} == set(RUNTIMES)


# ------------------------------------------------------------------------------------------------------ what others do


def test_what_is_below_a_container_is_its_own_choice() -> None:
    """A container that makes a cgroup like that of another one stays what it is; so does a user's process."""
    other = "f" * 64
    of_path = Runtimes.load().of_path
    inside = of_path(f"/docker/{ID}/docker-{other}.scope")
    assert inside is not None
    assert inside.id == ID
    in_lxc = of_path(f"/lxc.payload.mail/user.slice/user@0.service/kubepods/pod{UID}/{other}")
    assert in_lxc == Container("lxc", name="mail")
    of_user = of_path(f"/user.slice/user-1000.slice/user@1000.service/docker-{other}.scope")
    assert of_user == Container("docker", id=other, unit="user@1000.service", user=1000)
    assert str(of_user) == "docker ffffffffffff of user 1000"


def test_a_user_cannot_choose_a_file_of_root(copied: Callable[[str], Path]) -> None:
    """A cgroup below a user's own systemd is not looked up among the containers of the host, whatever its name is."""
    tree = copied("docker-systemd-v2")
    cgroup = tree / f"proc/{PROCESS}/cgroup"
    cgroup.write_text(f"0::/user.slice/user-1000.slice/user@1000.service/docker-{ID}.scope\n")
    found = find(tree)
    assert found is not None
    assert found.name is None


@pytest.mark.parametrize(
    "name", ["/a\x1b[2Jb", "/", "", "/../x", "/x" * 200, "/a b", "/ä", "/a\nb", 7, None, ["web"], "/" + "a" * 254]
)
def test_a_name_that_no_runtime_gives_is_not_believed(name: object, copied: Callable[[str], Path]) -> None:
    """Then the ID is shown."""
    tree = copied("docker-systemd-v2")
    (file,) = tree.rglob("config.v2.json")
    file.write_text(json.dumps({"Name": name}))
    found = find(tree)
    assert found is not None
    assert str(found) == "docker c4719afa76fa"


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[" * 100_000, b'"x"', b"\xff\xfe", b"[]", b'{"Name": "' + b"x" * (1 << 20) + b'"}', b"null"],
)
def test_a_file_that_is_broken(content: bytes, copied: Callable[[str], Path]) -> None:
    """However it is broken, the container is told by its ID."""
    tree = copied("docker-systemd-v2")
    (file,) = tree.rglob("config.v2.json")
    file.write_bytes(content)
    assert str(find(tree)) == "docker c4719afa76fa"


def test_a_directory_that_cannot_be_searched(copied: Callable[[str], Path]) -> None:
    """Whatever the kernel answers to a path of a runtime's file: that it may not be searched, or is too long."""
    tree = copied("docker-systemd-v2")
    assert str(Containers(tree / "proc", tree / ("x" * 300)).of_process(PROCESS)) == "docker c4719afa76fa"
    if os.geteuid() != 0:
        (tree / "root").chmod(0)
        assert str(find(tree)) == "docker c4719afa76fa"


def _fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file, 0o600)


def _second_name(file: Path) -> None:
    os.link(file, file.with_name("another"))


def _writable(file: Path) -> None:
    file.chmod(file.stat().st_mode | stat.S_IWGRP)


def _shared(file: Path) -> None:
    file.parent.chmod(0o777)


@pytest.mark.parametrize("attack", [_fifo, _second_name, _writable, _shared])
def test_a_file_that_others_had_a_hand_in(attack: Callable[[Path], None], copied: Callable[[str], Path]) -> None:
    """It is not read, and nothing is waited for."""
    tree = copied("docker-systemd-v2")
    (file,) = tree.rglob("config.v2.json")
    attack(file)
    assert str(find(tree)) == "docker c4719afa76fa"


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["conmon", "-c", ID, "-n", "web-2"], "web-2"),
        (["conmon", "-c", "0" * 64, "-n", "web-2"], None),
        (["conmon", "-n", "web-2"], None),
        (["conmon", "-c", ID, "-n"], None),
        (["conmon", "-c", ID, "-n", "a\x1bb", "-n", "web-2"], None),
        (["conmon", "-c", ID, "-n", "web-2", "--exit-command-arg", "-n", "x", "-c", "y"], "web-2"),
        ([], None),
    ],
)
def test_what_conmon_says(command: list[str], name: str | None, copied: Callable[[str], Path]) -> None:
    """A name is taken from the conmon(8) of that container alone."""
    tree = copied("podman-systemd-v2")
    (tree / "proc/811/cmdline").write_text("".join(f"{word}\0" for word in command))
    found = find(tree)
    assert found is not None
    assert (found.id, found.name) == (ID, name)


def test_a_process_in_the_container_that_looks_like_conmon(copied: Callable[[str], Path]) -> None:
    """Whatever a process of the container calls itself: who started it, outside, says the name."""
    tree = copied("podman-systemd-v2")
    inner = tree / "proc/900"
    shutil.copytree(tree / f"proc/{PROCESS}", inner)
    (inner / "cmdline").write_text(f"conmon\0-c\0{ID}\0-n\0forged\0")
    (tree / f"proc/{PROCESS}/status").write_text("PPid:\t900\n")
    assert str(find(tree)) == "podman web-1"


def test_processes_that_are_their_own_parents(copied: Callable[[str], Path]) -> None:
    """Numbers are given again while they are read: a circle has an end."""
    tree = copied("podman-systemd-v2")
    (tree / f"proc/{PROCESS}/status").write_text(f"PPid:\t{PROCESS}\n")
    assert str(find(tree)) == "podman c4719afa76fa"


@given(st.lists(st.sampled_from(
    ["docker", f"docker-{ID}.scope", ID, f"pod{UID}", "kubepods", f"libpod-{ID}", "lxc.payload.", "lxc.payload.a\x1b",
     "user@1000.service", "user@99999999999.service", "machine.slice", "machine-\\x00\\x1b.scope", "..", "", "a" * 300,
     "x.service", "é.service", "lxc", "\n", f"crio-{ID}.scope", f"crio-{ID}.scope.scope"]
)), st.text(max_size=20))  # fmt: skip
def test_any_path_of_a_cgroup(parts: list[str], more: str) -> None:
    """Whatever a path is, it is read, and what is shown of it is short, and harmless for a terminal."""
    found = Runtimes.load().of_path("/" + "/".join([*parts, more]))
    text = "" if found is None else str(found)
    assert text.isprintable()
    assert len(text) <= 300


@given(st.binary())
def test_any_list_of_cgroups(data: bytes) -> None:
    """Whatever /proc/PID/cgroup has, what is taken for a path begins at the root."""
    assert all(path.startswith("/") for path in Runtimes.cgroup_paths(data))


# ---------------------------------------------------------------------------------------------------------------- cost


def test_nothing_is_read_twice(copied: Callable[[str], Path]) -> None:
    """Files of a container that is known are not read again, for whichever of its processes."""
    tree = copied("docker-systemd-v2")
    containers = Containers(tree / "proc", tree / "root")
    first = containers.of_process(PROCESS)
    shutil.rmtree(tree / "root")
    shutil.copytree(tree / f"proc/{PROCESS}", tree / "proc/813")
    assert containers.of_process(813) == first
    assert str(first) == "docker web-1"


def test_what_is_remembered_is_bounded(tmp_path: Path) -> None:
    """Units and containers that come and go do not fill the memory."""
    containers = Containers(tmp_path, tmp_path)
    (tmp_path / "7").mkdir()
    for number in range(10_000):
        (tmp_path / "7/cgroup").write_text(f"0::/system.slice/run-{number}.service\n")
        assert str(containers.of_process(7)) == f"unit run-{number}.service"
    assert len(containers._of_path) <= 4096


def _cgroup2() -> Path | None:
    """Where this host has cgroups of version 2, as findmnt(8) says."""
    found = subprocess.run(["findmnt", "-nrt", "cgroup2", "-o", "TARGET"], capture_output=True, text=True, check=False)
    return next((Path(line) for line in found.stdout.splitlines()), None)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make cgroups, and open one by its number")
def test_a_cgroup_by_its_number() -> None:
    """Its number is the inode of its directory; of one that is gone nothing is known."""
    top = _cgroup2()
    if top is None:
        pytest.skip("this host has no cgroups of version 2")
    made = top / f"pktdrop-test-{os.getpid()}.service"
    made.mkdir()
    try:
        number = made.stat().st_ino
        found = Containers().of_cgroup(number)
    finally:
        made.rmdir()
    assert found == Container(None, unit=made.name)
    assert Containers().of_cgroup(number) is None
    assert Containers().of_cgroup(1) is None  # the root's


def test_ids_lead_out_of_no_directory() -> None:
    """What stands for {id} in a path is digits and nothing else."""
    patterns = [shape.pattern.pattern for shape in SHAPES.load()]
    assert {match for pattern in patterns for match in re.findall(r"\(\?P<id>(.*?)\)", pattern)} == {"[0-9a-f]{64}"}
