"""`ottla cluster`: who the nodes are, and what the broker serves.

Owns what it prints. The nodes are asked for through confluent-kafka, as everywhere; versions and
features, which no client library tells, by a request of our own over a plain connection.
"""

from __future__ import annotations

import socket
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from ottla.cli.admin import connected, outcome
from ottla.cli.client import PATIENCE_S, address
from ottla.cli.render import counted, object_line, table
from ottla.host.terminal import BOLD, DIM, painted
from ottla.protocol.apis import API_NAMES
from ottla.protocol.client import ClientConnection
from ottla.protocol.codec import CodecError, decoder, encoder
from ottla.protocol.connection import PeerError
from ottla.protocol.errors import ErrorCode

if TYPE_CHECKING:
    from ottla.cli import arguments
    from ottla.protocol.messages.api_versions import ApiVersionsResponse

API_VERSIONS = 18
VERSIONS = (4, 3, 0)
"""What is asked, newest first: what a broker doesn't know it refuses with error 35 (KIP-35).
Below 4 features whose lowest level is 0 are left out (KIP-584)."""


@dataclass(slots=True)
class Served:
    """APIs by key, with lowest and highest version; features with levels (KIP-584)."""

    apis: dict[int, tuple[int, int]] = field(default_factory=dict)
    features: dict[str, dict[str, int]] = field(default_factory=dict)


def run(options: arguments.Cluster) -> int:
    """Print what is known of the cluster. Raises CommandError if it doesn't answer."""
    cluster, admin = connected(options)
    found = outcome(cluster, admin.describe_cluster(request_timeout=PATIENCE_S))
    # Over TLS or behind a login our own connection would only be refused.
    plain = cluster.extra.get("security.protocol", "plaintext").lower() == "plaintext"
    served = ask(*address(options.bootstrap.split(",")[0])) if plain else None
    if options.json:
        sys.stdout.write(object_line(_fields(found, served)))
        return 0
    sys.stdout.write(f"cluster {painted(found.cluster_id, BOLD, sys.stdout)}\n")
    sys.stdout.writelines(_node_lines(found))
    if served is None:
        return 0
    for name, levels in sorted(served.features.items()):
        level = levels.get("level")
        now = "" if level is None else f", at {level}"
        sys.stdout.write(f"feature {name}: {levels['min']} to {levels['max']}{now}\n")
    count = counted(len(served.apis), "API")
    if not options.apis:
        sys.stdout.write(f"{options.bootstrap} serves {count}; --apis lists them\n")
        return 0
    sys.stdout.write(f"{options.bootstrap} serves {count}\n")
    rows = [("key", "API", "versions")]
    for key, (low, high) in sorted(served.apis.items()):
        rows.append((str(key), API_NAMES.get(key, "?"), f"{low} to {high}"))
    sys.stdout.writelines(table(rows, _heading))
    return 0


def _heading(line: str) -> str:
    return painted(line, DIM, sys.stdout)


def _node_lines(found: Any) -> list[str]:
    rows = [("node", "address", "rack", "")]
    for node in sorted(found.nodes, key=lambda one: one.id):
        role = "controller" if found.controller and node.id == found.controller.id else ""
        rows.append((str(node.id), f"{node.host}:{node.port}", node.rack or "-", role))
    return table(rows, _heading)


def _fields(found: Any, served: Served | None) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "cluster": found.cluster_id,
        "controller": found.controller.id if found.controller else None,
        "nodes": [
            {"node": node.id, "host": node.host, "port": node.port, "rack": node.rack}
            for node in sorted(found.nodes, key=lambda one: one.id)
        ],
    }
    if served is not None:
        fields["features"] = served.features
        fields["apis"] = [
            {"key": key, "name": API_NAMES.get(key), "min": low, "max": high}
            for key, (low, high) in sorted(served.apis.items())
        ]
    return fields


def ask(host: str, port: int) -> Served | None:
    """What the broker at an address serves; None where it doesn't say so within 5 s."""
    for version in VERSIONS:
        with suppress(OSError, PeerError, CodecError):
            response = _answer(host, port, version)
            if response is not None:
                return _served(response)
    return None


def _answer(host: str, port: int, version: int) -> ApiVersionsResponse | None:
    """The answer to one ApiVersions request; None if the broker doesn't know the version."""
    from ottla import __version__
    from ottla.protocol.messages.api_versions import ApiVersionsRequest, ApiVersionsResponse

    connection = ClientConnection("ottla-cli")
    request = ApiVersionsRequest(
        client_software_name="ottla-cli", client_software_version=__version__
    )
    body = cast("list[bytes]", encoder(ApiVersionsRequest, version)(request))
    with socket.create_connection((host, port), PATIENCE_S) as sock:
        sock.sendall(connection.request(API_VERSIONS, version, body))
        while (room := connection.room()) is not None and (count := sock.recv_into(room)):
            for _, view in connection.answers(count):
                if int.from_bytes(view[:2]) == ErrorCode.UNSUPPORTED_VERSION:
                    return None
                return decoder(ApiVersionsResponse, version)(view, 0)[0]
    raise PeerError("it hung up")


def _served(response: ApiVersionsResponse) -> Served:
    served = Served({api.api_key: (api.min_version, api.max_version) for api in response.api_keys})
    for feature in response.supported_features:
        served.features[feature.name] = {"min": feature.min_version, "max": feature.max_version}
    for final in response.finalized_features:
        served.features.setdefault(final.name, {"min": 0, "max": 0})["level"] = (
            final.max_version_level
        )
    return served
