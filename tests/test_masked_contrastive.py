"""wav2vec 2.0's objective against a naive twin written from the paper's formulas, one frame at a time."""

import math

import pytest
import torch
from torch import Tensor
from triptych.backbones.schedule import Schedule
from triptych.objectives.masked_contrastive import MaskedContrastive, choose, diversity, utterance
from triptych.objectives.objective import Read, Spec, Step, TokenSpec
from triptych.objectives.quantiser import (
    GumbelQuantiser,
    code_share,
    gumbel_noise,
    perplexity,
    straight_through,
)
from triptych.tokenizers.tokens import Tokens
from triptych.tokenizers.view import View

FEATURES, WIDTH, GROUPS, CODES = 7, 11, 2, 3
READ = Read("train")


def objective(**options: object) -> MaskedContrastive:
    built = MaskedContrastive(GumbelQuantiser(GROUPS, CODES, 10), width=13, **options)
    spec = Spec(WIDTH, 1, {"train": TokenSpec("audio", None, FEATURES, ("class",))}, {"audio": {}})
    built.build(spec)
    return built


def tokens(*lengths: int, share: float = 0.6) -> Tokens:
    total = sum(lengths)
    prefix = torch.cat([torch.arange(length) - 1 for length in lengths])  # one prefix token each
    features = torch.randn(total, FEATURES, requires_grad=True)
    return Tokens(
        values=torch.randn(total, WIDTH, requires_grad=True),
        lengths=lengths,
        position=torch.stack([prefix, prefix, prefix], dim=1),
        sample=tuple(range(len(lengths))),
        channel=(0,) * len(lengths),
        prefix=("class",),
        features=features,
        energy=features.square().mean(1),
        masked=(torch.rand(total) < share) & (prefix >= 0),
    )


def step(read: Tokens) -> Step:
    return Step({"train": View("audio", [])}, {READ: read})


def one(read: Tokens, index: int) -> Tokens:
    """One sequence of a pack, alone."""
    start = read.starts[index]
    here = slice(start, start + read.lengths[index])
    columns = {n: getattr(read, n)[here] for n in ("values", "position", "features", "energy", "masked")}
    return Tokens(lengths=(read.lengths[index],), sample=(0,), channel=(0,), prefix=read.prefix, **columns)


def naive_contrastive(model: MaskedContrastive, read: Tokens) -> tuple[Tensor, int, int, list[float]]:
    """Sum of eq. 3 over all masked frames with all others as negatives; frames, wins, chances."""
    total, frames, wins, chances = torch.zeros(()), 0, 0, []
    for index in range(len(read)):
        sequence = one(read, index)
        chosen = sequence.masked.nonzero().flatten().tolist()
        vectors, names = {}, {}
        for t in chosen:
            logits = model.quantiser.logits(sequence.features[t]).view(GROUPS, CODES)
            names[t] = tuple(logits.argmax(1).tolist())
            vectors[t] = torch.cat([model.quantiser.codebook[g, v] for g, v in enumerate(names[t])])
        for t in chosen:
            context = model.project_context(sequence.values[t])
            score = {
                u: torch.cosine_similarity(context, model.project_target(vectors[u]), dim=0)
                / model.temperature
                for u in chosen
                if u == t or names[u] != names[t]
            }
            total = total - score[t] + torch.stack(list(score.values())).exp().sum().log()
            frames += 1
            wins += len(score) > 1 and all(score[t] > s for u, s in score.items() if u != t)
            chances.append(1 / len({names[u] for u in score}))
    return total, frames, wins, chances


def test_the_contrastive_term_equals_the_formula_with_gradients() -> None:
    model = objective(temperature=0.3).eval()
    read = tokens(13, 5, 17)
    loss = model(step(read))
    total, frames, wins, chances = naive_contrastive(model, read)
    term = loss.terms["contrastive"]
    assert term.count == frames and term.scope == "sample" and term.weight == 1
    torch.testing.assert_close(term.sum, total)
    assert loss.metrics["accuracy"].item() == pytest.approx(wins / frames)
    assert loss.metrics["chance"].item() == pytest.approx(sum(chances) / frames)
    assert loss.metrics["masked"].item() == pytest.approx(frames / 32)  # of 35 tokens, 3 are prefixes
    inputs = [
        read.values,
        model.project_context.weight,
        model.project_target.weight,
        model.quantiser.codebook,
    ]
    for one_, other in zip(
        torch.autograd.grad(term.sum, inputs), torch.autograd.grad(total, inputs), strict=True
    ):
        torch.testing.assert_close(one_, other, atol=1e-5, rtol=1e-4)


def test_the_contrastive_term_of_an_utterance_does_not_see_the_batch() -> None:
    model = objective().eval()
    read = tokens(13, 5, 17)
    together = model(step(read)).terms["contrastive"]
    alone = [model(step(one(read, index))).terms["contrastive"] for index in range(3)]
    assert together.count == sum(term.count for term in alone)
    torch.testing.assert_close(together.sum, sum(term.sum for term in alone))
    (whole,) = torch.autograd.grad(together.sum, [read.values], retain_graph=True)
    (parts,) = torch.autograd.grad(sum(term.sum for term in alone), [read.values])
    torch.testing.assert_close(whole, parts)


def test_an_untrained_context_pays_the_logarithm_of_the_candidates() -> None:
    """A context with equal cosines to all has the loss log(1 + negatives)."""
    context = torch.zeros(5, 3)
    target = torch.nn.functional.normalize(torch.randn(5, 3), dim=1)
    codes = torch.tensor([[0], [1], [2], [2], [3]])
    loss, right, candidates = utterance(context, target, codes, choose(5, 100, codes.device), 0.1)
    torch.testing.assert_close(loss, torch.tensor([5.0, 5.0, 4.0, 4.0, 5.0]).log())
    assert not right.any()  # a draw is no win
    assert candidates.tolist() == [4, 4, 4, 4, 4]  # the codes 0, 1, 2, 3: equal negatives count once


def test_a_perfect_context_wins_unless_there_is_nothing_to_win() -> None:
    target = torch.eye(4)
    codes = torch.arange(4).unsqueeze(1)
    negatives = choose(4, 100, codes.device)
    assert utterance(target, target, codes, negatives, 0.1)[1].all()
    _, right, candidates = utterance(target, target, torch.zeros(4, 1), negatives, 0.1)
    assert not right.any() and (candidates == 1).all()


def test_negatives_are_distinct_others_and_uniform() -> None:
    drawn = torch.stack([choose(7, 3, torch.device("cpu")) for _ in range(4000)])
    assert not drawn.diagonal(dim1=1, dim2=2).any()
    assert (drawn.sum(2) == 3).all()
    share = drawn.float().mean(0)[~torch.eye(7, dtype=torch.bool)]
    assert (share - 0.5).abs().max() < 0.04  # 3 of 6 others; five deviations of 4000 draws
    assert (choose(4, 3, torch.device("cpu")).sum(1) == 3).all()


def test_the_diversity_term_in_closed_form() -> None:
    uniform = torch.full((GROUPS, CODES), 1 / CODES)
    single = torch.zeros(GROUPS, CODES)
    single[:, 0] = 1
    assert diversity(uniform).item() == pytest.approx(0, abs=1e-5)
    assert diversity(single).item() == pytest.approx(1 - 1 / CODES, abs=1e-5)
    half = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    assert diversity(half).item() == pytest.approx(1 - (2 + 1) / 6, abs=1e-5)
    assert perplexity(half).tolist() == pytest.approx([2, 1], abs=1e-4)


def test_weights_mean_what_they_mean_in_fairseq() -> None:
    """There: sum over frames + .1 frames diversity + 10 frames mean(features^2), all over frames."""
    model = objective(negatives=4).eval()
    read = tokens(13, 5, 17)
    loss = model(step(read))
    masked = read.features[read.masked]
    share = model.quantiser.logits(masked).view(-1, GROUPS, CODES).softmax(-1).mean(0)
    entropy = -(share * (share + 1e-7).log()).sum(1)
    content = read.features[read.position[:, 0] >= 0]
    frames = len(masked)
    total = loss.terms["contrastive"].sum
    total = total + 0.1 * frames * (GROUPS * CODES - entropy.exp().sum()) / (GROUPS * CODES)
    total = total + 10 * frames * content.square().mean()
    torch.testing.assert_close(loss.total, total / frames)
    assert loss.terms["diversity"].scope == "batch"


def test_the_choice_is_hard_and_its_gradient_that_of_the_softmax() -> None:
    logits = torch.randn(5, GROUPS, CODES, requires_grad=True)
    noise, weight = gumbel_noise(logits), torch.randn(5, GROUPS, CODES)
    choice = straight_through(logits, noise, 0.7)
    assert set(choice.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(choice.argmax(-1), (logits + noise).argmax(-1))
    (grad,) = torch.autograd.grad((choice * weight).sum(), logits)
    soft = ((logits + noise) / 0.7).softmax(-1)
    (expected,) = torch.autograd.grad((soft * weight).sum(), logits)
    torch.testing.assert_close(grad, expected)


def test_codes_are_drawn_with_the_probabilities_of_the_softmax() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0]]).log_softmax(-1).expand(20000, 1, 3)
    share = straight_through(logits, gumbel_noise(logits), 0.5).mean(0)
    torch.testing.assert_close(share, logits[0].exp(), atol=0.02, rtol=0)


def test_training_draws_and_evaluation_takes_the_likeliest() -> None:
    quantiser = GumbelQuantiser(GROUPS, CODES, 10)
    quantiser.build(FEATURES)
    features = torch.randn(17, FEATURES)
    likeliest = quantiser.logits(features).view(17, GROUPS, CODES).argmax(-1)
    assert torch.equal(quantiser.eval()(features, 2.0).codes, likeliest)
    drawn = [quantiser.train()(features * 0, 2.0).codes for _ in range(2)]
    assert not torch.equal(*drawn)
    expected = torch.cat([quantiser.codebook[g, likeliest[:, g]] for g in range(GROUPS)], dim=1)
    torch.testing.assert_close(quantiser.eval()(features, 2.0).vectors, expected)


def test_the_diversity_term_moves_the_quantiser_towards_all_codes() -> None:
    quantiser = GumbelQuantiser(GROUPS, CODES, 10)
    quantiser.build(FEATURES)
    features = torch.randn(29, FEATURES)
    before = quantiser(features, 1.0).share
    (grad,) = torch.autograd.grad(diversity(before), [quantiser.logits.weight])
    quantiser.logits.weight.data -= 0.5 * grad / grad.norm()
    assert diversity(quantiser(features, 1.0).share) < diversity(before)


def test_code_share_counts() -> None:
    share = code_share(torch.tensor([[0, 2], [0, 1], [1, 2], [0, 2]]), 3)
    torch.testing.assert_close(share, torch.tensor([[0.75, 0.25, 0], [0, 0.25, 0.75]]))
    assert perplexity(torch.full((1, 4), 0.25)).item() == pytest.approx(4, abs=1e-4)
    assert perplexity(torch.tensor([[0.5, 0.5, 0, 0]])).item() == pytest.approx(2, abs=1e-4)


def test_the_temperature_follows_the_run() -> None:
    model = MaskedContrastive(
        GumbelQuantiser(GROUPS, CODES, 10, Schedule(2.0, 0.5, shape="linear")), width=13
    )
    spec = Spec(WIDTH, 1, {"train": TokenSpec("audio", None, FEATURES, ("class",))}, {"audio": {}})
    model.build(spec)
    seen: list[float] = []
    model.quantiser.register_forward_pre_hook(lambda module, args: seen.append(args[1]))
    for progress in (0.0, 0.5, 1.0):
        model(Step({"train": View("audio", [])}, {READ: tokens(13)}, progress))
    assert seen == pytest.approx([2.0, 1.25, 0.5])


def test_nothing_masked_is_no_loss() -> None:
    loss = objective()(step(tokens(5, 7, share=0.0)))
    assert loss.terms["contrastive"].count == 0
    assert math.isfinite(loss.total.item()) and loss.metrics == {}


def test_without_a_quantiser_a_linear_map_of_the_features_is_told() -> None:
    """BigSSL: -log softmax of cos(A c_t, B f_u) / .1 over all masked u of the utterance; no other terms."""
    model, read = MaskedContrastive(None, width=13, penalty=0.0), tokens(9, 6)
    model.build(Spec(WIDTH, 1, {"train": TokenSpec("audio", None, FEATURES, ("class",))}, {"audio": {}}))
    loss = model(step(read))
    total, frames, chances = torch.zeros(()), 0, []
    for index in range(2):
        sequence = one(read, index)
        chosen = sequence.masked.nonzero().flatten().tolist()
        for t in chosen:
            context = model.project_context(sequence.values[t])
            scores = [
                torch.cosine_similarity(context, model.project_target(sequence.features[u]), dim=0) / 0.1
                for u in chosen
            ]
            total = total - scores[chosen.index(t)] + torch.stack(scores).logsumexp(0)
            frames, chances = frames + 1, [*chances, 1 / len(chosen)]
    assert set(loss.terms) == {"contrastive"} and loss.terms["contrastive"].count == frames
    torch.testing.assert_close(loss.terms["contrastive"].sum, total)
    assert set(loss.metrics) == {"accuracy", "chance", "masked"}
    assert float(loss.metrics["chance"]) == pytest.approx(sum(chances) / frames)
    inputs = [read.values, read.features, *model.parameters()]
    pairs = zip(
        torch.autograd.grad(loss.total, inputs),
        torch.autograd.grad(total / frames, inputs),
        strict=True,
    )
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs)
