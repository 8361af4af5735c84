# SPDX-License-Identifier: MIT
"""The machines in vagrant/: what needs no virtual machine to be checked. vagrant/check.sh starts a real one."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
VAGRANT = CHECKOUT / "vagrant"
README = (CHECKOUT / "README.md").read_text(encoding="utf-8")
BOOTSTRAP = (CHECKOUT / "bootstrap").read_text(encoding="utf-8")
VAGRANTFILE = (VAGRANT / "Vagrantfile").read_text(encoding="utf-8")
MACHINES = re.findall(r'^  "(\w+)" => "[\w./-]+",$', VAGRANTFILE, re.MULTILINE)
COMMANDS = ("build-box.sh", "check.sh", "with-libvirtd.sh")


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command with no input, and capture what it writes."""
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)


def fedora_packages_of_bootstrap() -> set[str]:
    """What bootstrap tells users of Fedora to install, from its two tables."""
    modules = re.search(r"local -A packages=\((.*?)\)\n", BOOTSTRAP, re.DOTALL)
    tools = re.search(r"^test_tools\(\) \{\n    cat <<'END'\n(.*?)^END$", BOOTSTRAP, re.MULTILINE | re.DOTALL)
    assert modules
    assert tools
    return {pair.split()[1] for pair in re.findall(r"'(.*?)'", modules[1])} | {
        line.split()[2] for line in tools[1].splitlines()
    }


@pytest.mark.skipif(shutil.which("ruby") is None, reason="ruby is not installed")
def test_vagrantfile_is_ruby() -> None:
    """Ruby reads the Vagrantfile without an error or a warning."""
    result = run("ruby", "-wc", VAGRANT / "Vagrantfile")
    assert (result.stdout, result.stderr) == ("Syntax OK\n", "")


def test_a_machine_for_each_distribution() -> None:
    """Two Debians, an Ubuntu LTS and a Fedora, each named in the README."""
    assert [re.sub(r"\d+$", "", name) for name in MACHINES] == ["debian", "debian", "ubuntu", "fedora"]
    assert [name for name in MACHINES if f"`{name}`" not in README] == []


def test_variables_are_in_the_readme() -> None:
    """What the Vagrantfile takes from the environment is documented."""
    variables = set(re.findall(r'ENV\["(\w+)"\]', VAGRANTFILE))
    assert variables
    assert [name for name in sorted(variables) if name not in README] == []


def test_fedora_gets_what_bootstrap_asks_for() -> None:
    """The provision script installs with dnf exactly what bootstrap would name as missing."""
    provision = (VAGRANT / "provision.sh").read_text(encoding="utf-8")
    installed = re.search(r"dnf -q -y install \\\n(.*?[^\\])\n", provision, re.DOTALL)
    assert installed
    assert set(installed[1].replace("\\", " ").split()) == fedora_packages_of_bootstrap()


def test_bootstrap_installs_what_the_scripts_need() -> None:
    """The packages that the scripts say they need are those that `bootstrap test --vagrant` asks for."""
    tools = re.search(r"^vagrant_tools\(\) \{\n    cat <<'END'\n(.*?)^END$", BOOTSTRAP, re.MULTILINE | re.DOTALL)
    assert tools
    needed = set()
    for name in COMMANDS:
        (packages,) = re.findall(
            r"^(?:Needs:|.*Needs .* need, and) ([^.]*)\.", run(VAGRANT / name, "--help").stdout, re.MULTILINE
        )
        needed |= set(packages.split())
    assert needed <= {line.split()[1] for line in tools[1].splitlines()}


@pytest.mark.parametrize("name", COMMANDS)
def test_help(name: str) -> None:
    """Help goes to stdout, without root and without the tools; its lines fit the README's width."""
    result = run(VAGRANT / name, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(f"Usage: sudo vagrant/{name} ")
    assert [line for line in result.stdout.splitlines() if len(line) > 120] == []


@pytest.mark.parametrize("name", ["build-box.sh", "check.sh"])
def test_unknown_machine(name: str) -> None:
    """A machine that no box can be made for is a usage error, and the machines that are offered exist."""
    result = run(VAGRANT / name, "slackware", "FILE.box")
    assert (result.returncode, result.stdout) == (2, "")
    offered = re.findall(r"\w+", re.findall(r"[\w|]*debian12\|[\w|]*", result.stderr)[0])
    assert set(offered) <= set(MACHINES)


def test_walk_is_a_command() -> None:
    """All that Vagrant or the README starts is executable."""
    assert [
        path.name for path in VAGRANT.glob("*.*") if path.suffix in {".sh", ".py"} and not path.stat().st_mode & 0o100
    ] == []
