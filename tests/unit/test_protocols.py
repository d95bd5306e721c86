"""The protocols of the benchmarks: what they would train can be trained, and holds their baseline."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.protocols import PROTOCOLS, at_equal_cost, main, names_of, swept
from sailctl.compose import compose_jobs
from sailctl.config import to_dict
from sailctl.references import scale_of_references
from tests.trials import make_trial


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_can_be_trained_and_holds_its_baseline(name: str):
    protocol = PROTOCOLS[name]
    jobs = [
        job
        for sweep in protocol.sweeps
        for job in compose_jobs([*sweep, "env=hopper-v5,ant-v5"], multirun=True).jobs
    ]
    algorithm, *settings = protocol.compare[protocol.compare.index("--baseline") + 1].split()

    def is_baseline(config: dict) -> bool:
        told = [setting.partition("=")[::2] for setting in settings]
        chosen = [(key.split("."), value) for key, value in told]
        return config["algo"]["name"] == algorithm and all(
            str(config[group][key]) == value for (group, key), value in chosen
        )

    assert sum(is_baseline(to_dict(job.config)) for job in jobs) == 2  # one on each task


def test_some_algorithms_of_a_protocol():
    scratch = PROTOCOLS["scratch"]
    assert tuple(swept(scratch)) == scratch.sweeps
    some = swept(scratch, ["sail_revkl_segments", "ppo"])
    assert [words[:2] for words in some] == [
        ("experiment=foresight", "algo=sail_revkl_segments"),
        ("algo=ppo",),
    ]
    assert swept(scratch, ["sail_revkl_direct"]) == [scratch.sweeps[1]]
    assert names_of(scratch) == ["sail_segments", "sail_revkl_segments", "sail_revkl_direct", "ppo"]


def test_an_algorithm_that_a_protocol_has_not_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("sys.argv", ["protocols", "alignment", "--algorithms", "sail_segments", "sac"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert (
        "alignment has no sac; its algorithms are sail_segments, sail_robust_segments, sail_revkl_segments"
        in capsys.readouterr().err
    )


def test_at_equal_cost_a_slow_learner_is_cut_where_the_baseline_ended():
    """Hopper's scale put in by hand: scores of 0, 1, 2, ... at one evaluation after the other."""
    low, high = scale_of_references()["hopper-v5"]

    def returns(*scores: float) -> list[float]:
        return [low + score * (high - low) for score in scores]

    slow = make_trial(returns(0, 0.2, 0.2, 0.2, 0.8, 0.8, 0.8), algorithm="slow")
    trials = [
        *(make_trial(returns(0, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4), algorithm="ppo", seed=s) for s in (0, 1)),
        *(replace(slow, seed=s, cpu_s=2 * slow.cpu_s) for s in (0, 1)),
        replace(slow, algorithm="broken", state="failed"),
    ]
    found = {(row["at equal"], row["algorithm"]): row for row in at_equal_cost(trials, "ppo")}
    assert found["env_steps", "slow"]["score"] == pytest.approx(0.8)
    assert found["env_steps", "slow"]["share"] == 2.0
    assert found["cpu_s", "slow"]["score"] == pytest.approx(0.2), "half of its evaluations are within 6 s"
    assert found["cpu_s", "slow"]["share"] == 0.5
    assert found["env_steps", "broken"]["score"] == 0.0
    assert found["env_steps", "ppo"]["share"] == 1.0
    assert found["env_steps", "ppo"]["runs"] == 2
    assert {axis for axis, _ in found} == {"env_steps", "labels", "cpu_s"}
    old = [replace(trial, cpu_s=np.full(7, np.nan), labels=np.zeros(7)) for trial in trials]
    assert {row["at equal"] for row in at_equal_cost(old, "ppo")} == {"env_steps"}, (
        "what is not known is not said"
    )
