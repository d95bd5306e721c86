"""Settings of earlier versions are read under the names of this one, and told to whoever writes them."""

from __future__ import annotations

import pytest

from sailctl.config import present
from sailctl.config.convert import leaf_types
from sailctl.config.former import GONE, RENAMED
from sailctl.core.types import UserError
from sailctl.sweeps.compose import compose_jobs


def test_a_setting_that_is_gone_is_left_out_where_runs_still_do_what_it_said():
    kept = {"algo.beta": 0.1}
    assert present({**kept, "rollout.continuation": "policy"}) == kept
    other = {**kept, "rollout.continuation": "mean"}
    assert present(other) == other


def test_former_names_are_no_settings_and_new_ones_are():
    assert not {*RENAMED, *GONE} & leaf_types().keys()
    assert set(RENAMED.values()) <= leaf_types().keys()


def test_a_former_name_on_the_command_line_is_one_line():
    with pytest.raises(UserError, match=r"^rollout\.continuation is gone: all runs do what 'policy' did$"):
        compose_jobs(["algo=sail_segments", "rollout.continuation=mean"])
