"""Fixtures of the contract tests: our files, and the published package in its own environment."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from google.protobuf.descriptor import FileDescriptor

from clarigrpc.v2 import _index
from tests.contract import peer
from tests.contract.project import build_distributions


@pytest.fixture(scope="session")
def own_files() -> list[FileDescriptor]:
    """The file descriptors of all generated modules."""
    # Files that only have extensions define no name of the index.
    modules = {*_index.MODULES.values(), "field_options_pb2", "auth_options_pb2"}
    modules.discard("service_pb2_grpc")
    modules.add("service_pb2")
    return [import_module(f"clarigrpc.v2.{module}").DESCRIPTOR for module in sorted(modules)]


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with an sdist, and a wheel that was built from the unpacked sdist."""
    return build_distributions(tmp_path_factory.mktemp("distributions"))


@pytest.fixture(scope="session")
def peer_python() -> Path:
    """The interpreter of an environment that has the published ``clarifai-grpc``."""
    return peer.environment()


@pytest.fixture(scope="session")
def peer_interpreter() -> Path:
    """The interpreter of an environment with the published clients and their runner."""
    try:
        return peer.environment("published-clients", peer.CLIENT_REQUIREMENTS)
    except RuntimeError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def peer_files(peer_python: Path) -> list[FileDescriptor]:
    """The file descriptors of the published package, in a pool of their own."""
    return peer.descriptors(peer_python)


@pytest.fixture(scope="session")
def peer_echo(peer_python: Path) -> Iterator[peer.Echo]:
    with peer.Echo(peer_python) as echo:
        yield echo
