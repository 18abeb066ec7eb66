"""Dispatch: from a frame to its handler, and from the handler's reply to a frame.

Owns the way both go, and which versions get through. Must not know what any handler does. It is
on the hot path: what depends on key and version alone is made when a version is first asked for, so
that a message nobody sends is never imported, and looked up when a connection turns to another.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ottla.core.metrics import CPU_SAMPLE_EVERY, SAMPLE_EVERY
from ottla.handlers.context import Request
from ottla.handlers.registry import API, API_VERSIONS_KEY, Api
from ottla.handlers.reply import Answer, Closing, Parked, Reply
from ottla.protocol.apis import API_NAMES
from ottla.protocol.codec import CodecError, decoder, encoder
from ottla.protocol.connection import PeerError
from ottla.protocol.frame import request_head, request_kind, response_frame, response_head

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ottla.core.metrics import ApiTally
    from ottla.core.model import FileSlice
    from ottla.handlers.context import ConnectionState, Context

    Handler = Callable[[Context, Request[Any]], Reply | Parked]
    Quick = Callable[[Context, int, Any], bytes | list[bytes | FileSlice] | Handler | None]
    """A handler's way for its usual request: from version and body to the body of the answer,
    encoded. None means that nothing has been done, and that the handler is to be asked; another
    handler, that something has, with which that one goes on. A list begins with bytes."""
    Reader = Callable[[int], Callable[[memoryview, int], tuple[Any, int]]]
    """A handler's own decoder of a version: for its `quick`, which knows what it may give."""
    Stopwatch = Callable[[bool], tuple[float, float]]
    """Seconds that pass, and if it is asked for those of CPU of this thread (else 0)."""


class Route:
    """What is done with the requests of one key and version."""

    __slots__ = (
        "decode", "encode", "flexible_header", "handle", "head_size", "key", "of_api", "pack_head",
        "quick", "version",
    )  # fmt: skip

    def __init__(self, api: Api, version: int, of_api: ApiTally) -> None:
        messages = import_module(f"ottla.protocol.messages.{api.module}")
        handlers = import_module(f"ottla.handlers.{api.module}")
        response = getattr(messages, f"{api.name}Response")
        flexible = response.FLEXIBLE is not None and version >= response.FLEXIBLE
        self.key = api.key
        self.version = version
        reader: Reader | None = getattr(handlers, "reader", None)
        request = getattr(messages, f"{api.name}Request")
        self.decode = decoder(request, version) if reader is None else reader(version)
        self.handle: Handler = handlers.handle
        self.quick: Quick | None = getattr(handlers, "quick", None)
        self.encode: Callable[[Any], list[bytes | FileSlice]] = encoder(response, version)
        self.flexible_header = flexible and api.key != API_VERSIONS_KEY
        self.pack_head, self.head_size = response_head(self.flexible_header)
        self.of_api = of_api


class Dispatch:
    """The Dispatcher of `reply.py` over the registry's table."""

    __slots__ = ("_apis", "_context", "_routes", "_sampled_count", "_stopwatch", "_timed_count")

    def __init__(
        self,
        context: Context,
        apis: Mapping[int, Api] = API,
        stopwatch: Stopwatch = lambda _cpu: (0.0, 0.0),
    ) -> None:
        self._context = context
        self._apis = apis
        self._stopwatch = stopwatch
        self._routes: dict[tuple[int, int], Route] = {}
        self._sampled_count = 0
        self._timed_count = 0

    def dispatch(self, connection: ConnectionState, frame: memoryview) -> Answer:
        """Answer one frame. Raises PeerError for a key or version that is not served, and
        CodecError for bytes that are no request."""
        try:
            key, version, correlation_id, client_id, at = request_head(frame)
        except CodecError:
            # The header of a version yet to come may be anything: say that it is one.
            if kind := request_kind(frame):
                self._served(*kind)
            raise
        route = connection.route
        if route is None or key != route.key or version != route.version:
            route = self._turn(connection, key, version)
            if route is None:
                return self._unsupported(correlation_id)
        body, end = route.decode(frame, at)
        if end != len(frame):
            # Taken, as Kafka does: librdkafka's own Metadata request for all topics is 3 too long.
            self._context.complaints.quietly(
                "trailing bytes",
                connection.peer,
                f"{API_NAMES[key]} version {version} ends {len(frame) - end} bytes too early",
            )
        handle, quick = route.handle, route.quick
        if quick is not None:
            done = quick(self._context, version, body)
            if isinstance(done, bytes):
                return [route.pack_head(route.head_size + len(done), correlation_id) + done]
            if isinstance(done, list):
                return response_frame(correlation_id, route.flexible_header, done)
            if done is not None:
                handle = done
        request = Request(key, version, correlation_id, client_id, body, connection)
        return self._finish(route, request, handle(self._context, request))

    def sampled(self, connection: ConnectionState, frame: memoryview) -> Answer:
        """The same, of which one in SAMPLE_EVERY is timed: where nobody counts the loop's turns."""
        self._sampled_count += 1
        if self._sampled_count % SAMPLE_EVERY:
            return self.dispatch(connection, frame)
        return self.timed(connection, frame)

    def timed(self, connection: ConnectionState, frame: memoryview) -> Answer:
        """The same, with a stopwatch: for one request in SAMPLE_EVERY. Its CPU is measured of one
        in CPU_SAMPLE_EVERY."""
        stopwatch = self._stopwatch
        self._timed_count += 1
        with_cpu = self._timed_count % (CPU_SAMPLE_EVERY // SAMPLE_EVERY) == 0
        wall_s, cpu_s = stopwatch(with_cpu)
        answer = self.dispatch(connection, frame)
        wall_end_s, cpu_end_s = stopwatch(with_cpu)
        if connection.route is not None:
            of_api = connection.route.of_api
            of_api.wall.add(wall_end_s - wall_s)
            if with_cpu:
                of_api.cpu_s += cpu_end_s - cpu_s
                of_api.cpu_timed += 1
        return answer

    def resume(self, parked: Parked) -> Answer:
        """Go on with a request that waited."""
        request: Request[Any] = parked.request
        assert type(request) is Request, "only what dispatch() returned is resumed"
        route = self._routes[request.api_key, request.api_version]
        return self._finish(route, request, parked.resume())

    def _finish(self, route: Route, request: Request[Any], outcome: Reply | Parked) -> Answer:
        if type(outcome) is Parked:
            outcome.request = request
            return outcome
        assert type(outcome) is Reply, f"{type(outcome).__name__} is no outcome of a handler"
        body = outcome.body
        chunks: list[bytes | FileSlice] = []
        if body is not None:
            # Bytes are a body that was encoded before (ApiVersions, always the same).
            encoded: list[bytes | FileSlice] = [body] if type(body) is bytes else route.encode(body)
            first = encoded[0]
            if len(encoded) == 1 and type(first) is bytes:
                size = route.head_size + len(first)
                chunks = [route.pack_head(size, request.correlation_id) + first]
            else:
                chunks = response_frame(request.correlation_id, route.flexible_header, encoded)
        return Closing(chunks) if outcome.close else chunks

    def _turn(self, connection: ConnectionState, key: int, version: int) -> Route | None:
        """A connection asks for something else than before; by which way it goes on. None for an
        ApiVersions that has an answer of its own. Raises PeerError."""
        route = self._routes.get((key, version))
        if route is not None:  # a producer of transactions turns with every request
            of_api = route.of_api
        else:
            api = self._served(key, version)
            of_api = self._context.metrics.api(key, self._apis[key].name)
            if api is not None:
                route = self._routes[key, version] = Route(api, version, of_api)
        connection.route = route
        connection.tally.turn(self._context.metrics.askers, of_api)
        return route

    def _served(self, key: int, version: int) -> Api | None:
        """What serves them; None for an ApiVersions that has an answer of its own. PeerError."""
        api = self._apis.get(key)
        if api is None:
            raise PeerError(f"api key {key} is not served")
        if api.accepted <= version <= api.highest:
            return api
        if key == API_VERSIONS_KEY:
            return None
        raise PeerError(f"{api.name} version {version} is not served")

    def _unsupported(self, correlation_id: int) -> Answer:
        """The answer to an unknown version of ApiVersions: v0, error 35, its range (KIP-511)."""
        from ottla.handlers.api_versions import unsupported  # only some clients' first request

        return response_frame(correlation_id, False, [unsupported(self._apis[API_VERSIONS_KEY])])
