"""Image patches: where each pixel goes, positions at any resolution, prefix, masks.

Shapes: n images, C channels, H x W pixels, P patch values, D width.
"""

import pytest
import torch
from torch.nn import functional as F
from triptych.tokenizers.errors import UserError
from triptych.tokenizers.image import ImagePatches
from triptych.tokenizers.positions import sincos
from triptych.tokenizers.view import View

WIDTH, CHANNELS, PATCH, SIZE = 12, 3, (2, 5), (6, 25)  # 3 rows of 5 patches
ROWS, COLUMNS = 3, 5


def tokenizer(**settings) -> ImagePatches:
    made = ImagePatches(PATCH, **{"prefix": ("class", "register0"), **settings})
    made.build(WIDTH, {"channels": CHANNELS, "size": list(SIZE)})
    return made


def images(n: int = 2, size: tuple[int, int] = SIZE) -> torch.Tensor:
    return torch.randn(n, CHANNELS, *size)


def test_values_are_a_strided_convolution_plus_positions() -> None:
    made, x = tokenizer(), images()
    kernel = made.proj.weight.view(WIDTH, CHANNELS, *PATCH)
    expected = F.conv2d(x, kernel, made.proj.bias, stride=PATCH).flatten(2).transpose(1, 2)
    found = made(View("image", x))
    assert found.lengths == (2 + ROWS * COLUMNS,) * 2
    values = found.values.view(2, -1, WIDTH)
    torch.testing.assert_close(values[:, 2:], expected + made.position_embedding)
    torch.testing.assert_close(values[:, :2], made.prefix_tokens.expand(2, -1, -1))


def test_overlapping_patches_are_a_padded_convolution_and_keep_their_source() -> None:
    overlap = 1
    made, plain, x = tokenizer(overlap=overlap), tokenizer(), images()
    kernel = made.proj.weight.view(WIDTH, CHANNELS, *(side + 2 * overlap for side in PATCH))
    padded = F.pad(x, (overlap,) * 4, mode="replicate")
    expected = F.conv2d(padded, kernel, made.proj.bias, stride=PATCH).flatten(2).transpose(1, 2)
    found = made(View("image", x)).content()
    torch.testing.assert_close(
        found.values.view(2, -1, WIDTH), expected + made.position_embedding, atol=1e-5, rtol=1e-5
    )
    assert torch.equal(found.source, plain(View("image", x)).content().source)
    assert made.num_tokens(SIZE) == plain.num_tokens(SIZE)


@pytest.mark.parametrize("what", ["masked", "hidden"])
def test_overlap_would_show_masked_patches_to_their_neighbours(what: str) -> None:
    view = View("image", images(), **{what: torch.ones(2 * ROWS * COLUMNS, dtype=torch.bool)})
    with pytest.raises(UserError, match="need an overlap of 0 in ImagePatches, not 1"):
        tokenizer(overlap=1)(view)


def test_source_and_position_of_every_patch() -> None:
    x = images()
    content = tokenizer()(View("image", x)).content()
    index = 0
    for n in range(2):
        for row in range(ROWS):
            for column in range(COLUMNS):
                top, left = row * PATCH[0], column * PATCH[1]
                piece = x[n, :, top : top + PATCH[0], left : left + PATCH[1]]
                assert torch.equal(content.source[index], piece.flatten())
                assert content.position[index].tolist() == [0, row, column]
                index += 1
    assert index == len(content.values)


def test_source_is_clean_where_the_picture_is_corrupted() -> None:
    made, clean = tokenizer(), images()
    noisy = clean + 1
    found = made(View("image", noisy, clean=clean)).content()
    torch.testing.assert_close(found.source, made(View("image", clean)).content().source)
    torch.testing.assert_close(found.values, made(View("image", noisy)).content().values)


def test_masked_tokens_keep_their_place_and_hidden_ones_go() -> None:
    made, x = tokenizer(), images(1)
    mask = torch.zeros(ROWS * COLUMNS, dtype=torch.bool)
    mask[[1, 7]] = True
    masked = made(View("image", x, masked=mask)).content().values
    torch.testing.assert_close(masked[7], made.mask_token + made.position_embedding[7])
    whole, part = made(View("image", x)), made(View("image", x, hidden=mask))
    assert part.lengths == (2 + ROWS * COLUMNS - 2,)
    torch.testing.assert_close(part.content().values, whole.content().values[~mask])


def test_learned_positions_of_another_size_are_resampled() -> None:
    made = tokenizer()
    grid = made.position_embedding.T.reshape(1, WIDTH, ROWS, COLUMNS)
    expected = F.interpolate(grid, (2, 3), mode="bicubic", antialias=True)[0].flatten(1).T
    torch.testing.assert_close(made.position_grid(2, 3), expected)
    small = made(View("image", images(1, (4, 15)))).content()
    torch.testing.assert_close(small.values, made.proj(small.source) + expected)
    assert made.position_grid(ROWS, COLUMNS) is made.position_embedding


def test_constant_positions_stay_constant_when_resampled() -> None:
    made = tokenizer()
    torch.nn.init.constant_(made.position_embedding, 0.7)
    torch.testing.assert_close(made.position_grid(7, 2), torch.full((14, WIDTH), 0.7))


def test_several_sizes_are_several_views() -> None:
    made = tokenizer()
    large, small = made(View("image", images())), made(View("image", images(3, (4, 15)), copies=3))
    assert large.lengths == (17, 17) and small.lengths == (8, 8, 8)
    (large.values.sum() + small.values.sum()).backward()
    assert made.position_embedding.grad is not None


def test_sincos_against_the_formula() -> None:
    position = torch.tensor([[0, 2, 3], [5, 0, 0], [-1, -1, -1]])
    found = sincos(position, WIDTH)
    for i in range(WIDTH // 4):
        w = 10_000 ** (-4 * i / WIDTH)
        quarter = [found[:, i + part * WIDTH // 4] for part in range(4)]
        expected = torch.tensor([[3 * w, 0.0], [2 * w, 5 * w]])  # angles of column; of row or time
        torch.testing.assert_close(quarter[0][:2], expected[0].sin())
        torch.testing.assert_close(quarter[1][:2], expected[0].cos())
        torch.testing.assert_close(quarter[2][:2], expected[1].sin())
        torch.testing.assert_close(quarter[3][:2], expected[1].cos())
    assert found[2].abs().max() == 0


def test_sincos_positions_are_fixed_and_of_any_size() -> None:
    made = tokenizer(positions="sincos")
    assert "position_embedding" not in made.state_dict()
    x = images(1, (10, 10))
    added = made(View("image", x)).content().values - made.proj(made(View("image", x)).content().source)
    torch.testing.assert_close(added, made.position_grid(5, 2))


def test_counts_tokens_without_weights() -> None:
    assert ImagePatches(7).num_tokens((1, 14, 35)) == 10


@pytest.mark.parametrize("size", [(7, 25), (6, 24), (0, 5)])
def test_a_size_that_is_no_multiple_of_the_patch(size: tuple[int, int]) -> None:
    with pytest.raises(UserError, match=f"multiple of the patch .2x5 pixels., but is {size[0]}x{size[1]}"):
        tokenizer()(View("image", images(1, size)))
