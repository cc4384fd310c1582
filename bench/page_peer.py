"""The same long chat in Gradio, for `page.py`: `python bench/page_peer.py FILE`, with the peer's own python.

`FILE` holds `{"history": [...], "pieces": [...], "pause": seconds}`. Prints the address, then serves until it is ended.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio


def main() -> None:
    """Serve one chat whose next answer grows piece by piece."""
    said = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))

    def answer(_message: str, _history: list[Any]) -> Iterator[str]:
        text = ""
        for piece in said["pieces"]:
            text += piece
            yield text
            time.sleep(said["pause"])

    talk = gradio.ChatInterface(answer, chatbot=gradio.Chatbot(value=said["history"], height=640))
    _, url, _ = talk.queue().launch(prevent_thread_lock=True, quiet=True, share=False, server_name="127.0.0.1")
    print(url, flush=True)
    talk.block_thread()


if __name__ == "__main__":
    main()
