"""Starts a stage in several processes, and how a command ends: with its parent, or out of memory.

`accelerate launch` runs with the arguments in `params.yaml`; called in this process rather than as
a command, so that a wrong argument or a stage that stopped ends in one sentence. `accelerate launch
[...] -m dermaflux finetune` does the same by hand.

A killed `dvc repro`, launcher or stage leaves nothing behind that computes: what it started looks
twice a second whether it is still there, which works on every system and, unlike Linux's signal of
a parent's death, through the shell that DVC puts in between. A stage started by hand, in the
background of a shell or with `nohup`, outlives its shell. Workers of Dask and Ray end by
themselves when their cluster's starter does.
"""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, NoReturn

from dermaflux.core.devices import memory_shortage
from dermaflux.errors import InputError, causes

_LAUNCHED = "ACCELERATE_MIXED_PRECISION"
"""Set by `accelerate launch` in every process it starts."""

_LOOK_SECONDS = 0.5
_CLEANUP_SECONDS = 2.0
"""For a stage to close its MLflow run and to remove unfinished files."""


def exit_on_signals() -> None:
    """Let SIGTERM and SIGHUP end this process as an exception, so that what is open is closed.

    The second one ends it at once. `nohup` and other handlers keep what they have set.
    """
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _exit)


def _exit(number: int, _: FrameType | None) -> NoReturn:
    signal.signal(number, signal.SIG_DFL)
    sys.exit(128 + number)


def end_with_parent() -> None:
    """End this stage when DVC or the launcher that started it is gone; by hand, do nothing."""
    if "DVC_STAGE" in os.environ or launched():
        _watch(_generations(), _terminate)


def worker_options() -> dict[str, Any]:
    """Arguments of `joblib.Parallel` for processes of this machine that end with this one."""
    options = {"initializer": _end_worker_with_parent, "initargs": (os.getpid(),)}
    return {"backend": "loky", **options}


def _end_worker_with_parent(parent: int) -> None:
    _watch(lambda: os.getppid() == parent, lambda: os._exit(1))


def _generations() -> Callable[[], bool]:
    """Whether the chain of parents up to DVC is what it is now.

    A process between has `DVC_STAGE` in its environment as this one has: the shell, a launcher.
    """
    import psutil  # type: ignore[import-untyped]

    stage = os.environ.get("DVC_STAGE")
    chain = [psutil.Process()]
    while (parent := chain[-1].parent()) is not None:
        try:
            if stage is None or parent.environ().get("DVC_STAGE") != stage:
                break
        except psutil.Error:
            break
        chain.append(parent)
    before = [process.ppid() for process in chain]
    top = chain[-1].parent()

    def unchanged() -> bool:
        try:
            # A killed parent hands its children on at once, even while it is a zombie itself;
            # on Windows they keep its number.
            alive = top is None or top.is_running()
            return alive and [process.ppid() for process in chain] == before
        except psutil.Error:
            return False

    return unchanged


def _watch(unchanged: Callable[[], bool], end: Callable[[], None]) -> None:
    def look() -> None:
        while unchanged():
            time.sleep(_LOOK_SECONDS)
        end()

    threading.Thread(target=look, name="parent", daemon=True).start()


def _terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_CLEANUP_SECONDS)
    os._exit(128 + signal.SIGTERM)


def launched() -> bool:
    """Whether this process was started by a launcher: it must not start another."""
    return _LAUNCHED in os.environ or "WORLD_SIZE" in os.environ


def launch(arguments: str, stage: str) -> int:
    """Run `dermaflux <stage>` under `accelerate launch <arguments>`; return its exit status.

    Raises `InputError` for arguments that accelerate does not accept.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, _cores() // _processes(arguments))))
    args = _parsed(arguments, stage)
    # The stage has printed its own error; the launcher's report would add a traceback.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    logging.getLogger("torch.distributed.run").setLevel(logging.CRITICAL)
    from accelerate.commands.launch import launch_command
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    try:
        launch_command(args)
    except ChildFailedError as error:
        _explain_kill(stage, [failure.exitcode for failure in error.failures.values()])
        return 1
    except subprocess.CalledProcessError as error:
        _explain_kill(stage, [error.returncode])
        return 1
    except (ValueError, OSError) as error:
        raise _refused(arguments, str(error)) from None
    return 0


def _explain_kill(stage: str, statuses: Sequence[int]) -> None:
    """Say why a process ended that could not say it itself."""
    if -signal.SIGKILL in statuses:
        from dermaflux.params.memory import advice

        raise InputError(
            f"a process of {stage} was killed (signal 9), as the system does when this machine's "
            f"memory is full; {advice(stage)}"
        )


def out_of_memory(error: BaseException) -> InputError | None:
    """The sentence for an error of the running command whose reason is a lack of memory."""
    try:
        shortage = memory_shortage(error)
        if shortage is None or (isinstance(error, InputError) and "memory" in str(error)):
            return None
    except MemoryError:  # not even enough is left to look
        error.__traceback__ = shortage = None
    for cause in causes(error):
        cause.with_traceback(None)  # its frames hold what filled the memory
    shortage = shortage or memory_shortage(error) or "this machine's memory is full"
    from dermaflux.params.memory import advice

    command = next((word for word in sys.argv[1:] if not word.startswith("-")), "dermaflux")
    return InputError(f"{command}: {shortage}; {advice(command)}")


def _cores() -> int:
    return os.cpu_count() or 1


def _words(arguments: str) -> list[str]:
    try:
        return shlex.split(arguments)
    except ValueError as error:
        raise _refused(arguments, str(error)) from None


def _processes(arguments: str) -> int:
    """Number of processes requested; accelerate's default is one per GPU."""
    words = _words(arguments)
    for index, word in enumerate(words):
        name, _, value = word.partition("=")
        if name in ("--num_processes", "--num-processes"):
            value = value or (words[index + 1] if index + 1 < len(words) else "")
            return int(value) if value.isdigit() and int(value) else 1
    from torch import cuda

    return max(1, cuda.device_count())


def _parsed(arguments: str, stage: str) -> argparse.Namespace:
    from accelerate.commands.launch import launch_command_parser

    parser = launch_command_parser()

    def refuse(message: str) -> NoReturn:
        raise _refused(arguments, message)

    parser.error = refuse
    words = _words(arguments)
    args: Any = parser.parse_args([*words, "--module", "dermaflux", stage])
    if args.training_script != "dermaflux":
        raise _refused(arguments, f"{args.training_script!r} is not an option")
    if args.cpu and (args.num_processes or 1) > 1:
        raise _refused(
            arguments, "--cpu starts one process; processes use the CPU where there is no GPU"
        )
    several = (args.num_processes or 1) > 1 and not (args.use_fsdp or args.config_file)
    # Without a GPU accelerate starts one process unless this flag says that there are several.
    args.multi_gpu = args.multi_gpu or several
    # Values accelerate would otherwise list in a warning.
    args.num_machines = args.num_machines or (None if args.config_file else 1)
    if not args.config_file:
        args.mixed_precision = args.mixed_precision or "no"
        args.dynamo_backend = args.dynamo_backend or "no"
    return args  # type: ignore[no-any-return]


def _refused(arguments: str, reason: str) -> InputError:
    reason = " ".join(reason.split()).rstrip(".")
    return InputError(
        f"accelerate is {arguments!r}, which `accelerate launch` does not accept ({reason}); "
        "`accelerate launch --help` lists its options"
    )
