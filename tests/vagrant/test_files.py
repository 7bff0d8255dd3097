"""Vagrant reads the Vagrantfile, and the shell reads the scripts.

=============  =======================================================================================================
libvirt        validated by the plugin itself; no libvirtd is asked
VirtualBox     validated with a stand-in for `VBoxManage`: of the real one Vagrant asks its version only, at this point
=============  =======================================================================================================
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.tools import as_installed
from vagrant.lab import places

VALIDATE_S = 120
SCRIPTS = sorted(
    [*places.VAGRANT.glob("box/*.sh"), *places.VAGRANT.glob("provision/*.sh"), places.VAGRANT / "box/init"]
)


def validate(provider: str, tmp_path: Path, **settings: str) -> str:
    """What `vagrant validate` says, of whatever provider is not there."""
    places_of_its_own = {"VAGRANT_HOME": str(tmp_path / "home"), "VAGRANT_DOTFILE_PATH": str(tmp_path / "machines")}
    chosen = {"VAGRANT_CWD": str(places.VAGRANT), "VAGRANT_DEFAULT_PROVIDER": provider, "VAGRANT_NO_COLOR": "1"}
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    environment = {
        **os.environ,
        **places_of_its_own,
        **chosen,
        "VAGRANT_CHECKPOINT_DISABLE": "1",
        "PATH": path,
        **settings,
    }
    done = subprocess.run(
        as_installed("vagrant", "validate"),
        capture_output=True,
        text=True,
        timeout=VALIDATE_S,
        check=False,
        env=environment,
    )
    return done.stdout + done.stderr


VALID = "Vagrantfile validated successfully.\n"
OWN = {"LAB_BOX": "lab/own", "LAB_KEY": __file__, "LAB_ACCEL": "tcg", "LAB_DEB": __file__, "LAB_CONSOLES": "/tmp"}


@pytest.mark.parametrize("settings", [{}, {"LAB_SUITE": "trixie"}, OWN], ids=["bookworm", "trixie", "own"])
def test_libvirt(settings: dict[str, str], tmp_path: Path) -> None:
    assert validate("libvirt", tmp_path, **settings) == VALID


def test_virtualbox(tmp_path: Path) -> None:
    stand_in = tmp_path / "VBoxManage"
    stand_in.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/asked\necho 7.0.20r163906\n')
    stand_in.chmod(0o755)
    assert validate("virtualbox", tmp_path) == VALID
    assert set((tmp_path / "asked").read_text().split("\n")) == {"--version", ""}


def test_an_unknown_suite_is_told(tmp_path: Path) -> None:
    assert "sarge" in validate("libvirt", tmp_path, LAB_SUITE="sarge")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_clean(script: Path) -> None:
    shell = "sh" if script.name == "init" else "bash"
    subprocess.run([shell, "-n", str(script)], check=True, timeout=20)
    words = as_installed("shellcheck", "--external-sources", "--source-path=SCRIPTDIR", "--shell", shell, str(script))
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout
