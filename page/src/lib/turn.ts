/** Following a turn: server-sent events over fetch, with a return to the last event after a lost connection. */

import { ApiError } from './api';
import type { TurnDraft } from './types';

export interface TurnHandlers {
  start(turn: string, question: string, drafts: TurnDraft[], leftOut: number): void;
  delta(message: string, text: string): void;
  error(error: { code: string; cause: string; fix: string }): void;
}

interface Frame {
  id: number;
  event: string;
  data: string;
}

const RETRIES = 5;

export async function* frames(body: ReadableStream<Uint8Array>): AsyncGenerator<Frame> {
  const reader = body.pipeThrough(new TextDecoderStream() as ReadableWritablePair<string, Uint8Array>).getReader();
  let rest = '';
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const parts = (rest + value).split('\n\n');
      rest = parts.pop() ?? '';
      for (const part of parts) {
        const frame = parse(part);
        if (frame) yield frame;
      }
    }
  } finally {
    reader.cancel().catch(() => undefined);
  }
}

function parse(block: string): Frame | null {
  const frame: Frame = { id: -1, event: '', data: '' };
  for (const line of block.split('\n')) {
    const colon = line.indexOf(': ');
    const name = line.slice(0, colon);
    if (name === 'id') frame.id = Number(line.slice(colon + 2));
    else if (name === 'event') frame.event = line.slice(colon + 2);
    else if (name === 'data') frame.data += line.slice(colon + 2);
  }
  return frame.event ? frame : null;
}

/** Ask (POST) or go on listening (GET `turn`); returns when the turn is done and saved. */
export async function followTurn(
  begin: { body: unknown } | { turn: string },
  handlers: TurnHandlers,
  signal: AbortSignal,
): Promise<void> {
  let turn = 'turn' in begin ? begin.turn : '';
  let next = 0;
  for (let attempt = 0; ; attempt += 1) {
    try {
      const response = turn
        ? await fetch(`api/chat/${turn}?after=${next}`, { signal })
        : await fetch('api/chat', {
            method: 'POST',
            headers: { 'content-type': 'application/json' },
            body: JSON.stringify((begin as { body: unknown }).body),
            signal,
          });
      if (!response.ok) {
        const { error } = await response.json();
        throw new ApiError(error.code, error.cause, error.fix);
      }
      for await (const frame of frames(response.body!)) {
        next = frame.id + 1;
        attempt = 0;
        const data = JSON.parse(frame.data);
        if (frame.event === 'start') {
          turn = data.turn;
          handlers.start(data.turn, data.question, data.drafts, data.left_out);
        } else if (frame.event === 'delta') handlers.delta(data.message, data.text);
        else if (frame.event === 'error') handlers.error(data.error);
        else if (frame.event === 'done') return;
      }
      if (attempt > 0) return;
    } catch (error) {
      if (signal.aborted || error instanceof ApiError || !turn || attempt >= RETRIES) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, 300 * 2 ** attempt));
  }
}
