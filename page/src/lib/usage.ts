/** Usage and costs of the last days, from the API's own `v1/organization` buckets. */

import * as api from './api';
import type { CostResult, Page, UsageResult } from './types';

export const DAYS = 30;
const DAY = 86_400;

export interface Day {
  /** Seconds since 1970, the day's beginning (UTC). */
  start: number;
  input: number;
  output: number;
  cost: number;
}

/** What somebody, or a model, used. */
export interface Sum {
  name: string;
  requests: number;
  input: number;
  output: number;
  cost: number;
}

export interface Usage {
  days: Day[];
  people: Sum[];
  models: Sum[];
  all: Sum;
  /** Of the costs; '' when nothing was charged. */
  currency: string;
}

/** The first moment of the `DAYS` days that end with the one of `now` (seconds). */
export const firstMoment = (now: number) => Math.floor(now / DAY) * DAY - (DAYS - 1) * DAY;

const nothing = (name: string): Sum => ({ name, requests: 0, input: 0, output: 0, cost: 0 });

/** The pages of usage and of costs as sums by day, by caller and by model. */
export function summed(usage: Page<UsageResult>[], costs: Page<CostResult>): Usage {
  const days = new Map<number, Day>();
  const people = new Map<string, Sum>();
  const models = new Map<string, Sum>();
  const all = nothing('');
  let currency = '';
  const day = (start: number) => days.get(start) ?? days.set(start, { start, input: 0, output: 0, cost: 0 }).get(start)!;
  const of = (table: Map<string, Sum>, name: string) => table.get(name) ?? table.set(name, nothing(name)).get(name)!;
  for (const bucket of usage.flatMap((page) => page.data)) {
    for (const one of bucket.results) {
      const [input, output] = [one.input_tokens, one.output_tokens ?? 0];
      day(bucket.start_time).input += input;
      day(bucket.start_time).output += output;
      for (const sum of [all, of(people, one.api_key_id ?? ''), of(models, one.model ?? '')]) {
        sum.requests += one.num_model_requests;
        sum.input += input;
        sum.output += output;
      }
    }
    day(bucket.start_time);
  }
  for (const bucket of costs.data) {
    for (const { amount, api_key_id, line_item } of bucket.results) {
      if (amount.value === 0) continue;
      currency = amount.currency;
      day(bucket.start_time).cost += amount.value;
      for (const sum of [all, of(people, api_key_id ?? ''), of(models, line_item ?? '')]) sum.cost += amount.value;
    }
  }
  const most = (table: Map<string, Sum>) => [...table.values()].sort((a, b) => b.input + b.output - a.input - a.output).slice(0, 50);
  const ordered = [...days.values()].sort((a, b) => a.start - b.start);
  return { days: ordered, people: most(people), models: most(models), all, currency };
}

export async function loadUsage(): Promise<Usage> {
  const start = firstMoment(Date.now() / 1000);
  const [drawn, embedded, costs] = await Promise.all([
    api.usageOf('completions', start, DAYS),
    api.usageOf('embeddings', start, DAYS),
    api.costsOf(start, DAYS),
  ]);
  return summed([drawn, embedded], costs);
}
