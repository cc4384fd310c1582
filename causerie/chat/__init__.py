"""The page and what stands behind it: conversations, votes, teaching, runs. No torch."""

from causerie.chat.app import create_chat_app, page_folder
from causerie.chat.config import ServeConfig
from causerie.chat.errors import ERRORS
from causerie.chat.server import serve_page

__all__ = ["ERRORS", "ServeConfig", "create_chat_app", "page_folder", "serve_page"]
