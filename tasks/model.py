"""The model: tokenizers, one encoder, objectives, and a teacher where one is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..backbones.encoder import Encoded, Encoder
from ..backbones.teacher import Teacher
from ..objectives.combine import Combined
from ..objectives.objective import Branch, Loss, Objective, Predictor, Read, Spec, Step, TokenSpec, union
from ..tokenizers.errors import UserError
from ..tokenizers.tokenizer import Tokenizer
from ..tokenizers.tokens import Tokens, concat
from ..tokenizers.view import Batch, View


class Model(nn.Module):
    """All that is learnt, without any trainer.

    Args:
        tokenizers: by modality.
        encoder: shared by all of them.
        objectives: by name.
        weighting: `fixed` or `learned` weights of the objectives.
        teacher: an average of tokenizers, encoder and predicting heads, or None. Needed by objectives
            that read the teacher's branch, and for an EMA of weights.
        evaluate_with: which branch later commands use.
    """

    def __init__(
        self,
        tokenizers: Mapping[str, Tokenizer],
        encoder: Encoder,
        objectives: Mapping[str, Objective],
        weighting: Literal["fixed", "learned"] = "fixed",
        teacher: Teacher | None = None,
        evaluate_with: Branch = "student",
    ) -> None:
        super().__init__()
        self.tokenizers = nn.ModuleDict(tokenizers)
        self.encoder = encoder
        self.objective = Combined(objectives, weighting)
        self.teacher = teacher
        self.evaluate_with: Branch = evaluate_with
        self.spec: Spec | None = None

    def build(self, views: Mapping[str, str], data: Mapping[str, Mapping[str, Any]]) -> None:
        """Size everything by the data; called once.

        Args:
            views: modality of each view the loader gives.
            data: facts of each modality's data.

        Raises:
            UserError: an objective reads a view that the data does not give, or a teacher
                that the model does not have.
        """
        if self.spec is not None:
            return
        self._check_reads(views)
        for modality, tokenizer in self.tokenizers.items():
            tokenizer.build(self.encoder.width, data[modality])  # type: ignore[operator]
        specs = {name: self._token_spec(modality) for name, modality in views.items()}
        facts = {name: dict(of_modality) for name, of_modality in data.items()}
        self.spec = Spec(self.encoder.width, self.encoder.depth, specs, facts)
        self.objective.build(self.spec)
        if self.teacher is not None:
            self.teacher.build(self.tokenizers, self.encoder, self.predictors())

    def forward(self, batch: Batch, progress: float = 0.0, epoch: float = 0.0) -> Loss:
        """The loss of a batch: one pass of the student, at most one of the teacher.

        In evaluation, heads of a model that is evaluated with its teacher are judged by their averages.
        """
        averaged = {} if self.training or self.evaluate_with == "student" else self.predictors()
        reads = [
            read
            for read in self.objective.reads()
            if read.view in batch
            and any(read in m.reads() for name, m in self.objective if name not in averaged)
        ]
        encoded = self.encode(batch, [read for read in reads if read.branch == "student"])
        with torch.no_grad():
            encoded |= self.encode(batch, [read for read in reads if read.branch == "teacher"])
        step = Step(batch, encoded, progress, epoch)
        return self.objective(step, self._averages(averaged, step))

    def _averages(self, heads: Mapping[str, Predictor], step: Step) -> dict[str, tuple[Objective, Step]]:
        """Averaged heads, and a step in which they see the tokens of the averaged encoder."""
        reads = union(read for head in heads.values() for read in head.reads() if read.view in step.views)
        if not reads:
            return {}
        assert self.teacher is not None
        told = self.encode(dict(step.views), [replace(read, branch="teacher") for read in reads])
        seen = replace(step, encoded={read: told[replace(read, branch="teacher")] for read in reads})
        return {name: (self.teacher.heads[name], seen) for name in heads}  # type: ignore[misc]

    def encode(self, batch: Batch, reads: Iterable[Read]) -> dict[Read, Tokens]:
        """Everything `reads` asks for, of one branch, from one packed pass of its encoder."""
        reads = union(reads)
        if not reads:
            return {}
        tokenizers, encoder = self.branch(reads[0].branch)
        names = tuple(dict.fromkeys(read.view for read in reads))
        whole = reads[0].branch == "teacher"
        views = {name: batch[name].whole() if whole else batch[name] for name in names}
        pack = concat([tokenizers[view.modality](view) for view in views.values()])
        prefix = all(read.prefix for read in reads)
        output: Encoded = encoder(pack, {read.layer for read in reads}, prefix)
        return {read: output.layers[read.layer][names.index(read.view)] for read in reads}

    def branch(self, branch: Branch) -> tuple[nn.ModuleDict, nn.Module]:
        """Tokenizers and encoder of the student or the teacher."""
        if branch == "student":
            return self.tokenizers, self.encoder
        assert self.teacher is not None
        return self.teacher.tokenizers, self.teacher.encoder

    @torch.no_grad()
    def embed(self, view: View, layer: int = -1) -> Tokens:
        """Tokens of one view for use after training, by the branch `evaluate_with` names."""
        tokenizers, encoder = self.branch(self.evaluate_with)
        tokens = tokenizers[view.modality](view)
        return encoder(concat([tokens]), (layer,)).layers[layer][0]

    @torch.no_grad()
    def predict(self, view: View, objective: str | None = None) -> Any:
        """What an objective's head says of `view`; the only one of its modality, unless named.

        Raises:
            UserError: no objective, or more than one, can predict.
        """
        assert self.spec is not None
        able = [
            name
            for name, member in self.predictors().items()
            if all(self.spec.views[read.view].modality == view.modality for read in member.reads())
        ]
        if objective is None and len(able) != 1:
            kind = view.modality
            raise UserError(
                f"the model must have one objective that predicts {kind}, but has {able or 'none'}"
            )
        name = objective or able[0]
        head: nn.Module = self.objective[name]
        reads = self.objective[name].reads()  # a head reads the branch and layers that it was trained on
        if self.evaluate_with == "teacher":  # and the averaged head the average of them
            assert self.teacher is not None
            head, reads = self.teacher.heads[name], tuple(replace(read, branch="teacher") for read in reads)
        assert isinstance(head, Predictor)
        encoded = self.encode({reads[0].view: view}, reads)
        return head.predict_from([encoded[read] for read in reads], view)

    def predictors(self) -> dict[str, Predictor]:
        """The objectives whose heads are used after training, by name."""
        return {name: member for name, member in self.objective if isinstance(member, Predictor)}

    def update_teacher(self, progress: float) -> None:
        """Move every average towards its student; called after each optimiser step."""
        if self.teacher is not None:
            self.teacher.update(self._pairs(self.teacher), progress)

    def sync_teacher(self) -> None:
        """Make every average equal to its student: the start of a run from weights without a teacher."""
        if self.teacher is not None:
            self.teacher.copy_student(self._pairs(self.teacher))

    def anchor(self) -> Tensor:
        """Zero, with a gradient path to every trained parameter."""
        return torch.stack([p.sum() * 0.0 for p in self.parameters() if p.requires_grad]).sum()

    def _pairs(self, teacher: Teacher) -> list[tuple[nn.Module, nn.Module]]:
        own = [(self.tokenizers, teacher.tokenizers), (self.encoder, teacher.encoder)]
        heads = [(head, teacher.heads[name]) for name, head in self.predictors().items()]
        return [*own, *heads, *self.objective.averaged()]

    def describe(self) -> dict[str, Any]:
        """The spec as plain data, for `model.json`."""
        assert self.spec is not None
        return {
            "views": {name: spec.modality for name, spec in self.spec.views.items()},
            "data": dict(self.spec.data),
        }

    def _token_spec(self, modality: str) -> TokenSpec:
        tokenizer = self.tokenizers[modality]
        assert isinstance(tokenizer, Tokenizer)
        dims = (tokenizer.source_dim, tokenizer.feature_dim)
        return TokenSpec(modality, *dims, tokenizer.prefix, tokenizer.length)

    def _check_reads(self, views: Mapping[str, str]) -> None:
        for read in self.objective.reads():
            if read.view not in views:
                raise UserError(
                    f"an objective reads the view {read.view!r}, but the data gives {sorted(views)}"
                )
            if read.branch == "teacher" and self.teacher is None:
                raise UserError("an objective reads the teacher's branch, but the model has no teacher")
        missing = sorted(set(views.values()) - set(self.tokenizers))
        if missing:
            raise UserError(
                f"the data gives {missing[0]!r}, but the model's tokenizers are {sorted(self.tokenizers)}"
            )
