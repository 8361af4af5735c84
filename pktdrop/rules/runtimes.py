# SPDX-License-Identifier: MIT
"""How runtimes call the cgroups of their containers, and where they keep names: runtimes.tsv and runtime_files.tsv.

Containers choose whatever is below their own cgroup, and users all that is below theirs. So of a path the outermost
container counts, and a name is only believed if a runtime could have given it.
"""

import re
from typing import Final, NamedTuple

from pktdrop.model.container import Container
from pktdrop.rules.tables import Cells, Table

_PARTS: Final = {
    "{id}": "(?P<id>[0-9a-f]{64})",
    "{uid}": "(?P<uid>[0-9a-f]{8}(?:[-_]?[0-9a-f]{4}){3}[-_]?[0-9a-f]{12})",
    "{name}": "(?P<name>[^/]+)",
    "*": "[^/]*",
}
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@-]{0,252}")
"""What runtimes take as a name; those of pods are the longest: RFC 1123, kubernetes.io "Object Names and IDs"."""
_UNIT: Final = re.compile(r"/([A-Za-z0-9:_.\\@-]{1,247}\.(?:service|scope|socket|mount|swap))(?=/|$)")
"""systemd.unit(5): characters and length of names, kinds that have processes."""
_USER: Final = re.compile(r"/user@([0-9]{1,10})\.service(?=/|$)")
_CGROUP: Final = re.compile(r"^([0-9]+):([^:\n]*):(/[^\n]*)$", re.MULTILINE)
"""A line of /proc/PID/cgroup: number of the hierarchy, its controllers, path."""
_ESCAPED: Final = re.compile(r"\\x([0-9a-f]{2})")
_KUBELET, _POD = "kubelet", "pod"
RUNTIMES: Final = ("docker", "containerd", "cri-o", "podman", "lxc", "nspawn", "machine", _KUBELET, _POD)


class Shape(NamedTuple):
    """How a runtime calls cgroups."""

    runtime: str
    pattern: re.Pattern[str]


class NameFile(NamedTuple):
    """A file with the names of a container, as JSON."""

    runtime: str
    path: str
    keys: tuple[tuple[str, ...], ...]
    """Where in it the container's name is, that of its pod, and that of the pod's namespace."""


def _shape(cells: Cells) -> Shape:
    return Shape(cells.one_of("runtime", RUNTIMES), _pattern(cells["cgroup"]))


def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"(\{\w+\}|\*)", template)
    return re.compile("/" + "".join(_PARTS.get(part) or re.escape(part) for part in parts) + "(?=/|$)")


def _file(cells: Cells) -> NameFile:
    keys = (cells.given(column) for column in ("name", "pod", "namespace"))
    parts = (() if key is None else (*key.split(":"),) for key in keys)
    return NameFile(cells.one_of("runtime", RUNTIMES), cells["path"], (*parts,))


SHAPES: Final = Table("runtimes.tsv", "runtime cgroup source", _shape)
FILES: Final = Table("runtime_files.tsv", "runtime path name pod namespace source", _file)


class Runtimes(NamedTuple):
    """Both tables."""

    shapes: tuple[Shape, ...]
    files: tuple[NameFile, ...]
    any_shape: re.Pattern[str]
    """All shapes at once: most processes are in no container."""

    @classmethod
    def load(cls) -> "Runtimes":
        """Read the tables that come with pktdrop."""
        shapes = SHAPES.load()
        parts = (re.sub(r"\?P<\w+>", "?:", shape.pattern.pattern) for shape in shapes)
        return cls(shapes, FILES.load(), re.compile("|".join(parts)))

    def of_path(self, path: str) -> Container | None:
        """Return what the path of a cgroup tells; None if it is that of no container and of no unit."""
        if self.any_shape.search(path) is None:
            return _of_systemd(path)
        found = [(shape.runtime, match) for shape in self.shapes if (match := shape.pattern.search(path))]
        outermost = min((one for one in found if one[0] != _POD), key=lambda one: one[1].start(), default=None)
        if outermost is None:
            return _of_systemd(path)
        runtime, match = outermost
        pods = [pod["uid"] for whose, pod in found if whose in (_POD, _KUBELET) and pod.start() <= match.start()]
        parts = match.groupdict()
        return (_of_systemd(path[: match.start()]) or Container(None))._replace(
            runtime=None if runtime == _KUBELET else runtime,
            id=parts.get("id"),
            name=self.believed(_ESCAPED.sub(lambda code: chr(int(code[1], 16)), parts.get("name") or "")),
            pod_uid=pods[0].replace("_", "-") if pods else None,
        )

    @staticmethod
    def believed(name: object) -> str | None:
        """Return a name if it is one that a runtime could have given."""
        return name if isinstance(name, str) and _NAME.fullmatch(name) else None

    @staticmethod
    def cgroup_paths(data: bytes) -> list[str]:
        """Return the paths in /proc/PID/cgroup: that of version 2 and that of systemd first, cgroups(7)."""
        found = _CGROUP.findall(data.decode(errors="backslashreplace"))
        if len(found) > 1:
            found.sort(key=lambda one: 0 if one[0] == "0" else 1 if one[1] == "name=systemd" else 2)
        return list(dict.fromkeys([path for _, _, path in found]))


def _of_systemd(path: str) -> Container | None:
    """Return the unit that a path is in; below a user's own systemd, that user's."""
    user = _USER.search(path)
    unit = _UNIT.search(path, user.end() if user else 0) or _UNIT.search(path)
    if unit is None:
        return None
    return Container(None, unit=unit[1], user=int(user[1]) if user and user[1] != "0" else None)
