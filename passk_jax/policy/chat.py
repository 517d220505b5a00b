"""The chat template that a tokenizer brings along: from a question to the prompt of a chat model.

Such a template is a program in Jinja (https://huggingface.co/docs/transformers/chat_templating). It
runs in Jinja's sandbox, with the names that `transformers` gives it.
"""

import dataclasses
import datetime
import functools
import json
from typing import Any

from passk_jax.errors import ConfigError
from passk_jax.policy.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Chat:
    """Renders a question as the first turn of a chat, with the turn that the model then begins.

    Attributes:
      tokenizer: The tokenizer whose template it is.
      system: The system prompt; `None` for none, or for one of the template's own.
      thinking: The template's `enable_thinking`; `None` leaves it to the template.
      date: Today, for templates that ask: such as "2024-07-26". A run has the same prompts on every
        day that it goes on.
    """

    tokenizer: Tokenizer
    system: str | None = None
    thinking: bool | None = None
    date: str = "2024-07-26"

    def __post_init__(self):
        """Checks the date, which not every template looks at."""
        try:
            datetime.date.fromisoformat(self.date)
        except ValueError as error:
            raise ConfigError(f"date = {self.date!r}: a date like 2024-07-26 is wanted") from error

    def __call__(self, text: str) -> str:
        """Returns the prompt; if the tokenizer begins prompts with its <bos>, without that one.

        Raises:
          ConfigError: The tokenizer has no template, or the template raises.
        """
        messages = [{"role": "user", "content": text}]
        if self.system is not None:
            messages.insert(0, {"role": "system", "content": self.system})
        names = dict(self.tokenizer.roles)
        if self.thinking is not None:
            names["enable_thinking"] = self.thinking
        template = self._template
        try:
            prompt = template.render(
                messages=messages, tools=None, documents=None, add_generation_prompt=True, **names
            )
        except Exception as error:  # a template can fail in any way
            said = f"the chat template of the tokenizer raises {type(error).__name__}: {error}"
            raise ConfigError(f"template = 'chat': {said}; {self._settings()}") from error
        adds_bos = self.tokenizer.bos_id is not None
        return prompt.removeprefix(names["bos_token"]) if adds_bos else prompt

    def _settings(self) -> str:
        return f"config.chat has system = {self.system!r}, thinking = {self.thinking}"

    @functools.cached_property
    def _template(self) -> Any:
        """The template, compiled."""
        if self.tokenizer.chat_template is None:
            raise ConfigError(
                "template = 'chat': the tokenizer has no chat template: neither a file "
                "chat_template.jinja nor a chat_template in tokenizer_config.json. None is the "
                "plain text, for a base model"
            )
        try:
            import jinja2
            from jinja2 import sandbox
        except ModuleNotFoundError as error:
            need = f"needs {error.name}: pip install 'passk_jax[tokenizers]'"
            raise ConfigError(f"template = 'chat' {need}") from error

        def raise_exception(message):
            raise jinja2.TemplateError(message)

        def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
            options = {"indent": indent, "separators": separators, "sort_keys": sort_keys}
            return json.dumps(value, ensure_ascii=ensure_ascii, **options)

        environment = sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = tojson
        today = datetime.datetime.fromisoformat(self.date)
        environment.globals |= {"raise_exception": raise_exception, "strftime_now": today.strftime}
        try:
            return environment.from_string(self.tokenizer.chat_template)
        except jinja2.TemplateError as error:
            raise ConfigError(
                f"template = 'chat': the tokenizer's chat template is corrupt: {error}"
            ) from error
