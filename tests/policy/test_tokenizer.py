"""The byte tokenizer against seqio's, the others against the libraries that made them."""

import json

import pytest

from passk_jax.policy.tokenizer import (
    ByteTokenizer,
    HuggingFaceTokenizer,
    SentencePieceTokenizer,
    check_vocabulary,
    make_tokenizer,
)
from passk_jax.rollout.prompts import encode_prompts
from passk_jax.tasks import base

TEXTS = ["", "What is 12*7 + 3*5?\n", "été — 数学 🙂", "\x00\x7f\t", "  two  spaces ", "x<eos>y"]
CORPUS = [
    f"What is {a} times {b}? The answer is {a * b}." for a in range(2, 40) for b in range(2, 12)
]
TURNS = ["<start_of_turn>", "<end_of_turn>"]


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_those_of_seqio(text):
    seqio = pytest.importorskip("seqio")
    vocabulary, tokenizer = seqio.ByteVocabulary(), ByteTokenizer()
    ids = tokenizer.encode(text)
    assert ids == list(vocabulary.encode(text))
    assert tokenizer.decode(ids) == vocabulary.decode(ids) == text
    assert (tokenizer.vocab_size, tokenizer.pad_id, tokenizer.eos_id) == (
        vocabulary.vocab_size,
        vocabulary.pad_id,
        vocabulary.eos_id,
    )


def test_special_ids_and_broken_text_are_dropped():
    tokenizer = ByteTokenizer()
    assert tokenizer.decode([0, 75, 2, 108, 1, 0, 300]) == "Hi"
    assert tokenizer.decode(tokenizer.encode("é")[:1]) == ""  # half a character


def train_sentencepiece(folder, **symbols):
    """With the settings of Gemma's tokenizer, and 400 pieces."""
    sentencepiece = pytest.importorskip("sentencepiece")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=400,
        model_type="bpe",
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        byte_fallback=True,
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        minloglevel=2,
        **symbols,
    )
    return str(folder / "tokenizer.model")


@pytest.fixture(scope="module")
def gemma_model(tmp_path_factory):
    return train_sentencepiece(
        tmp_path_factory.mktemp("gemma"), user_defined_symbols=["<mask>", *TURNS]
    )


@pytest.fixture(scope="module")
def user_defined_turns(gemma_model):
    return SentencePieceTokenizer(gemma_model)


@pytest.fixture(scope="module")
def control_turns(tmp_path_factory):
    path = train_sentencepiece(tmp_path_factory.mktemp("control"), control_symbols=TURNS)
    return SentencePieceTokenizer(path)


@pytest.fixture(params=["user_defined_turns", "control_turns"])
def sentencepiece_tokenizer(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def huggingface_folder(tmp_path_factory):
    """A byte-level BPE, as Llama's and Qwen's, with their special tokens."""
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    folder = tmp_path_factory.mktemp("huggingface")
    tokenizer.save(str(folder / "tokenizer.json"))
    roles = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "bos_token": None}
    (folder / "tokenizer_config.json").write_text(json.dumps(roles))
    return folder


@pytest.fixture(scope="module")
def huggingface_tokenizer(huggingface_folder):
    return HuggingFaceTokenizer(str(huggingface_folder))


@pytest.fixture(params=["user_defined_turns", "control_turns", "huggingface_tokenizer"])
def tokenizer(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("text", TEXTS)
def test_every_text_survives(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(0 <= i < tokenizer.vocab_size for i in ids)


@pytest.mark.parametrize("text", TEXTS)
def test_the_pieces_of_a_text_are_its_bytes(tokenizer, text):
    for each in (tokenizer, ByteTokenizer()):
        pieces = each.pieces()
        assert len(pieces) == each.vocab_size
        assert b"".join(pieces[i] for i in each.encode(text)) == text.encode()
        assert not any(pieces[i] for i in each.stop_ids)


def test_special_tokens_are_dropped_and_broken_bytes_are_safe(tokenizer):
    ids = tokenizer.encode("12 times 7")
    assert len(ids) < len("12 times 7")  # pieces were learnt
    special = [*tokenizer.stop_ids, tokenizer.pad_id, tokenizer.vocab_size, 10**6]
    if tokenizer.bos_id is not None:
        special.append(tokenizer.bos_id)
    assert tokenizer.decode([special[0], *ids[:1], *special, *ids[1:], *special]) == "12 times 7"
    assert "�" in tokenizer.decode(tokenizer.encode("数")[:2])
    for i in range(tokenizer.vocab_size):
        tokenizer.decode([i])


def test_gemma_ids_are_those_of_the_gemma_package(gemma_model):
    gm = pytest.importorskip("gemma.gm")
    package, tokenizer = gm.text.Gemma2Tokenizer(gemma_model), SentencePieceTokenizer(gemma_model)
    for text in (*TEXTS, base.render("gemma", "What is 2 times 3?\n"), "<mask>a <end_of_turn> b"):
        assert tokenizer.encode(text) == package.encode(text)
    assert tokenizer.vocab_size == package.vocab_size == 400


def test_the_turns_of_a_template_are_single_ids(sentencepiece_tokenizer):
    tokenizer = sentencepiece_tokenizer
    start, end = (tokenizer._model.piece_to_id(piece) for piece in TURNS)
    ids = tokenizer.encode(base.render("gemma", "Hi"))
    plain = tokenizer.encode
    assert ids == [
        *(start, *plain("user\nHi")),
        *(end, *plain("\n")),
        *(start, *plain("model\n")),
    ]
    assert tokenizer.decode(ids) == "user\nHi\nmodel\n"


def test_what_stops_a_gemma_completion(sentencepiece_tokenizer):
    tokenizer = sentencepiece_tokenizer
    end = tokenizer._model.piece_to_id("<end_of_turn>")
    assert tokenizer.stop_ids == (1, end)
    assert (tokenizer.pad_id, tokenizer.eos_id, tokenizer.bos_id) == (0, 1, 2)
    prompts = encode_prompts(["12"], tokenizer, 4)
    ids = tokenizer.encode("12")
    assert prompts.tokens.tolist() == [[0] * (3 - len(ids)) + [2, *ids]]


def test_the_turns_of_qwen_are_single_ids_and_other_special_tokens_are_text(huggingface_tokenizer):
    tokenizer = huggingface_tokenizer
    assert tokenizer.encode("<|im_start|>user\nHi<|im_end|>") == [
        1,
        *tokenizer.encode("user\nHi"),
        2,
    ]
    ids = tokenizer.encode("a<|endoftext|>b")
    assert 0 not in ids and tokenizer.decode(ids) == "a<|endoftext|>b"
    assert tokenizer.stop_ids == (0, 2)  # the end of the text, and that of the turn
    assert (tokenizer.eos_id, tokenizer.pad_id, tokenizer.bos_id) == (2, 0, None)


def test_a_prompt_begins_as_the_tokenizer_json_says(huggingface_folder, tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(huggingface_folder / "tokenizer.json"))
    # As Llama 3.1: the post-processor puts it there.
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", 3)]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    roles = {"eos_token": {"content": "<|endoftext|>"}, "bos_token": "<|begin_of_text|>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(roles))
    made = make_tokenizer("huggingface", str(tmp_path / "tokenizer.json"))
    assert (made.bos_id, made.eos_id, made.pad_id) == (3, 0, 0)
    ids = made.encode("12")
    assert ids == HuggingFaceTokenizer(str(huggingface_folder)).encode("12")
    assert encode_prompts(["12"], made, 4).tokens.tolist() == [[0] * (3 - len(ids)) + [3, *ids]]


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"tokenizer.name = 'bytes' \(did you mean 'byte'\?\)"):
        make_tokenizer("bytes")


@pytest.mark.parametrize(
    ("name", "path", "message"),
    [
        ("byte", "x", "'byte' has no file"),
        ("sentencepiece", None, "'sentencepiece' needs the path of its file"),
        ("huggingface", None, "'huggingface' needs the path of its file"),
        ("sentencepiece", "nowhere/tokenizer.model", "there is no such file"),
        ("huggingface", "nowhere", "there is no such file"),
    ],
)
def test_a_path_that_does_not_fit_is_refused(name, path, message):
    with pytest.raises(ValueError, match=r"tokenizer\.path = ") as caught:
        make_tokenizer(name, path)
    assert message in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no model" * 100])
def test_a_corrupt_model_is_refused(tmp_path, content):
    (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(ValueError, match="is not a SentencePiece model"):
        make_tokenizer("sentencepiece", str(tmp_path / "tokenizer.model"))


def test_a_truncated_model_is_refused(tmp_path, gemma_model):
    data = open(gemma_model, "rb").read()
    (tmp_path / "tokenizer.model").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="is not a SentencePiece model"):
        make_tokenizer("sentencepiece", str(tmp_path / "tokenizer.model"))


def test_a_model_without_an_end_is_refused(tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_prefix=str(tmp_path / "endless"),
        vocab_size=60,
        eos_id=-1,
        minloglevel=2,
    )
    with pytest.raises(ValueError, match="has no end of sequence"):
        make_tokenizer("sentencepiece", str(tmp_path / "endless.model"))


def test_a_corrupt_or_incomplete_folder_is_refused(tmp_path, huggingface_folder):
    with pytest.raises(ValueError, match=r"needs a tokenizer\.json"):
        make_tokenizer("huggingface", str(tmp_path))
    data = (huggingface_folder / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(data[:500])
    with pytest.raises(ValueError, match=r"needs a tokenizer\.json"):
        make_tokenizer("huggingface", str(tmp_path))
    (tmp_path / "tokenizer.json").write_text(data)
    with pytest.raises(ValueError, match=r"tokenizer_config\.json"):
        make_tokenizer("huggingface", str(tmp_path))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<eos>"}')
    with pytest.raises(ValueError, match="names no eos_token of the vocabulary"):
        make_tokenizer("huggingface", str(tmp_path))


@pytest.mark.parametrize("num_rows", [259, 384])
def test_an_embedding_may_have_rows_to_spare(num_rows):
    check_vocabulary(ByteTokenizer().vocab_size, num_rows)


@pytest.mark.parametrize("num_rows", [258, 256_128])
def test_a_vocabulary_of_another_model_is_refused(num_rows):
    with pytest.raises(ValueError, match=f"259 ids and the policy's embedding {num_rows:,} rows"):
        check_vocabulary(ByteTokenizer().vocab_size, num_rows)
