"""The argument parser of all verbs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """Raises ``UserError`` for a wrong command line, so that it ends in one line and exit code 2."""

    def __init__(self, verb: str, text: str | None = None, description: str | None = None) -> None:
        from sailctl.core.files import place

        super().__init__(f"sailctl {verb}", description=description, allow_abbrev=False)
        self.register("type", Path, place)
        self.text = text

    def format_help(self) -> str:
        return self.text or super().format_help()

    def error(self, message: str) -> NoReturn:
        from sailctl.core.types import UserError

        raise UserError(f"{message} (see {self.prog} --help)")
