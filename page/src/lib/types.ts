/** What the API answers with. */

export interface Card {
  summary?: string;
  parameters?: number;
  languages?: string[];
  [key: string]: unknown;
}

export interface Model {
  name: string;
  version: string | null;
  licence: string;
  notices: string[];
  card: Card;
}

export interface State {
  user: { id: string; name: string };
  language: string;
  models: Model[];
}

export interface Conversation {
  id: string;
  title: string;
  model: string | null;
  created: number;
  updated: number;
}

export interface Exposure {
  id: string;
  version: string | null;
  group: string | null;
  position: number;
  finish: string | null;
}

export type SignalKind = 'thumb' | 'choice' | 'edit';

export interface Signal {
  id: string;
  kind: SignalKind;
  value: string;
  reasons: string[];
  comment: string;
}

export interface Message {
  id: string;
  parent: string | null;
  role: 'system' | 'user' | 'assistant';
  content: string;
  edited: string | null;
  created: number;
  exposure: Exposure | null;
  signals: Signal[];
}

export interface TurnDraft {
  message: string;
  position: number;
}

export interface TurnInfo {
  id: string;
  question: string;
  drafts: TurnDraft[];
}

export interface TeachStats {
  model: string;
  counts: Record<string, number>;
  since: Record<string, number>;
  withdrawn: number;
  new_pairs: number;
  needed: number;
  missing: number;
}

export interface GateRow {
  metric: string;
  incumbent: number | null;
  candidate: number | null;
  difference: number | null;
  low: number | null;
  high: number | null;
  margin: number | null;
  floor?: number | null;
  ceiling?: number | null;
  promise?: boolean;
  items?: number;
  passed: boolean;
  meaning: string;
}

export interface Verdict {
  promoted: boolean;
  why: string;
  version?: string | null;
}

export interface Progress {
  stages: { name: string; time: number }[];
  step: number | null;
  total: number | null;
  share: number | null;
  seconds_left: number | null;
  curve: [number, number][];
}

export type RunStatus = 'idle' | 'starting' | 'running' | 'done' | 'refused' | 'failed' | 'stopped';

export interface ImproveProgress extends Progress {
  status: RunStatus;
  model: string | null;
  run: string | null;
  gate: GateRow[] | null;
  verdict: Verdict | null;
  error: { code: string; cause: string; where: string; fix: string } | null;
  log: string;
}

export interface Version {
  version: string;
  status: string;
  promoted: boolean;
  created: number;
  kind: string;
  key: string;
  parents: string[];
  licence: string;
  notices: string[];
  card: Card;
  votes: number | null;
  data: { kind: string; name: string; key: string }[];
}

export interface Lineage {
  model: string;
  versions: Version[];
}

export interface Run extends Progress {
  id: string;
  kind: string;
  name: string;
  status: RunStatus;
  updated: number;
  error: { code: string; cause: string } | null;
  result: Record<string, string | number | boolean>;
}
