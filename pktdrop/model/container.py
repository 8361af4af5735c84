# SPDX-License-Identifier: MIT
"""What a process runs in, as the host's runtimes call it: a container of a pod, a container, a unit of systemd."""

from typing import NamedTuple

SHORT_ID = 12
"""Characters of an ID, as docker(1) and podman(1) show them."""


class Container(NamedTuple):
    """A container, or a unit of systemd alone. None: it has none, or it is not known."""

    runtime: str | None
    """ "docker", "containerd", "cri-o", "podman", "lxc", "nspawn" or "machine"; None: not known, or no container."""
    id: str | None = None
    """64 hexadecimal digits."""
    name: str | None = None
    """Of the container."""
    pod: str | None = None
    """Name of the pod in Kubernetes."""
    pod_namespace: str | None = None
    """In Kubernetes; no network namespace."""
    pod_uid: str | None = None
    unit: str | None = None
    """Of systemd: "nginx.service", "session-3.scope"."""
    user: int | None = None
    """Number of the user whose it is, who chose all of these names; None: not of one alone."""

    @property
    def is_container(self) -> bool:
        """Whether it is more than a unit."""
        return self.id is not None or self.name is not None

    @property
    def tells(self) -> bool:
        """Whether it says more of a process than the process does: not the session of a user."""
        return self.is_container or (self.unit or "").endswith(".service")

    def __str__(self) -> str:
        """Return "pod shop/cart-7f9", "docker web-1", "podman 3e7f2a744e68 of user 1000", "unit nginx.service"."""
        of = "" if self.user is None else f" of user {self.user}"
        if self.pod is not None:
            return f"pod {self.pod_namespace}/{self.pod}{of}"
        if not self.is_container:
            return f"unit {self.unit}{of}"
        return f"{self.runtime or 'container'} {self.name or (self.id or '')[:SHORT_ID]}{of}"
