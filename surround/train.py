"""Trains the network from rendered frames: seeded, resumable, with one bar that says how long it takes."""

import copy
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from safetensors.torch import save_file

from surround.batches import draw_batch
from surround.dataset import Cache, open_cache
from surround.losses import total_loss
from surround.model import DEFAULT_FORM, Deployed, SurroundNet, cell_grid, deployed
from surround.spec import STRIDE


@dataclass(frozen=True)
class Phase:
    """Consecutive steps at one frame size (width, height) and batch size.

    `zoom` bounds the frames' scale against the whole view, as natural logarithms: None draws from a bit less than the
    whole view to a crop a bit larger than full resolution.
    """

    steps: int
    size: tuple[int, int]
    batch: int
    zoom: tuple[float, float] | None = None


PHASES: tuple[Phase, ...] = (Phase(2400, (320, 192), 32), Phase(4000, (640, 384), 8))
"""The committed weights' phases: about 40 minutes on two cores with AVX512-BF16."""


@dataclass(frozen=True)
class Plan:
    """Everything that decides the outcome of a training run.

    Attributes:
        phases: Small frames first, then the network's input size.
        frames: Rendered training frames.
        seed: Initial weights, scenes and every random choice.
        peak_rate: Highest learning rate.
        weight_decay: Of AdamW, on convolution kernels only.
        average: Decay of the moving average of the weights.
        bfloat16: Compute in bfloat16 (2.3x the images per second on a CPU with AVX512-BF16).
        threads: Compute threads.
        form: Of the network's blocks, a key of `surround.model.FORMS`.
    """

    phases: tuple[Phase, ...] = PHASES
    frames: int = 12_000
    seed: int = 1
    peak_rate: float = 2.5e-3
    weight_decay: float = 0.02
    average: float = 0.998
    bfloat16: bool = True
    threads: int = 2
    form: str = DEFAULT_FORM

    @property
    def steps(self) -> int:
        """Steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    def phase_at(self, step: int) -> Phase:
        """The phase that a step belongs to."""
        end = 0
        for phase in self.phases:
            end += phase.steps
            if step < end:
                return phase
        raise ValueError(f"step {step} lies after the last phase")

    def rate_at(self, step: int) -> float:
        """Learning rate of a step: a linear warm-up, then a cosine (one cycle)."""
        warm = max(1, self.steps // 25)
        if step < warm:
            return self.peak_rate * (step + 1) / warm
        share = (step - warm) / max(1, self.steps - warm)
        return self.peak_rate * (0.002 + 0.998 * 0.5 * (1 + math.cos(math.pi * share)))


class Trainer:
    """One training run; its state is a function of the plan, the cache and the number of steps done.

    Args:
        plan: What to train.
        cache: The frames to train on.
        build: The network with initial weights; None is the reference model's in the plan's form.
    """

    def __init__(self, plan: Plan, cache: Cache, build: Callable[[], SurroundNet] | None = None) -> None:
        cv2.setNumThreads(1)
        torch.set_num_threads(plan.threads)
        torch.manual_seed(plan.seed)
        self.plan, self.cache, self.step = plan, cache, 0
        self.network = SurroundNet(form=plan.form) if build is None else build()
        self.averaged = copy.deepcopy(self.network).eval()
        kernels = [p for p in self.network.parameters() if p.ndim == 4]
        others = [p for p in self.network.parameters() if p.ndim != 4]
        groups = [{"params": kernels, "weight_decay": plan.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=plan.peak_rate)
        self.seconds = 0.0
        self._pool = ThreadPoolExecutor(1)

    def _draw(self, step: int) -> list[torch.Tensor]:
        phase = self.plan.phase_at(step)
        batch = draw_batch(
            self.cache, phase.batch, phase.size, np.random.default_rng([self.plan.seed, step]), phase.zoom
        )
        fields = (batch.frames, batch.heat, batch.weight, batch.boxes, batch.distance, batch.share, batch.drivable)
        return [torch.from_numpy(field) for field in fields]

    def run(self, steps: int, report: Callable[[dict[str, float]], None] = lambda losses: None) -> None:
        """Train for up to `steps` more steps; `report` gets the losses of each."""
        stop = min(self.step + steps, self.plan.steps)
        if self.step >= stop:
            return
        self.network.train()
        pending = self._pool.submit(self._draw, self.step)
        while self.step < stop:
            start = time.perf_counter()
            frames, *targets = pending.result()
            if self.step + 1 < stop:
                pending = self._pool.submit(self._draw, self.step + 1)
            for group in self.optimizer.param_groups:
                group["lr"] = self.plan.rate_at(self.step)
            with torch.autocast("cpu", torch.bfloat16, enabled=self.plan.bfloat16):
                answer = self.network(frames)
            grid = cell_grid(frames.shape[2] // STRIDE, frames.shape[3] // STRIDE)
            heat, shape, road = (part.float() for part in answer)
            losses = total_loss((heat, shape, road), grid, *targets)
            self.optimizer.zero_grad(set_to_none=True)
            losses["total"].backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), 10.0)
            self.optimizer.step()
            self.step += 1
            self._average()
            self.seconds += time.perf_counter() - start
            report({name: float(value.detach()) for name, value in losses.items()})

    def _average(self) -> None:
        decay = min(self.plan.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for mean, value in zip(
                self.averaged.state_dict().values(), self.network.state_dict().values(), strict=True
            ):
                if mean.is_floating_point():
                    mean.lerp_(value, 1 - decay)
                else:
                    mean.copy_(value)

    def save(self, path: Path) -> None:
        """Write a checkpoint; a run that stops here goes on as if it had not."""
        state = {
            "plan": asdict(self.plan),
            "step": self.step,
            "seconds": self.seconds,
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(path)

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint; a ValueError says how its plan differs from this one."""
        state = torch.load(path, weights_only=True)
        mine = asdict(self.plan)
        different = [key for key in mine if mine[key] != state["plan"].get(key)]
        if different:
            changes = ", ".join(f"{key}: {state['plan'].get(key)} there, {mine[key]} here" for key in different)
            raise ValueError(f"checkpoint {path} belongs to another plan ({changes}); use its values or --fresh")
        self.network.load_state_dict(state["network"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]

    def finished(self) -> Deployed:
        """The deployed module with the averaged weights."""
        module = deployed(self.plan.form)
        module.network.load_state_dict(self.averaged.state_dict())
        return module.eval()


def save_weights(module: Deployed, path: Path) -> None:
    """Write the deployed module's state dict as safetensors, keys as the module has them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous() for key, value in module.state_dict().items()}, path)


def train(plan: Plan, folder: Path, weights: Path, fresh: bool = False, save_every: int = 400) -> Trainer:
    """Run a plan to its end with a progress bar, resuming from the folder's checkpoint.

    Args:
        plan: What to train.
        folder: Where rendered frames and the checkpoint are kept.
        weights: Where the finished weights go.
        fresh: True starts over.
        save_every: Steps between checkpoints.
    """
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
    )  # fmt: skip
    checkpoint = folder / "checkpoint.pt"
    with Progress(*columns, refresh_per_second=1) as bar:
        rendering = bar.add_task("render", total=plan.frames, note="")
        cache = open_cache(
            folder, "train", plan.frames, plan.seed, plan.threads, lambda done: bar.advance(rendering, done)
        )
        bar.update(rendering, completed=plan.frames)
        trainer = Trainer(plan, cache)
        if checkpoint.exists() and not fresh:
            trainer.restore(checkpoint)
        tasks = [bar.add_task(f"train {p.size[0]}x{p.size[1]}", total=p.steps, note="") for p in plan.phases]
        smooth: dict[str, float] = {}

        def report(losses: dict[str, float]) -> None:
            for name, value in losses.items():
                smooth[name] = value if name not in smooth else 0.98 * smooth[name] + 0.02 * value
            left = trainer.step
            note = "  ".join(f"{name} {value:.3f}" for name, value in smooth.items())
            for task, phase in zip(tasks, plan.phases, strict=True):
                bar.update(task, completed=min(left, phase.steps), note=note if 0 < left <= phase.steps else "")
                left = max(0, left - phase.steps)
            if trainer.step % save_every == 0:
                trainer.save(checkpoint)
                save_weights(trainer.finished(), folder / "latest.safetensors")
                bar.console.print(f"step {trainer.step}/{plan.steps}  {trainer.seconds:.0f} s  {note}")

        trainer.run(plan.steps, report)
        trainer.save(checkpoint)
    save_weights(trainer.finished(), weights)
    return trainer
