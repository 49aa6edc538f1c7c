"""Text encoders: the tiny one's promises, and umt5 on a small random model saved as the real one is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fwdata.encode.text.encoders import TinyText, load_text_encoder
from fwdata.encode.text.prompt_cleaning import clean_prompt
from fwdata.errors import UsageError

PROMPT = "A video recorded from a robot's point of view executing the following instruction: "


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_clean_prompt_repairs_unicode_entities_and_spaces():
    assert clean_prompt("  press &amp;amp;\n the   cafÃ©\tbutton ") == "press & the café button"


def test_tiny_rows_have_the_stated_shape_and_scale():
    encoder = load_text_encoder("tiny")
    rows = encoder.encode([PROMPT + "Press the red button.", "", "word " * 100])
    assert [r.shape for r in rows] == [(17, encoder.dim), (1, encoder.dim), (encoder.max_tokens, encoder.dim)]
    assert all(r.dtype == np.float16 for r in rows)
    np.testing.assert_allclose(np.mean(rows[0].astype(np.float64) ** 2, axis=1), 1.0, atol=2e-3)


def test_tiny_is_the_same_in_any_company_and_on_any_machine():
    red, blue = PROMPT + "Press the red button.", PROMPT + "Press the blue button."
    together, alone = load_text_encoder("tiny").encode([blue, red])[1], load_text_encoder("tiny").encode([red])[0]
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(alone[-1, :4], np.float16(GOLDEN_RED_BUTTON))


GOLDEN_RED_BUTTON = [-0.822265625, 0.8515625, -1.189453125, 0.556640625]


def test_tiny_tells_colours_verbs_and_orders_apart():
    encode = load_text_encoder("tiny").encode
    red, blue, touch = encode(["press the red button", "press the blue button", "touch the red button"])
    assert cosine(red[2], blue[2]) < 0.4
    assert cosine(red[0], touch[0]) < 0.4
    np.testing.assert_array_equal(red[:2], blue[:2])
    first, second = encode(["red before blue", "blue before red"])
    assert cosine(first[0], second[2]) > 0.5  # the same word at another place is still alike
    assert not np.array_equal(first[1], second[1])


def test_tiny_identity_is_plain_and_stable():
    identity = load_text_encoder("tiny").identity()
    assert identity == TinyText().identity()
    assert identity["name"] == "tiny" and identity["max_tokens"] == 32


@pytest.mark.parametrize(("spec", "part"), [("tinny", "did you mean 'tiny'"), ("no/such/folder/here", "existing path")])
def test_unknown_encoder_is_one_clear_sentence(spec, part):
    with pytest.raises(UsageError, match=part):
        load_text_encoder(spec)


@pytest.fixture(scope="module")
def tiny_umt5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random umt5 and a word tokenizer in the layout of the released pipeline."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

    folder = tmp_path_factory.mktemp("umt5")
    words = ["<pad>", "</s>", "<unk>", "press", "the", "red", "blue", "button", "&", "."]
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", padding_side="right"
    )
    tokenizer.save_pretrained(folder / "tokenizer")
    torch.manual_seed(0)
    config = UMT5Config(vocab_size=len(words), d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4)
    UMT5EncoderModel(config).save_pretrained(folder / "text_encoder")
    return folder


@pytest.mark.slow  # importing transformers takes about 10 s
def test_umt5_rows_are_the_models_own_at_real_tokens(tiny_umt5):
    from transformers import AutoTokenizer, UMT5EncoderModel

    encoder = load_text_encoder(str(tiny_umt5), dtype="float32")
    red, blue = encoder.encode(["press &amp;  the red button", "blue button"])
    assert red.shape == (6, 32) and blue.shape == (3, 32) and red.dtype == np.float16

    model = UMT5EncoderModel.from_pretrained(tiny_umt5 / "text_encoder").eval()
    ids = AutoTokenizer.from_pretrained(tiny_umt5 / "tokenizer")(
        "press & the red button", return_tensors="pt"
    ).input_ids
    with torch.no_grad():
        alone = model(input_ids=ids).last_hidden_state[0].numpy()
    np.testing.assert_allclose(red.astype(np.float32), alone, atol=2e-3)
    np.testing.assert_array_equal(encoder.encode(["blue button"])[0], blue)
    assert encoder.encode(["press " * 500])[0].shape == (encoder.max_tokens, 32)


@pytest.mark.slow
def test_umt5_identity_follows_the_weights_and_the_dtype(tiny_umt5, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    first = load_text_encoder(str(tiny_umt5)).identity()
    assert first == load_text_encoder(str(tiny_umt5)).identity()
    assert first != load_text_encoder(str(tiny_umt5), dtype="float32").identity()

    copy = shutil.copytree(tiny_umt5, tmp_path / "copy")
    tensors = load_file(copy / "text_encoder" / "model.safetensors")
    tensors["encoder.final_layer_norm.weight"][3] += 0.5
    save_file(tensors, copy / "text_encoder" / "model.safetensors", metadata={"format": "pt"})
    assert load_text_encoder(str(copy)).identity()["weights"] != first["weights"]


def test_original_names_become_those_of_transformers():
    from fwdata.encode.text.umt5 import original_to_transformers

    part = torch.zeros(1)
    renamed = original_to_transformers(
        dict.fromkeys(
            [
                "token_embedding.weight",
                "blocks.23.attn.q.weight",
                "blocks.0.pos_embedding.embedding.weight",
                "blocks.1.ffn.gate.0.weight",
                "blocks.1.ffn.fc1.weight",
                "blocks.1.norm2.weight",
                "norm.weight",
            ],
            part,
        )
    )
    assert set(renamed) == {
        "shared.weight",
        "encoder.embed_tokens.weight",
        "encoder.block.23.layer.0.SelfAttention.q.weight",
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
        "encoder.block.1.layer.1.DenseReluDense.wi_0.weight",
        "encoder.block.1.layer.1.DenseReluDense.wi_1.weight",
        "encoder.block.1.layer.1.layer_norm.weight",
        "encoder.final_layer_norm.weight",
    }


@pytest.mark.slow
def test_original_file_gives_the_same_encoder(tiny_umt5, tmp_path):
    import shutil

    from safetensors.torch import load_file

    def original(name: str) -> str:
        for new, old in (
            ("shared.", "token_embedding."),
            ("encoder.final_layer_norm.", "norm."),
            ("encoder.block.", "blocks."),
            (".layer.0.layer_norm.", ".norm1."),
            (".layer.0.SelfAttention.relative_attention_bias.", ".pos_embedding.embedding."),
            (".layer.0.SelfAttention.", ".attn."),
            (".layer.1.layer_norm.", ".norm2."),
            (".layer.1.DenseReluDense.wi_0.", ".ffn.gate.0."),
            (".layer.1.DenseReluDense.wi_1.", ".ffn.fc1."),
            (".layer.1.DenseReluDense.wo.", ".ffn.fc2."),
        ):
            name = name.replace(new, old)
        return name

    tensors = load_file(tiny_umt5 / "text_encoder" / "model.safetensors")
    tensors.pop("encoder.embed_tokens.weight", None)
    torch.save({original(k): v for k, v in tensors.items()}, tmp_path / "encoder.pth")
    shutil.copytree(tiny_umt5 / "tokenizer", tmp_path / "google" / "umt5-xxl")
    folder, file = load_text_encoder(str(tiny_umt5)), load_text_encoder(str(tmp_path / "encoder.pth"))
    assert file.identity() == folder.identity()
    prompts = ["press the red button ."]
    np.testing.assert_array_equal(file.encode(prompts)[0], folder.encode(prompts)[0])


@pytest.mark.slow
def test_short_padding_is_part_of_the_identity_and_close(tiny_umt5):
    usual = load_text_encoder(str(tiny_umt5), dtype="float32")
    short = load_text_encoder(str(tiny_umt5), dtype="float32", short=True)
    assert short.identity() == {**usual.identity(), "lengths": [16, 32, 64, 128]}
    for prompt in ("press the red button", "press " * 20, "press " * 500):
        one, other = usual.encode([prompt])[0], short.encode([prompt])[0]
        assert one.shape == other.shape
        np.testing.assert_allclose(one.astype(np.float32), other.astype(np.float32), atol=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("kept", [["shared.weight"], ["encoder.embed_tokens.weight"]])
def test_either_name_of_the_embedding_is_enough(tiny_umt5, tmp_path, kept):
    import shutil

    from safetensors.torch import load_file, save_file

    copy = shutil.copytree(tiny_umt5, tmp_path / "copy")
    tensors = load_file(copy / "text_encoder" / "model.safetensors")
    embedding = tensors.pop("shared.weight")
    tensors.pop("encoder.embed_tokens.weight", None)
    save_file(tensors | dict.fromkeys(kept, embedding), copy / "text_encoder" / "model.safetensors", {"format": "pt"})
    expected = load_text_encoder(str(tiny_umt5)).encode(["press the red button"])[0]
    np.testing.assert_array_equal(load_text_encoder(str(copy)).encode(["press the red button"])[0], expected)


@pytest.mark.slow
def test_an_embedding_that_is_not_the_files_is_refused(tiny_umt5, monkeypatch):
    from transformers import UMT5EncoderModel

    load = UMT5EncoderModel.from_pretrained

    def forgets_the_tie(*args, **options):
        model, report = load(*args, **options)
        model.encoder.embed_tokens.weight = torch.nn.Parameter(torch.randn_like(model.shared.weight))
        return model, report

    monkeypatch.setattr(UMT5EncoderModel, "from_pretrained", forgets_the_tie)
    with pytest.raises(UsageError, match=r"the embedding in use is not shared\.weight of .*transformers is 5\.3"):
        load_text_encoder(str(tiny_umt5))


@pytest.mark.slow
def test_umt5_folder_that_does_not_fit_is_refused(tiny_umt5, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    with pytest.raises(UsageError, match=r"no config\.json"):
        load_text_encoder(str(tmp_path))
    copy = shutil.copytree(tiny_umt5, tmp_path / "copy")
    weights = copy / "text_encoder" / "model.safetensors"
    tensors = load_file(weights)
    del tensors["encoder.final_layer_norm.weight"]
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(UsageError, match="lack the tensor"):
        load_text_encoder(str(copy))
    weights.write_bytes(b"not a weights file")
    with pytest.raises(UsageError, match="is not a whole safetensors file"):
        load_text_encoder(str(copy))
    pickle_file = tmp_path / "other.pth"
    torch.save({"a": torch.zeros(1)}, pickle_file)
    with pytest.raises(UsageError, match="expected tensor 'token_embedding"):
        load_text_encoder(str(pickle_file))
