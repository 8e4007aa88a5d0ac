"""Environments of the clients that clarigrpc is compared with, made when first needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PEERS = Path(__file__).parent.parent / ".peers"

REQUIREMENTS = {
    "clarifai-grpc": ("clarifai-grpc==12.6.0", "requests==2.34.2"),
    "clarifai": ("clarifai==12.5.0",),
    "rust": ("pyqwest==0.12.0", "connectrpc==0.13.0", "clarifai-grpc==12.6.0", "protobuf==7.36.2"),
    # The tests have the same environment.
    "ray": (
        "ray[data]==2.60.0",
        "grpcio>=1.76",
        "grpcio-status>=1.76",
        "googleapis-common-protos>=1.70",
        "pillow>=10.3",
        "protobuf>=7",
    ),
    "rest": ("requests==2.34.2", "httpx==0.28.1", "aiohttp==3.14.5", "numpy==2.4.6"),
}


def interpreter(name: str) -> str:
    """The Python of a peer's environment; "" is this one.

    The packages are installed when the environment does not have just these yet.
    """
    if not name:
        return sys.executable
    place = PEERS / name
    python = place / "bin" / "python"
    installed = place / "installed.txt"
    wanted = "\n".join(REQUIREMENTS[name])
    if not installed.exists() or installed.read_text() != wanted:
        print(f"making {place} ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *REQUIREMENTS[name]], check=True)
        installed.write_text(wanted)
    return str(python)
