"""Published speech encoders in and out: Hugging Face's, torchaudio's and, by name, fairseq's.

The originals are random models of transformers and torchaudio, small, with odd sizes. fairseq has no package
here: torchaudio's own conversion of its names is the original.

Shapes: n utterances, T samples, L frames, D width.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from torch import Tensor, nn
from triptych.backbones.encoder import BlockOptions, Encoder
from triptych.cli import main
from triptych.tasks.model import Model
from triptych.tasks.run import load
from triptych.tasks.weights.family import Source
from triptych.tasks.weights.names import State
from triptych.tasks.weights.port import branch, built
from triptych.tasks.weights.registry import family, recognise
from triptych.tasks.weights.source import open_source
from triptych.tokenizers.audio_logmel import LogMelFrames
from triptych.tokenizers.audio_waveform import WaveformFrames
from triptych.tokenizers.errors import UserError
from triptych.tokenizers.image import ImagePatches
from triptych.tokenizers.tokenizer import Tokenizer
from triptych.tokenizers.tokens import concat
from triptych.tokenizers.view import View

from .helpers import randomise

CHANNELS, KERNELS, STRIDES = (13, 13, 13), (10, 3, 2), (5, 2, 2)
WIDTH, HEADS = 34, 2


def of_transformers(kind: str, large: bool, **changes: Any) -> nn.Module:
    import transformers

    config = getattr(transformers, "HubertConfig" if kind.startswith("Hubert") else "Wav2Vec2Config")(
        hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=HEADS, intermediate_size=58,
        conv_dim=CHANNELS, conv_kernel=KERNELS, conv_stride=STRIDES, conv_bias=large,
        feat_extract_norm="layer" if large else "group", do_stable_layer_norm=large,
        num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2, **changes,
    )  # fmt: skip
    model = getattr(transformers, kind)(config)
    randomise(model, WIDTH**-0.5)
    return model.eval()


def of_torchaudio(large: bool) -> nn.Module:
    model = torchaudio.models.wav2vec2_model(
        "layer_norm" if large else "group_norm", list(zip(CHANNELS, KERNELS, STRIDES, strict=True)), large,
        WIDTH, 0.0, 8, 2, 2, HEADS, 0.0, 58, 0.0, 0.0, large, 0.0, None,
    )  # fmt: skip
    randomise(model, WIDTH**-0.5)
    return model.eval()


OBJECTS: dict[str, Callable[[], nn.Module]] = {
    f"{name}, {'large' if large else 'base'}": lambda make=make, large=large: make(large)
    for name, make in {
        "Hugging Face wav2vec 2.0": lambda large: of_transformers("Wav2Vec2Model", large),
        "Hugging Face HuBERT": lambda large: of_transformers("HubertModel", large),
        "torchaudio": of_torchaudio,
    }.items()
    for large in (False, True)
}
each_object = pytest.mark.parametrize("name", OBJECTS)


def tokens(original: nn.Module, waveforms: Tensor) -> Tensor:
    """Final frames of an original `(n, L, D)`."""
    output = original(waveforms)
    return output[0] if isinstance(output, tuple) else output.last_hidden_state


def ours(model: Model, waveforms: Tensor) -> Tensor:
    return model.embed(View("audio", list(waveforms))).values.unflatten(0, (len(waveforms), -1))


def assert_close(found: Tensor, expected: Tensor) -> None:
    assert expected.abs().max() > 0.1  # parity of nothing is no parity
    assert (found - expected).abs().max() < 1e-4


@torch.no_grad()
@each_object
def test_outputs_equal_and_every_weight_is_taken(name: str) -> None:
    original = OBJECTS[name]()
    source = open_source(original)
    carried = recognise(source).read(source)
    assert (carried.unexpected, carried.aside) == ([], [])
    model, missing = built(carried)
    assert missing == (["tokenizers.audio.mask_token"] if name.startswith("torchaudio") else [])
    waveforms = torch.randn(3, 401)
    assert_close(ours(model, waveforms), tokens(original, waveforms))


@torch.no_grad()
@each_object
def test_what_is_exported_comes_back_bit_for_bit_and_loads_in_the_other_project(name: str) -> None:
    original = OBJECTS[name]()
    source = open_source(original)
    kind = recognise(source)
    model, _ = built(kind.read(source))
    weights, known = branch(model), {"heads": HEADS, "conv_stride": STRIDES}
    for format in ("hf-speech", "torchaudio", "fairseq"):
        again, _ = built(family(format).read(Source("", family(format).write(weights, model), known)))
        back = branch(again)
        assert back.keys() == weights.keys()
        unlike = {n for n in back if not torch.equal(back[n], weights[n])}
        assert unlike <= ({"tokenizers.audio.mask_token"} if format == "torchaudio" else set())
    waveforms = torch.randn(2, 311)
    expected = tokens(original, waveforms)
    randomise(original)
    left = original.load_state_dict(kind.write(weights, model), strict=False)
    assert not left.unexpected_keys and set(left.missing_keys) <= {"masked_spec_embed"}
    assert_close(tokens(original, waveforms), expected)


@torch.no_grad()
@each_object
def test_the_older_names_of_weight_norm(name: str) -> None:
    """What `weight_g` and `weight_v` were is `original0` and `original1` since PyTorch's parametrizations."""
    original = OBJECTS[name]()
    state = {
        n.replace(".parametrizations.weight.original0", ".weight_g").replace(
            ".parametrizations.weight.original1", ".weight_v"
        ): tensor
        for n, tensor in original.state_dict().items()
    }
    assert sum(n.endswith(("weight_g", "weight_v")) for n in state) == 2
    source = Source("", state, open_source(original).config)
    model, _ = built(recognise(source).read(source))
    waveforms = torch.randn(2, 311)
    assert_close(ours(model, waveforms), tokens(original, waveforms))


def fairseq(large: bool) -> State:
    """Random weights under fairseq's names, with the heads of wav2vec 2.0: 3 codebooks of 5 codes, 4 wide."""
    sizes: dict[str, tuple[int, ...]] = {
        "mask_emb": (WIDTH,), "layer_norm.weight": (13,), "layer_norm.bias": (13,),
        "post_extract_proj.weight": (WIDTH, 13), "post_extract_proj.bias": (WIDTH,),
        "encoder.pos_conv.0.bias": (WIDTH,), "encoder.pos_conv.0.weight_g": (1, 1, 8),
        "encoder.pos_conv.0.weight_v": (WIDTH, WIDTH // 2, 8),
        "encoder.layer_norm.weight": (WIDTH,), "encoder.layer_norm.bias": (WIDTH,),
        "quantizer.vars": (1, 15, 4), "quantizer.weight_proj.weight": (15, 13),
        "quantizer.weight_proj.bias": (15,), "project_q.weight": (7, 12), "project_q.bias": (7,),
        "final_proj.weight": (7, WIDTH), "final_proj.bias": (7,),
    }  # fmt: skip
    for index, kernel in enumerate(KERNELS):
        stem = f"feature_extractor.conv_layers.{index}."
        sizes[f"{stem}0.weight"] = (13, 13 if index else 1, kernel)
        if large:
            sizes |= {f"{stem}0.bias": (13,), f"{stem}2.1.weight": (13,), f"{stem}2.1.bias": (13,)}
        elif index == 0:
            sizes |= {f"{stem}2.weight": (13,), f"{stem}2.bias": (13,)}
    block = {f"self_attn.{part}_proj": (WIDTH, WIDTH) for part in ("q", "k", "v", "out")}
    block |= {"self_attn_layer_norm": (WIDTH,), "fc1": (58, WIDTH), "fc2": (WIDTH, 58)}
    for index in range(2):
        for part, shape in (block | {"final_layer_norm": (WIDTH,)}).items():
            stem = f"encoder.layers.{index}.{part}"
            sizes |= {f"{stem}.weight": shape, f"{stem}.bias": shape[:1]}
    return {name: torch.randn(shape) * 0.3 for name, shape in sizes.items()}


@torch.no_grad()
@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("stem", ["", "w2v_encoder.w2v_model."])
def test_fairseqs_names_equal_torchaudios_conversion_of_them(large: bool, stem: str) -> None:
    from torchaudio.models.wav2vec2.utils.import_fairseq import _convert_state_dict

    state, original = fairseq(large), of_torchaudio(large)
    assert original.load_state_dict(_convert_state_dict(state), strict=False) == ([], [])
    found = {stem + name: tensor for name, tensor in state.items()}
    source = Source("", found, {"heads": HEADS, "conv_stride": STRIDES})
    kind = recognise(source)
    carried = kind.read(source)
    assert kind.name == "fairseq" and (carried.unexpected, carried.aside) == ([], [])
    model, missing = built(carried)
    assert missing == []
    waveforms = torch.randn(2, 401)
    assert_close(ours(model, waveforms), tokens(original, waveforms))
    back = kind.write(branch(model), model)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


@torch.no_grad()
@pytest.mark.parametrize("large", [False, True])
def test_the_heads_of_wav2vec2_come_along(large: bool) -> None:
    """Contexts, and the quantised targets, of Hugging Face's pretraining model."""
    original = of_transformers(
        "Wav2Vec2ForPreTraining", large, codevector_dim=12, num_codevectors_per_group=5,
        num_codevector_groups=3, proj_codevector_dim=7,
    )  # fmt: skip
    source = open_source(original)
    kind = recognise(source)
    carried = kind.read(source)
    assert (carried.unexpected, carried.aside) == ([], [])
    model, _ = built(carried)
    objective = model.objective["wav2vec2"]
    assert (objective.quantiser.groups, objective.quantiser.codes, objective.width) == (3, 5, 7)
    waveforms = torch.randn(2, 401)
    tokens = model.embed(View("audio", list(waveforms)))
    expected = original(waveforms)
    assert_close(objective.project_context(tokens.values), expected.projected_states.flatten(0, 1))
    vectors = objective.quantiser(tokens.features, 1.0).vectors
    assert_close(objective.project_target(vectors), expected.projected_quantized_states.flatten(0, 1))
    back = kind.write(branch(model), model)
    state = original.state_dict()
    assert {f"wav2vec2.{n}" if f"wav2vec2.{n}" in state else n for n in back} == state.keys()
    assert torch.equal(back["quantizer.codevectors"], state["quantizer.codevectors"])


def wavlm(large: bool) -> nn.Module:
    """Hugging Face's WavLM with few buckets, so that a short clip has distances of every kind."""
    from transformers import WavLMConfig, WavLMModel

    config = WavLMConfig(
        hidden_size=WIDTH, num_hidden_layers=3, num_attention_heads=HEADS, intermediate_size=58,
        conv_dim=CHANNELS, conv_kernel=KERNELS, conv_stride=STRIDES, conv_bias=large,
        feat_extract_norm="layer" if large else "group", do_stable_layer_norm=large,
        num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2, num_buckets=12, max_bucket_distance=9,
    )  # fmt: skip
    model = WavLMModel(config)
    randomise(model, WIDTH**-0.5)
    return model.eval()


@pytest.mark.parametrize("large", [False, True])
def test_wavlms_gated_positions_with_gradients_and_packed(large: bool) -> None:
    """Each clip of a packed batch has the original's frames for it alone, and the same gradients."""
    original = wavlm(large)
    source = open_source(original)
    carried = recognise(source).read(source)
    assert (carried.unexpected, carried.aside) == ([], [])
    model, missing = built(carried)
    assert missing == [] and model.encoder.relative is not None
    clips = [torch.randn(length) for length in (401, 311, 401, 190)]
    view = View("audio", clips)
    (packed,) = model.encoder(concat([model.tokenizers["audio"](view)])).layers[-1]
    weights = torch.randn_like(packed.values)
    (packed.values * weights).sum().backward()
    parts = zip(clips, *(x.split(packed.lengths) for x in (packed.values, weights)), strict=True)
    for clip, found, weight in parts:
        expected = original(clip[None]).last_hidden_state[0]
        assert_close(found, expected)
        (expected * weight).sum().backward()
    theirs = original.encoder.layers[0].attention.rel_attn_embed.weight.grad
    torch.testing.assert_close(model.encoder.relative.embedding.weight.grad, theirs, atol=1e-4, rtol=1e-3)
    for ours, layer in zip(model.encoder.blocks, original.encoder.layers, strict=True):
        gate = layer.attention.gru_rel_pos_linear.weight.grad
        torch.testing.assert_close(ours.attn.gate.linear.weight.grad, gate, atol=1e-4, rtol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("large", [False, True])
def test_wavlm_goes_out_under_two_families_names(large: bool) -> None:
    source = open_source(wavlm(large))
    model, _ = built(recognise(source).read(source))
    weights, known = branch(model), {"heads": HEADS, "conv_stride": STRIDES, "max_bucket_distance": 9}
    for format in ("hf-speech", "fairseq"):
        again, _ = built(family(format).read(Source("", family(format).write(weights, model), known)))
        back = branch(again)
        assert back.keys() == weights.keys() and all(torch.equal(back[n], weights[n]) for n in back)
        clip = torch.randn(1, 311)
        assert torch.equal(ours(again, clip), ours(model, clip))
    with pytest.raises(UserError, match="must have a name for every weight, but has none for 'encoder"):
        family("torchaudio").write(weights, model)


def test_other_heads_are_set_aside_and_torchaudios_wavlm_is_refused() -> None:
    source = open_source(of_transformers("Wav2Vec2ForCTC", False, vocab_size=7))
    assert recognise(source).read(source).aside == ["lm_head.bias", "lm_head.weight"]
    theirs = torchaudio.models.wavlm_model(
        "group_norm", None, False, WIDTH, 0.0, 8, 2, 1, HEADS, 12, 9, 0.0, 58, 0.0, 0.0, False, 0.0, None
    )
    source = open_source(theirs)
    with pytest.raises(UserError, match="is read under the names of Hugging Face and fairseq alone"):
        recognise(source).read(source)


@pytest.mark.parametrize(
    ("kind", "changes", "sentence"),
    [
        ("Wav2Vec2Model", {"hidden_act": "relu"}, "with hidden_act gelu, but theirs is 'relu'"),
        ("Wav2Vec2Model", {"feat_extract_activation": "gelu_new"}, "with feat_extract_activation gelu, but"),
        ("HubertModel", {"feat_proj_layer_norm": False}, "their feat_proj_layer_norm is false"),
    ],
)
def test_what_the_config_says_and_ours_has_not_is_refused(
    kind: str, changes: dict[str, Any], sentence: str
) -> None:
    source = open_source(of_transformers(kind, False, **changes))
    with pytest.raises(UserError, match=sentence):
        recognise(source).read(source)
    exact = open_source(of_transformers(kind, False, hidden_act="gelu_python"))
    assert recognise(exact).read(exact).weights


def test_a_folder_with_a_preprocessor(tmp_path: Path) -> None:
    """The rate and the normalisation go along, and embeddings are those of the original on such input."""
    import json

    original = of_transformers("Wav2Vec2Model", False)
    original.save_pretrained(tmp_path / "hub")
    (tmp_path / "hub" / "preprocessor_config.json").write_text(
        json.dumps({"do_normalize": True, "sampling_rate": 8000})
    )
    assert main(["weights", "import", str(tmp_path / "hub"), "--output", str(tmp_path / "run")]) == 0
    (tmp_path / "clips").mkdir()
    sound = np.random.default_rng(0).normal(0.1, 0.2, 4001).astype(np.float32)
    for index in range(9):
        soundfile.write(tmp_path / "clips" / f"{index}.wav", sound[index:], 8000, subtype="FLOAT")
    run = load(tmp_path / "run")
    assert run.description["spec"]["data"]["audio"] == {"rate": 8000, "normalise": True}
    table = run.embed({"data.path": str(tmp_path / "clips")})
    row = table[table.name.str.endswith("0.wav")].filter(regex="^e").to_numpy(copy=True)
    clip = torch.from_numpy(sound)
    clip = (clip - clip.mean()) / clip.std(correction=0)
    with torch.no_grad():
        expected = tokens(original, clip[None]).mean(1)
    assert_close(torch.from_numpy(row).float(), expected)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["base", "large", "base, pre-norm", "WavLM", "with heads"])
def test_an_exported_folder_is_imported_as_it_was_and_read_by_the_other_project(
    kind: str, tmp_path: Path
) -> None:
    """No two sizes are published ones: strides, heads, distances and the rate come from the files beside."""
    from transformers import AutoModel

    heads = {"codevector_dim": 12, "num_codevectors_per_group": 5, "num_codevector_groups": 3}
    make: dict[str, Callable[[], nn.Module]] = {
        "WavLM": lambda: wavlm(False),
        "with heads": lambda: of_transformers("Wav2Vec2ForPreTraining", True, **heads, proj_codevector_dim=7),
    }
    original = make.get(kind, lambda: of_transformers("Wav2Vec2Model", kind == "large"))()
    if kind == "base, pre-norm":
        original.config.do_stable_layer_norm = True
    if kind == "large":
        original.config.layer_norm_eps = 1e-6
    hub, back = tmp_path / "hub", tmp_path / "new" / "back"
    original.save_pretrained(hub)
    (hub / "preprocessor_config.json").write_text('{"do_normalize": true, "sampling_rate": 8000}')
    assert main(["weights", "import", str(hub), "--output", str(tmp_path / "run")]) == 0
    out = ["--output", str(back / "model.safetensors")]
    command = ["weights", "export", "--run", str(tmp_path / "run"), "--format", "hf-speech", *out]
    assert main(command) == main(command) == 0  # the second time over its own files
    assert main(["weights", "import", str(back), "--output", str(tmp_path / "again")]) == 0
    first, again = load(tmp_path / "run"), load(tmp_path / "again")
    assert again.description == first.description
    weights, found = first.model.state_dict(), again.model.state_dict()
    assert found.keys() == weights.keys() and all(torch.equal(found[n], weights[n]) for n in weights)
    clip = torch.randn(1, 311)
    theirs = AutoModel.from_pretrained(back).eval()
    assert_close(ours(first.model, clip), tokens(theirs, clip))


@pytest.mark.parametrize("other", ["config.json", "x.safetensors", "pytorch_model.bin"])
def test_no_folder_of_another_model_is_exported_to(
    other: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    of_transformers("Wav2Vec2Model", False).save_pretrained(tmp_path / "hub")
    assert main(["weights", "import", str(tmp_path / "hub"), "--output", str(tmp_path / "run")]) == 0
    (tmp_path / other).write_text("{}")
    out = str(tmp_path / "a.safetensors")
    command = ["weights", "export", "--run", str(tmp_path / "run"), "--output", out]
    assert main([*command, "--format", "hf-speech"]) == 2
    assert f"goes beside it, but '{tmp_path / other}' is of another model" in capsys.readouterr().err
    assert (tmp_path / other).read_text() == "{}" and not Path(out).exists()
    assert main([*command, "--format", "torchaudio"]) == 0  # which is one file


@pytest.mark.parametrize(
    ("tokenizer", "block", "sentence"),
    [
        (LogMelFrames(), {}, "log-mel frames have no counterpart in these weights"),
        (WaveformFrames(prefix=["class"]), {}, "but this one has prefix tokens"),
        (WaveformFrames(), {"rotary": 1}, "but this one has rotary positions"),
        (WaveformFrames(), {"norm": "rms"}, "but this one has other norms than layer norm"),
        (WaveformFrames(), {"feedforward": "silu"}, "but this one has another feed-forward than GELU's"),
        (WaveformFrames(), {"qkv_bias": False}, "but this one has queries, keys and values without bias"),
        (WaveformFrames(), {"norm_first": False}, "but this one has norms at other places"),
    ],
)
def test_what_the_format_has_no_part_for_is_refused(
    tokenizer: Tokenizer, block: dict[str, Any], sentence: str
) -> None:
    model = Model({"audio": tokenizer}, Encoder(32, 1, 2, block=BlockOptions(**block)), {})
    model.build({"train": "audio"}, {"audio": {"rate": 16_000}})
    with pytest.raises(UserError, match=sentence):
        family("hf-speech").write(branch(model), model)


def test_a_model_of_pictures_is_no_speech_encoder() -> None:
    model = Model({"image": ImagePatches(8)}, Encoder(32, 1, 2), {})
    model.build({"train": "image"}, {"image": {"size": (16, 16), "channels": 3}})
    with pytest.raises(UserError, match="the format is of audio, but the model reads image"):
        family("hf-speech").write(branch(model), model)


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("kind", ["Wav2Vec2Model", "HubertModel"])
@pytest.mark.parametrize("large", [False, True])
def test_outputs_equal_at_full_size(kind: str, large: bool) -> None:
    import transformers

    shape = {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
    }
    style = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
    config = getattr(transformers, kind.replace("Model", "Config"))(**(shape | style if large else {}))
    original = getattr(transformers, kind)(config).eval()
    source = open_source(original)
    model, _ = built(recognise(source).read(source))
    waveforms = torch.randn(1, 16_000)
    assert_close(ours(model, waveforms), tokens(original, waveforms))
