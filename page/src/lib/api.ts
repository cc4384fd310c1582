/** The page's API: plain functions, one per endpoint, errors as `ApiError`. */

import type {
  Access,
  Account,
  Audit,
  Attached,
  FullRun,
  Key,
  CostResult,
  Page,
  Price,
  UsageResult,
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
    return new ApiError(error.code ?? String(response.status), error.cause ?? error.message ?? response.statusText, error.fix ?? '');
  } catch {
    return new ApiError(String(response.status), response.statusText, '');
  }
}

async function read<T>(response: Response): Promise<T> {
  if (response.ok) return response.json() as Promise<T>;
  const error = await failure(response);
  if (error.code === 'CAU-6112') dispatchEvent(new Event('signed-out'));
  throw error;
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
  return read<T>(response);
}

export const getState = () => call<State>('GET', 'api/state');

export const listConversations = () =>
  call<{ conversations: Conversation[] }>('GET', 'api/conversations').then((answer) => answer.conversations);
export const createConversation = (model: string) => call<Conversation>('POST', 'api/conversations', { model });
export const readConversation = (id: string) =>
  call<{ conversation: Conversation; messages: Message[]; turn: TurnInfo | null }>('GET', `api/conversations/${id}`);
export const changeConversation = (id: string, values: Partial<Omit<Conversation, 'id'>>) =>
  call<Conversation>('PATCH', `api/conversations/${id}`, values);
export const restoreConversation = (id: string) => call<Conversation>('POST', `api/conversations/${id}/restore`);
export const search = (words: string) =>
  call<{ found: { id: string; passage: string }[] }>('GET', `api/search?q=${encodeURIComponent(words)}`).then(
    (answer) => answer.found,
  );

/** The text of a file, as the server reads it. */
export async function readFile(file: File): Promise<Attached> {
  const path = `api/files?name=${encodeURIComponent(file.name)}`;
  const headers = { 'content-type': 'application/octet-stream' };
  return read<Attached>(await fetch(path, { method: 'POST', headers, body: file }));
}

export const getAccess = () => call<Access>('GET', 'api/session');
export const signIn = (name: string, password: string) => call<object>('POST', 'api/session', { name, password });
export const registerFirst = (code: string, name: string, password: string) =>
  call<object>('POST', 'api/session/first', { code, name, password });
export const signOut = () => call<object>('DELETE', 'api/session');

export const listAccounts = () => call<{ accounts: Account[]; enabled: boolean }>('GET', 'api/admin/accounts');
export const createAccount = (values: { name: string; password: string; role: string }) =>
  call<object>('POST', 'api/admin/accounts', values);
export const changeAccount = (id: string, values: Record<string, unknown>) =>
  call<object>('PATCH', `api/admin/accounts/${id}`, values);
export const listKeys = () => call<{ keys: Key[] }>('GET', 'api/admin/keys').then((answer) => answer.keys);
export const createKey = (name: string, scopes: string[]) =>
  call<{ id: string; key: string }>('POST', 'api/admin/keys', { name, scopes });
export const revokeKey = (id: string) => call<object>('DELETE', `api/admin/keys/${id}`);
export const getAudit = () => call<Audit>('GET', 'api/admin/audit');

/** What was metered since `start`, by day, caller and model: the API's own operations. */
export const usageOf = (kind: 'completions' | 'embeddings', start: number, days: number) =>
  call<Page<UsageResult>>('GET', `v1/organization/usage/${kind}?${buckets(start, days)}&group_by[]=model`);
export const costsOf = (start: number, days: number) =>
  call<Page<CostResult>>('GET', `v1/organization/costs?${buckets(start, days)}&group_by[]=line_item`);
const buckets = (start: number, days: number) =>
  `start_time=${start}&bucket_width=1d&limit=${days}&group_by[]=api_key_id`;
export const listPrices = () => call<{ data: Price[] }>('GET', 'v1/organization/prices').then((answer) => answer.data);
export const createPrice = (price: { model: string; currency: string; input: number; output: number }) =>
  call<Price>('POST', 'v1/organization/prices', price);
export const deleteConversation = (id: string) => call<object>('DELETE', `api/conversations/${id}`);

export const stopTurn = (turn: string) => call<object>('DELETE', `api/chat/${turn}`);

export const sendSignal = (signal: Record<string, unknown>) =>
  call<Signal>('POST', 'api/feedback', { signal });
export const withdrawAll = () => call<{ withdrawn: number }>('DELETE', 'api/feedback');
export const withdrawSignal = (id: string) => call<object>('DELETE', `api/feedback/${id}`);

export const getTeach = (model: string) => call<TeachStats>('GET', `api/teach?model=${encodeURIComponent(model)}`);
export const getImprove = (model: string) => call<ImproveProgress>('GET', `api/improve?model=${encodeURIComponent(model)}`);
export const startImprove = (model: string) => call<ImproveProgress>('POST', 'api/improve', { model });
export const stopImprove = () => call<ImproveProgress>('DELETE', 'api/improve');

export const getVersions = (model: string) =>
  call<Lineage>('GET', `api/versions?model=${encodeURIComponent(model)}`);
export const rollback = (version: string) => call<{ model: Model }>('POST', 'api/rollback', { version });

export const endTrial = (version: string) => call<object>('DELETE', `api/trials/${version}`);

export const getRun = (id: string) => call<FullRun>('GET', `api/runs/${id}`);
export const listRuns = () => call<{ runs: Run[] }>('GET', 'api/runs').then((answer) => answer.runs);

/** A fresh id for a signal: sending it twice records it once. */
export function newSignalId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(10));
  return `sig_${Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')}`;
}
