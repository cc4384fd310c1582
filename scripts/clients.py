"""Clients that we did not write, against our server: Node's openai (both classes), langchain-openai, llm.

    python scripts/clients.py [--peer /path/to/folder] [--json]

Each is installed from its own registry into a folder outside the repository (once), and made to chat, stream, call a
tool, keep to a schema, and embed. What cannot be installed is said and counted as missing, never as passed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from sdk_fixtures import start_server  # noqa: E402

NODE = """
import OpenAI, { AzureOpenAI } from "openai";
const base = process.env.BASE, model = "model";
const messages = [{ role: "user", content: "This is a test." }];
const check = (what, ok) => { if (!ok) { console.error("FAILED " + what); process.exit(1); } console.log(what); };
const v1 = new OpenAI({ baseURL: base + "/v1", apiKey: "x", maxRetries: 0 });
const azure = new AzureOpenAI({ endpoint: base, apiKey: "x", apiVersion: "2024-10-21", maxRetries: 0 });
for (const [name, client] of [["OpenAI", v1], ["AzureOpenAI", azure]]) {
  const whole = await client.chat.completions.create({ model, messages, max_tokens: 8, seed: 1 });
  check(name + " chat", whole.usage.completion_tokens > 0);
  let text = "", usage = null;
  const stream = await client.chat.completions.create({ model, messages, max_tokens: 8, seed: 1, stream: true, stream_options: { include_usage: true } });
  for await (const chunk of stream) { text += chunk.choices[0]?.delta?.content ?? ""; usage = chunk.usage ?? usage; }
  check(name + " stream", text === whole.choices[0].message.content && usage.total_tokens > 0);
  const tools = [{ type: "function", function: { name: "pick", parameters: { type: "object", properties: { n: { enum: [1, 2] } }, required: ["n"], additionalProperties: false } } }];
  const called = await client.chat.completions.create({ model, messages, tools, tool_choice: "required", max_tokens: 100 });
  check(name + " tools", [1, 2].includes(JSON.parse(called.choices[0].message.tool_calls[0].function.arguments).n));
  const many = await client.chat.completions.create({ model, messages, max_tokens: 2, n: 128, seed: 1 });
  check(name + " 128 answers", many.choices.length === 128);
  const custom = (key, format) => ({ type: "custom", custom: { name: key, format } });
  const grammar = (syntax, definition) => ({ type: "grammar", grammar: { syntax, definition } });
  const both = [custom("lark", grammar("lark", "start: /[0-9][+][0-9]/")), custom("regex", grammar("regex", "[a-f]{3}/[0-9]"))];
  const shapes = { lark: /^[0-9][+][0-9]$/, regex: /^[a-f]{3}[/][0-9]$/ };
  for (const key of ["lark", "regex"]) {
    const asked = { model, messages, tools: both, tool_choice: { type: "allowed_tools", allowed_tools: { mode: "required", tools: [{ type: "custom", custom: { name: key } }] } }, max_tokens: 60, seed: 1 };
    const call = (await client.chat.completions.create(asked)).choices[0].message.tool_calls[0];
    check(name + " custom " + key, call.type === "custom" && call.custom.name === key && shapes[key].test(call.custom.input));
    const final = await client.chat.completions.stream(asked).finalChatCompletion();
    check(name + " custom streamed", final.choices[0].message.tool_calls[0].custom.input === call.custom.input);
  }
  const vectors = await client.embeddings.create({ model, input: ["a", "b"] });
  check(name + " embeddings", vectors.data.length === 2 && vectors.data[0].embedding.length === 32);
}
const events = [];
for await (const event of await v1.responses.create({ model, input: "This is", max_output_tokens: 8, stream: true })) events.push(event.type);
check("OpenAI responses", events[0] === "response.created" && /completed|incomplete/.test(events.at(-1)));
const spelling = { model, input: "Spell.", tools: [{ type: "custom", name: "spell", format: { type: "grammar", syntax: "regex", definition: "[ab]{4}" } }], tool_choice: { type: "custom", name: "spell" } };
const spelt = (await v1.responses.create(spelling)).output[0];
check("OpenAI custom call", spelt.type === "custom_tool_call" && /^[ab]{4}$/.test(spelt.input));
const streamed = await v1.responses.stream(spelling).finalResponse();
check("OpenAI custom call streamed", /^[ab]{4}$/.test(streamed.output[0].input));
const again = await v1.responses.create({ ...spelling, tool_choice: "none", previous_response_id: streamed.id, input: [{ type: "custom_tool_call_output", call_id: streamed.output[0].call_id, output: "ok" }], max_output_tokens: 16 });
check("OpenAI custom call answered", again.output[0].type === "message");
const file = await v1.files.create({ file: new File(["x"], "x.txt"), purpose: "user_data" });
check("OpenAI files", (await (await v1.files.content(file.id)).text()) === "x");
"""

LANGCHAIN = """
import os
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from langchain_core.tools import tool
from pydantic import BaseModel
from typing import Literal
base = os.environ["BASE"] + "/v1"
model = ChatOpenAI(model="model", base_url=base, api_key="x", max_retries=0, max_tokens=120, temperature=0)
assert model.invoke("This is a test.").usage_metadata["output_tokens"] > 0; print("chat")
assert len(list(model.stream("This is a test."))) > 1; print("stream")
class Sky(BaseModel):
    colour: Literal["blue", "grey"]
assert model.with_structured_output(Sky, method="json_schema").invoke("The sky?").colour in ("blue", "grey"); print("schema")
@tool
def pick(n: Literal["one", "two"]) -> str:
    "Pick one."
    return n
called = model.bind_tools([pick], tool_choice="pick").invoke("Pick.")
assert called.tool_calls[0]["args"]["n"] in ("one", "two"); print("tools")
vectors = OpenAIEmbeddings(model="model", base_url=base, api_key="x", check_embedding_ctx_length=False).embed_documents(["a", "b"])
assert len(vectors) == 2; print("embeddings")
"""


def node(peer: Path, base: str) -> str:
    """Node's SDK."""
    if shutil.which("npm") is None:
        return "missing: npm is not installed"
    folder = peer / "node"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "node_modules" / "openai").is_dir():
        done = subprocess.run(
            ["npm", "install", "--no-audit", "--no-fund", "openai@7"], cwd=folder, capture_output=True, text=True
        )
        if done.returncode:
            return f"missing: npm install failed: {done.stderr[-300:]}"
    (folder / "check.mjs").write_text(NODE)
    return outcome(["node", "check.mjs"], folder, base)


def python_client(peer: Path, base: str, name: str, packages: list[str], code: str) -> str:
    """A Python client in a virtual environment of its own."""
    python = peer / name / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(peer / name)], check=True)
        install = [str(python), "-m", "pip", "install", "-q", *packages]
        done = subprocess.run(install, capture_output=True, text=True)
        if done.returncode:
            shutil.rmtree(peer / name)
            return f"missing: pip install failed: {done.stderr[-300:]}"
    return outcome([str(python), "-c", code], peer, base)


def llm(peer: Path, base: str) -> str:
    """Simon Willison's `llm`, with the server as one more OpenAI-compatible model."""
    home = peer / "llm-home"
    home.mkdir(parents=True, exist_ok=True)
    entry = f"- model_id: causerie\n  model_name: model\n  api_base: {base}/v1\n  api_key_name: causerie\n"
    (home / "extra-openai-models.yaml").write_text(entry)
    code = (
        "import subprocess, sys, os\n"
        "for extra in ([], ['--no-stream']):\n"
        "    done = subprocess.run([sys.executable, '-m', 'llm', '-m', 'causerie', '--key', 'x', '-o', 'max_tokens', '8',"
        " *extra, 'This is a test.'], capture_output=True, text=True, stdin=subprocess.DEVNULL)\n"
        "    assert done.returncode == 0 and done.stdout.strip(), done.stderr[-500:]\n"
        "    print('prompt' + ''.join(extra))\n"
    )
    os.environ["LLM_USER_PATH"] = str(home)
    return python_client(peer, base, "llm", ["llm"], code)


def outcome(command: list[str], folder: Path, base: str) -> str:
    """What a client's script says."""
    environment = {**os.environ, "BASE": base}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, timeout=300)
    if done.returncode:
        return f"failed after [{', '.join(done.stdout.split(chr(10))[:-1])}]: {done.stderr[-600:]}"
    return "passed: " + ", ".join(done.stdout.strip().split("\n"))


def main() -> None:
    """Run all clients and print what each did."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", type=Path, default=Path(tempfile.gettempdir()) / "causerie-clients")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    given = parser.parse_args()
    given.peer.mkdir(parents=True, exist_ok=True)
    with start_server() as (base, _):
        found: dict[str, Any] = {
            "openai for Node": node(given.peer, base),
            "langchain-openai": python_client(given.peer, base, "langchain", ["langchain-openai"], LANGCHAIN),
            "llm": llm(given.peer, base),
        }
    for name, words in found.items():
        print(f"{name}: {words}")
    if given.json:
        print(json.dumps(found))
    sys.exit(0 if all(words.startswith("passed") for words in found.values()) else 1)


if __name__ == "__main__":
    main()
