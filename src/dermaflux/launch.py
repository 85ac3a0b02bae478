"""Starts a stage in several processes, and explains how a command ended that ran out of memory.

`launch` is `accelerate launch` with the arguments in `params.yaml`, called in this process rather
than as a command, so that a wrong argument or a stage that stopped ends in one sentence.
`accelerate launch [...] -m dermaflux finetune` does the same by hand.
"""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from dermaflux.core.devices import causes, memory_shortage
from dermaflux.errors import InputError

_LAUNCHED = "ACCELERATE_MIXED_PRECISION"
"""Set by `accelerate launch` in every process it starts."""


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
