"""Chat templates in the shape of those of published models, against `transformers`."""

import datetime
import json

import pytest

from passk_jax import tasks
from passk_jax.errors import ConfigError
from passk_jax.policy.chat import Chat
from passk_jax.policy.tokenizer import ByteTokenizer, HuggingFaceTokenizer
from passk_jax.rollout.prompts import encode_prompts
from passk_jax.run.parts import build
from tests.tiny import tiny_config

tokenizers = pytest.importorskip("tokenizers")
chat_template_utils = pytest.importorskip("transformers.utils.chat_template_utils")
transformers = pytest.importorskip("transformers")

GEMMA2 = """\
{{ bos_token }}{% if messages[0]['role'] == 'system' %}\
{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}\
{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}\
{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' + \
message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}\
{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"""
GEMMA3 = """\
{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '\n\n' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '\n\n' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {{ '<start_of_turn>' + message['role'] + '\n' + (first_user_prefix if loop.first else "") }}
    {{ message['content'] | trim }}
    {{ '<end_of_turn>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model\n'}}
{%- endif -%}
"""
LLAMA32 = """\
{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\n\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\n" }}
    {{- tools | tojson(indent=4) }}
{%- endif %}
{{- "Today Date: " + date_string + "\n\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}
    {{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
"""
QWEN25 = """\
{%- if messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}
{%- else %}
    {{- '<|im_start|>system\nYou are Qwen, a helpful assistant.<|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
"""
QWEN3 = """\
{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
{%- endif %}
{%- set ns = namespace(last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if message.role == "user" and not(message.content.startswith('<tool_response>')) %}
        {%- set ns.last = index %}
        {%- break %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == "user" %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %}
"""
SMOLLM2 = """\
{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}\
{{ '<|im_start|>system\nYou are SmolLM<|im_end|>\n' }}{% endif %}\
{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}\
{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
BLOCKS = """\
{% for message in messages %}
    {% if message['role'] == 'system' %}
<|im_start|>{{ message['content'] | tojson }}
    {% else %}
<|im_start|>{{ message['content'] }}
    {% endif %}
{% endfor %}
"""
# The template, the token that begins a text, whether the tokenizer puts it there, and the end.
FAMILIES = {
    "gemma2": (GEMMA2, "<bos>", True, "<eos>"),
    "gemma3": (GEMMA3, "<bos>", True, "<eos>"),
    "llama32": (LLAMA32, "<|begin_of_text|>", True, "<|eot_id|>"),
    "llama32_plain": (LLAMA32, "<|begin_of_text|>", False, "<|eot_id|>"),
    "qwen25": (QWEN25, None, False, "<|im_end|>"),
    "qwen3": (QWEN3, None, False, "<|im_end|>"),
    "blocks": (BLOCKS, None, False, "<|im_end|>"),
    "smollm2": (SMOLLM2, "<|im_start|>", False, "<|im_end|>"),
}
SPECIAL = (
    "<bos> <eos> <start_of_turn> <end_of_turn> <|begin_of_text|> <|start_header_id|> "
    "<|end_header_id|> <|eot_id|> <|im_start|> <|im_end|> <|endoftext|> <|fim|>"
).split()
THINK = ["<think>", "</think>"]  # pieces of Qwen 3 that are not special
QUESTION = "What is 7*8?\nüber <b>\n"


def write(folder, name, where="file", **roles):
    """A byte-level tokenizer with all special tokens, in the way of one family."""
    template, bos, adds_bos, eos = FAMILIES[name]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(["user What is model"], trainer)
    tokenizer.add_tokens(THINK)
    if adds_bos:
        tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, SPECIAL.index(bos))]
        )
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": eos, "pad_token": eos}
    config |= {} if bos is None else {"bos_token": {"content": bos, "__type": "AddedToken"}}
    if where == "file":
        (folder / "chat_template.jinja").write_text(template)
    elif where == "key":
        config["chat_template"] = template
    elif where == "list":
        other = {"name": "tool_use", "template": "tools"}
        config["chat_template"] = [other, {"name": "default", "template": template}]
    (folder / "tokenizer_config.json").write_text(json.dumps(config | roles))
    return folder


def of_transformers(folder, monkeypatch, system=None, **options):
    class Today(datetime.datetime):
        @classmethod
        def now(cls):
            return cls(2024, 7, 26)

    monkeypatch.setattr(chat_template_utils, "datetime", Today)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    chat = [{"role": "user", "content": QUESTION}]
    if system is not None:
        chat.insert(0, {"role": "system", "content": system})
    return tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_dict=False, **options
    )


def ours(tokenizer, question=QUESTION, **options):
    prompts = encode_prompts([Chat(tokenizer, **options)(question)], tokenizer, 256)
    return prompts.tokens[0][prompts.mask[0]].tolist()


@pytest.mark.parametrize("system", [None, "Be short.\n"])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_prompt_is_that_of_transformers(name, system, tmp_path, monkeypatch):
    folder = write(tmp_path, name)
    tokenizer = HuggingFaceTokenizer(str(folder))
    if name == "gemma2" and system is not None:
        with pytest.raises(ConfigError, match=r"TemplateError: System role .*system = 'Be short"):
            Chat(tokenizer, system)("Hi")
        return
    found = ours(tokenizer, system=system)
    assert found == of_transformers(folder, monkeypatch, system)
    bos = FAMILIES[name][1]
    if bos is not None and bos != "<|im_start|>":  # SmolLM2's begins each turn
        assert found[0] == SPECIAL.index(bos) and found.count(found[0]) == 1


@pytest.mark.parametrize("thinking", [True, False])
def test_qwen_3_thinks_or_not(thinking, tmp_path, monkeypatch):
    folder = write(tmp_path, "qwen3")
    tokenizer = HuggingFaceTokenizer(str(folder))
    expected = of_transformers(folder, monkeypatch, enable_thinking=thinking)
    assert ours(tokenizer, thinking=thinking) == expected
    assert Chat(tokenizer, thinking=thinking)("Hi").endswith("</think>\n\n") != thinking


@pytest.mark.parametrize("where", ["key", "list"])
def test_a_template_in_the_tokenizers_config(where, tmp_path, monkeypatch):
    folder = write(tmp_path, "qwen25", where)
    assert ours(HuggingFaceTokenizer(str(folder))) == of_transformers(folder, monkeypatch)


def test_the_date_is_the_runs(tmp_path):
    tokenizer = HuggingFaceTokenizer(str(write(tmp_path, "llama32")))
    assert "Today Date: 26 Jul 2024\n" in Chat(tokenizer)("Hi")
    assert "Today Date: 03 Feb 2025\n" in Chat(tokenizer, date="2025-02-03")("Hi")
    with pytest.raises(ConfigError, match="date = 'today': a date like 2024-07-26 is wanted"):
        Chat(tokenizer, date="today")


def test_a_special_token_that_the_template_does_not_write_is_text_in_a_question(tmp_path):
    tokenizer = HuggingFaceTokenizer(str(write(tmp_path, "llama32")))
    ids = tokenizer.encode("a<|fim|>b<|eot_id|>")
    assert SPECIAL.index("<|fim|>") not in ids and ids[-1] == SPECIAL.index("<|eot_id|>")
    assert tokenizer.decode(ids) == "a<|fim|>b"


def test_what_ends_a_text_is_also_in_the_generation_config(tmp_path):
    folder = write(tmp_path, "llama32")
    file = folder / "generation_config.json"
    for ends, expected in ((None, {7, 10}), (11, {7, 10, 11}), ([1, 11, 9999], {1, 7, 10, 11})):
        file.write_text(json.dumps({"eos_token_id": ends}))
        tokenizer = HuggingFaceTokenizer(str(folder))
        assert set(tokenizer.stop_ids) == expected | {SPECIAL.index("<end_of_turn>"), 9}
        assert tokenizer.decode([*tokenizer.encode("Hi"), *expected]) == "Hi"


def test_a_sandbox(tmp_path):
    folder = write(tmp_path, "qwen25")
    (folder / "chat_template.jinja").write_text("{{ ''.__class__.__mro__ }}")
    with pytest.raises(ConfigError, match="raises SecurityError"):
        Chat(HuggingFaceTokenizer(str(folder)))("Hi")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, r"config.task: template = 'chat': the tokenizer has no chat template"),
        ("{% if %}", r"config.task: template = 'chat': the tokenizer's chat template is corrupt"),
        ("{{ 1 + '' }}", r"config.task: template = 'chat': the chat template .* raises TypeError"),
    ],
)
def test_what_cannot_be_rendered_is_said_when_a_run_is_built(template, message, tmp_path):
    folder = write(tmp_path, "qwen25", where="nowhere")
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    config = tiny_config(tokenizer__name="huggingface", tokenizer__path=str(folder))
    config.task.options.unlock()
    config.task.options.template = "chat"
    with pytest.raises(ConfigError, match=message):
        build(config)
    bytes_only = tiny_config()
    bytes_only.task.options = {**bytes_only.task.options, "template": "chat"}
    with pytest.raises(ConfigError, match="the tokenizer has no chat template"):
        build(bytes_only)


def test_tasks_and_parts_of_mixtures_ask_by_the_template(tmp_path):
    tokenizer = HuggingFaceTokenizer(str(write(tmp_path, "qwen25")))
    options = {"num_train": 3, "num_validation": 1, "num_test": 1, "template": "chat"}
    task = tasks.make("arithmetic", chat=Chat(tokenizer, "Be short."), **options)
    for problem in task.split("train"):
        assert problem.prompt.startswith(
            "<|im_start|>system\nBe short.<|im_end|>\n<|im_start|>user"
        )
        assert problem.prompt.endswith("?\n<|im_end|>\n<|im_start|>assistant\n")
    with pytest.raises(ConfigError, match="needs the chat template of a tokenizer"):
        tasks.make("arithmetic", **options)
    with pytest.raises(
        ConfigError, match="unknown template 'chats'; allowed: None, 'gemma', 'chat'"
    ):
        tasks.make("arithmetic", template="chats")
    assert Chat(ByteTokenizer()).tokenizer.chat_template is None


def test_a_mixture_hands_the_template_to_its_parts(tmp_path):
    tokenizer = HuggingFaceTokenizer(str(write(tmp_path, "qwen25")))
    options = {"num_train": 3, "num_validation": 1, "num_test": 1, "template": "chat"}
    mixture = tasks.make(
        "mixture", chat=Chat(tokenizer), rates={"arithmetic": 1.0}, arithmetic=options
    )
    assert "<|im_start|>assistant\n" in mixture.split("train")[0].prompt
