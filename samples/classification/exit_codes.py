"""What every program here does with an error. Imports nothing that takes long, since ctrl-C may come meanwhile, too."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

from bootstrapnas_ext.errors import BootstrapNASError

RESUME = "Add --resume to the same command to go on."
USER_ERROR = 2
INTERRUPTED = 130
TERMINATED = 143


class TerminatedError(KeyboardInterrupt):
    """SIGTERM, as what lets a program clean up after itself."""


def exit_code(program: Callable[[], None], when_interrupted: str) -> int:
    """
    Runs a program and tells a user's mistake in one line; defects keep their traceback.

    :param program: What to run.
    :param when_interrupted: What the user can do after ctrl-C.
    :return: 0, or 2 for a user's mistake, or 130 if the user interrupted it, or 143 after SIGTERM.
    """

    def terminate(*_: object) -> None:
        raise TerminatedError

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        program()
    except BootstrapNASError as error:
        if os.environ.get("RANK", "0") == "0":  # the first of several processes says it for all
            print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt as error:
        print(f"Interrupted. {when_interrupted}", file=sys.stderr)
        return TERMINATED if isinstance(error, TerminatedError) else INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0
