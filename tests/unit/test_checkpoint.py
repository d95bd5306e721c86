"""Policy files: exact, safe, refused when damaged, never half written."""

from __future__ import annotations

import ast
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import sailctl
from sailctl.config import PolicyConfig
from sailctl.core.files import POLICY, write_atomically
from sailctl.core.types import UserError
from sailctl.policies.policy import GaussianPolicy
from sailctl.runs.checkpoint import TENSORS, dump_batch, load_policy, save_policy
from sailctl.simulator.batched import TaskSimulator
from sailctl_envs import ALL_TASKS

MLP = PolicyConfig("mlp", [16, 8], 0, 0.6, True, True)
LINEAR = PolicyConfig("linear", [], 12, 0.4, False, True)


def trained(config: PolicyConfig, seed: int = 0) -> GaussianPolicy:
    rng = np.random.default_rng(seed)
    policy = GaussianPolicy(config, TaskSimulator(ALL_TASKS["hopper-v5"]()).spec, rng)
    policy.observe(rng.normal(1.0, 2.0, (70, 11)).astype(np.float32))
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(torch.from_numpy(rng.normal(0, 0.3, parameter.shape).astype(np.float32)))
    return policy


@pytest.mark.parametrize("config", [MLP, LINEAR], ids=["mlp", "linear"])
def test_a_saved_policy_comes_back_bit_for_bit(tmp_path: Path, config: PolicyConfig):
    policy = trained(config)
    save_policy(policy, tmp_path / "deep" / "policy")
    loaded = load_policy(tmp_path / "deep" / "policy")
    ours, theirs = policy.state_dict(), loaded.state_dict()
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert ours[name].dtype == theirs[name].dtype
        assert torch.equal(ours[name], theirs[name]), name
    assert {"obs_mean", "obs_var", "obs_count"} <= theirs.keys()
    obs = np.random.default_rng(3).normal(1.0, 2.0, (20, 11))
    np.testing.assert_array_equal(policy.predict(obs)[0], loaded.predict(obs)[0])
    assert loaded.config == config
    assert (loaded.spec.id, loaded.spec.horizon, loaded.spec.dt) == ("hopper-v5", 1000, policy.spec.dt)
    np.testing.assert_array_equal(loaded.spec.act_low, policy.spec.act_low)
    assert loaded.spec.act_low.dtype == np.float64
    assert loaded.log_std.requires_grad == config.learn_std


def test_the_policy_goes_on_observing_where_it_stood(tmp_path: Path):
    policy = trained(MLP)
    save_policy(policy, tmp_path)
    loaded = load_policy(tmp_path)
    more = np.random.default_rng(9).normal(size=(13, 11)).astype(np.float32)
    policy.observe(more)
    loaded.observe(more)
    assert torch.equal(policy.obs_mean, loaded.obs_mean)
    assert torch.equal(policy.obs_var, loaded.obs_var)


def test_a_run_directory_is_as_good_as_its_policy_folder(tmp_path: Path):
    save_policy(trained(MLP), tmp_path / "run" / "policy")
    one, two = sailctl.load_policy(tmp_path / "run"), sailctl.load_policy(str(tmp_path / "run" / "policy"))
    assert torch.equal(one.log_std, two.log_std)


def damage(folder: Path, how: str) -> None:
    tensors, description = folder / TENSORS, folder / POLICY
    content, about = bytearray(tensors.read_bytes()), json.loads(description.read_text())
    if how == "tensors missing":
        tensors.unlink()
    elif how == "tensors truncated":
        tensors.write_bytes(content[:-7])
    elif how == "tensors empty":
        tensors.write_bytes(b"")
    elif how == "a bit flipped in a number":
        content[-30] ^= 1
        tensors.write_bytes(content)
    elif how == "a bit flipped in the header":
        content[1] ^= 128
        tensors.write_bytes(content)
    elif how == "tensors of another policy":
        save_policy(trained(MLP, seed=5), folder / "other")
        tensors.write_bytes((folder / "other" / TENSORS).read_bytes())
    elif how == "a foreign file in place of the tensors":
        torch.save({"weight": torch.zeros(3)}, tensors)
    elif how == "description truncated":
        description.write_text(description.read_text()[:40])
    elif how == "description is no object":
        description.write_text("[1, 2]")
    elif how == "description is not text":
        description.write_bytes(b"\xff\xfe\x00{")
    elif how == "description of something else":
        description.write_text('{"format": 1, "name": "another program"}')
    elif how == "description changed":
        about["spec"]["act_high"] = [3.0, 3.0, 3.0]
        description.write_text(json.dumps(about))
    elif how == "newer format":
        about["format"] = 99
        description.write_text(json.dumps(about))
    elif how == "description missing":
        description.unlink()


@pytest.mark.parametrize(
    "how",
    [
        "tensors missing",
        "tensors truncated",
        "tensors empty",
        "a bit flipped in a number",
        "a bit flipped in the header",
        "tensors of another policy",
        "a foreign file in place of the tensors",
        "description truncated",
        "description is no object",
        "description is not text",
        "description of something else",
        "description changed",
        "newer format",
        "description missing",
    ],
)
def test_damaged_files_are_refused_in_one_line(tmp_path: Path, how: str):
    save_policy(trained(MLP), tmp_path)
    load_policy(tmp_path)
    damage(tmp_path, how)
    with pytest.raises(UserError) as caught:
        load_policy(tmp_path)
    message = str(caught.value)
    assert str(tmp_path) in message
    assert "\n" not in message


def test_a_newer_format_says_so(tmp_path: Path):
    save_policy(trained(MLP), tmp_path)
    damage(tmp_path, "newer format")
    with pytest.raises(UserError, match="has format 99; this version reads 1"):
        load_policy(tmp_path)


def test_a_place_without_a_policy_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"there is no policy\.json in"):
        load_policy(tmp_path / "nowhere")


def test_nothing_is_pickled(tmp_path: Path):
    """Neither in the files (no pickle opcodes, only safetensors and JSON) nor anywhere in the package."""
    save_policy(trained(LINEAR), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [POLICY, TENSORS]
    content = (tmp_path / TENSORS).read_bytes()
    header = int.from_bytes(content[:8], "little")
    layout = json.loads(content[8 : 8 + header])
    assert {entry["dtype"] for entry in layout.values()} <= {"F32", "F64"}
    json.loads((tmp_path / POLICY).read_text())
    for file in Path(sailctl.__file__).parent.rglob("*.py"):
        nodes = list(ast.walk(ast.parse(file.read_text())))
        plain = {id(node.func) for node in nodes if isinstance(node, ast.Call) and loads_plain_tensors(node)}
        for node in nodes:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):  # the error is that of a file which is refused
                names += (
                    [] if ast.unparse(node) == "from pickle import UnpicklingError" else [node.module or ""]
                )
            assert not {"pickle", "dill", "shelve", "cloudpickle"} & {n.split(".")[0] for n in names}, file
            if ast.unparse(node) in ("torch.load", "torch.save") and isinstance(node, ast.Attribute):
                assert id(node) in plain, file


def loads_plain_tensors(call: ast.Call) -> bool:
    """Whether it is ``torch.load(..., weights_only=True)``, which executes nothing."""
    plain = [word.arg == "weights_only" and ast.unparse(word.value) == "True" for word in call.keywords]
    return ast.unparse(call.func) == "torch.load" and any(plain)


@pytest.mark.parametrize("crash", ["fsync", "replace"])
def test_a_crash_leaves_the_old_file_and_no_debris(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash: str
):
    old, new = trained(MLP, seed=0), trained(MLP, seed=1)
    save_policy(old, tmp_path)

    def fails(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(*((os, "fsync", fails) if crash == "fsync" else (Path, "replace", fails)))
    with pytest.raises(OSError, match="no space left"):
        save_policy(new, tmp_path)
    monkeypatch.undo()
    assert sorted(path.name for path in tmp_path.iterdir()) == [POLICY, TENSORS]
    assert torch.equal(load_policy(tmp_path).log_std, old.log_std)
    save_policy(new, tmp_path)
    assert torch.equal(load_policy(tmp_path).log_std, new.log_std)


def test_content_reaches_the_disk_before_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    target, seen, fsync = tmp_path / "file", [], os.fsync

    def watch(descriptor: int) -> None:
        seen.append(target.exists())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    write_atomically(target, b"content")
    assert seen == [False]
    assert target.read_bytes() == b"content"


def test_a_dumped_batch_reads_back(tmp_path: Path):
    batch = {"actions": torch.tensor([[1.0, float("nan")], [float("inf"), 2.0]]).T, "label": torch.ones(2)}
    dump_batch(batch, tmp_path / "batch.safetensors")
    loaded = load_file(tmp_path / "batch.safetensors")
    for name, tensor in batch.items():
        torch.testing.assert_close(loaded[name], tensor, rtol=0, atol=0, equal_nan=True)
