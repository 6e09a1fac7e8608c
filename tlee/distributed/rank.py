"""A rank, one of the processes that torchrun starts: ``python -m tlee.distributed.rank [--attended] FOLDER``.

It runs the function that ``launch`` has described in the folder. With ``--attended`` it ends with its standard input.
"""

import json
import os
import pickle
import sys
import threading
import traceback
from importlib import import_module
from pathlib import Path

from torch import distributed

from tlee.devices import device_of
from tlee.distributed.fabric import new_fabric
from tlee.distributed.launch import ERRORS, JOB, RETURNED
from tlee.distributed.ranks import world


def main(folder: Path) -> None:
    """Run the function on this rank; rank 0 writes what it returns, and prints."""
    module, function, params = pickle.loads((folder / JOB).read_bytes())
    try:
        new_fabric(device_of(params.compute).type)
        if not world().is_first:
            sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
        returned = getattr(import_module(module), function)(params)
        if world().is_first:
            (folder / RETURNED).write_bytes(pickle.dumps(returned))
        distributed.destroy_process_group()
    except Exception as error:
        text = {"kind": type(error).__name__, "message": str(error), "traceback": traceback.format_exc()}
        (folder / ERRORS.format(os.environ["RANK"])).write_text(json.dumps(text), encoding="utf-8")
        sys.exit(1)


def _end_with_input() -> None:
    def wait() -> None:
        while os.read(sys.stdin.fileno(), 1024):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    if "--attended" in sys.argv:
        _end_with_input()
    main(Path(sys.argv[-1]))
