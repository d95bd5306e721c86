"""Bad command lines and bad configuration files, generated: each must end in one clear line and exit code 2.

Nothing may be simulated, no traceback may be printed, and no file or folder may be left behind. Each case is
bad by construction: a word that no setting has, a value of the wrong type or out of its range, an option that
there is not, several values where one is wanted, or words that are none.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import sys
import tempfile
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import get_args, get_origin
from unittest import mock

from benchmarks import record
from benchmarks.record import RESULTS
from sailctl.cli import main as cli
from sailctl.config import GROUPS, ActionsRun, Config, Range, conf_dir, leaf_types, leaves
from sailctl.sweeps import launch

FORMS = ((leaf_types(ActionsRun), ()), (leaf_types(Config), ("algo=sail_revkl_segments",)))
"""Settings of a run of SAIL-RevKL and their types: of the default, on actions, and of the form on segments,
with the word that chooses it."""
KEYS = {key: hint for keys, _ in FORMS for key, hint in keys.items()}
RANGES = {key: allowed for kind in (ActionsRun, Config) for key, _, allowed in leaves(kind)}
LETTERS = "abcdefghijklmnopqrstuvwxyz_."


@dataclass(frozen=True)
class Case:
    """One bad input."""

    kind: str
    words: list[str]
    file: tuple[str, str] | None = None
    """Path below ``--config-dir`` and content of a file of the user's."""


def bare(hint: object) -> object:
    """The type of a setting that may also be null."""
    return get_args(hint)[0] if isinstance(hint, UnionType) else hint


def typo(rng: random.Random) -> Case:
    key = rng.choice(list(KEYS))
    while key in KEYS or key in GROUPS:
        place = rng.randrange(len(key))
        key = key[:place] + rng.choice(LETTERS) + key[place + rng.choice((0, 1)) :]
    return Case("a key that there is not", ["train", f"{key}=1"])


def wrong_type(rng: random.Random) -> Case:
    numbers = {
        int: ("half", "1.5", "[1]", "{a: 1}"),
        float: ("much", "[0.1]", "{a: 1}"),
        bool: ("maybe", "7.5"),
    }
    keys, form = rng.choice(FORMS)
    key = rng.choice([name for name, hint in keys.items() if bare(hint) in numbers])
    value = rng.choice(numbers[bare(keys[key])])
    return Case("a value of the wrong type", ["train", f"{key}={value}", *form])


def out_of_range(rng: random.Random) -> Case:
    keys, form = rng.choice(FORMS)
    outside = {
        key: beyond(RANGES[key]) + ["nan", "inf"] * (bare(hint) is float) for key, hint in keys.items()
    }
    key = rng.choice([name for name, values in outside.items() if values])
    return Case("a value out of its range", ["train", f"{key}={rng.choice(outside[key])}", *form])


def beyond(allowed: Range) -> list[str]:
    """Numbers just outside."""
    above = [] if allowed.above is None else [allowed.above, allowed.above - 1]
    least = [] if allowed.least is None else [allowed.least - 1]
    most = [] if allowed.most is None else [allowed.most + 1]
    return [str(number) for number in (*above, *least, *most)]


def no_choice(rng: random.Random) -> Case:
    keys, form = rng.choice(FORMS)
    key = rng.choice([name for name in keys if RANGES[name].choices])
    return Case("a word that is no choice", ["train", f"{key}={word(rng)}", *form])


def other_form(rng: random.Random) -> Case:
    (theirs, _), (keys, form) = rng.sample(FORMS, 2)
    key = rng.choice([name for name in theirs if name not in keys])
    return Case("a setting of another form", ["train", f"{key}=1", *form])


def no_option(rng: random.Random) -> Case:
    group = rng.choice([*GROUPS, "experiment"])
    return Case("an option that there is not", ["train", f"{group}={word(rng)}"])


def no_sweep(rng: random.Random) -> Case:
    key = rng.choice([name for name, hint in KEYS.items() if get_origin(bare(hint)) is not list])
    return Case("several values without -m", ["train", f"{key}=1,2"])


def broken(rng: random.Random) -> Case:
    key = rng.choice(list(KEYS))
    pieces = (
        "=",
        f"{key}",
        f"{key}=[",
        f"{key}={{",
        f"={key}",
        f"+{key}=1",
        f"~{key}",
        f"{key}='",
        "--no-such",
    )
    return Case("words that are none", ["train", rng.choice(pieces)])


def wrong_verb(rng: random.Random) -> Case:
    verb = word(rng)
    return Case("a verb that there is not", [verb, "algo=sail"])


def wrong_flag(rng: random.Random) -> Case:
    lines = (
        ["train", "--cfg", word(rng)],
        ["train", "--config-dir", word(rng)],
        ["train", "--fail-fast"],
        ["eval", word(rng)],
        ["eval", word(rng), "--episodes", "0"],
        ["status", word(rng)],
        ["status", "--watch", word(rng)],
        ["compare", word(rng)],
        ["report", word(rng)],
        ["plot", word(rng)],
        ["collect", "--pairs", word(rng), "--out", "x.parquet"],
        ["collect", "--pairs", "0", "--out", "x.parquet"],
        ["regress", word(rng)],
        ["tasks", word(rng)],
        ["reference", f"env={word(rng)}"],
    )
    return Case("a wrong word for a verb", rng.choice(lines))


def wrong_file(rng: random.Random) -> Case:
    group = rng.choice(("algo", "env", "oracle", "rollout", "policy", "reward"))
    shipped = rng.choice(sorted((conf_dir() / group).glob("*.yaml"))).read_text(encoding="utf-8")
    lines = [
        line for line in shipped.splitlines() if line.strip() and not line.startswith(("#", "defaults", " "))
    ]
    place = rng.randrange(len(lines)) if lines else 0
    bad = rng.choice(
        (
            "no colon here",
            "key: [1, 2",
            "key: {a: 1",
            f"{word(rng)}: 1",
            "a: b: c",
            "\t- tab",
            "? - [",
            "key: *nothing",
        )
    )
    text = "\n".join([*lines[:place], bad, *lines[place:]]) + "\n"
    return Case("a file that is wrong", ["train", f"{group}=mine"], (f"{group}/mine.yaml", text))


def wrong_value_in_file(rng: random.Random) -> Case:
    case = rng.choice((wrong_type, out_of_range, no_choice))(rng)
    key, _, value = case.words[1].partition("=")
    *groups, name = key.split(".")
    lines = [
        "# @package _global_",
        *(f"{group}:" for group in groups),
        f"{'  ' * len(groups)}{name}: {value}",
    ]
    return Case(
        "a wrong value in a file",
        ["train", "experiment=mine", *case.words[2:]],
        ("experiment/mine.yaml", "\n".join(lines) + "\n"),
    )


def word(rng: random.Random) -> str:
    """Letters that are the name of nothing."""
    return "zz" + "".join(rng.choice(LETTERS[:26]) for _ in range(rng.randint(3, 10)))


MAKERS: tuple[Callable[[random.Random], Case], ...] = (
    typo,
    wrong_type,
    out_of_range,
    no_choice,
    other_form,
    no_option,
    no_sweep,
    broken,
    wrong_verb,
    wrong_flag,
    wrong_file,
    wrong_value_in_file,
)


def cases(count: int, seed: int) -> Iterator[Case]:
    """So many bad inputs, as many of each kind."""
    rng = random.Random(seed)
    for number in range(count):
        yield MAKERS[number % len(MAKERS)](rng)


def complaint(case: Case) -> str | None:
    """What is wrong with the answer to a bad input, in an empty working folder; None when nothing is."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        here, words = Path(folder), list(case.words)
        if case.file is not None:
            path = here / "mine" / case.file[0]
            path.parent.mkdir(parents=True)
            path.write_text(case.file[1], encoding="utf-8")
            words += ["--config-dir", "mine"]
        before = sorted(here.rglob("*"))
        said, errors = io.StringIO(), io.StringIO()
        with (
            mock.patch.object(launch, "launch", return_value=99),
            mock.patch.object(launch, "launch_sweep", return_value=99),
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(errors),
        ):
            try:
                code = cli.main(words)
            except BaseException as error:
                return f"{type(error).__name__}: {error}"
        lines = errors.getvalue().splitlines()
        if code != 2:
            return f"exit code {code}"
        if len(lines) != 1 or not lines[0].startswith("sailctl: ") or said.getvalue():
            return f"not one line: {said.getvalue()!r} {errors.getvalue()!r}"
        if sorted(here.rglob("*")) != before:
            return "something is left behind"
    return None


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=ArgumentDefaultsHelpFormatter)
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=RESULTS)
    asked = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")

    tried, clear = Counter[str](), Counter[str]()
    for case in cases(asked.cases, asked.seed):
        tried[case.kind] += 1
        wrong = complaint(case)
        clear[case.kind] += wrong is None
        if wrong is not None:
            print(f"{case}\n  {wrong}", flush=True)
    rows = [{"kind": kind, "cases": count, "one clear line": clear[kind]} for kind, count in tried.items()]
    print(f"{asked.cases} bad inputs: {sum(clear.values())} ended in one clear line and exit code 2")
    record.write(asked.results, "fuzz", rows, {"cases": asked.cases, "seed": asked.seed})
    if sum(clear.values()) < asked.cases:
        sys.exit(1)


if __name__ == "__main__":
    main()
