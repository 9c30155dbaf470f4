"""A doctor for collapse: logged figures held against reference bands, nothing else.

Every figure is logged as `STAGE/OBJECTIVE/NAME` or `STAGE/NAME`; a rule reads the names of one group, and
passes over groups that lack them. Reference bands are of runs that learn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Figures = Mapping[str, float]

#: An epoch's figures by their logged names.
History = Sequence[tuple[int, Figures]]

#: Epochs at a run's start that are not judged: a teacher begins near uniform, a probe at chance.
GRACE = 3
#: Epochs in a row, to the last one logged, that make a finding.
PATIENCE = 2


@dataclass(frozen=True)
class Rule:
    """One way to fail.

    Attributes:
        name: of the failure.
        needs: names of the figures it reads.
        fails: whether they are those of a failed run.
        says: what that means, to be formatted with them.
        change: what to change, the likeliest first.
        band: what they are where a run learns.
    """

    name: str
    needs: tuple[str, ...]
    fails: Callable[[Figures], bool]
    says: str
    change: str
    band: str


@dataclass(frozen=True)
class Finding:
    """A failure in one group of figures, since an epoch, and in words."""

    name: str
    group: str
    since: int
    says: str
    change: str
    band: str

    def __str__(self) -> str:
        return f"{self.name} ({self.group}) since epoch {self.since}: {self.says}. To change: {self.change}."


def _one_hot(f: Figures) -> bool:
    few = f["prototypes_used"] * math.exp(f["ln_prototypes"]) < 2.5
    return few and max(f["teacher_entropy"], f["ce"]) < 0.05 * f["ln_prototypes"]


def _at_chance(f: Figures) -> bool:
    return f["accuracy"] <= 1.2 * f["chance"]


RULES = (
    Rule(
        "uniform collapse",
        ("teacher_entropy", "ln_prototypes"),
        lambda f: f["teacher_entropy"] > 0.98 * f["ln_prototypes"],
        "the teacher finds every prototype equally likely for every sample: its entropy is "
        "{teacher_entropy:.3f}, at ln K = {ln_prototypes:.3f}, where the loss stays too",
        "a lower teacher_temperature (.02), batch_norm in the head, fewer prototypes, larger or no local "
        "crops, a higher learning rate",
        "entropy 3 to 60 % of ln K after the first epochs",
    ),
    Rule(
        "one-hot collapse",
        ("teacher_entropy", "ln_prototypes", "prototypes_used", "ce"),
        _one_hot,
        "the teacher names the same one or two prototypes for every sample ({prototypes_used:.2%} of them), "
        "its entropy {teacher_entropy:.3f} and the loss {ce:.3f} at 0",
        "centring that follows (centre_momentum .9) or Sinkhorn-Knopp, a higher teacher_temperature (.04 to "
        ".07), a lower learning rate",
        "at least as many prototypes in a batch as it has kinds of samples",
    ),
    Rule(
        "uniform collapse of patches",
        ("patch_entropy", "ln_prototypes"),
        lambda f: f["patch_entropy"] > 0.98 * f["ln_prototypes"],
        "the teacher finds every prototype equally likely for every patch: its entropy is "
        "{patch_entropy:.3f}, at ln K = {ln_prototypes:.3f}",
        "a lower temperature for patches, fewer masked patches, a lower weight of the patches' term",
        "entropy 3 to 60 % of ln K after the first epochs",
    ),
    Rule(
        "centre at its limit",
        ("centre_norm", "ln_prototypes"),
        lambda f: f["centre_norm"] > 0.9 * math.exp(f["ln_prototypes"] / 2),
        "the mean score of every prototype is near 1 or -1 (norm {centre_norm:.2f}): the head says the same "
        "of every sample",
        "a lower learning rate, batch_norm in the head, gradient_clip_val 3",
        "norm below half the root of K",
    ),
    Rule(
        "features of low rank",
        ("rankme", "width"),
        lambda f: f["rankme"] < max(1.5, 0.02 * f["width"]),
        "features of width {width:.0f} use {rankme:.1f} directions (RankMe)",
        "a lower weight of the objective that shrinks them, weaker augmentation, a KoLeo term, a lower "
        "learning rate",
        "RankMe above a tenth of the width",
    ),
    Rule(
        "constant features",
        ("spread",),
        lambda f: f["spread"] < 0.03,
        "all samples have nearly the same features (spread {spread:.3f} of 1)",
        "a lower learning rate, a longer warm-up; then what the objective's own figures say",
        "spread .1 to 1",
    ),
    Rule(
        "neighbours at chance",
        ("knn", "knn_chance"),
        lambda f: f["knn"] <= 1.1 * f["knn_chance"],
        "nearest neighbours tell the classes no better ({knn:.3f}) than the largest class ({knn_chance:.3f})",
        "what the other figures say; where they are sound, the augmentation may remove what tells classes",
        "above the untrained encoder's",
    ),
    Rule(
        "contrastive task at chance",
        ("accuracy", "chance"),
        _at_chance,
        "the right one is found in {accuracy:.3f} of cases, by chance in {chance:.3f}: the loss stays at "
        "the log of the candidates",
        "a longer warm-up or a lower learning rate, shorter or fewer masks, a lower temperature of the loss, "
        "a higher weight of the diversity term",
        "accuracy at least twice chance after the first tenth of the run",
    ),
    Rule(
        "masks out of band",
        ("masked", "accuracy", "chance"),
        lambda f: not 0.1 <= f["masked"] <= 0.85,
        "{masked:.0%} of the frames are masked: too few to tell, or too few to tell them from",
        "the mask's share and length (wav2vec 2.0: share .65 of spans of 10 masks about half), longer clips",
        "40 to 60 % of the frames",
    ),
    Rule(
        "gradients vanished",
        ("gradient_norm",),
        lambda f: f["gradient_norm"] < 1e-6,
        "the norm of all gradients is {gradient_norm:.1e}: nothing is learnt any more",
        "what the other figures say; where they are silent, frozen parts, weights of 0, constant input",
        ".01 to 10",
    ),
    Rule(
        "codes collapsed",
        ("code_perplexity", "codebooks"),
        lambda f: f["code_perplexity"] < 1.1 * f["codebooks"],
        "one code a codebook is used for all frames (perplexity {code_perplexity:.2f} over "
        "{codebooks:.0f} codebooks)",
        "a higher weight of the diversity term, a higher Gumbel temperature that falls more slowly, a lower "
        "learning rate, a feature penalty",
        "perplexity above a tenth of all codes",
    ),
    Rule(
        "code probabilities collapsed",
        ("prob_perplexity", "codebooks"),
        lambda f: f["prob_perplexity"] < 1.1 * f["codebooks"],
        "the quantiser is sure of one code a codebook (its probabilities' perplexity {prob_perplexity:.2f})",
        "a higher weight of the diversity term, a higher Gumbel temperature",
        "most of all codes",
    ),
    Rule(
        "targets collapsed",
        ("target_variance",),
        lambda f: f["target_variance"] < 0.01,
        "the teacher says nearly the same of every masked token (variance {target_variance:.4f} of at most "
        "1): there is nothing to tell",
        "a lower learning rate or a longer warm-up, a teacher that moves more slowly (momentum nearer 1), "
        "longer masks, fewer layers",
        "variance above a tenth; where it comes down to 1 / layers the layers no longer agree",
    ),
    Rule(
        "predictions collapsed",
        ("prediction_variance", "target_variance"),
        lambda f: f["prediction_variance"] < 1e-3 * f["target_variance"],
        "the student says the same at every masked token: the variance of what it says is "
        "{prediction_variance:.5f}, that of the targets {target_variance:.3f}",
        "a longer warm-up or a lower learning rate, shorter or fewer masks",
        "above a hundredth of the targets' variance after the first epochs",
    ),
    Rule(
        "classifier at chance",
        ("ce", "ln_classes"),
        lambda f: f["ce"] > 0.98 * f["ln_classes"],
        "the head finds every class equally likely: its loss {ce:.3f} is at ln of the classes, "
        "{ln_classes:.3f}",
        "a higher learning rate if the loss never moved, a lower one or a longer warm-up if it came back up; "
        "labels in the right order",
        "below nine tenths of it after the first epochs",
    ),
)


def judge(history: History, grace: int = GRACE, patience: int = PATIENCE) -> list[Finding]:
    """What has failed and still fails at the end of the history, each failure once.

    A rule that fails in several groups of one objective (training and validation) is told of the first.

    Args:
        history: by epoch, rising; an epoch may lack figures (those of a probe every few epochs).
        grace: epochs at the start that count for nothing.
        patience: how many judged epochs in a row must fail, to the last.
    """
    findings: dict[tuple[str, str], Finding] = {}
    groups = dict.fromkeys(name.rpartition("/")[0] for _, figures in history for name in figures)
    for group in groups:
        rows = [(epoch, _of(figures, group)) for epoch, figures in history if epoch >= grace]
        for rule in RULES:
            judged = [(epoch, f) for epoch, f in rows if all(name in f for name in rule.needs)]
            streak = _streak([(epoch, rule.fails(f)) for epoch, f in judged])
            if len(streak) >= patience:
                says = rule.says.format(**judged[-1][1])
                finding = Finding(rule.name, group, streak[0], says, rule.change, rule.band)
                findings.setdefault((rule.name, group.partition("/")[2]), finding)
    return list(findings.values())


def examine(history: History) -> list[tuple[Rule, str, Figures]]:
    """Every rule that a group has the figures for, the group, and its last figures."""
    found: list[tuple[Rule, str, Figures]] = []
    groups = dict.fromkeys(name.rpartition("/")[0] for _, figures in history for name in figures)
    for group in groups:
        last: dict[str, float] = {}
        for _, figures in history:
            last |= _of(figures, group)
        found += [(rule, group, last) for rule in RULES if all(name in last for name in rule.needs)]
    return found


def _of(figures: Figures, group: str) -> dict[str, float]:
    """The finite figures of one group, by their last names."""
    parts = ((name.rpartition("/"), value) for name, value in figures.items())
    return {last: value for (first, _, last), value in parts if first == group and math.isfinite(value)}


def _streak(failed: Sequence[tuple[int, bool]]) -> list[int]:
    """The epochs of the last run of failures, empty if the last one did not fail."""
    epochs: list[int] = []
    for epoch, fails in failed:
        epochs = [*epochs, epoch] if fails else []
    return epochs
