"""The protocols of the benchmarks: what they would train can be trained, and holds their baseline."""

from __future__ import annotations

import pytest

from benchmarks.protocols import PROTOCOLS
from sailctl.compose import compose_jobs
from sailctl.config import to_dict


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
