"""The shared encoder: a transformer over packed tokens, built from ready parts.

Shapes: N sequences, S packed tokens, D width, H heads, L tokens of one sequence.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..tokenizers.errors import UserError
from ..tokenizers.tokens import Pack, Tokens
from .attention import Attention
from .layers import ConformerConvolution, LayerScale, Mlp, Rotary, SiluMlp, SwiGLU, drop_sequences
from .layout import LAYOUTS, Axis, Bias, Layout
from .relative import Relative, RelativeBias

NORMS = {"layer": nn.LayerNorm, "rms": nn.RMSNorm, "batch": nn.BatchNorm1d}
FEEDFORWARDS = {"gelu": Mlp, "silu": SiluMlp, "swiglu": SwiGLU}


@dataclass
class BlockOptions:
    """What every block of an encoder is made of.

    Attributes:
        norm: `layer`, `rms` or `batch` (over all packed tokens).
        norm_first: pre-norm (ViT, wav2vec 2.0 large); False for post-norm (wav2vec 2.0 base, PatchTST).
        norm_eps: epsilon of the norms; 1e-6 in ViT and DINO, 1e-5 in wav2vec 2.0.
        feedforward: `gelu`, `silu` (Conformer) or `swiglu`.
        qkv_bias: bias of queries, keys and values.
        layer_scale: initial value of LayerScale, or None for none.
        rotary: rotary positions over 1 axis (time), 2 (row, column) or 3 (all), or None.
        convolution: kernel (odd, in tokens) that makes Conformer blocks, or None.
        convolution_norm: inside their convolution, `layer` (each token) or `group` (each sequence).
        dropout: on the outputs of attention and feed-forward.
        relative: gated relative positions, whose buckets all blocks share (WavLM), or None.
    """

    norm: Literal["layer", "rms", "batch"] = "layer"
    norm_first: bool = True
    norm_eps: float = 1e-6
    feedforward: Literal["gelu", "silu", "swiglu"] = "gelu"
    qkv_bias: bool = True
    layer_scale: float | None = None
    rotary: Literal[1, 2, 3] | None = None
    convolution: int | None = None
    convolution_norm: Literal["layer", "group"] = "layer"
    dropout: float = 0.0
    relative: Relative | None = None


class Block(nn.Module):
    """Attention and feed-forward with residuals (Vaswani et al. 2017), timm's parameter names.

    With `convolution` it is a Conformer block (Gulati et al. 2020): half a feed-forward,
    attention, convolution, half a feed-forward, norm.
    """

    def __init__(self, width: int, heads: int, hidden: int, drop_path: float, options: BlockOptions) -> None:
        super().__init__()
        self.norm_first, self.drop_path = options.norm_first, drop_path
        rotary = None if options.rotary is None else Rotary(width // heads, options.rotary)
        feedforward = FEEDFORWARDS[options.feedforward]
        norm = NORMS[options.norm]
        self.norm1 = norm(width, eps=options.norm_eps)
        self.attn = Attention(
            width, heads, options.qkv_bias, rotary, options.dropout, options.relative is not None
        )
        self.ls1 = nn.Identity() if options.layer_scale is None else LayerScale(width, options.layer_scale)
        self.norm2 = norm(width, eps=options.norm_eps)
        self.mlp = feedforward(width, hidden, options.dropout)
        self.ls2 = nn.Identity() if options.layer_scale is None else LayerScale(width, options.layer_scale)
        self.conformer = options.convolution is not None
        if options.convolution is not None:
            self.norm0 = norm(width, eps=options.norm_eps)
            self.mlp0 = feedforward(width, hidden, options.dropout)
            self.conv = ConformerConvolution(
                width, options.convolution, options.convolution_norm, options.dropout
            )
            self.norm3 = norm(width, eps=options.norm_eps)

    def forward(self, x: Tensor, layout: Layout, position: Tensor, bias: Bias | None = None) -> Tensor:
        """`(S, D)` -> `(S, D)`, or the rows of the tokens that ask (not in Conformer blocks)."""
        if self.conformer:
            return self._conformer(x, layout, position, bias)
        if not self.norm_first:
            x = self.norm1(layout.ask(x) + self.ls1(self.attn(x, layout, position, bias)))
            return self.norm2(x + self.ls2(self.mlp(x)))
        if self.training and self.drop_path > 0:
            x = drop_sequences(self._attention, x, layout, position, bias, self.drop_path)
            position, layout = layout.ask(position), Layout(layout.rows)
            return drop_sequences(self._feedforward, x, layout, position, bias, self.drop_path)
        x = layout.ask(x) + self._attention(x, layout, position, bias)
        return x + self._feedforward(x, layout, position, bias)

    def _attention(self, x: Tensor, layout: Layout, position: Tensor, bias: Bias | None) -> Tensor:
        return self.ls1(self.attn(self.norm1(x), layout, position, bias))

    def _feedforward(self, x: Tensor, layout: Layout, position: Tensor, bias: Bias | None) -> Tensor:
        return self.ls2(self.mlp(self.norm2(x)))

    def _conformer(self, x: Tensor, layout: Layout, position: Tensor, bias: Bias | None) -> Tensor:
        x = x + 0.5 * self.mlp0(self.norm0(x))
        x = x + self.ls1(self.attn(self.norm1(x), layout, position, bias))
        x = x + self.conv(x, layout)
        return self.norm3(x + 0.5 * self.ls2(self.mlp(self.norm2(x))))


@dataclass(frozen=True)
class Encoded:
    """The encoder's output for a pack: one `Tokens` a part, at the end and at each layer asked for.

    Layer 0 is the input, layer i the output of block i, and -1 the end (after the final norm). The tokens of
    the deepest one may be prefix tokens alone, where no others were wanted.
    """

    layers: dict[int, tuple[Tokens, ...]] = field(default_factory=dict)


class Encoder(nn.Module):
    """The transformer that all modalities share.

    Args:
        width: D.
        depth: number of blocks.
        heads: H; must divide `width`.
        mlp_ratio: hidden width of the feed-forward over `width`.
        drop_path: stochastic depth, share of sequences dropped at the last block, rising
            linearly from 0 at the first.
        final_norm: a norm after the last block; the usual companion of pre-norm.
        axes: what the blocks' attention runs along, in turn: `along` the tokens of each sequence,
            or `across` the sequences of a sample (the channels of a series) at each place, as in
            Crossformer's two stages (Zhang and Yan 2023) and Chronos-2's group attention.
        checkpoint: recompute each block in the backward pass to save memory.
        block: what the blocks are made of.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        final_norm: bool = True,
        axes: Sequence[Axis] = ("along",),
        checkpoint: bool = False,
        block: BlockOptions | None = None,
    ) -> None:
        super().__init__()
        options = block or BlockOptions()
        if drop_path and (not options.norm_first or options.convolution is not None):
            raise ValueError(f"drop_path must be 0 for post-norm and Conformer blocks, but is {drop_path}")
        if "across" in axes and options.convolution is not None:
            raise ValueError(f"axes must be [along] for Conformer blocks, but are {list(axes)}")
        if "across" in axes and options.relative is not None:
            raise ValueError(f"axes must be [along] for relative positions, but are {list(axes)}")
        self.width, self.depth, self.heads = width, depth, heads
        self.axes = tuple(axes[index % len(axes)] for index in range(depth))
        self.checkpoint = checkpoint
        rates = [drop_path * i / max(depth - 1, 1) for i in range(depth)]
        self.blocks = nn.ModuleList(
            Block(width, heads, int(width * mlp_ratio), rate, options) for rate in rates
        )
        self.norm = NORMS[options.norm](width, eps=options.norm_eps) if final_norm else nn.Identity()
        self.relative = None if options.relative is None else RelativeBias(heads, options.relative)
        # whether a block's output at one token can do without its output at the others
        self.parts_tokens = (
            options.convolution is None and options.relative is None and options.norm != "batch"
        )
        self.apply(_initialise)

    def forward(self, pack: Pack, layers: Collection[int] = (-1,), prefix: bool = False) -> Encoded:
        """Encode a pack.

        Args:
            pack: the tokens.
            layers: which layers' tokens to return.
            prefix: at the deepest of them only the prefix tokens are wanted, so that the last block run
                may leave out the others: it costs next to nothing then.
        """
        wanted = {self._layer(layer) for layer in layers}
        layouts, bias, x = self._layouts(pack), self._bias(pack), pack.values
        last = min(max(wanted), self.depth)
        asking = self._asking(pack, last) if prefix else None
        found = {0: x} if 0 in wanted else {}
        # self.depth + 1 stands for the end, after the final norm
        for index, block in enumerate(self.blocks[:last], start=1):
            layout = layouts[self.axes[index - 1]]
            layout = replace(layout, asking=asking) if index == last else layout
            x = self._run(block, x, layout, pack.position, bias)
            if index in wanted:
                found[index] = x
        if self.depth + 1 in wanted:
            found[self.depth + 1] = self.norm(x)
        ending = pack if asking is None else pack.prefixes()
        numbers = {layer: self._layer(layer) for layer in layers}
        return Encoded(
            {layer: (ending if at >= last else pack).split(found[at]) for layer, at in numbers.items()}
        )

    def _asking(self, pack: Pack, last: int) -> int | None:
        """How many tokens of each sequence block `last` has to give, or None for all."""
        counts = {len(part.prefix) for part in pack.parts}
        if not self.parts_tokens or len(counts) > 1 or last == 0 or self.axes[last - 1] == "across":
            return None
        return counts.pop() or None

    def attention_maps(self, pack: Pack, layer: int = -1) -> list[Tensor]:
        """Attention weights `(H, L, L)` of each sequence of block `layer` (1 to depth, -1 the last)."""
        number = self.depth if layer == -1 else layer
        if not 1 <= number <= self.depth:
            raise UserError(
                f"layer must lie between 1 and {self.depth}, or be -1 for the last, but is {layer}"
            )
        layouts, bias, x = self._layouts(pack), self._bias(pack), pack.values
        for axis, block in zip(self.axes[: number - 1], self.blocks[: number - 1], strict=True):
            x = block(x, layouts[axis], pack.position, bias)
        block, layout = self.blocks[number - 1], layouts[self.axes[number - 1]]
        assert isinstance(block, Block)
        if block.conformer:
            x = x + 0.5 * block.mlp0(block.norm0(x))
        return block.attn.maps(block.norm1(x) if block.norm_first else x, layout, pack.position, bias)

    def _layouts(self, pack: Pack) -> dict[Axis, Layout]:
        return {axis: LAYOUTS[axis](pack) for axis in dict.fromkeys(self.axes)}

    def _bias(self, pack: Pack) -> Bias | None:
        return None if self.relative is None else self.relative.along(Layout(pack.lengths))

    def _layer(self, layer: int) -> int:
        if not -1 <= layer <= self.depth:
            raise UserError(
                f"layer must lie between 0 and {self.depth}, or be -1 for the end, but is {layer}"
            )
        return self.depth + 1 if layer == -1 else layer

    def _run(
        self, block: nn.Module, x: Tensor, layout: Layout, position: Tensor, bias: Bias | None
    ) -> Tensor:
        if self.checkpoint and self.training:
            return checkpoint(block, x, layout, position, bias, use_reentrant=False)
        return block(x, layout, position, bias)


def _initialise(module: nn.Module) -> None:
    """Linear weights of Glorot and Bengio 2010, biases zero, as in the first ViT and in MAE.

    The customary deviation of .02 fits a width of 768, where both are alike; at a width of 48 it leaves
    attention next to nothing to work with, and DINO collapses on small data.
    """
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
