/** Why the gate decided as it did, in the reader's language: one sentence for each row that decided it. */

import { i18n, t } from '../lib/i18n.svelte';
import type { GateRow } from '../lib/types';

export const signed = (value: number | null): string =>
  value === null ? '∞' : (value > 0 ? '+' : '') + i18n.figure(value);

export const metricName = (row: GateRow): string =>
  i18n.has(`metric.${row.metric}`) ? t(`metric.${row.metric}`) : row.meaning || row.metric;

/** A row without limits is shown, but decides nothing. */
export const decides = (row: GateRow): boolean =>
  row.promise === true || (row.floor ?? null) !== null || (row.ceiling ?? null) !== null || row.margin !== null;

function sentence(row: GateRow): string {
  const values = { metric: metricName(row), difference: signed(row.difference), low: signed(row.low), high: signed(row.high) };
  if (row.passed) return t('verdict.kept', values);
  if (!row.promise) return t('verdict.broken', values);
  return t(row.high !== null && row.high < (row.floor ?? 0) ? 'verdict.worse' : 'verdict.unclear', values);
}

export function verdictReasons(rows: GateRow[]): string[] {
  const deciding = rows.filter((row) => decides(row) && (row.promise || !row.passed));
  const failed = deciding.filter((row) => !row.passed);
  return (failed.length ? failed : deciding).map(sentence);
}
