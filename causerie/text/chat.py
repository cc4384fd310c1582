"""Chat formats: a conversation becomes token ids, and a mask of the ids that training counts.

Each message is encoded on its own, so the ids of a conversation are a prefix of the ids of its continuation.
Content is trimmed at both ends, as Gemma's template does: with that, the ids equal those of the Jinja template.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from causerie.core import CauserieError
from causerie.text.tokenizer import Tokenizer, load_tokenizer

FormatName = Literal["chatml", "gemma"]
Message = Mapping[str, Any]
ROLES: Final = ("system", "user", "assistant")

CHATML_JINJA: Final = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] | trim + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

GEMMA_JINJA: Final = (
    "{{ bos_token }}"
    "{% set ns = namespace(system='') %}"
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}"
    "{% set ns.system = message['content'] | trim + '\\n\\n' %}"
    "{% else %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{% set before = ns.system if message['role'] == 'user' else '' %}"
    "{% if before %}{% set ns.system = '' %}{% endif %}"
    "{{ '<start_of_turn>' + role + '\\n' + (before + message['content'] | trim) | trim + '<end_of_turn>\\n' }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)


@dataclass(frozen=True)
class RenderedChat:
    """A conversation as ids, with mask 1 where training counts: assistant content and its end-of-turn token."""

    ids: list[int]
    mask: list[int]


@dataclass(frozen=True)
class _Marks:
    """How a format spells turns."""

    start: str
    end: str
    assistant: str
    jinja: str
    folds_system: bool
    opening: bool


_MARKS: Final[dict[str, _Marks]] = {
    "chatml": _Marks("<|im_start|>", "<|im_end|>", "assistant", CHATML_JINJA, folds_system=False, opening=False),
    "gemma": _Marks("<start_of_turn>", "<end_of_turn>", "model", GEMMA_JINJA, folds_system=True, opening=True),
}


class ChatFormat:
    """How a model's conversations are spelt; made by `chat_format` or `load_chat_format`.

    Attributes:
        tokenizer: the model's tokenizer.
        name: "chatml" or "gemma".
        stop_ids: token ids that end an answer: end of turn, end of text.
        jinja: the same format as a Hugging Face `chat_template`.
    """

    def __init__(self, tokenizer: Tokenizer, name: FormatName) -> None:
        marks = _MARKS.get(name)
        if marks is None:
            raise _unusable(f"unknown chat format {name!r}", "use chatml or gemma")
        missing = [mark for mark in (marks.start, marks.end) if mark not in tokenizer.special]
        if missing:
            raise _unusable(f"the tokenizer lacks {' and '.join(missing)}", f"choose a format other than {name}")
        self.tokenizer: Final = tokenizer
        self.name: Final = name
        self.jinja: Final = marks.jinja
        self._marks: Final = marks
        self._start: Final = tokenizer.special[marks.start]
        self._end: Final = tokenizer.special[marks.end]
        self._newline: Final = tokenizer.encode("\n")
        ends = (self._end, tokenizer.eos_id, tokenizer.special.get("<eos>"), tokenizer.special.get("<|endoftext|>"))
        self.stop_ids: Final[tuple[int, ...]] = tuple(dict.fromkeys(id for id in ends if id is not None))

    @property
    def end_id(self) -> int:
        """The end-of-turn token, the last id that training counts in each answer."""
        return self._end

    def render(self, messages: Sequence[Message]) -> RenderedChat:
        """Ids and mask of a whole conversation; `prompt(messages[:-1])` is a prefix when the last is an answer.

        Raises:
            CauserieError: CAU-1204 when the conversation is not well formed.
        """
        ids, mask = ([self.tokenizer.eot_id], [0]) if self._marks.opening else ([], [])
        for role, content in self._turns(messages):
            header = self._header(role)
            body = self.tokenizer.encode(content)
            ids += [*header, *body, self._end, *self._newline]
            trained = int(role == self._marks.assistant)
            mask += [0] * len(header) + [trained] * (len(body) + 1) + [0] * len(self._newline)
        return RenderedChat(ids, mask)

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Ids of a conversation and of the assistant's header: ready to generate.

        Raises:
            CauserieError: CAU-1204 when the conversation is not well formed.
        """
        return self.render(messages).ids + self._header(self._marks.assistant)

    def _header(self, role: str) -> list[int]:
        return [self._start, *self.tokenizer.encode(role + "\n")]

    def _turns(self, messages: Sequence[Message]) -> list[tuple[str, str]]:
        """Role as spelt by the format and trimmed content of each turn."""
        turns, system = [], ""
        for index, message in enumerate(messages):
            role, content = _checked(message, index)
            if role == "system" and self._marks.folds_system:
                system = content + "\n\n"
                continue
            if role == "user" and system:
                content, system = (system + content).strip(), ""
            turns.append((self._marks.assistant if role == "assistant" else role, content))
        return turns


def _checked(message: Message, index: int) -> tuple[str, str]:
    role = message.get("role") if isinstance(message, Mapping) else None
    content = message.get("content") if isinstance(message, Mapping) else None
    if role not in ROLES or not isinstance(content, str):
        problem = f"role {role!r}" if role not in ROLES else f"content of type {type(content).__name__}"
        raise CauserieError(
            "CAU-1204",
            f"{problem} where a message with a role of {', '.join(ROLES)} and a text content was expected",
            where=f"messages[{index}]",
            fix='write {"role": "user", "content": "..."}',
        )
    return role, content.strip()


def _unusable(cause: str, fix: str) -> CauserieError:
    return CauserieError("CAU-1205", cause, where="tokenizer_config.json:causerie_chat_format", fix=fix)


def chat_format(tokenizer: Tokenizer, name: FormatName | None = None) -> ChatFormat:
    """The chat format of a tokenizer.

    Args:
        tokenizer: the model's tokenizer.
        name: the format; None takes the folder's `causerie_chat_format`, else the one whose marks the tokenizer has.

    Raises:
        CauserieError: CAU-1205 when the format is unknown or the tokenizer lacks its marks.
    """
    wanted: Any = name or tokenizer.config.get("causerie_chat_format")
    if wanted is None:
        wanted = next((key for key, marks in _MARKS.items() if marks.end in tokenizer.special), None)
    if wanted is None:
        raise _unusable("the folder names no chat format and the tokenizer has no turn marks", "use a chat model")
    return ChatFormat(tokenizer, wanted)


def load_chat_format(folder: Path) -> ChatFormat:
    """The chat format of a tokenizer or model folder.

    Raises:
        CauserieError: CAU-1201 or CAU-1205.
    """
    return chat_format(load_tokenizer(folder))


def chat_config(name: FormatName, **tokens: str) -> dict[str, Any]:
    """A `tokenizer_config.json` for a format, with which transformers' `AutoTokenizer` loads the folder.

    Args:
        name: the chat format.
        tokens: `bos_token`, `eos_token`, `pad_token`, `unk_token` as far as the tokenizer has them.
    """
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **tokens,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1_000_000,
        "chat_template": _MARKS[name].jinja,
        "causerie_chat_format": name,
    }
