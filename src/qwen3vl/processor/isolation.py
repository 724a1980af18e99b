"""Decoding in worker processes that may crash, hang or run out of memory without taking this one along.

A worker is a fresh interpreter (`python -m qwen3vl.processor.isolation`, so that the caller's own script is
never imported again) that holds one end of a socket pair. It is started when first needed, reused, killed
when a task runs out of time and replaced after any failure. It imports what its tasks need and nothing
else; decoding pictures needs no torch.

These are limits, not a sandbox: a worker has its parent's rights, and its answers are unpickled.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, TypeVar

from qwen3vl.errors import MediaDecodeError, MediaTimeout, MediaTooLarge, Qwen3VLError, UnsupportedOption
from qwen3vl.processor.policy import MediaPolicy

T = TypeVar("T")

DEFAULT_MEMORY = 4 << 30  # bytes of address space of one worker
_START_TIMEOUT = 60.0  # seconds for the interpreter to come up; not part of a task's time
_TASKS_PER_WORKER = 500  # then a fresh one, so that what decoders leak does not add up
_GRACE = 5  # seconds after which a worker without a parent ends itself


class DecodingPool:
    """Worker processes for decoding. Safe to use from several threads; each waits for a free worker.

    Args:
        workers: how many tasks run at a time.
        memory: bytes of address space a worker may use.
    """

    def __init__(self, workers: int | None = None, memory: int = DEFAULT_MEMORY) -> None:
        if os.name != "posix":
            raise UnsupportedOption("isolated decoding needs a POSIX system: set MediaPolicy.isolate=False")
        self.memory = memory
        self._pid = os.getpid()
        self._free = threading.Semaphore(workers or min(4, os.cpu_count() or 1))
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._closed = False

    def run(self, function: Callable[..., T], *args: Any, timeout: float, name: str = "media") -> T:
        """`function(*args)` in a worker; both must be picklable, `function` by its module and name.

        Raises:
            MediaTimeout: after `timeout` seconds; MediaTooLarge: out of memory; MediaDecodeError: the
            worker died, or `function` raised something that is not a Qwen3VLError. Our own errors come
            through as they are.
        """
        task = pickle.dumps((function, args, timeout), protocol=5)
        with self._free:
            worker = self._take()
            try:
                answer = worker.ask(task, timeout, name)
            except BaseException:
                worker.kill()
                raise
            self._give_back(worker, healthy=answer.reusable)
        return answer.unwrap(name, self.memory)

    def close(self) -> None:
        """End all idle workers; busy ones end with their task. Does nothing in a fork: they are not its own."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.kill()

    def _take(self) -> _Worker:
        with self._lock:
            assert not self._closed, "the pool is closed"
            while self._idle:
                worker = self._idle.pop()
                if worker.alive:
                    return worker
                worker.kill()
        return _Worker(self.memory)

    def _give_back(self, worker: _Worker, *, healthy: bool) -> None:
        with self._lock:
            if healthy and not self._closed and worker.num_tasks < _TASKS_PER_WORKER:
                self._idle.append(worker)
                return
        worker.kill()

    def __enter__(self) -> DecodingPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_pool: DecodingPool | None = None
_pool_lock = threading.Lock()


def run(function: Callable[..., T], *args: Any, policy: MediaPolicy, name: str = "media") -> T:
    """`function(*args)` in the pool of this process, within policy.decode_timeout. Errors as DecodingPool.run."""
    global _pool
    with _pool_lock:
        if _pool is None or _pool._closed or _pool._pid != os.getpid():
            _pool = DecodingPool()
            atexit.register(_pool.close)
        pool = _pool
    return pool.run(function, *args, timeout=policy.decode_timeout, name=name)


class _Answer:
    """What a worker sent back: a result, an error, or word that memory ran out."""

    def __init__(self, kind: str, value: Any) -> None:
        self.kind, self.value = kind, value

    @property
    def reusable(self) -> bool:
        return self.kind != "memory"

    def unwrap(self, name: str, memory: int) -> Any:
        if self.kind == "result":
            return self.value
        if self.kind == "memory":
            raise MediaTooLarge(f"{name}: decoding needs more than the {memory >> 20} MiB a worker may use")
        if isinstance(self.value, Qwen3VLError):
            raise self.value
        raise MediaDecodeError(f"{name}: cannot be decoded ({self.value})")


class _Worker:
    """One process, seen from the parent."""

    def __init__(self, memory: int) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "qwen3vl.processor.isolation", str(theirs.fileno()), str(memory)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "OMP_NUM_THREADS": "1"},
            )
        self.connection = Connection(ours.detach())
        self.num_tasks = 0
        if not self._answers(_START_TIMEOUT) or self.connection.recv_bytes() != b"ready":
            self.kill()
            raise MediaDecodeError("the decoding process did not start")

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def ask(self, task: bytes, timeout: float, name: str) -> _Answer:
        self.num_tasks += 1
        try:
            self.connection.send_bytes(task)
            if not self._answers(timeout):
                raise MediaTimeout(f"{name}: not decoded within {timeout:g} s (MediaPolicy.decode_timeout)")
            return _receive(self.connection)
        except (EOFError, OSError) as error:
            status = self.process.wait(_GRACE)
            raise MediaDecodeError(f"{name}: the decoder crashed (exit status {status})") from error

    def _answers(self, timeout: float) -> bool:
        return self.connection.poll(timeout)

    def kill(self) -> None:
        self.connection.close()
        self.process.kill()
        self.process.wait()


# ------------------------------------------------------------------------------ protocol and worker


def _send(connection: Connection, answer: tuple[str, Any]) -> None:
    """A pickle without its arrays, then each array's bytes: large pictures are not copied into the pickle."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(answer, protocol=5, buffer_callback=buffers.append)
    raw = [buffer.raw() for buffer in buffers]
    connection.send_bytes(pickle.dumps((head, [view.nbytes for view in raw])))
    for view in raw:
        connection.send_bytes(view)


def _receive(connection: Connection) -> _Answer:
    head, sizes = pickle.loads(connection.recv_bytes())
    buffers = [bytearray(size) for size in sizes]
    for buffer in buffers:
        connection.recv_bytes_into(buffer)
    return _Answer(*pickle.loads(head, buffers=buffers))


def _carry_out(function: Callable[..., Any], args: tuple[Any, ...]) -> tuple[str, Any]:
    try:
        return "result", function(*args)
    except Qwen3VLError as error:
        return "error", error
    except MemoryError:
        return "memory", None
    except Exception as error:
        return "error", f"{type(error).__name__}: {error}"


def _serve(connection: Connection) -> None:
    connection.send_bytes(b"ready")
    while True:
        function, args, timeout = pickle.loads(connection.recv_bytes())
        signal.setitimer(signal.ITIMER_REAL, timeout + _GRACE)  # should the parent be gone: SIGALRM ends us
        answer = _carry_out(function, args)
        del function, args
        try:
            _send(connection, answer)
        except MemoryError:
            _send(connection, ("memory", None))
        signal.setitimer(signal.ITIMER_REAL, 0)


def _limit_memory(memory: int) -> None:
    import resource

    for limit in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        with contextlib.suppress(ValueError, OSError):  # macOS refuses RLIMIT_AS
            resource.setrlimit(limit, (memory, memory))
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    """The worker's life: answer tasks until the parent closes the connection."""
    descriptor, memory = map(int, sys.argv[1:])
    _limit_memory(memory)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends us
    with contextlib.suppress(EOFError, OSError):
        _serve(Connection(descriptor))


if __name__ == "__main__":
    main()
