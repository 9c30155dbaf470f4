"""MAE whole, from pixels to loss, against He et al. 2022 written out one picture at a time.

Shapes: n pictures, L patches, D width, E width of the decoder, P values of a patch.
"""

import torch
from torch import Tensor
from triptych.backbones.encoder import Encoder
from triptych.objectives.objective import Read
from triptych.objectives.reconstruction import Reconstruction
from triptych.tasks.model import Model
from triptych.tasks.vision.patch_masks import random_patches
from triptych.tokenizers.image import ImagePatches
from triptych.tokenizers.positions import sincos
from triptych.tokenizers.tokens import Tokens, concat
from triptych.tokenizers.view import View

from .helpers import assert_same, gradients, randomise

N, CHANNELS, HEIGHT, WIDTH, PATCH, D, E = 3, 2, 6, 10, 2, 12, 8
ROWS, COLUMNS = HEIGHT // PATCH, WIDTH // PATCH
L, P = ROWS * COLUMNS, CHANNELS * PATCH * PATCH


def mae() -> Model:
    tokenizer = ImagePatches(PATCH, positions="sincos")
    objective = Reconstruction(normalise=True, decoder=Encoder(E, 1, 2))
    model = Model({"image": tokenizer}, Encoder(D, 2, 3), {"mae": objective})
    model.build({"train": "image"}, {"image": {"channels": CHANNELS, "size": [HEIGHT, WIDTH]}})
    randomise(model)
    return model


def batch() -> dict[str, View]:
    random = torch.Generator().manual_seed(3)
    hidden = torch.cat([random_patches(L, 0.75, random) for _ in range(N)])
    return {"train": View("image", torch.randn(N, CHANNELS, HEIGHT, WIDTH), hidden=hidden)}


def cut(picture: Tensor) -> Tensor:
    """`(C, H, W)` -> `(L, P)`, patch by patch."""
    corners = [(r * PATCH, c * PATCH) for r in range(ROWS) for c in range(COLUMNS)]
    return torch.stack([picture[:, y : y + PATCH, x : x + PATCH].flatten() for y, x in corners])


def transform(encoder: Encoder, values: Tensor) -> Tensor:
    """One sequence through an encoder, alone."""
    position = torch.zeros(len(values), 3, dtype=torch.long)
    return encoder(concat([Tokens(values, (len(values),), position, (0,), (0,))])).layers[-1][0].values


def naive(model: Model, view: View) -> Tensor:
    """Sections 3 and 4.1: patches shuffled away, encoded, put back among mask tokens, decoded, compared."""
    tokenizer, objective = model.tokenizers["image"], model.objective["mae"]
    assert isinstance(objective, Reconstruction) and view.hidden is not None
    where = torch.tensor([(0, r, c) for r in range(ROWS) for c in range(COLUMNS)])
    errors = []
    for picture, hidden in zip(view.data, view.hidden.view(N, L), strict=True):
        patches = cut(picture)
        embedded = tokenizer.proj(patches) + sincos(where, D)
        visible = [i for i in range(L) if not hidden[i]]
        latent = objective.enter(
            transform(model.encoder, torch.cat([tokenizer.prefix_tokens, embedded[visible]]))
        )
        full = [objective.mask_token if hidden[i] else latent[1 + visible.index(i)] for i in range(L)]
        decoded = transform(objective.decoder, torch.cat([latent[:1], torch.stack(full) + sincos(where, E)]))
        told = objective.head(decoded[1:])
        target = (patches - patches.mean(1, keepdim=True)) / (patches.var(1, keepdim=True) + 1e-6).sqrt()
        errors.append((told - target).square().mean(1)[hidden])
    return torch.cat(errors).mean()


def test_loss_and_gradients_are_the_papers() -> None:
    model, views = mae(), batch()
    # the mask token of the tokenizer serves views that mask instead of hiding
    model.tokenizers["image"].mask_token.requires_grad_(False)
    trained = torch.nn.ModuleDict({"encoder": model.encoder, "objective": model.objective})
    wanted = gradients(trained, lambda: naive(model, views["train"]))
    found = gradients(trained, lambda: model(views).total)
    torch.testing.assert_close(model(views).total, naive(model, views["train"]))
    assert_same(found, wanted, atol=1e-5, rtol=1e-4)


def test_the_encoder_reads_the_visible_patches_alone() -> None:
    """What is hidden can be anything: the encoder's output does not change, and it is shorter."""
    model, views = mae().eval(), batch()
    view, read = views["train"], Read("train")
    assert isinstance(view.data, Tensor) and view.hidden is not None
    tokens = model.encode(views, [read])[read]
    assert tokens.lengths == (1 + L - round(0.75 * L),) * N
    cells = view.hidden.view(N, 1, ROWS, COLUMNS)
    pixels = cells.repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3)
    spoilt = {"train": View("image", view.data.masked_fill(pixels, 1e3), hidden=view.hidden)}
    torch.testing.assert_close(model.encode(spoilt, [read])[read].values, tokens.values)
