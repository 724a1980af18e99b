"""New small models: both libraries load the folder and agree; the tokenizer spells digits and knows all controls."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from qwen3vl.config import ModelConfig
from qwen3vl.errors import CheckpointError, InvalidParams
from qwen3vl.model.checkpoint import load_model
from qwen3vl.model.qwen3vl import Qwen3VL
from qwen3vl.processor.processor import Processor
from qwen3vl.processor.tokenizer import Tokenizer
from qwen3vl.train.small import SIZES, make_small, new_model, position_table, small_config
from qwen3vl.train.small_tokenizer import OFFICIAL, control_tokens, learn_merges
from qwen3vl.types import ImagePart, Message, TextPart, ToolCall
from tests import oracle
from tests.contract.cli_runner import Runner
from tests.models import Prompt, Shown, difference, prefill

TEXTS = [
    "What is in the picture? the thing",
    '{"bbox_2d": [12, 345, 67, 890], "label": "thing"}',
    " the there then",
] * 9


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "new"
    assert make_small(path, "tiny", vocab_size=310, texts=TEXTS) == ()
    return path


def messages() -> list[Message]:
    picture = Image.radial_gradient("L").resize((70, 40)).convert("RGB")
    return [
        Message("system", (TextPart("Be brief."),)),
        Message("user", (ImagePart(picture), TextPart("What is at [12, 345]?"))),
    ]


def test_both_libraries_compute_the_same(folder: Path) -> None:
    """The same prompt from both processors, the same logits from both models, over the Auto classes."""
    oracle.import_torchvision()
    from transformers import AutoModelForImageTextToText, AutoProcessor

    theirs, their_model = AutoProcessor.from_pretrained(folder), AutoModelForImageTextToText.from_pretrained(folder)
    conversation = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {
            "role": "user",
            "content": [
                {"type": "image", "image": messages()[1].content[0].image},  # type: ignore[union-attr]
                {"type": "text", "text": "What is at [12, 345]?"},
            ],
        },
    ]
    inputs = theirs.apply_chat_template(
        conversation, tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    ours = Processor.from_folder(folder)(messages())
    assert ours.input_ids_T.tolist() == inputs["input_ids"][0].tolist()
    assert ours.visuals[0].grid_thw == (1, 2, 4)  # 70 x 40 stays small: 64 x 32
    with torch.no_grad():
        logits = their_model(**inputs).logits[0]
    shown = Shown("image", (1, 2, 4), inputs["pixel_values"])
    (mine,) = prefill(load_model(folder), [Prompt(torch.from_numpy(ours.input_ids_T), (shown,))])
    assert difference(mine, logits) < 1e-5


def test_control_tokens_have_ids_of_their_own_at_the_end(folder: Path) -> None:
    tokenizer, config = Tokenizer.from_folder(folder), ModelConfig.from_folder(folder)
    official = Tokenizer.from_folder(OFFICIAL)
    assert list(tokenizer.added_tokens) == sorted(official.added_tokens, key=official.added_tokens.__getitem__)
    first = tokenizer.vocab_size - len(official.added_tokens)
    assert list(tokenizer.added_tokens.values()) == list(range(first, tokenizer.vocab_size))
    assert {t for t, i in tokenizer.added_tokens.items() if i in tokenizer.special_ids} == {
        t for t, i in official.added_tokens.items() if i in official.special_ids
    }
    assert config.text.vocab_size == tokenizer.vocab_size <= 310
    assert config.image_token_id == tokenizer.id_of("<|image_pad|>")
    assert config.vision_end_token_id == tokenizer.id_of("<|vision_end|>")
    assert [tokenizer.decode([i], skip_special_tokens=False) for i in tokenizer.eos_token_ids] == [
        official.decode([i], skip_special_tokens=False) for i in official.eos_token_ids
    ]


def test_template_is_the_official_one(folder: Path) -> None:
    official, own = Processor.from_folder(OFFICIAL), Processor.from_folder(folder)
    call = Message("assistant", (TextPart("Look."),), tool_calls=(ToolCall("f", {"x": 1}),))
    asked = [*messages(), call, Message("tool", (TextPart("done"),))]
    assert own.render(asked).text == official.render(asked).text


@pytest.mark.parametrize("text", ["", "12345", "x=-0.50", "Überé 漢字 🙂\r\n\t", "<|im_end|>", "\x00\x7f", " \n\n  a"])
def test_any_text_comes_back(folder: Path, text: str) -> None:
    tokenizer = Tokenizer.from_folder(folder)
    ids = tokenizer.encode(text, allow_special=False)
    assert tokenizer.decode(ids) == text
    digits = [tokenizer.decode([i]) for i in ids if any(c.isdigit() for c in tokenizer.decode([i]))]
    assert all(len(d) == 1 for d in digits)


def test_what_is_frequent_is_one_token(folder: Path) -> None:
    tokenizer = Tokenizer.from_folder(folder)
    assert len(tokenizer.encode(" the", allow_special=False)) == 1
    assert len(tokenizer.encode(" xyz", allow_special=False)) == 4


def test_merges_are_beginnings_of_the_words_that_save_most() -> None:
    texts = [" click click clock", "use\n"] * 60
    vocab, merges = learn_merges(texts, 256 + 6)
    assert merges == [("Ġ", "c"), ("Ġc", "l"), ("Ġcl", "i"), ("Ġcli", "c"), ("Ġclic", "k")]  # " clock": three more
    assert list(vocab.values()) == list(range(256 + 5))
    _, more = learn_merges(texts * 2, 300)
    assert [a + b for a, b in more[-2:]] == ["us", "use"]  # bare ones last, if there are many
    assert not any((a + b).startswith("us") for a, b in learn_merges(texts, 300)[1])
    assert learn_merges(texts, 300) == learn_merges(iter(texts), 300)
    assert learn_merges(["ab ab"] * 2, 300)[1] == []


def test_weights_depend_on_the_seed_alone() -> None:
    config = small_config(SIZES["tiny"], 300, 274)
    one, same, other = (dict(new_model(config, seed).named_parameters()) for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    changed = {name for name in one if not torch.equal(one[name], other[name])}
    assert {name for name, t in one.items() if t.dim() > 1} - changed == {"visual.pos_embed.weight"}


def test_activations_begin_in_range() -> None:
    """What the tower gives is as large as the embeddings it stands among, and the loss begins at chance."""
    config = small_config(SIZES["tiny"], 300, 274)
    model = new_model(config, 0)
    with torch.no_grad():
        features = model.encode_visuals(torch.rand(64, 1536) * 2 - 1, [(8, 8)])
    (logits,) = prefill(model, [Prompt(torch.arange(50))])
    embeddings = float(model.language_model.embed_tokens.weight.std())
    assert 0.3 < float(features.embeddings_MD.std()) / embeddings < 3
    assert 0.05 < float(logits.detach().std()) < 2


def test_positions_near_each_other_are_alike() -> None:
    table = position_table(8, 16).unflatten(0, (8, 8))
    here = table[4, 4]
    like = torch.nn.functional.cosine_similarity(table, here, dim=-1)
    assert like[4, 4] > like[4, 5] > like[4, 6] > 0.3 and like[5, 4] == pytest.approx(float(like[4, 5]), abs=1e-6)
    assert like.argmax() == 4 * 8 + 4


@pytest.mark.parametrize("name", SIZES)
def test_sizes(name: str) -> None:
    """At most 15 M parameters; heads and sections fit; the deepest tap is not the last block."""
    size = SIZES[name]
    config = small_config(size, size.vocab_size, size.vocab_size - len(control_tokens()))
    assert ModelConfig.from_dict(config.to_dict()) == config
    with torch.device("meta"):
        model = Qwen3VL(config)
    number = sum(tensor.numel() for key, tensor in model.state_dict().items() if key != "lm_head.weight")
    assert number <= 15_000_000
    assert sum(config.text.rope.mrope_section) * 2 == config.text.head_dim
    assert config.vision.head_dim == 32 and size.tower_width % 32 == 0
    assert len(set(config.vision.deepstack_visual_indexes)) == 3 <= config.text.num_hidden_layers
    assert (config.vision.patch_size, config.vision.spatial_merge_size) == (16, 2)


def test_refusals(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not empty"):
        make_small(folder, "tiny", texts=TEXTS)
    with pytest.raises(InvalidParams, match="'huge' is not known: choose from tiny, small, medium"):
        make_small(tmp_path / "a", "huge", texts=TEXTS)
    with pytest.raises(InvalidParams, match="vocab_size=281 is below 282"):
        make_small(tmp_path / "b", "tiny", vocab_size=281, texts=TEXTS)
    assert json.loads((folder / "generation_config.json").read_text())["do_sample"] is False


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def texts(seed: int, notes: list[str], progress: object) -> list[str]:
        notes.append(f"seed {seed}")
        return TEXTS

    monkeypatch.setattr("qwen3vl.train.small.synthetic_texts", texts)
    run = Runner(capsys, monkeypatch)
    ran = run("train", "new", tmp_path / "a", "--size", "tiny", "--vocab-size", 310, "--seed", 3, "--json")
    assert ran.code == 0
    assert ran.document["notes"] == ["seed 3"] and ran.document["size"] == "tiny"
    with torch.device("meta"):
        model = Qwen3VL(ModelConfig.from_folder(tmp_path / "a"))
    assert ran.document["parameters"] == sum(p.numel() for p in model.parameters())
    said = run("train", "new", tmp_path / "b", "--size", "tiny", "--vocab-size", 310)
    assert said.code == 0 and "tiny, 2.1 M parameters" in said.out and "note: seed 0" in said.err
    assert run("train", "new", tmp_path / "b", "--size", "tiny").code == 1
    wrong = run("train", "new", tmp_path / "c", "--size", "huge")
    assert wrong.code == 2 and "tiny, small, medium" in wrong.err
