from pathlib import Path

import pytest
import torch

from surround.dataset import Cache, open_cache, render_split
from surround.model import FORMS, deployed
from surround.torch_run import load_weights
from surround.train import Phase, Plan, Trainer, train

PLAN = Plan((Phase(3, (96, 64), 2), Phase(3, (128, 96), 2)), frames=6, seed=5, bfloat16=False, threads=1)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    cache = Cache(tmp_path_factory.mktemp("frames"), PLAN.frames)
    for n, sample in enumerate(render_split("train", 0, PLAN.frames)):
        cache.put(n, sample)
    return cache


def weights_of(trainer: Trainer) -> list[torch.Tensor]:
    return [*trainer.network.state_dict().values(), *trainer.averaged.state_dict().values()]


def test_a_resumed_run_ends_bit_identical(cache: Cache, tmp_path: Path) -> None:
    whole = Trainer(PLAN, cache)
    losses: list[float] = []
    whole.run(PLAN.steps, lambda values: losses.append(values["total"]))
    assert len(losses) == PLAN.steps
    first = Trainer(PLAN, cache)
    first.run(2)
    first.save(tmp_path / "checkpoint.pt")
    second = Trainer(PLAN, cache)
    second.restore(tmp_path / "checkpoint.pt")
    rest: list[float] = []
    second.run(PLAN.steps, lambda values: rest.append(values["total"]))
    assert rest == losses[2:]
    for a, b in zip(weights_of(whole), weights_of(second), strict=True):
        assert torch.equal(a, b)
    assert not (tmp_path / "checkpoint.partial").exists()


def test_another_seed_trains_another_network(cache: Cache) -> None:
    from dataclasses import replace

    a, b = Trainer(PLAN, cache), Trainer(replace(PLAN, seed=6), cache)
    assert not torch.equal(next(a.network.parameters()), next(b.network.parameters()))


def test_a_checkpoint_of_another_plan_is_refused_with_both_values(cache: Cache, tmp_path: Path) -> None:
    from dataclasses import replace

    trainer = Trainer(PLAN, cache)
    trainer.save(tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match=r"seed: 5 there, 6 here.*--fresh"):
        Trainer(replace(PLAN, seed=6), cache).restore(tmp_path / "checkpoint.pt")


@pytest.mark.parametrize("form", FORMS)
def test_training_lowers_the_loss(cache: Cache, form: str) -> None:
    plan = Plan((Phase(40, (96, 64), 4),), frames=PLAN.frames, bfloat16=False, threads=1, form=form)
    losses: list[float] = []
    Trainer(plan, cache).run(plan.steps, lambda values: losses.append(values["drivable"]))
    assert sum(losses[-8:]) < 0.9 * sum(losses[:8])


def test_the_learning_rate_rises_then_falls() -> None:
    plan = Plan((Phase(100, (96, 64), 1),))
    rates = [plan.rate_at(step) for step in range(100)]
    peak = rates.index(max(rates))
    assert 0 < peak < 10
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] < 0.01 * plan.peak_rate


def test_phases_follow_each_other() -> None:
    assert [PLAN.phase_at(step).size for step in (0, 2, 3, 5)] == [(96, 64), (96, 64), (128, 96), (128, 96)]
    with pytest.raises(ValueError, match="step 6"):
        PLAN.phase_at(6)


@pytest.mark.parametrize("form", FORMS)
def test_the_whole_run_renders_trains_and_writes_weights_that_load(tmp_path: Path, form: str) -> None:
    from dataclasses import replace

    plan = replace(PLAN, phases=(Phase(2, (64, 64), 1),), form=form)
    weights = tmp_path / "weights" / "surround.safetensors"
    trainer = train(plan, tmp_path, weights, save_every=1)
    assert trainer.step == 2
    module = load_weights(weights)
    assert module.state_dict().keys() == deployed(form).state_dict().keys()
    rendered = open_cache(tmp_path, "train", plan.frames, plan.seed)
    assert rendered.images.any()
    assert train(plan, tmp_path, weights).seconds == trainer.seconds  # nothing left to do
