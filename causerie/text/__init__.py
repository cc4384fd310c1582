"""Text to tokens and back, chat formats, loss masks. No torch."""

from causerie.text.chat import ChatFormat, RenderedChat, chat_format, load_chat_format
from causerie.text.errors import ERRORS
from causerie.text.spm import keep_for, spm_to_tokenizer_json, spm_tokenizer
from causerie.text.stream import StopStrings, StreamDecoder
from causerie.text.tokenizer import TOKENIZER_FILES, Tokenizer, load_tokenizer
from causerie.text.train import TokenizerConfig, train_bpe, train_tokenizer

__all__ = [
    "ERRORS",
    "TOKENIZER_FILES",
    "ChatFormat",
    "RenderedChat",
    "StopStrings",
    "StreamDecoder",
    "Tokenizer",
    "TokenizerConfig",
    "chat_format",
    "keep_for",
    "load_chat_format",
    "load_tokenizer",
    "spm_to_tokenizer_json",
    "spm_tokenizer",
    "train_bpe",
    "train_tokenizer",
]
