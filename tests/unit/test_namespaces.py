# SPDX-License-Identifier: MIT
"""Names of network namespaces, from trees like /run/netns and /proc."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pktdrop.host.namespaces import Namespaces
from pktdrop.host.netns import identify, inside
from pktdrop.model.container import Container
from pktdrop.model.drops import HOST, Netns
from pktdrop.views.limits import sentences
from tests.kit.patience import PATIENCE

# /proc/PID/stat of 6.18, begun: what a thread of the kernel has, a process, and one that has ended and is not awaited,
# which has no command line either
KTHREADD = b"%d (%b) S 0 0 0 0 -1 2129984 0 0 0 0 0\n"
PROCESS = b"%d (%b) S 1 700 700 0 -1 4194304 126 0 0 0 0\n"
ENDED = b"%d (%b) Z 1 1 1 0 -1 4228108 13 0 0 0 0\n"
HOSTILE = b"a) S 0 0 0 0 -1"
"""A name as long as the kernel takes it, that would shift the columns."""


class Host:
    """A fake host: a /run/netns and a /proc, in which each namespace is a file of its own."""

    def __init__(self, root: Path) -> None:
        """Make both directories, and a /proc with what is no process, too."""
        self.run, self.proc, self.files = root / "netns", root / "proc", root / "nsfs"
        for directory in (self.run, self.proc, self.files):
            directory.mkdir()
        self.mounted: dict[Path, Path] = {}
        self.cookies: dict[str, int | None] = {}
        self.searched = 0
        """How often all was searched for."""
        (self.proc / "sys").mkdir()
        (self.proc / "modules").write_text("")

    def netns(self, namespace: str) -> Netns:
        """Make a namespace if it is not there, and return it."""
        file = self.files / namespace
        file.touch()
        return self.identify(file)

    def identify(self, path: Path) -> Netns:
        """Tell a namespace by its file. Raises OSError if there is none."""
        self.searched += path.name == "net" and path.parent.parent.name == "1"
        file = self.mounted.get(path, path).resolve()
        return Netns(file.stat().st_ino, self.cookies.get(file.name, 0))

    def process(
        self, pid: int, namespace: str, comm: bytes = b"sleep", stat: bytes = PROCESS, cgroup: str = ""
    ) -> None:
        """Start a process in a namespace, and in a cgroup of version 2."""
        self.netns(namespace)
        directory = self.proc / str(pid)
        (directory / "ns").mkdir(parents=True)
        (directory / "ns/net").symlink_to(self.files / namespace)
        (directory / "comm").write_bytes(comm + b"\n")
        (directory / "stat").write_bytes(stat % (pid, comm) if b"%b" in stat else stat)
        if cgroup:
            (directory / "cgroup").write_text(f"0::{cgroup}\n")

    def mount(self, name: str, namespace: str) -> None:
        """Name a namespace, as ip-netns(8) does."""
        self.netns(namespace)
        (self.run / name).symlink_to(self.files / namespace)

    def namespaces(self) -> Namespaces:
        """Look at this host."""
        return Namespaces(self.run, self.proc, self.identify)


def label(namespaces: Namespaces, netns: Netns) -> str | None:
    """Return what a namespace is called once it was asked for."""
    namespaces.name(netns)
    return namespaces.known.label(netns)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host with init, kthreadd, and a process in a namespace "blue" that has a name."""
    fake = Host(tmp_path)
    fake.process(1, "init", b"systemd")
    fake.process(2, "init", b"kthreadd", KTHREADD)
    fake.process(700, "blue", b"nginx")
    fake.mount("blue", "blue")
    return fake


def test_the_first_namespace_is_the_host(host: Host) -> None:
    """The namespace of the kernel's own threads is the host's."""
    assert host.namespaces().name(host.netns("init")) == HOST == "host"


def test_a_named_namespace(host: Host) -> None:
    """A namespace under /run/netns has its name there, though processes are in it."""
    assert host.namespaces().name(host.netns("blue")) == "blue"


@pytest.mark.parametrize(
    "name", ["host", "4026531840", "gone:4026531840", "sshd[1]", "x\ny[1]", "docker web-1", "pod a:b", "unit x.service"]
)
def test_a_name_that_reads_as_something_else(host: Host, name: str) -> None:
    """A file may have any name: it is never taken for the host, an inode, a namespace that is gone, or a process."""
    host.mount(name, "other")
    namespaces = host.namespaces()
    assert namespaces.name(host.netns("other")) == str(host.run / name)
    assert namespaces.name(host.netns("init")) == HOST
    assert namespaces._host == host.netns("init")


def test_a_namespace_called_host_is_not_the_host(tmp_path: Path) -> None:
    """Not in a PID namespace either, in which nothing else is called so: its settings are not those of the host."""
    fake = Host(tmp_path)
    fake.process(1, "container", b"init")
    fake.mount("host", "other")
    namespaces = fake.namespaces()
    assert namespaces.name(fake.netns("other")) != HOST
    assert not namespaces.sees_host


def test_a_mount_that_is_called_host(host: Host) -> None:
    """Container runtimes have directories of their own for what keeps a namespace."""
    (host.proc / "self").mkdir()
    where = host.proc.parent / "runtime" / "host"
    (host.proc / "self/mountinfo").write_text(f"1 2 0:4 net:[4026532999] {where} rw - nsfs nsfs rw\n")
    where.parent.mkdir()
    host.netns("other")
    where.symlink_to(host.files / "other")
    assert host.namespaces().name(host.netns("other")) == str(where)


def test_a_namespace_that_only_a_mount_keeps(host: Host) -> None:
    """A container runtime mounts namespaces in a directory of its own; blanks in its path are octal (proc(5))."""
    (host.proc / "self").mkdir()
    (host.proc / "self/mountinfo").write_bytes(
        b"22 1 0:20 / /proc rw,relatime - proc proc rw\n"
        b"36 35 0:4 net:[4026532777] /run/my\\040docker/netns/1f2e rw shared:7 - nsfs nsfs rw\n"
        b"37 35 0:4 mnt:[4026532778] /run/x rw - nsfs nsfs rw\nbroken\n\xff\n"
    )
    path = Path("/run/my docker/netns/1f2e")
    lone = host.netns("lone")
    host.mounted[path] = host.files / "lone"
    namespaces = host.namespaces()
    assert namespaces.name(lone) == "1f2e"
    assert namespaces.paths()[lone] == path
    assert len(namespaces.paths()) == len(("init", "blue", "lone"))


def test_a_namespace_without_a_name(host: Host) -> None:
    """A namespace that only processes keep is called after the first of them, by number."""
    host.process(10000, "pod", b"late")
    host.process(9000, "pod", b"pause")
    assert host.namespaces().name(host.netns("pod")) == "pause[9000]"


def test_a_namespace_without_processes(host: Host) -> None:
    """A namespace that only a name keeps has that name."""
    host.mount("empty", "lone")
    assert host.namespaces().name(host.netns("lone")) == "empty"


def test_a_namespace_of_nobody(host: Host) -> None:
    """A namespace that neither a name nor a process shows is not known."""
    assert host.namespaces().name(host.netns("hidden")) is None
    assert host.namespaces().name(Netns(1)) is None


def test_the_host_keeps_its_name(host: Host) -> None:
    """A name that someone gave to the host's namespace does not hide that it is the host's."""
    host.mount("aaa", "init")
    assert host.namespaces().name(host.netns("init")) == HOST


@pytest.mark.parametrize("stat", [PROCESS, ENDED, b"", b"2 (cut"])
def test_in_a_container_nothing_is_the_host(tmp_path: Path, stat: bytes) -> None:
    """In a process namespace of its own, process 2 is a process like any other, whatever it is called."""
    fake = Host(tmp_path)
    fake.process(1, "pod", b"tini")
    fake.process(2, "pod", HOSTILE, stat)
    assert fake.namespaces().name(fake.netns("pod")) == "tini[1]"


def test_processes_that_end_or_hide_are_passed_over(host: Host) -> None:
    """A process that ended meanwhile, or that belongs to somebody else, does not keep others from being found."""
    (host.proc / "600").mkdir()
    (host.proc / "601/ns").mkdir(parents=True)
    (host.proc / "601/ns/net").symlink_to("net:[4026531833]")
    host.process(602, "gone")
    (host.proc / "602/comm").unlink()
    host.process(9000, "pod", b"pause")
    assert host.namespaces().name(host.netns("pod")) == "pause[9000]"


def test_a_dangling_name_is_passed_over(host: Host) -> None:
    """A name whose namespace went away while it was looked at does no harm."""
    (host.run / "a-gone").symlink_to(host.run / "nowhere")
    host.mount("red", "red")
    assert host.namespaces().name(host.netns("red")) == "red"


def test_a_host_without_named_namespaces(host: Host) -> None:
    """Where ip-netns(8) was never used there is no /run/netns."""
    shutil.rmtree(host.run)
    assert host.namespaces().name(host.netns("blue")) == "nginx[700]"


def test_any_process_name(host: Host) -> None:
    """A process may call itself anything; what is no text is escaped."""
    host.process(9000, "pod", b"a\xff\nb")
    assert host.namespaces().name(host.netns("pod")) == "a\\xff\nb[9000]"


def test_what_was_not_found_is_searched_again_when_told(host: Host) -> None:
    """One search for a namespace that is gone, in all looks; should a later one for others find it, it is there."""
    namespaces = host.namespaces()
    later = host.netns("later")
    for _ in range(3):
        assert namespaces.name(later) is None
        namespaces.look()
    assert host.searched == 1
    assert namespaces.known.is_gone(later)
    host.mount("later", "later")
    assert namespaces.name(host.netns("other")) is None
    assert (namespaces.name(later), namespaces.known.is_gone(later)) == ("later", False)
    assert host.searched == 2


def test_a_name_outlives_its_namespace(host: Host) -> None:
    """Drops of a namespace that was deleted meanwhile keep its name."""
    namespaces = host.namespaces()
    assert namespaces.name(host.netns("blue")) == "blue"
    (host.run / "blue").unlink()
    shutil.rmtree(host.proc / "700")
    namespaces.look()
    assert namespaces.name(host.netns("blue")) == "blue"


def test_names_the_kernel_gave(host: Host) -> None:
    """A name that came with a drop is what the interface is called, in its namespace only."""
    namespaces = host.namespaces()
    blue, init = host.netns("blue"), host.netns("init")
    namespaces.learn_interface(blue, 7, "veth0")
    assert namespaces.interface(blue, 7) == "veth0"
    assert namespaces.interface(blue, 8) is None
    assert namespaces.interface(init, 7) is None


def test_a_namespace_that_cannot_be_entered(host: Host) -> None:
    """What is no namespace, or may not be entered, has no interfaces to tell, and that is no error."""
    assert host.namespaces().interface(host.netns("blue"), 1) is None
    assert host.namespaces().interface(Netns(0), 1) is None


def test_interfaces_of_this_host() -> None:
    """All interfaces of the own namespace are found, whatever else may be entered."""
    assert {name for _, name in socket.if_nameindex()} <= Namespaces().interfaces()


def test_the_own_namespace() -> None:
    """The own namespace, found through /proc, has its interfaces under the numbers the kernel gives them."""
    if os.geteuid() != 0:
        pytest.skip("entering a namespace needs root")
    namespaces = Namespaces()
    netns = namespaces.own()
    for ifindex, name in socket.if_nameindex():
        assert namespaces.interface(netns, ifindex) == name


def test_being_inside_ends() -> None:
    """Within the block the thread is in the other namespace, and after it where it was, also when the block fails."""
    if os.geteuid() != 0:
        pytest.skip("entering a namespace needs root")
    before = os.readlink("/proc/thread-self/ns/net")
    with subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "echo ready; read end"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"ready\n"
        there = f"/proc/{other.pid}/ns/net"
        with inside(Path(there)):
            found = [os.readlink("/proc/thread-self/ns/net"), os.readlink(there)]
        with pytest.raises(KeyError), inside(Path(there)):
            raise KeyError
        after = os.readlink("/proc/thread-self/ns/net")
        other.communicate(b"end\n", timeout=60 * PATIENCE)
    assert found[0] == found[1] != before
    assert after == before


def test_entering_what_is_no_namespace(tmp_path: Path) -> None:
    """A file that is no namespace raises OSError that names it."""
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file") as refused, inside(tmp_path / "file"):
        pass
    assert refused.value.filename == str(tmp_path / "file")


def test_names_that_may_not_be_read_are_said(host: Host) -> None:
    """Where the directory of names cannot be read, processes still tell of namespaces, and that it is so is a limit."""
    host.process(800, "red")
    namespaces = Namespaces(Path("/run", "x" * 300), host.proc, host.identify)
    assert namespaces.limits == ()
    assert host.netns("red") in namespaces.paths()
    (limit,) = sentences(namespaces.limits)
    assert os.strerror(errno.ENAMETOOLONG) in limit
    assert host.namespaces().limits == ()


def test_an_inode_that_is_given_again(host: Host) -> None:
    """A namespace that took the inode of another has its own name, and that one keeps its own."""
    host.cookies["blue"] = 5
    namespaces = host.namespaces()
    first = host.netns("blue")
    assert namespaces.name(first) == "blue"
    host.cookies["blue"] = 6
    (host.run / "blue").rename(host.run / "red")
    namespaces.look()
    second = host.netns("blue")
    assert first.inode == second.inode
    assert (namespaces.name(second), namespaces.name(first)) == ("red", "blue")


def test_the_inode_of_a_live_namespace_names_no_dead_one(host: Host) -> None:
    """A drop of a namespace that is gone does not get the name of the one that has its inode now."""
    host.cookies["blue"] = 6
    dead = host.netns("blue")._replace(cookie=5)
    namespaces = host.namespaces()
    assert namespaces.name(dead) is None
    assert label(namespaces, dead) == f"gone:{dead.inode}"
    assert label(namespaces, host.netns("blue")) == "blue"


def test_without_cookies_the_time_tells(host: Host) -> None:
    """Where the kernel tells no cookie, what has the inode of a namespace that was gone meanwhile is another one."""
    host.cookies["blue"] = None
    namespaces = host.namespaces()
    first = host.netns("blue")
    assert namespaces.name(first) == "blue"
    (host.run / "blue").unlink()
    shutil.rmtree(host.proc / "700")
    namespaces.look()
    assert len(namespaces.paths()) == 1
    host.mount("red", "blue")
    namespaces.look()
    assert list(namespaces.paths()) == [host.netns("init"), first._replace(number=1)]
    assert namespaces.of_drop(first.inode, None) == first._replace(number=1)
    assert (namespaces.name(first), namespaces.name(first._replace(number=1))) == ("blue", "red")


def test_many_that_are_gone_take_one_search(host: Host) -> None:
    """All namespaces of a look are settled by one search, and none of them is searched for again."""
    namespaces = host.namespaces()
    dead = [Netns(number, number) for number in range(1, 30)]
    for _ in range(3):
        namespaces.look()
        for netns in dead:
            namespaces.expect(netns)
        assert [label(namespaces, netns) for netns in dead] == [f"gone:{netns}" for netns in dead]
    assert host.searched == 1


def test_nothing_is_called_gone_where_not_all_can_be_seen(tmp_path: Path) -> None:
    """In a process namespace of its own, what is not found may well be there; `limits` says so."""
    fake = Host(tmp_path)
    fake.process(1, "pod", b"tini")
    fake.process(2, "pod", HOSTILE)
    namespaces = fake.namespaces()
    assert label(namespaces, Netns(1, 1)) is None
    (limit,) = sentences(namespaces.limits)
    assert "processes and network namespaces of the host cannot be seen" in limit
    assert "this is a PID namespace" in limit


def test_hidden_processes(tmp_path: Path) -> None:
    """Where /proc hides the processes of others, `limits` says that it does."""
    fake = Host(tmp_path)
    fake.process(700, "pod", b"bash")
    (fake.proc / "self").mkdir()
    line = f"22 1 0:20 / {fake.proc} rw,relatime - proc proc rw,hidepid=invisible\n"
    (fake.proc / "self/mountinfo").write_text(line)
    namespaces = fake.namespaces()
    namespaces.paths()
    (limit,) = sentences(namespaces.limits)
    assert "of the host cannot be seen: /proc hides those of others (hidepid)" in limit


def test_a_host_that_shows_all_has_no_limits(host: Host) -> None:
    """A thread of the kernel is seen."""
    namespaces = host.namespaces()
    namespaces.paths()
    assert namespaces.limits == ()


def test_names_of_gone_namespaces_are_bounded(host: Host) -> None:
    """Memory does not grow with the namespaces that were."""
    namespaces = host.namespaces()
    for number in range(5000):
        namespaces.expect(Netns(number, number))
    namespaces.look()
    namespaces.paths()
    assert sum(namespaces.known.is_gone(Netns(number, number)) for number in range(5000)) == 4096


def test_a_renamed_interface(host: Host) -> None:
    """The name that an interface has now replaces the one that came with a drop."""
    namespaces, blue = host.namespaces(), host.netns("blue")
    namespaces.learn_interfaces(blue, {7: "veth0", 8: "lan"})
    assert namespaces.renames == 0
    namespaces.learn_interfaces(blue, {7: "eth0", 9: "new"})
    namespaces.learn_interface(blue, 7, "veth0")
    assert (namespaces.renames, namespaces.interface(blue, 7)) == (1, "eth0")


@pytest.mark.parametrize("kind", ["file", "FIFO", "directory", "other namespace", "link to nowhere"])
def test_what_is_no_network_namespace(tmp_path: Path, kind: str) -> None:
    """Whatever stands in /run/netns is refused, and nothing is opened that would wait for somebody."""
    path = tmp_path / "blue"
    if kind == "file":
        path.touch()
    elif kind == "FIFO":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to("/proc/self/ns/uts" if kind == "other namespace" else tmp_path / "nowhere")
    with pytest.raises(OSError, match="blue"):
        identify(path)
    assert path not in Namespaces(run=tmp_path).paths().values()


def test_the_cookie_is_the_kernels() -> None:
    """What identifies the own namespace is its inode, and the cookie that a socket in it has."""
    with socket.socket() as asked:
        try:
            cookie = int.from_bytes(asked.getsockopt(socket.SOL_SOCKET, 71, 8), sys.byteorder)
        except OSError:
            cookie = None
    assert identify(Path("/proc/self/ns/net")) == Netns(os.stat("/proc/self/ns/net").st_ino, cookie)


def test_the_own_namespace_is_identified_once() -> None:
    """Each reading asks for it, and it does not change; another one that the thread moves into is another one."""
    asked: list[Path] = []

    def identified(path: Path) -> Netns:
        asked.append(path)
        return identify(path)

    namespaces = Namespaces(identify=identified)
    assert namespaces.own() == namespaces.own() == identify(Path("/proc/thread-self/ns/net"))
    assert len(asked) == 1


# ---------------------------------------------------------------------------------------------------------- containers


MAIL = "/lxc.payload.mail/init.scope"


def test_a_namespace_of_a_container(host: Host) -> None:
    """It is called by the container that its first process is in; all that is known of that can be asked for."""
    host.process(812, "mail", b"init", cgroup=MAIL)
    namespaces, mail = host.namespaces(), host.netns("mail")
    assert namespaces.name(mail) == "lxc mail"
    assert namespaces.known.containers == {mail: Container("lxc", name="mail")}
    assert namespaces.container(mail) == Container("lxc", name="mail")
    assert namespaces.container(host.netns("blue")) is None


def test_a_namespace_of_a_service(host: Host) -> None:
    """A service with a network of its own gives its name; the session of a user says less than a process."""
    host.process(812, "private", b"foo", cgroup="/system.slice/foo.service")
    host.process(813, "mine", b"bash", cgroup="/user.slice/user-1000.slice/session-3.scope")
    namespaces = host.namespaces()
    assert namespaces.name(host.netns("private")) == "unit foo.service"
    assert namespaces.name(host.netns("mine")) == "bash[813]"
    assert list(namespaces.known.containers) == [host.netns("private")]


@pytest.mark.parametrize(
    ("name", "called"),
    [
        ("cni-3f2a9c14-7b61-4e0d-9a55-0c1d2e3f4a5b", "lxc mail"),
        ("netns-3f2a9c14-7b61-4e0d-9a55-0c1d2e3f4a5b", "lxc mail"),
        ("3f2a9c14-7b61-4e0d-9a55-0c1d2e3f4a5b", "lxc mail"),
        ("cni-3f2a9c14", "cni-3f2a9c14"),
        ("blue-2", "blue-2"),
    ],
)
def test_a_name_that_a_runtime_drew_says_nothing(host: Host, name: str, called: str) -> None:
    """Below /run/netns runtimes put names made of random numbers: the container says more; what people chose stays."""
    host.process(812, "mail", b"init", cgroup=MAIL)
    host.mount(name, "mail")
    assert host.namespaces().name(host.netns("mail")) == called


def test_the_host_is_no_container(host: Host) -> None:
    """Whatever cgroup its first process is in; nor is the own one, where the host cannot be seen."""
    (host.proc / "1/cgroup").write_text("0::/system.slice/foo.service\n")
    assert host.namespaces().name(host.netns("init")) == HOST


def test_several_namespaces_in_one_container(host: Host) -> None:
    """One has the name, the others tell their process, too; and each keeps what it was called."""
    for pid, namespace in ((812, "first"), (813, "second"), (814, "third")):
        host.process(pid, namespace, b"init", cgroup=MAIL)
    namespaces = host.namespaces()
    names = [namespaces.name(host.netns(name)) for name in ("first", "second", "third")]
    assert names == ["lxc mail", "lxc mail (init[813])", "lxc mail (init[814])"]
    shutil.rmtree(host.proc / "812")
    namespaces.look()
    assert [namespaces.name(host.netns(name)) for name in ("second", "third")] == names[1:]


def test_a_container_that_was_started_again(host: Host) -> None:
    """The name is free again once its namespace is gone, which goes on to have it."""
    host.process(812, "first", b"init", cgroup=MAIL)
    namespaces = host.namespaces()
    first = host.netns("first")
    assert namespaces.name(first) == "lxc mail"
    shutil.rmtree(host.proc / "812")
    host.process(900, "second", b"init", cgroup=MAIL)
    namespaces.look()
    assert namespaces.name(host.netns("second")) == "lxc mail"
    assert namespaces.name(first) == "lxc mail"


def test_a_process_that_gets_into_a_container_later(host: Host) -> None:
    """What begins in a namespace may become another program elsewhere: it is asked for again, but not if it stays."""
    host.process(812, "mail", b"lxc-start", cgroup="/")
    namespaces, mail = host.namespaces(), host.netns("mail")
    assert namespaces.name(mail) == "lxc-start[812]"
    (host.proc / "812/cgroup").write_text(f"0::{MAIL}\n")
    namespaces.look()
    namespaces.paths()
    assert namespaces.name(mail) == "lxc-start[812]"
    (host.proc / "812/comm").write_bytes(b"init\n")
    namespaces.look()
    namespaces.paths()
    assert namespaces.name(mail) == "lxc mail"


def test_what_is_known_stays_as_it_was(host: Host) -> None:
    """A container that is found later does not change what was known before."""
    host.process(812, "mail", b"init", cgroup=MAIL)
    namespaces, mail = host.namespaces(), host.netns("mail")
    namespaces.paths()
    before = namespaces.known
    namespaces.settle(mail)
    assert (before.label(mail), before.containers) == ("init[812]", {})
    assert (namespaces.known.label(mail), list(namespaces.known.containers)) == ("lxc mail", [mail])


def test_containers_are_read_when_asked_for_and_once(host: Host) -> None:
    """Nothing is read of namespaces that nobody asks for, that have a name, or whose container is known."""
    read: list[int] = []
    for pid, namespace in ((812, "mail"), (813, "red"), (814, "lone")):
        host.process(pid, namespace, b"init", cgroup=MAIL)
    host.mount("red", "red")
    namespaces = host.namespaces()
    find = namespaces.containers.of_process
    namespaces.containers.of_process = lambda pid: (read.append(pid), find(pid))[1]  # type: ignore[method-assign]
    for _ in range(3):
        namespaces.look()
        namespaces.paths()
        assert namespaces.name(host.netns("mail")) == "lxc mail"
        assert namespaces.name(host.netns("red")) == "red"
        assert namespaces.name(host.netns("init")) == HOST
    assert read == [812]
