/** The page's API: plain functions, one per endpoint, errors as `ApiError`. */

import type {
  Conversation,
  Lineage,
  ImproveProgress,
  Message,
  Model,
  Run,
  Signal,
  State,
  TeachStats,
  TurnInfo,
} from './types';

export class ApiError extends Error {
  constructor(
    readonly code: string,
    readonly cause_: string,
    readonly fix: string,
  ) {
    super(cause_);
  }
}

async function failure(response: Response): Promise<ApiError> {
  try {
    const { error } = await response.json();
    return new ApiError(error.code ?? String(response.status), error.cause ?? response.statusText, error.fix ?? '');
  } catch {
    return new ApiError(String(response.status), response.statusText, '');
  }
}

async function call<T>(method: string, path: string, body?: unknown): Promise<T> {
  const init: RequestInit = { method };
  if (body !== undefined) {
    init.headers = { 'content-type': 'application/json' };
    init.body = JSON.stringify(body);
  }
  let response: Response;
  try {
    response = await fetch(path, init);
  } catch {
    throw new ApiError('offline', '', '');
  }
  if (!response.ok) throw await failure(response);
  return response.json() as Promise<T>;
}

export const getState = () => call<State>('GET', 'api/state');

export const listConversations = () =>
  call<{ conversations: Conversation[] }>('GET', 'api/conversations').then((answer) => answer.conversations);
export const createConversation = (model: string) => call<Conversation>('POST', 'api/conversations', { model });
export const readConversation = (id: string) =>
  call<{ conversation: Conversation; messages: Message[]; turn: TurnInfo | null }>('GET', `api/conversations/${id}`);
export const renameConversation = (id: string, title: string) =>
  call<Conversation>('PATCH', `api/conversations/${id}`, { title });
export const deleteConversation = (id: string) => call<object>('DELETE', `api/conversations/${id}`);

export const stopTurn = (turn: string) => call<object>('DELETE', `api/chat/${turn}`);

export const sendSignal = (signal: Record<string, unknown>) =>
  call<Signal>('POST', 'api/feedback', { signal });
export const withdrawSignal = (id: string) => call<object>('DELETE', `api/feedback/${id}`);

export const getTeach = (model: string) => call<TeachStats>('GET', `api/teach?model=${encodeURIComponent(model)}`);
export const getImprove = () => call<ImproveProgress>('GET', 'api/improve');
export const startImprove = (model: string) => call<ImproveProgress>('POST', 'api/improve', { model });
export const stopImprove = () => call<ImproveProgress>('DELETE', 'api/improve');

export const getVersions = (model: string) =>
  call<Lineage>('GET', `api/versions?model=${encodeURIComponent(model)}`);
export const rollback = (version: string) => call<{ model: Model }>('POST', 'api/rollback', { version });

export const listRuns = () => call<{ runs: Run[] }>('GET', 'api/runs').then((answer) => answer.runs);

/** A fresh id for a signal: sending it twice records it once. */
export function newSignalId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(10));
  return `sig_${Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')}`;
}
