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

export interface Person {
  id: string;
  name: string;
  role: 'admin' | 'member';
}

export interface Access {
  person: Person | null;
  accounts: boolean;
  first: boolean;
  oidc: boolean;
}

export interface Sampling {
  temperature: number;
  top_p: number;
  max_tokens: number;
  seed: number | null;
}

export interface Settings {
  system: string;
  params: Sampling;
}

export interface Attached {
  name: string;
  text: string;
  cut?: boolean;
}

export interface State {
  user: Person;
  language: string;
  models: Model[];
}

export interface Conversation {
  id: string;
  title: string;
  model: string | null;
  pinned: boolean;
  folder: string | null;
  settings: Settings | null;
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

export type SignalKind = 'thumb' | 'choice' | 'edit' | 'regenerate';

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
  files?: { name: string; size: number }[];
  annotations?: { index: number; number: number; filename: string; quote?: string }[];
  /** Passages that an answer was given in place of whole files, numbered from 1. */
  passages?: { name: string; text: string; part: number; parts: number }[];
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
  /** Comparisons (or thumbs, where there are more) that count towards `needed`. */
  votes: number;
  needed: number;
  missing: number;
  /** Whether `needed` is what the last round's gate asked for; else it is what a clearly better version takes. */
  asked_by_gate: boolean;
  /** New votes without which no round begins. */
  to_start: number;
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
  candidate?: string | null;
  canary?: string;
  missing_votes?: number | null;
}

/** How a version's trial with live conversations stands or ended. */
export interface Trial {
  status: string;
  why: string;
  share: number;
  incumbent: string;
  most_votes: number;
  most_days: number;
  wins?: number;
  losses?: number;
  ties?: number;
  win_rate_low?: number;
  win_rate_high?: number;
  missing?: number | null;
  people?: number;
  /** People without whom nothing is decided. */
  people_needed?: number;
  /** Votes of people who are ahead of the others; they count when the others have caught up. */
  in_line?: number;
  left_out?: number;
  evidence?: number;
  needed?: number;
}

export interface Progress {
  stages: { name: string; time: number }[];
  step: number | null;
  total: number | null;
  share: number | null;
  seconds_left: number | null;
  steps_per_second: number | null;
  tokens_per_second: number | null;
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
  /** Whether it is or was ever the one that answers, trials apart. */
  answered: boolean;
  created: number;
  kind: string;
  key: string;
  parents: string[];
  licence: string;
  notices: string[];
  card: Card;
  votes: number | null;
  gate?: GateRow[] | null;
  verdict?: string | null;
  canary?: Trial | null;
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
  prediction: Prediction | null;
}

/** What was predicted for a run, and how it came out. */
export interface Prediction {
  loss: number;
  interval: [number, number];
  created: string | null;
  file: string;
  score: { measured: number; relative_error: number; within_interval: boolean; made_before_run: boolean | null } | null;
}

export interface Series {
  name: string;
  points: [number, number][];
}

export interface FullRun {
  run: Record<string, unknown> & { id: string; kind: string; name: string; status: RunStatus };
  progress: Omit<Progress, 'curve'>;
  series: Series[];
  samples: { step: number | null; text: string }[];
  prediction: Prediction | null;
  reports: { corpus: string; name: string; documents_in: number | null; documents_kept: number | null }[];
}

export interface Account {
  id: string;
  name: string;
  role: 'admin' | 'member';
  external: boolean;
  disabled: boolean;
  daily_tokens: number | null;
  used_today: number;
  created: number;
}

export interface Key {
  id: string;
  prefix: string;
  name: string;
  scopes: string[];
  created: number;
  revoked: number | null;
}

/** A page of the API's buckets of time. */
export interface Page<Result> {
  data: { start_time: number; end_time: number; results: Result[] }[];
}

export interface UsageResult {
  api_key_id: string | null;
  model: string | null;
  num_model_requests: number;
  input_tokens: number;
  output_tokens?: number;
}

export interface CostResult {
  amount: { value: number; currency: string };
  line_item: string | null;
  api_key_id: string | null;
}

export interface Price {
  id: string;
  model: string;
  from: number;
  currency: string;
  input: number;
  output: number;
}

export interface Audit {
  entries: AuditEntry[];
  rows: number;
  intact: boolean;
  head: string;
}

export interface AuditEntry {
  seq: number;
  actor: string;
  action: string;
  subject: string;
  detail: Record<string, unknown>;
  created: number;
}
